#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Four CPUs send onto one queue. Those that find its lock taken leave their packets in a
list, and beyond net.core.qdisc_max_burst they are dropped there: no program has seen them,
no counter of the qdisc has them, and the sum is exact with them alone."""

import contextlib
import os
import re

import lib
from lib import SO_MARK, compiled

BURST = compiled("burst")
CPUS = 4
EACH = 500              # packets that a CPU sends in a round; some have a mark
LIMIT = 500


def send_from(cpu, device, go):
    """In a process of its own: exits with 0 if all were sent."""
    os.sched_setaffinity(0, {cpu})
    with lib.Sender(device.a) as sender:
        os.read(go, 1)
        for number in range(EACH):
            sender.set(SO_MARK, number % 4 == 0)
            sender.send(number)


def send_from_all(device):
    """EACH packets from each CPU, at once"""
    go, begin = os.pipe()
    children = []
    for cpu in range(CPUS):
        child = os.fork()
        if not child:
            status = 1
            try:
                send_from(cpu, device, go)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.write(begin, bytes(CPUS))
    lib.equal([os.waitpid(child, 0)[1] for child in children], [0] * CPUS, "status of the senders")
    os.close(go)
    os.close(begin)


@contextlib.contextmanager
def max_burst(number):
    path = "/proc/sys/net/core/qdisc_max_burst"
    with open(path, encoding="ascii") as file:
        before = file.read()
    lib.sysctl("core/qdisc_max_burst", number)
    try:
        yield
    finally:
        lib.sysctl("core/qdisc_max_burst", before)


def only(event, reason):
    """A tracepoint with a filter for this reason: the lines of all would not fit."""
    with open(f"{lib.TRACING}/events/{event}/format", encoding="ascii") as file:
        number = re.search(rf"{{ (\w+), \"{reason}\" }}", file.read()).group(1)
    return f"{event}:reason == {number}"


def account(device, receiver, told, sent):
    """How many were dropped before the policy; the rest is accounted for."""
    stats = device.qdisc()
    policy = stats["stats"]
    burst = sum("kfree_skb:" in line for line in told)
    at_limit = sum("qdisc_drop:" in line for line in told)
    lib.equal(policy["given"], sent - burst, "packets that the policy was given, against sent - burst")
    lib.equal(stats["drops"], policy["dropped"] + at_limit, "drops of the qdisc, against its policy's and the limit's")
    receiver.drain()
    lib.equal(receiver.packets + policy["dropped"] + at_limit + burst + stats["qlen"], sent,
              "delivered + dropped by the policy + at the limit + before it + queued, against sent")
    lib.true(policy["dropped"] and at_limit, f"policy {policy}, at the limit {at_limit}")
    return burst


def rounds(max_rounds):
    """Closed while the CPUs send, then opened: how many were dropped before the policy"""
    with lib.link() as device, lib.Receiver(device.b) as receiver, \
         lib.traced(only("skb/kfree_skb", "QDISC_BURST_DROP"), only("qdisc/qdisc_drop", "OVERLIMIT")) as lines:
        device.attach(BURST, "limit", str(LIMIT))
        burst = sent = 0
        while not burst and sent < max_rounds * CPUS * EACH:
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "open=false")
            send_from_all(device)
            sent += CPUS * EACH
            account(device, receiver, lines(), sent)
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "open=true")
            lib.wait_until(lambda: not device.qdisc()["qlen"], "all have left")
            burst = account(device, receiver, lines(), sent)
        return burst


def without_a_limit_to_bursts_the_policy_sees_all():
    with max_burst(1000000):
        lib.equal(rounds(1), 0, "dropped before the policy")


def what_is_dropped_in_a_burst_is_the_rest_of_the_sum():
    with max_burst(0):
        lib.true(rounds(20), "nobody found the lock and the list taken in 20 rounds")


lib.main(without_a_limit_to_bursts_the_policy_sees_all,
         what_is_dropped_in_a_burst_is_the_rest_of_the_sum)
