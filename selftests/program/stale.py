#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A value of a map of packets that a program has found stands for nothing once another qdisc has
let go of its packet, also while that is not freed yet and the map is the program's own."""

import errno
import os
import threading

import lib
from lib import SO_MARK, compiled

STALE = compiled("stale")
MANY = 5000                             # also in stale.bpf.c
FILL, LOOK = 1, 2


def the_packet_of_a_qdisc_that_was_flushed_meanwhile():
    """It has many, which a worker frees one by one; this is the last."""
    with lib.link() as first, lib.link() as second, lib.Sender(first.a) as filler, lib.Sender(second.a) as looker:
        for device in (first, second):
            device.attach(STALE)
        seen = max(lib.maps_named("stale_seen"))
        try:
            filler.set(SO_MARK, FILL)
            filler.send(0)
            lib.equal(first.qdisc()["qlen"], MANY, "packets in the map")
            looker.set(SO_MARK, LOOK)
            waits = threading.Thread(target=looker.send, args=(1,))
            waits.start()
            lib.wait_until(lambda: lib.policy_stats(seen)["looked"], "the program has looked")
            lib.run("tc", "qdisc", "change", "dev", first.a, "root", "bpf", "obj", STALE, "flush")
            waits.join()
            lib.equal(lib.policy_stats(seen), {"looked": 1, "pushed": 0, "loaded": -errno.ENOENT}, "what the program is told")
            lib.equal(second.qdisc()["qlen"], 1, "its own packet")
        finally:
            os.unlink(f"{lib.GLOBALS}/stale_pkts")


lib.main(the_packet_of_a_qdisc_that_was_flushed_meanwhile)
