#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a policy is told by a function that cannot do what it is asked for, and what has
become of the packet: it is dropped and counted."""

import os
from errno import EAGAIN, EALREADY, EBUSY, ENOBUFS, ENOENT, ENOSPC

import lib
from lib import PROGS, SO_MARK

ERRORS = f"{PROGS}/errors.bpf.o"
WANTED = {                              # in the order of errors.bpf.c
    "PUSH": -ENOSPC, "PUSH_FRONT": -ENOSPC, "PUSH_SHARED": -EBUSY, "FRONT_SHARED": -EBUSY,
    "PASS_NOWHERE": -ENOENT, "PASS_FULL": -ENOBUFS, "PASS_SLOW": 0,
    "LOOK": 0, "POP_SHARED": -EBUSY, "POP_FROM_SHARED": -EBUSY, "POP_NOTHING": -ENOENT, "POP_LATER": -EAGAIN,
    "POP_NO_KEY": -ENOENT, "POP_FROM_NO_KEY": -ENOENT, "POP_NO_CLASS": -ENOENT, "POP_EMPTY_CLASS": -ENOENT,
    "POP_SLOW_CLASS": -EAGAIN, "TAKEN_SHARED": 0, "TAKEN_NO_KEY": 0, "POP": 0,
    "POP_AGAIN": -EALREADY, "POP_UNTIL_AGAIN": -EALREADY, "POP_KEY_AGAIN": -EALREADY,
    "POP_FROM_AGAIN": -EALREADY, "POP_CLASS_AGAIN": -EALREADY, "DELIVER_AGAIN": -EALREADY}
MARKS = list(WANTED)


def send(sender, *marks):
    """How many were taken."""
    taken = 0
    for mark in marks:
        sender.set(SO_MARK, MARKS.index(mark))
        taken += sender.send(MARKS.index(mark))
    return taken


def each_error_is_told_and_its_packet_dropped():
    """The first device has a packet in the map that both find."""
    with lib.wire(ERRORS) as (_, first, _), lib.link() as device, lib.Sender(device.a) as sender, \
         lib.Receiver(device.b) as receiver:
        try:
            device.attach(ERRORS, where=("root", "handle", "1:"))
            for minor, *kind in ((1, "blackhole"), (2, "netem", "delay", "100s")):
                lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", f"1:{minor}", "bpf")
                lib.run("tc", "qdisc", "add", "dev", device.a, "parent", f"1:{minor}", *kind)
            lib.equal(send(first, "PUSH_SHARED"), 1, "packets taken by the first device")
            lib.equal(send(sender, "PUSH", "PUSH", "PUSH", "PUSH_FRONT", "PUSH_SHARED", "FRONT_SHARED",
                           "PASS_NOWHERE", "PASS_FULL", "PASS_SLOW"),
                      4, "packets taken")  # a blackhole says that it sends
            send(sender, "LOOK")
            lib.equal(lib.numbers(receiver.collect(1)), [MARKS.index("PUSH")], "packet that left")
            dump = lib.bpftool("map", "dump", "id", str(max(lib.maps_named("errors_seen"))))
            seen = {MARKS[entry["formatted"]["key"]]: entry["formatted"]["value"] for entry in dump}
            lib.equal(seen, WANTED, "errors")
            # of a PUSH and a PUSH_FRONT too many, the busy map twice, the two classes, LOOK, and the second delivery
            stats = lib.balance(device, sender, receiver, dropped=(8, 800))
            lib.equal((stats["qlen"], stats["stuck"]), (1, 0), "queued, found stuck")
        finally:
            os.unlink(f"{lib.GLOBALS}/errors_shared")


lib.main(each_error_is_told_and_its_packet_dropped)
