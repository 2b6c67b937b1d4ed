#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The safety net: a policy that lets nothing go is replaced by a FIFO of the
kernel's, which says so; `change` brings a policy back. One that waits, or whose
NIC queue is stopped, is left alone."""

import lib
from lib import POLICIES, PROGS, SO_MARK

STUCK = f"{PROGS}/stuck.bpf.o"
FIFO = f"{POLICIES}/fifo.bpf.o"
SAY_EMPTY, THROTTLE_A_YEAR, DROP_AT_DEQUEUE, DROP_AT_ENQUEUE, THROTTLE_TWO_SECONDS = range(1, 6)
COUNT = 10


def wait_stuck(device):
    lib.wait_until(lambda: device.qdisc()["stuck"] == 1, "found stuck", 30)
    lib.contains(lib.run("dmesg"), f"{device.a}: qdisc bpf")
    lib.contains(lib.run("tc", "-s", "qdisc", "show", "dev", device.a), "stuck 1")


def keeps_its_packets(wrong):
    """They are stored, none leaves; then all do, in key order: newest first."""
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, wrong)
        for number in range(COUNT):
            sender.send(number)
        wait_stuck(device)
        lib.equal(lib.numbers(receiver.collect(COUNT)), list(range(COUNT - 1, -1, -1)), "order")
        for number in range(COUNT):
            lib.true(sender.send(number), "the FIFO takes packets")
        lib.equal(lib.numbers(receiver.collect(COUNT)), list(range(COUNT)), "order of the FIFO")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")


def never_dequeues():
    keeps_its_packets(SAY_EMPTY)


def throttles_for_a_year():
    keeps_its_packets(THROTTLE_A_YEAR)


def drops_all(wrong, told):
    """One packet now and then, each dropped, until the kernel has seen enough."""
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, wrong)

        def saved():
            sender.send(7)
            return device.qdisc()["stuck"] == 1
        lib.wait_until(saved, "found stuck", 30)
        before = len(receiver.drain())
        sender.send(8)
        lib.equal(receiver.collect(1)[0].number, 8, "packet that leaves")
        stats = device.qdisc()
        lib.equal(stats["drops"], sender.packets - before - 1, "drops")
        lib.equal(sender.refused_packets, stats["drops"] if told else 0, "drops the sender learns of")


def drops_all_at_dequeue():
    drops_all(DROP_AT_DEQUEUE, told=False)


def drops_all_at_enqueue():
    drops_all(DROP_AT_ENQUEUE, told=True)


def a_policy_that_waits_is_left_alone():
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, THROTTLE_TWO_SECONDS)
        for number in range(COUNT):
            sender.send(number)
        receiver.collect(COUNT, 30)
        lib.equal(lib.balance(device, sender, receiver)["stuck"], 0, "found stuck")


def change_brings_the_policy_back():
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, SAY_EMPTY)
        sender.send(1)
        wait_stuck(device)
        receiver.collect(1)
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", FIFO)
        lib.equal(device.qdisc()["options"]["obj"], "fifo.bpf.o", "object")
        sender.send(2)
        lib.equal(receiver.collect(1)[0].number, 2, "packet that leaves")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "limit_bytes=1")
        lib.true(not sender.send(3), "the new policy does not decide: packet taken")


lib.main(never_dequeues,
         throttles_for_a_year,
         drops_all_at_dequeue,
         drops_all_at_enqueue,
         a_policy_that_waits_is_left_alone,
         change_brings_the_policy_back)
