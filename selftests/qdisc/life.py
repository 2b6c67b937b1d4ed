#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The qdisc or its device ends or is reset while packets are queued: each packet
is freed, once. The sender's memory says so to the byte, and the slab of packets
returns to where it was."""

import contextlib
import json
import os
import time

import lib
from lib import NSEC, POLICIES, compiled

EDT = f"{POLICIES}/edt.bpf.o"
SHUT = compiled("children")             # no packet leaves
COUNT = 10_000
OPEN = 0x100                    # also in children.bpf.c
# What CPUs keep for later comes and goes.
SLACK = COUNT // 10
CACHES = "skbuff_head_cache", "skbuff_small_head"


def queue(device, sender, count, when=0):
    for number in range(count):
        lib.true(sender.send(number, when=when), f"packet {number} dropped")
    lib.equal(device.qdisc()["qlen"], count, "queued")


@contextlib.contextmanager
def all_freed():
    """The slab is afterwards where it was. Yields a function to call while the packets
    are queued."""
    before = [lib.slab_objects(cache) for cache in CACHES]

    def more():
        return [lib.slab_objects(cache) - count for cache, count in zip(CACHES, before)]

    def are_queued():
        lib.true(min(more()) >= COUNT - SLACK, f"{more()} objects more while {COUNT} packets are queued")
    yield are_queued
    lib.wait_until(lambda: max(more()) < SLACK, f"the slab is where it was: {more()}")
    lib.no_maps("children_pkts")


def ends_clean(end):
    """Queue packets and let `end` see to them."""
    with all_freed() as are_queued, lib.wire(SHUT) as (device, sender, receiver):
        queue(device, sender, COUNT)
        are_queued()
        lib.true(sender.memory() > COUNT * 100, "the packets use no memory")
        end(device)
        sender.wait_freed()
        lib.equal(receiver.drain(), [], "packets that left")


def qdisc_deleted_with_packets_queued():
    ends_clean(lambda device: device.detach())


def qdisc_replaced_with_packets_queued():
    ends_clean(lambda device: lib.run("tc", "qdisc", "replace", "dev", device.a, "root", "pfifo"))


def device_removed_with_packets_queued():
    ends_clean(lambda device: device.delete())


def device_down_with_packets_queued():
    def down(device):
        lib.run("ip", "link", "set", device.a, "down")
        stats = device.qdisc()
        lib.equal((stats["drops"], stats["qlen"], stats["backlog"]), (COUNT, 0, 0), "dropped and queued")
        stats = device.qdisc()
        lib.equal((stats["qlen"], stats["backlog"]), (0, 0), "queued")
    ends_clean(down)


def deleted_with_drops_that_no_run_has_freed():
    """A change of its limit has CoDel, in a class, dequeue and drop. The root does not run any more."""
    def codel(device, verb, parent, *words):
        lib.run("tc", "qdisc", verb, "dev", device.a, "parent", parent, "handle", "11:", "fq_codel",
                "target", "10us", "interval", "100us", *words)

    with lib.behind_the_gate(lambda device, parent: codel(device, "add", parent)) as (device, sender, _):
        for number in range(40):
            lib.true(sender.send(number, 1000), f"packet {number} dropped")
        for limit in range(39, 20, -1):
            codel(device, "change", "1:1", "limit", str(limit))
            if device.below()["drops"]:
                break
        lib.true(sender.memory() > 0 < device.below()["drops"], "CoDel drops at the last change")
        device.detach()
        sender.wait_freed()


@contextlib.contextmanager
def namespace():
    """The name of one that has gone afterwards."""
    name = f"gone-{os.getpid()}"
    lib.run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        if os.path.exists(f"/run/netns/{name}"):
            lib.run("ip", "netns", "del", name)


def device_moved_with_packets_queued():
    def leave(device):
        # This shuts it down and gives it a default qdisc
        with namespace() as name:
            lib.run("ip", "link", "set", device.a, "netns", name)
    ends_clean(leave)


def namespace_removed_with_packets_queued():
    """They come from outside: a packet that was sent there would keep it."""
    with all_freed() as are_queued, lib.link() as outside, lib.Sender(outside.a) as sender:
        with namespace() as name:
            def tc(*words):
                return lib.run("tc", "-n", name, *words)

            def device(dev, *words):
                lib.run("ip", "-n", name, "link", *words)
                # No packets but ours
                lib.run("ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{dev}.disable_ipv6=1")
                lib.run("ip", "-n", name, "link", "set", dev, "up")
            lib.run("ip", "link", "set", outside.b, "netns", name)
            device(outside.b, "set", outside.b, "down")
            device("inside", "add", "inside", "type", "dummy")
            tc("qdisc", "add", "dev", "inside", "root", "bpf", "obj", SHUT)
            tc("qdisc", "add", "dev", outside.b, "clsact")
            tc("filter", "add", "dev", outside.b, "ingress", "matchall",
               "action", "mirred", "egress", "redirect", "dev", "inside")
            lib.wait_until(outside.is_up, "the device is up")
            for number in range(COUNT):
                lib.true(sender.send(number), f"packet {number} dropped")
            lib.wait_until(lambda: json.loads(tc("-s", "-j", "qdisc", "show", "dev", "inside"))[0]["qlen"] == COUNT,
                           "the packets are queued inside")
            are_queued()
        lib.wait_until(lambda: not os.path.exists(f"/sys/class/net/{outside.a}"), "the namespace is gone")
        sender.wait_freed()


def a_qdisc_works_after_down_and_up():
    with lib.wire(EDT, "set", "horizon=20s") as (device, sender, _):
        queue(device, sender, 20, time.monotonic_ns() + 9 * NSEC)
        lib.run("ip", "link", "set", device.a, "down")
        sender.wait_freed()
        lib.run("ip", "link", "set", device.a, "up")
        lib.wait_until(device.is_up, "the device is up")
        # The sockets so far have learned that the network is down
        with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            when = time.monotonic_ns() + NSEC
            sender.send(0, when=when)
            sender.send(1)
            arrivals = receiver.collect(2)
            lib.equal(lib.numbers(arrivals), [1, 0], "order")
            lib.true(arrivals[1].when >= when, "a packet left before its time")


def another_name_and_mtu():
    """What is queued stays."""
    with lib.wire(SHUT) as (device, sender, receiver):
        queue(device, sender, 20)
        lib.run("ip", "link", "set", device.a, "mtu", "1400")
        name = f"{device.a}x"
        lib.run("ip", "link", "set", device.a, "name", name)
        device.a = name
        lib.equal(device.qdisc()["qlen"], 20, "queued")
        sender.set(lib.SO_MARK, OPEN)
        sender.send(20)
        lib.equal(lib.numbers(receiver.collect(21)), list(range(21)), "packets")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued at the end")


lib.main(qdisc_deleted_with_packets_queued,
         qdisc_replaced_with_packets_queued,
         deleted_with_drops_that_no_run_has_freed,
         device_removed_with_packets_queued,
         device_down_with_packets_queued,
         device_moved_with_packets_queued,
         namespace_removed_with_packets_queued,
         a_qdisc_works_after_down_and_up,
         another_name_and_mtu)
