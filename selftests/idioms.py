#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Idioms of sch_bpf_idioms.rst do what is said there. documents.py loads all of them; fq_codel.py has
"Fair, and each flow kept short".

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import select
import socket
import time

import lib
import rst
from lib import MS, NSEC, SO_MARK, SO_PRIORITY

MARK = 7
RATE = 625_000                          # bytes a second
FRAME = 1514
SEGMENTS = 43                           # of a packet of 64 kB


def behind(title, *options):
    """A gate."""
    return lib.behind_the_gate(lambda device, parent: device.attach(rst.idiom(title), *options, where=("parent", parent)))


def drops(device):
    listed = lib.qdiscs(device.a)
    (stats,) = [entry for entry in listed if entry.get("parent") == "1:1"]
    return stats["drops"]


def what_leaves(device, sender, receiver, priority=9):
    """The numbers, when a last packet, 100, has opened the gate. The others have been dropped."""
    sender.set(SO_MARK, 1)
    sender.set(SO_PRIORITY, priority)
    sender.send(100)
    return lib.numbers(receiver.collect(sender.packets - drops(device)))


def room_is_made_at_the_far_end():
    """The youngest of the last priority goes, however many come."""
    with behind("To make room", "limit", "4") as (device, sender, receiver):
        for number, priority in enumerate((5, 1, 5, 3, 2, 4)):
            sender.set(SO_PRIORITY, priority)
            lib.true(sender.send(number), "a packet that comes is refused")
        lib.equal(what_leaves(device, sender, receiver, priority=0), [100, 1, 4, 3], "packets that leave")


def its_bytes_are_looked_at():
    """The oldest one is dropped if its TOS is that of the packet that comes, and else keeps its place."""
    with behind("To look at its bytes") as (device, sender, receiver):
        for number, tos in enumerate((0x10, 0x20, 0x10, 0x30, 0x20)):
            sender.send(number, tos=tos)
        lib.equal(what_leaves(device, sender, receiver), [2, 3, 4, 100], "packets that leave")


def a_packet_is_found_again():
    """By its mark, if it has one; and one that has left is not."""
    with behind("To find a packet again") as (device, sender, receiver):
        for number, mark in enumerate((MARK, 0, 0, MARK)):
            sender.set(SO_MARK, mark)
            sender.send(number)
        lib.equal(what_leaves(device, sender, receiver), [3, 1, 2, 100], "packets that leave")
        sender.set(SO_MARK, MARK)
        sender.send(4)
        lib.equal(lib.numbers(receiver.collect(1)), [4], "a packet whose older one has left")


def a_count_is_right_after_a_reset_and_a_change():
    """A band has room for a hundred; and none after a change, when a hundred stand in it."""
    title = "A count that a reset puts right"

    def taken(sender, priority):
        sender.set(SO_PRIORITY, priority)
        return sum(sender.send(number) for number in range(101))

    with behind(title) as (device, sender, _):
        lib.equal([taken(sender, priority) for priority in (0, 1)], [100, 100], "packets taken, by band")
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", "obj", rst.idiom(title))
        lib.equal([taken(sender, priority) for priority in (0, 1, 2)], [0, 0, 100], "packets taken after a change")
        device.flap()
        with lib.Sender(device.a) as later:      # the other one is told that the link was down
            lib.equal(taken(later, 0), 100, "packets taken after a reset")


def a_delay_line_is_no_queue():
    """All packets arrive a delay after they were sent, and their sender goes on meanwhile."""
    with lib.wire(rst.idiom("A delay line")) as (device, sender, receiver):
        sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)        # room for a few packets
        sent = []
        for number in range(50):
            sent.append(time.monotonic_ns())
            lib.true(sender.send(number, 1000), "refused")
        waited = [arrival.when - when for arrival, when in zip(receiver.collect(50), sent)]
        lib.true(30 * MS <= min(waited) and max(waited) < 32 * MS, f"{min(waited)} to {max(waited)} ns")

        lib.run("tc", *lib.qdisc(device, "change", "set", "lost=1000000"))
        lib.equal([sender.send(number) for number in range(10)], [True] * 10, "what the sender is told")
        lib.equal((device.qdisc()["drops"], device.qdisc()["qlen"]), (10, 0), "drops, queued")
        lib.run("tc", *lib.qdisc(device, "change", "set", "lost=0", "set", "twice=1000000", "set", "delay=1s"))
        sender.send(7)
        lib.run("tc", *lib.qdisc(device, "change", "set", "delay=0"))
        lib.equal(lib.numbers(receiver.collect(2)), [7, 7], "a packet twice, when the delay has ended")


def tcp_fills_the_path():
    """Its windows of 10, 20, 40 ... segments bring 300 kB in five round trips of 100 ms. Its small queues
    would let a few segments be on the path at a time."""
    size, sent, received = 300_000, 0, 0
    lib.quiet_wire()
    lib.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")     # QEMU 7 would send a TSO packet as IP fragments
    lib.run("tc", "qdisc", "add", "dev", "eth0", "root", "bpf", "obj", rst.idiom("A delay line"), "set", "delay=100ms")
    with lib.namespace("peer"):
        server = socket.create_server(("10.0.0.2", 5001))
    with server, socket.create_connection(("10.0.0.2", 5001)) as client, server.accept()[0] as peer:
        client.setblocking(False)
        begin = time.monotonic_ns()
        while received < size:
            readable, writable, _ = select.select([peer], [client] if sent < size else [], [])
            if writable:
                sent += client.send(bytes(size - sent))
            if readable:
                received += len(peer.recv(size))
        took = time.monotonic_ns() - begin
    lib.run("tc", "qdisc", "del", "dev", "eth0", "root")
    print(f"# {size} bytes by TCP over a path of 100 ms: {took / MS:.0f} ms")
    lib.true(took < 1000 * MS, f"{took} ns")


def classes_have_rounds():
    """One packet of the first class to three of the second; those that came before there were classes go first."""
    with behind("Rounds over classes") as (device, sender, receiver):
        def send(*numbers):
            for number in numbers:
                sender.set(SO_PRIORITY, 1 + number % 2)
                lib.true(sender.send(number, 1000), "refused")

        send(20, 21)
        (handle,) = [entry["handle"] for entry in lib.qdiscs(device.a) if entry.get("parent") == "1:1"]
        for minor in 1, 2:
            lib.run("tc", "class", "add", "dev", device.a, "parent", handle, "classid", f"{handle}{minor}", "bpf")
        send(*range(12))
        lib.equal(what_leaves(device, sender, receiver), [20, 21, 1, 3, 5, 0, 7, 9, 11, 2, 100, 4, 6, 8, 10], "order")


def a_rate_is_kept(title, each):
    """ns for 1250 bytes."""
    with lib.wire(rst.idiom(title)) as (_, sender, receiver):
        for number in range(20):
            sender.send(number, 1250)
        arrivals = receiver.collect(20)
        lib.equal(lib.numbers(arrivals), list(range(20)), "order")
        off = [arrival.when - arrivals[0].when - place * each for place, arrival in enumerate(arrivals)]
        lib.true(max(map(abs, off)) < MS, f"off by {min(off) / MS:.3f} to {max(off) / MS:.3f} ms")


def a_link_is_free_when_the_packet_before_has_left():
    for title in "State for each tx queue", "State that outlives a change":
        a_rate_is_kept(title, 10 * MS)


def most_within(arrivals, time):
    """Bytes, of those that begin with any of them."""
    return max(sum(arrival.size for arrival in arrivals if first.when <= arrival.when < first.when + time)
               for first in arrivals)


def a_packet_is_no_burst_when_it_is_cut():
    """One of 64 kB at 5 Mbit/s, beside tbf; and what comes after it has the time that is left."""
    most = {}
    for name, words in (("tbf", ("tbf", "rate", "5mbit", "burst", "1540", "limit", "1000000")),
                        ("cut", ("bpf", "obj", rst.idiom("To decide on each packet of the wire"))),
                        ("whole", ("bpf", "obj", rst.idiom("To decide on each packet of the wire"), "set", "cut=0"))):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", *words)
            lib.true(sender.send_gso(FRAME - lib.HEADERS, SEGMENTS), "refused")
            sender.send(SEGMENTS, FRAME)
            arrivals = receiver.collect(SEGMENTS + 1)
        lib.equal(lib.numbers(arrivals), list(range(SEGMENTS + 1)), "order")
        lib.equal({arrival.size for arrival in arrivals}, {FRAME}, "sizes")
        most[name] = most_within(arrivals, 5 * MS)
        took = arrivals[-1].when - arrivals[0].when
        print(f"# {name}: {most[name]} bytes within 5 ms, all within {took / MS:.1f} ms")
        lib.true(abs(took / (SEGMENTS * FRAME * NSEC / RATE) - 1) < 0.01, f"{name}: {took} ns for all")
    lib.equal((most["cut"], most["whole"]), (most["tbf"], SEGMENTS * FRAME), "bytes within 5 ms")
    lib.true(most["tbf"] <= 3 * FRAME, f"tbf: {most['tbf']} bytes")


lib.main(room_is_made_at_the_far_end,
         its_bytes_are_looked_at,
         a_packet_is_found_again,
         a_count_is_right_after_a_reset_and_a_change,
         classes_have_rounds,
         measured=[a_delay_line_is_no_queue,
                   tcp_fills_the_path,
                   a_link_is_free_when_the_packet_before_has_left,
                   a_packet_is_no_burst_when_it_is_cut])
