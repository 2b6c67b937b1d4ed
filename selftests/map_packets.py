#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A map of packets whose elements are not preallocated: order, the limit, and what
others can see and do while packets are in it."""

import time

import lib
from lib import NSEC

OBJECT = f"{lib.TOP}/selftests/map_packets.bpf.o"
COUNT = 100


def soon(seconds=8 if lib.DEBUG else 3):
    """After what the test does first, and within the qdisc's horizon."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) + seconds * NSEC


def the_map():
    (number,) = lib.maps_named("map_pkts")
    return ("id", str(number))


def packets_leave_in_order_of_their_times():
    with lib.wire(OBJECT) as (_, sender, receiver):
        start = soon()
        for number in range(COUNT):
            # 37 and 100 have no common factor: all times, mixed up
            lib.true(sender.send(number, when=start + number * 37 % COUNT * 1000), "dropped")
        lib.true(not sender.send(COUNT, when=start), "one too many was taken")
        arrivals = receiver.collect(COUNT)
        lib.equal([arrival.number * 37 % COUNT for arrival in arrivals], list(range(COUNT)),
                  "order")
        sender.wait_freed()


def others_can_look_but_not_touch():
    with lib.wire(OBJECT) as (_, sender, receiver):
        start = soon(9)
        for number in range(10):
            lib.true(sender.send(number, when=start + number), "dropped")
        dump = lib.bpftool("map", "dump", *the_map())
        lib.equal(len(dump), 10, "elements")
        for number, entry in enumerate(dump):
            lib.equal(entry["formatted"]["key"], start + number, "key")
            lib.equal(entry["formatted"]["value"]["mark"], 0, "mark")
        key = ("key", *lib.map_bytes(start, 8))
        lib.contains(lib.refused("bpftool", "map", "delete", *the_map(), *key), "busy")
        lib.contains(lib.refused("bpftool", "map", "update", *the_map(), *key,
                                 "value", *lib.map_bytes(0, 16)), "not supported")
        lib.equal([arrival.number for arrival in receiver.collect(10)], list(range(10)), "order")
        sender.wait_freed()


def packets_are_freed_with_the_qdisc():
    with lib.wire(OBJECT) as (device, sender, receiver):
        for number in range(COUNT):
            lib.true(sender.send(number, when=soon() + NSEC), "dropped")
        device.detach()
        sender.wait_freed()
        lib.equal(receiver.drain(), [], "packets that left")
    lib.wait_until(lambda: not lib.maps_named("map_pkts"), "the map is gone")


lib.main(packets_leave_in_order_of_their_times,
         others_can_look_but_not_touch,
         packets_are_freed_with_the_qdisc)
