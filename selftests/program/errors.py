#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a policy is told by a function that cannot do what it is asked for, and what has
become of the packet: it is dropped and counted."""

import contextlib
import os
from errno import EAGAIN, EALREADY, EBUSY, EINVAL, ENOBUFS, ENOENT, ENOSPC, EOPNOTSUPP

import lib
from lib import SO_MARK, compiled

ERRORS = compiled("errors")
WANTED = {                              # in the order of errors.bpf.c
    "PUSH": -ENOSPC, "PUSH_FRONT": -ENOSPC, "PUSH_SHARED": -EBUSY, "FRONT_SHARED": -EBUSY,
    "PASS_NOWHERE": -ENOENT, "PASS_FULL": -ENOBUFS, "PASS_SLOW": 0, "SET_QUEUE": -EINVAL,
    "LOOK": 0, "POP_SHARED": -EBUSY, "POP_UNTIL_SHARED": -EBUSY, "POP_KEY_SHARED": -EBUSY, "POP_FROM_SHARED": -EBUSY,
    "POP_NOTHING": -ENOENT, "POP_LATER": -EAGAIN,
    "POP_NO_KEY": -ENOENT, "POP_FROM_NO_KEY": -ENOENT, "POP_NO_CLASS": -ENOENT, "POP_EMPTY_CLASS": -ENOENT,
    "POP_SLOW_CLASS": -EAGAIN, "HEAD_NO_CLASS": -ENOENT, "HEAD_EMPTY_CLASS": -ENOENT, "HEAD_SLOW_CLASS": -EAGAIN,
    "LEN_NO_CLASS": -ENOENT, "LEN_EMPTY_CLASS": 0, "LEN_SLOW_CLASS": 1, "TAKEN_SHARED": 0, "TAKEN_NO_KEY": 0,
    "LOAD_SHARED": -EBUSY, "POP": 0,
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


def seen():
    """What each function has returned last in the qdisc that was made last."""
    dump = lib.bpftool("map", "dump", "id", str(max(lib.maps_named("errors_seen"))))
    return {MARKS[entry["formatted"]["key"]]: entry["formatted"]["value"] for entry in dump}


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
                           "PASS_NOWHERE", "PASS_FULL", "PASS_SLOW", "SET_QUEUE"),
                      4, "packets taken")  # a blackhole says that it sends
            send(sender, "LOOK")
            lib.equal(lib.numbers(receiver.collect(1)), [MARKS.index("PUSH")], "packet that left")
            lib.equal(seen(), WANTED, "errors")
            # of a PUSH and a PUSH_FRONT too many, the busy map twice, the two classes, SET_QUEUE, LOOK, and the
            # second delivery
            stats = lib.balance(device, sender, receiver, dropped=(9, 900))
            lib.equal((stats["qlen"], stats["stuck"]), (1, 0), "queued, found stuck")
        finally:
            with contextlib.suppress(FileNotFoundError):        # as it is if nothing was attached
                os.unlink(f"{lib.GLOBALS}/errors_shared")


def a_qdisc_of_one_tx_queue_chooses_none():
    """What it is told is another error than of a queue that is not there."""
    with lib.link("numtxqueues", "2") as device, lib.Sender(device.a) as sender:
        try:
            lib.run("ethtool", "-L", device.a, "tx", "1")
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "mq")
            device.attach(ERRORS, where=("parent", "1:1"))
            lib.equal(send(sender, "SET_QUEUE"), 0, "packets taken")
            lib.equal(seen()["SET_QUEUE"], -EOPNOTSUPP, "error")
        finally:
            with contextlib.suppress(FileNotFoundError):        # as it is if nothing was attached
                os.unlink(f"{lib.GLOBALS}/errors_shared")


lib.main(each_error_is_told_and_its_packet_dropped,
         a_qdisc_of_one_tx_queue_chooses_none)
