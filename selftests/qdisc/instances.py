#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Two qdiscs of one object share nothing; what is pinned they share, and a map
of packets belongs to one of them."""

import os

import lib
from lib import GLOBALS, POLICIES, compiled

FIFO = f"{POLICIES}/fifo.bpf.o"
HOLD = compiled("hold")
QUEUES = compiled("queues")             # one inner map for each tx queue
SHARED = compiled("shared")             # its map of packets is pinned


def two_of_one_object_share_nothing():
    with lib.wire(HOLD, "limit", "8") as (first, sender1, receiver1), \
         lib.wire(HOLD, "limit", "8") as (second, sender2, receiver2):
        lib.equal(len(lib.maps_named("hold_pkts")), 2, "maps")
        lib.equal([sender1.send(n) for n in range(10)], [True] * 8 + [False] * 2, "taken by the first")
        lib.equal([sender2.send(n) for n in range(5)], [True] * 5, "taken by the second")
        lib.equal(lib.balance(first, sender1, receiver1)["qlen"], 8, "queued in the first")
        lib.equal(lib.balance(second, sender2, receiver2)["qlen"], 5, "queued in the second")
        first.detach()
        sender1.wait_freed()
        lib.equal(lib.balance(second, sender2, receiver2)["qlen"], 5, "queued after the other's end")


def traffic_on_both_stays_apart():
    before = lib.maps_named("fifo_pkts")
    with lib.wire(FIFO) as (first, sender1, receiver1), \
         lib.wire(FIFO) as (second, sender2, receiver2):
        for number in range(100):
            sender1.send(number, 100)
            if number % 2:
                sender2.send(number, 200)
        lib.equal(lib.numbers(receiver1.collect(100)), list(range(100)), "order on the first")
        lib.equal(lib.numbers(receiver2.collect(50)), list(range(1, 100, 2)), "order on the second")
        lib.balance(first, sender1, receiver1)
        lib.balance(second, sender2, receiver2)
        lib.equal(len(lib.maps_named("fifo_pkts") - before), 2, "maps of packets")


def a_map_that_another_qdisc_keeps_packets_in_is_refused():
    with lib.wire(SHARED) as (first, sender1, receiver1), \
         lib.wire(SHARED) as (second, sender2, receiver2):
        lib.equal(len(lib.maps_named("shared_pkts")), 1, "maps")
        lib.true(sender1.send(0), "first qdisc: packet dropped")
        lib.equal([sender2.send(n) for n in range(3)], [False] * 3, "taken by the second")
        lib.balance(first, sender1, receiver1)
        stats = lib.balance(second, sender2, receiver2)
        lib.equal((stats["qlen"], stats["drops"]), (0, 3), "queued and dropped by the second")
        first.detach()
        sender1.wait_freed()
        lib.true(sender2.send(3), "second qdisc: packet dropped from a map that is free")
        lib.equal(lib.balance(second, sender2, receiver2)["qlen"], 1, "queued by the second")
    os.unlink(f"{GLOBALS}/shared_pkts")


def a_map_that_is_empty_is_for_whoever_comes_next():
    folder = "/sys/fs/bpf/test_instances"
    lib.run("bpftool", "prog", "loadall", FIFO, folder)
    programs = [word for what in ("enqueue", "dequeue") for word in (what, "object-pinned", f"{folder}/fifo_{what}")]
    try:
        with lib.link() as first, lib.Sender(first.a) as sender1, lib.Receiver(first.b) as receiver1, \
             lib.link() as second, lib.Sender(second.a) as sender2, lib.Receiver(second.b) as receiver2:
            for device in (first, second):
                lib.run("tc", "qdisc", "add", "dev", device.a, "root", "bpf", *programs)
            lib.equal([sender.send(number) for number in range(10) for sender in (sender1, sender2)],
                      [True] * 20, "taken by the two in turn")
            for device, sender, receiver in (first, sender1, receiver1), (second, sender2, receiver2):
                lib.equal(lib.numbers(receiver.collect(10)), list(range(10)), "packets that left")
                lib.balance(device, sender, receiver)
    finally:
        lib.run("rm", "-r", folder)


def user_space_cannot_change_a_map_of_packets():
    with lib.wire(HOLD) as (device, sender, receiver):
        (number,) = lib.maps_named("hold_pkts")
        where = ("id", str(number), "key", *lib.map_bytes(0, 8))
        value = ("value", *lib.map_bytes(0, 8))
        lib.refused("bpftool", "map", "update", *where, *value)
        lib.contains(lib.refused("bpftool", "map", "delete", *where), "busy")
        for n in range(3):
            sender.send(n)
        for flags in ((), ("exist",), ("noexist",)):
            lib.refused("bpftool", "map", "update", *where, *value, *flags)
        lib.contains(lib.refused("bpftool", "map", "delete", *where), "busy")
        seen = lib.bpftool("map", "dump", "id", str(number))
        lib.true(len(seen) > 0, "user space sees no element")
        for entry in seen:
            lib.equal(set(entry["value"]), {"0x00"}, "what user space sees of a packet")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 3, "queued")


def inner_maps_swapped_by_user_space():
    """Packets in a map that no program finds any more wait until one does, as long as user space
    has the map; else they are dropped."""
    pin = f"/sys/fs/bpf/instances{os.getpid()}"

    def attach(device, parent):
        device.attach(QUEUES, where=("parent", parent, "handle", "2:"))

    def queued(device):
        (entry,) = [entry for entry in lib.qdiscs(device.a) if entry["handle"] == "2:"]
        return entry["qlen"], entry["drops"]

    for kept in (True, False):
        with lib.behind_the_gate(attach, "numtxqueues", "2") as (device, sender, receiver):
            (outer,) = lib.maps_named("queues")
            first, second = [lib.bpftool("map", "dump", "id", str(outer))[queue]["inner_map_id"]
                             for queue in range(2)]

            def put(inner, outer=outer):
                lib.run("bpftool", "map", "update", "id", str(outer), "key", *lib.map_bytes(0, 4),
                        "value", "id", str(inner))
            for number in range(5):
                sender.send(number)
            if kept:
                lib.run("bpftool", "map", "pin", "id", str(first), pin)
            put(second)
            for number in range(5, 8):
                sender.send(number)
            if kept:
                lib.equal(queued(device), (8, 0), "queued, dropped")
            else:
                lib.wait_until(lambda device=device: queued(device) == (3, 5), "those of the first map are dropped")
            sender.set(lib.SO_MARK, 1)
            sender.send(8)
            lib.equal(lib.numbers(receiver.collect(4)), [5, 6, 7, 8], "packets of the second map")
            if kept:
                lib.equal(queued(device), (5, 0), "queued out of reach, dropped")
                put(first)
                os.unlink(pin)
                lib.equal(lib.numbers(receiver.collect(5)), list(range(5)), "packets of the first map")
            lib.equal(queued(device)[0], 0, "queued at the end")
            sender.wait_freed()
        lib.no_maps("queues")


lib.main(two_of_one_object_share_nothing,
         traffic_on_both_stays_apart,
         a_map_that_another_qdisc_keeps_packets_in_is_refused,
         a_map_that_is_empty_is_for_whoever_comes_next,
         user_space_cannot_change_a_map_of_packets,
         inner_maps_swapped_by_user_space)
