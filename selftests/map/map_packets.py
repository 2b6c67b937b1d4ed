#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A map of packets whose elements are not preallocated: order, the limit, and what
others can see and do while packets are in it."""

import json
import os
import time

import lib
from lib import NSEC

OBJECT = lib.compiled("map_packets")
HOLD = lib.compiled("hold")
WIDE = lib.compiled("wide")
COUNT = 100


def soon():
    """After what the test does first, and within the qdisc's horizon."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) + (8 if lib.DEBUG else 3) * NSEC


def late():
    """Long after the test is done."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 1000 * NSEC


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
    with lib.wire(OBJECT, "horizon", "3600s") as (device, sender, _):
        start = late()
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
        lib.equal(device.qdisc()["qlen"], 10, "queued")
        device.detach()
        sender.wait_freed()


def bpftool_shows_what_the_packets_are():
    """In JSON and in plain form, of equal keys each, and nothing of the memory they are in."""
    with lib.wire(HOLD) as (device, sender, _):
        (held,) = lib.maps_named("hold_pkts")
        dump = ("map", "dump", "id", str(held))
        stamp = late()
        sender.set(lib.SO_MARK, 7)
        sender.set(lib.SO_PRIORITY, 5)
        for number in range(3):
            lib.true(sender.send(number, size=100 + number, when=stamp), "dropped")
        plain = lib.run("bpftool", *dump)
        shown = [entry["formatted"] for entry in lib.bpftool(*dump)]
        lib.equal([entry["packet"] for entry in json.loads(plain)], [entry["packet"] for entry in shown],
                  "packets in plain form")
        for number, entry in enumerate(shown):
            packet = entry["packet"]
            lib.true(isinstance(packet.pop("hash"), int), "a hash")
            lib.equal(packet, {"len": 100 + number, "wire_len": 100 + number, "gso_segs": 0, "protocol": "0x0800",
                               "mark": 7, "priority": 5, "tstamp": stamp, "tstamp_type": "monotonic",
                               "ifindex": device.ifindex, "queue_mapping": 0}, "packet")
            lib.equal(entry["key"], 0, "key")
        lib.contains(plain, '"skb": "(nil)"')
        stock = [entry["formatted"] for entry in json.loads(lib.run("/usr/sbin/bpftool", "-j", *dump))]
        lib.equal([sorted(entry) for entry in stock], [["key", "value"]], "stock bpftool's")
        device.detach()
        sender.wait_freed()


def an_iterator_of_ones_own():
    """It is called for each packet, and once more; and only for maps that fit it."""
    pin, other = "/sys/fs/bpf/test_packets", "/sys/fs/bpf/test_packets_other"
    iterator = ("bpftool", "iter", "pin", lib.compiled("packets"), pin, "map")
    with lib.wire(HOLD) as (device, sender, _):
        sender.set(lib.SO_MARK, 7)
        for number in range(3):
            sender.send(number, size=100 + number)
        (held,) = lib.maps_named("hold_pkts")
        lib.run(*iterator, "id", str(held))
        try:
            with open(pin, encoding="ascii") as file:
                shown = file.read()
        finally:
            os.unlink(pin)
        lib.equal(shown, "".join(f"0: {100 + number} bytes, mark 7\n" for number in range(3)) + "end\n", "what it shows")
        device.detach()
        sender.wait_freed()
        device.attach(lib.compiled("stuck"))
        (keys_of_four_bytes,) = lib.maps_named("stuck_pkts")
        lib.contains(lib.refused(*iterator, "id", str(keys_of_four_bytes)), "EACCES")
    lib.run("bpftool", "map", "create", other, "type", "rbtree", "key", "8", "value", "8", "entries", "1",
            "name", "none")
    lib.contains(lib.refused(*iterator, "pinned", other), "EINVAL")
    os.unlink(other)


def a_key_longer_than_its_integer():
    """Packets are where a dump looks for them, in order, and are freed."""
    with lib.wire(WIDE) as (device, sender, _):
        for number in range(3):
            lib.true(sender.send(number, size=100 + number), "dropped")
        (wide,) = lib.maps_named("wide_pkts")
        shown = [entry["formatted"] for entry in lib.bpftool("map", "dump", "id", str(wide))]
        lib.equal([entry["packet"]["len"] for entry in shown], [100, 102, 101], "lengths")
        lib.equal([entry["key"]["number"] for entry in shown], [0, 2**64 - 2, 2**64 - 1], "keys")
        device.detach()
        sender.wait_freed()
    lib.no_maps("wide_pkts")


def packets_are_freed_with_the_qdisc():
    with lib.wire(OBJECT) as (device, sender, receiver):
        for number in range(COUNT):
            lib.true(sender.send(number, when=soon() + NSEC), "dropped")
        device.detach()
        sender.wait_freed()
        lib.equal(receiver.drain(), [], "packets that left")
    lib.no_maps("map_pkts")


lib.main(packets_leave_in_order_of_their_times,
         others_can_look_but_not_touch,
         bpftool_shows_what_the_packets_are,
         an_iterator_of_ones_own,
         a_key_longer_than_its_integer,
         packets_are_freed_with_the_qdisc)
