#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Idioms of sch_bpf_idioms.rst do what is said there. documents.py loads all of them; fq_codel.py has
"Fair, and each flow kept short".

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import os
import re
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
    return device.below()["drops"]


def what_leaves(device, sender, receiver, priority=9):
    """The numbers, when a last packet, 100, has opened the gate. The others have been dropped."""
    sender.set(SO_MARK, 1)
    sender.set(SO_PRIORITY, priority)
    sender.send(100)
    return lib.numbers(receiver.collect(sender.packets - drops(device)))


def groups_stand_together():
    """The group 7 leaves first, then 8 and those behind it; each in the order in which it came."""
    with behind("The first packet of a group") as (device, sender, receiver):
        for number, group in enumerate((9, 8, 7, 8, 7, 9)):
            sender.set(SO_PRIORITY, group)
            sender.send(number)
        lib.equal(what_leaves(device, sender, receiver), [2, 4, 1, 3, 0, 5, 100], "packets that leave")


def a_packet_is_looked_at_where_it_stands():
    """One with the mark 1 waits, and all behind it, until another program lets them go."""
    with lib.wire(rst.idiom("To look at a packet without taking it")) as (device, sender, receiver):
        for number, mark in enumerate((0, 1, 0)):
            sender.set(SO_MARK, mark)
            sender.send(number)
        lib.equal(lib.numbers(receiver.collect(1)), [0], "packet that leaves")
        lib.equal((device.qdisc()["packets"], device.qdisc()["qlen"]), (1, 2), "packets that have left, and that wait")
        lib.run("tc", *lib.qdisc(device, "change", "obj", rst.idiom("To make room")))
        lib.equal(lib.numbers(receiver.collect(2)), [1, 2], "packets that leave then")


def packets_that_are_due_join_a_line():
    """It is in the order of priorities, that in which they came in the order of times."""
    with behind("To move a packet to another key") as (device, sender, receiver):
        for number, priority in enumerate((5, 1, 5, 3, 2, 4)):
            sender.set(SO_PRIORITY, priority)
            sender.send(number)
        lib.equal(what_leaves(device, sender, receiver), [1, 4, 3, 5, 0, 2, 100], "packets that leave")


def room_is_made_at_the_far_end():
    """The youngest of the last priority goes, however many come."""
    with behind("To make room", "limit", "4") as (device, sender, receiver):
        for number, priority in enumerate((5, 1, 5, 3, 2, 4)):
            sender.set(SO_PRIORITY, priority)
            lib.true(sender.send(number), "a packet that comes is refused")
        lib.equal(what_leaves(device, sender, receiver, priority=0), [100, 1, 4, 3], "packets that leave")


def what_is_late_is_dropped():
    """The most urgent packet leaves first. Those that have come to their deadline are dropped in several runs, one
    at once after the other."""
    with behind("A deadline for each packet") as (device, sender, receiver), lib.traced("qdisc/qdisc_drop") as lines:
        for number in range(100):
            sender.set(SO_PRIORITY, 6)
            sender.send(number)
        late = time.monotonic_ns() + 5 * MS
        sender.set(SO_PRIORITY, 0)
        sender.send(200)
        while time.monotonic_ns() <= late:
            pass
        sender.set(SO_PRIORITY, 6)
        sender.send(201)
        sender.set(SO_MARK, 1)
        sender.set(SO_PRIORITY, 0)
        opened = time.monotonic_ns()
        sender.send(202)
        arrivals = receiver.collect(3)
        lib.equal(lib.numbers(arrivals), [201, 200, 202], "packets that leave")
        lib.true(arrivals[0].when - opened < MS, f"the first leaves after {(arrivals[0].when - opened) / MS} ms")
        lib.equal(reasons(lines(), device), ["GENERIC"] * 100, "reasons")


def its_bytes_are_looked_at():
    """The oldest one is dropped if its TOS is that of the packet that comes, and else keeps its place."""
    with behind("To look at its bytes") as (device, sender, receiver):
        for number, tos in enumerate((0x10, 0x20, 0x10, 0x30, 0x20)):
            sender.send(number, tos=tos)
        lib.equal(what_leaves(device, sender, receiver), [2, 3, 4, 100], "packets that leave")


def it_is_written_to():
    """The oldest of a priority is marked by the next one; one that takes no mark is dropped."""
    with behind("To write to it") as (device, sender, receiver):
        for number, tos in enumerate((0x02, 0x02, 0x00, 0x02)):
            sender.send(number, tos=tos)
        sender.set(SO_MARK, 1)
        sender.set(SO_PRIORITY, 9)
        sender.send(100)
        lib.equal([(arrival.number, arrival.tos) for arrival in receiver.collect(sender.packets - drops(device))],
                  [(0, 0x03), (1, 0x02), (2, 0x00), (3, 0x02), (100, 0)], "packets that leave")


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


def reasons(lines, device):
    """Of the drops on the device, as the tracepoint qdisc:qdisc_drop tells them."""
    return [re.search(r"reason=(\w+)", line)[1] for line in lines if f" ifindex={device.ifindex} " in line]


def a_band_has_a_limit_and_shows_its_drops():
    """A limit in bytes, of the backlog; another band has none, and a change gives one more room."""
    title = "Parameters and statistics"
    with behind(title, "set", "most[2]=250") as (device, sender, _), lib.traced("qdisc/qdisc_drop") as lines:
        def taken(*priorities):
            came = []
            for priority in priorities:
                sender.set(SO_PRIORITY, priority)
                came.append(sender.send(priority))
            return came

        def refused():
            return device.below()["stats"]["refused"]

        lib.equal(taken(2, 2, 2, 3, 2), [True, True, False, True, False], "packets taken")
        lib.equal(refused(), [0, 0, 2] + [0] * 13, "statistics")
        lib.equal(reasons(lines(), device), ["BAND_LIMIT"] * 2, "reasons")
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", "set", "most[2]=1mb")
        lib.equal(taken(2), [True], "a packet taken after the change")
        lib.equal(refused(), [0, 0, 2] + [0] * 13, "statistics after the change")


def a_drop_says_why():
    """A packet that wants to leave in more than a second goes beyond this policy's horizon."""
    with lib.wire(rst.idiom("Drops that say why")) as (device, sender, receiver), lib.traced("qdisc/qdisc_drop") as lines:
        now = time.monotonic_ns()
        lib.equal([sender.send(number, when=when) for number, when in enumerate((0, now, now + 5 * NSEC, now))],
                  [True, True, False, True], "packets taken")
        lib.equal(lib.numbers(receiver.collect(3)), [0, 1, 3], "packets that leave")
        lib.equal(reasons(lines(), device), ["HORIZON_LIMIT"], "reasons")


def user_space_is_told_of_each_drop():
    """By the packet's length."""
    with behind("Helpers that a program may call", "limit", "2") as (device, sender, _):
        lib.equal([sender.send(number, size) for number, size in enumerate((100, 200, 300, 400))],
                  [True, True, False, False], "packets taken")
        (events,) = lib.maps_named("events").intersection(device.below()["options"]["enqueue"]["map_ids"])
        lib.equal([int.from_bytes(record, "little") for record in lib.ring_records(events)], [300, 400], "lengths told")


def a_delay_line_holds_no_sender_up():
    """What waits takes no room in its socket; of what is lost the sender hears nothing; and a packet may come twice."""
    def change(*words):
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", *words)

    def waiting():
        return device.below()["qlen"]

    with behind("A delay line") as (device, sender, receiver), lib.traced("qdisc/qdisc_drop") as lines:
        lib.equal([sender.send(number) for number in range(10)], [True] * 10, "packets taken")
        lib.equal((waiting(), sender.memory()), (10, 0), "packets that wait, bytes in the socket")
        change("set", "lost=1000000")
        lib.equal([sender.send(number) for number in range(10)], [True] * 10, "what the sender is told")
        lib.equal((waiting(), drops(device)), (10, 10), "packets that wait, drops")
        lib.equal(reasons(lines(), device), ["GENERIC"] * 10, "reasons")
        change("set", "lost=0", "set", "twice=1000000")
        lib.equal(sender.send(10), True, "what the sender is told")
        lib.equal((waiting(), sender.memory()), (12, 0), "packets that wait, bytes in the socket")
        change("set", "twice=0")
        sender.set(SO_MARK, 1)
        sender.send(100)
        lib.equal(lib.numbers(receiver.collect(13)), [*range(10), 10, 10, 100], "packets that leave")


def a_large_packet_goes_behind_the_others():
    """One of nine segments; one of eight keeps its place."""
    with behind("GSO packets") as (device, sender, receiver):
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        lib.equal([sender.send_gso(100, 9), sender.send_gso(100, 8), sender.send(30)], [True] * 3, "packets taken")
        sender.set(SO_MARK, 1)
        sender.send(100)
        lib.equal(lib.numbers(receiver.collect(8 + 2 + 9)), [*range(8), 30, 100, *range(9)], "packets that leave")


def who_has_sent_least_goes_first():
    """The classifier counts the bytes of each mark before the qdisc has the packet."""
    title = "A map that a clsact program shares"
    try:
        with behind(title) as (device, sender, receiver):
            lib.run("tc", "qdisc", "add", "dev", device.a, "clsact")
            lib.run("tc", "filter", "add", "dev", device.a, "egress", "bpf", "da", "obj", rst.idiom(title), "sec", "tc")
            for number, (mark, size) in enumerate(((3, 300), (3, 100), (4, 200), (4, 100), (5, 500))):
                sender.set(SO_MARK, mark)
                sender.send(number, size)
            lib.equal(what_leaves(device, sender, receiver), [100, 2, 0, 3, 1, 4], "packets that leave")
    finally:
        os.unlink(f"{lib.GLOBALS}/sent")


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

        lib.run("tc", *lib.qdisc(device, "change", "set", "delay=1s"))
        sender.send(7)
        lib.run("tc", *lib.qdisc(device, "change", "set", "delay=0"))
        lib.equal(lib.numbers(receiver.collect(1)), [7], "a packet, when the delay has ended")


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
            readable, writable, _ = select.select([peer], [client] if sent < size else [], [], lib.TIMEOUT)
            lib.true(readable or writable, f"nothing goes on after {received} bytes")
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
        handle = device.below()["handle"]
        for minor in 1, 2:
            lib.run("tc", "class", "add", "dev", device.a, "parent", handle, "classid", f"{handle}{minor}", "bpf")
        send(*range(12))
        lib.equal(what_leaves(device, sender, receiver), [20, 21, 1, 3, 5, 0, 7, 9, 11, 2, 100, 4, 6, 8, 10], "order")


def is_kept(arrivals, each):
    """A rate: ns from one to the next."""
    off = [arrival.when - arrivals[0].when - place * each for place, arrival in enumerate(arrivals)]
    lib.true(max(map(abs, off)) < MS, f"off by {min(off) / MS:.3f} to {max(off) / MS:.3f} ms")


def each_tx_queue_has_its_link():
    """Below bpf_mq with two of them, and as one qdisc for all. A packet of 1250 bytes takes 10 ms."""
    obj = rst.idiom("State for each tx queue")
    for kind, links in (("bpf_mq", 2), ("bpf", 1)):
        with lib.link("numtxqueues", "2") as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            lib.run("tc", *lib.qdisc(device, "add", "obj", obj, kind=kind))
            lib.to_queues(device.a, 2)
            for number in range(20):
                sender.set(SO_MARK, 1 + number % 2)
                sender.send(number, 1250)
            arrivals = receiver.collect(20)
            sent = [entry["packets"] for entry in lib.instances(device.a)]
        lib.equal(sent, [20 // links] * links, f"{kind}: packets of each instance")
        for link in range(links):
            own = [arrival for arrival in arrivals if arrival.number % links == link]
            lib.equal(lib.numbers(own), list(range(link, 20, links)), f"{kind}: order")
            is_kept(own, 10 * MS)


def a_link_stays_busy_when_its_programs_change():
    """For 100 ms with a packet: so many of them stand that the link is busy however long tc takes to read its files."""
    options = ("obj", rst.idiom("State that outlives a change"), "set", "rate=12500")
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.run("tc", *lib.qdisc(device, "add", *options))
        for number in range(40):
            sender.send(number, 1250)
        before = device.qdisc()
        lib.run("tc", *lib.qdisc(device, "change", *options))
        for number in range(40, 50):
            sender.send(number, 1250)
        after = device.qdisc()
        lib.true(after["options"]["enqueue"]["id"] != before["options"]["enqueue"]["id"], "the programs are the same")
        lib.true(after["qlen"] > 10, "no packet stood when those came that follow the change")
        arrivals = receiver.collect(50)
        lib.equal(lib.numbers(arrivals), list(range(50)), "order")
        is_kept(arrivals, 100 * MS)


def a_schedule_is_kept():
    """Packets leave in the first fifth of a millisecond of TAI, whenever they come."""
    with lib.wire(rst.idiom("A schedule in TAI")) as (_, sender, receiver):
        ahead = time.clock_gettime_ns(time.CLOCK_TAI) - time.monotonic_ns()
        for number in range(200):
            sender.send(number)
        places = [(arrival.when + ahead) % MS for arrival in receiver.collect(200)]
    print(f"# {min(places) / MS:.3f} to {max(places) / MS:.3f} ms after the full millisecond")
    lib.true(max(places) < 0.4 * MS, f"{max(places)} ns")


def times_are_kept_below():
    """By the qdisc of a device below, which reads the stamps as a NIC does: etf, in TAI, and 20 us early;
    and fq."""
    for below, early in ((("etf", "clockid", "CLOCK_TAI", "delta", "20000", "skip_sock_check"), 20_000), (("fq",), 0)):
        with lib.link() as device:
            ends = [f"{end}.5" for end in (device.a, device.b)]
            for end in ends:
                lib.run("ip", "link", "add", "link", end[:-2], "name", end, "type", "vlan", "id", "5")
                lib.run("ip", "link", "set", end, "up")
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", *below)
            lib.run("tc", "qdisc", "add", "dev", ends[0], "root", "bpf",
                    "obj", rst.idiom("A time for a NIC, or for a qdisc below"))
            with lib.Sender(ends[0]) as sender, lib.Receiver(ends[1]) as receiver:
                begin = time.monotonic_ns()
                for number in range(100):
                    lib.true(sender.send(number), "refused")
                arrivals = receiver.collect(100)
            lib.equal(lib.numbers(arrivals), list(range(100)), f"{below[0]}: order")
            first = arrivals[0].when
            off = [arrival.when - first - place * 100_000 for place, arrival in enumerate(arrivals)]
            print(f"# {below[0]}: off by {min(off)} to {max(off)} ns")
            lib.true(first + early >= begin + 200_000, f"{below[0]}: the first left after {first - begin} ns")
            lib.true(max(map(abs, off)) < 50_000, f"{below[0]}: off by {min(off)} to {max(off)} ns")


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


lib.main(groups_stand_together,
         a_packet_is_looked_at_where_it_stands,
         packets_that_are_due_join_a_line,
         room_is_made_at_the_far_end,
         its_bytes_are_looked_at,
         it_is_written_to,
         a_packet_is_found_again,
         a_count_is_right_after_a_reset_and_a_change,
         classes_have_rounds,
         a_band_has_a_limit_and_shows_its_drops,
         a_drop_says_why,
         user_space_is_told_of_each_drop,
         a_delay_line_holds_no_sender_up,
         a_large_packet_goes_behind_the_others,
         who_has_sent_least_goes_first,
         measured=[what_is_late_is_dropped,
                   a_delay_line_is_no_queue,
                   tcp_fills_the_path,
                   each_tx_queue_has_its_link,
                   a_link_stays_busy_when_its_programs_change,
                   a_schedule_is_kept,
                   times_are_kept_below,
                   a_packet_is_no_burst_when_it_is_cut])
