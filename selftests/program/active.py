#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Flows in a list of those that have packets: maps of packets, that leave the list and come
back with each packet."""

import concurrent.futures
import os

import lib
from lib import SO_MARK

ACTIVE = lib.compiled("active")
FLOWS = 16
COUNT = 10_000 if lib.DEBUG else 100_000
DEV = f"active-{os.getpid()}"


def let_go(dev):
    lib.run("tc", "qdisc", "change", "dev", dev, "root", "bpf", "set", "hold=false")


def flows_take_turns():
    """Ten packets of each flow, all of the first one first, leave one of each at a time."""
    with lib.wire(ACTIVE, "set", "hold=true") as (device, sender, receiver):
        for number in range(10 * FLOWS):
            sender.set(SO_MARK, 1 + number // 10)
            lib.true(sender.send(number), "dropped")
        let_go(device.a)
        lib.equal(lib.numbers(receiver.collect(10 * FLOWS)),
                  [10 * flow + turn for turn in range(10) for flow in range(FLOWS)], "order")
        lib.balance(device, sender, receiver)


def queued():
    return lib.instances(DEV)[0]["qlen"]


def none_is_lost(hold):
    """Of many packets: while all of them wait, and each flow has its next turn with each, or
    while each finds the queue empty, and its flow comes into the list for it alone."""
    with (lib.pktgen(DEV, "udp_src_min 1000", f"udp_src_max {1000 + 4 * FLOWS}") as send,
          concurrent.futures.ThreadPoolExecutor(1) as pool):
        lib.run("tc", "qdisc", "add", "dev", DEV, "root", "bpf", "obj", ACTIVE, "limit", str(COUNT),
                "set", f"hold={hold}")
        sending = pool.submit(send, COUNT)      # until the last packet has left
        if hold == "true":
            lib.wait_until(lambda: queued() == COUNT, "all wait", 600)
            let_go(DEV)
        sending.result()
        lib.wait_until(lambda: not queued(), "all have left", 600)
        (stats,) = lib.instances(DEV)
        lib.equal((stats["packets"], stats["drops"], stats["stuck"]), (COUNT, 0, 0), "sent, dropped, found stuck")
        lib.equal(stats["stats"], {"turns": COUNT, "lost": 0}, "what the policy counts")


def none_is_lost_of_those_that_wait():
    none_is_lost("true")


def none_is_lost_of_those_that_leave_at_once():
    none_is_lost("false")


lib.main(flows_take_turns,
         none_is_lost_of_those_that_wait,
         none_is_lost_of_those_that_leave_at_once)
