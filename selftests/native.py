#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Policies against the qdiscs that they stand for: the same packets, held back by
the same gate, must leave in the same order, and the same ones must be dropped."""

import json
import random

import lib
from lib import POLICIES, PROGS, SO_MARK, SO_PRIORITY

FIFO = f"{POLICIES}/fifo.bpf.o"
PRIO = f"{POLICIES}/prio.bpf.o"
GATE = f"{PROGS}/gate.bpf.o"            # nothing leaves until a packet with a mark comes


def packets(seed, count):
    """Number, size and priority of each."""
    rng = random.Random(seed)
    return [(number, rng.randrange(60, 1500), rng.randrange(16)) for number in range(count)]


def leave(attach, traffic):
    """(order of departure, numbers of the packets refused, drops) behind a qdisc."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        device.attach(GATE, where=("root", "handle", "1:"))
        lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "bpf")
        attach(device)
        refused = []
        for number, size, priority in traffic:
            sender.set(SO_PRIORITY, priority)
            if not sender.send(number, size):
                refused.append(number)
        sender.set(SO_MARK, 1)
        if not sender.send(len(traffic), 1000):
            refused.append(len(traffic))
        listed = json.loads(lib.run("tc", "-s", "-j", "qdisc", "show", "dev", device.a))
        (stats,) = [entry for entry in listed if entry.get("parent") == "1:1"]
        arrivals = receiver.collect(sender.packets - stats["drops"])
        lib.equal(receiver.drain(), [], "packets nobody knows of")
        return lib.numbers(arrivals), refused, stats["drops"]


def native(*words):
    def attach(device):
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", *words)
    return attach


def ours(obj, *words, **parameters):
    def attach(device):
        before = lib.maps_named(".data.param")
        device.attach(obj, *words, where=("parent", "1:1"))
        (params,) = lib.maps_named(".data.param") - before
        lib.set_parameters(params, **parameters)
    return attach


def same(theirs, mine, count):
    seed = random.randrange(1 << 32)
    print(f"# seed {seed}")
    traffic = packets(seed, count)
    order, refused, drops = leave(theirs, traffic)
    lib.true(drops > 10, f"the native qdisc has dropped {drops} packets, too few to compare")
    lib.true(len(order) > 20, f"{len(order)} packets have left the native qdisc, too few to compare")
    got = leave(mine, traffic)
    lib.equal(got[2], drops, "drops")
    lib.equal(got[1], refused, "packets refused")
    lib.equal(got[0], order, "order of departure")


def fifo_is_pfifo():
    same(native("pfifo", "limit", "50"), ours(FIFO, "limit", "50"), 100)


def fifo_is_bfifo():
    same(native("bfifo", "limit", "30000"),
         ours(FIFO, limit_bytes=30000), 100)


def fifo_is_pfifo_head_drop():
    same(native("pfifo_head_drop", "limit", "50"),
         ours(FIFO, "limit", "50", head_drop=1), 100)


def prio_is_prio():
    same(native("prio"), ours(PRIO), 2500)


def prio_is_pfifo_fast():
    same(native("pfifo_fast"), ours(PRIO), 2500)


lib.main(fifo_is_pfifo, fifo_is_bfifo, fifo_is_pfifo_head_drop, prio_is_prio, prio_is_pfifo_fast)
