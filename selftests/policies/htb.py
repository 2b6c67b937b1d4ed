#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy htb beside the native htb, with the same trees and the same packets.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import json
import time

import lib
from lib import MS, NSEC, SO_PRIORITY

OBJ = f"{lib.POLICIES}/htb.bpf.o"
SIZE = 1000
MBIT = 125_000                  # bytes a second
SECONDS = 1.5                   # for which each class has packets
LIMIT = 5000                    # packets of a leaf

# Rates in Mbit/s, all else in bytes
Class = collections.namedtuple("Class", "minor parent rate ceil prio quantum", defaults=(0, 0))
BURST = 5000


def words(each):
    """What tc says of a class of the native htb"""
    return (f"htb rate {each.rate}mbit ceil {each.ceil}mbit prio {each.prio} burst {BURST} cburst {BURST}" +
            (f" quantum {each.quantum}" if each.quantum else ""))


def sets(*settings):
    return [word for setting in settings for word in ("set", setting)]


class Native:
    """The native htb on a device"""
    name = "native"

    def __init__(self, device, tree, default=0, leaf_limit=LIMIT):
        self.dev = device.a
        lib.run("ip", "link", "set", self.dev, "txqueuelen", str(leaf_limit))
        lib.run("tc", "qdisc", "add", "dev", self.dev, "root", "handle", "1:", "htb", "default", f"{default:x}")
        self.classes("add", tree)

    def classes(self, what, them):
        lib.run("tc", "-batch", "-", given="".join(
            f"class {what} dev {self.dev} parent 1:{each.parent:x} classid 1:{each.minor:x} {words(each)}\n" for each in them))

    def change(self, them):
        self.classes("change", them)

    def counts(self):
        """Of each class that has sent something: bytes, packets lent, packets borrowed"""
        classes = json.loads(lib.run("tc", "-s", "-j", "class", "show", "dev", self.dev))
        return {int(each["handle"][2:], 16): (each["stats"]["bytes"], each["stats"]["lended"], each["stats"]["borrowed"])
                for each in classes if each["stats"]["bytes"]}


class Ours:
    """The policy"""
    name = "htb"

    def __init__(self, device, tree, default=0, leaf_limit=LIMIT):
        self.dev = device.a
        device.attach(OBJ, "limit", "100000", *sets(f"default_class={default}", f"leaf_limit={leaf_limit}"),
                      *(word for each in tree for word in self.settings(each)), where=("root", "handle", "1:"))

    @staticmethod
    def settings(each):
        values = {"parent": each.parent, "rate": f"{each.rate}mbit", "ceiling": f"{each.ceil}mbit", "prio": each.prio,
                  "quantum": each.quantum, "burst": BURST, "cburst": BURST}
        return sets(*(f"{name}[{each.minor:#x}]={value}" for name, value in values.items() if value))

    def change(self, them):
        lib.run("tc", "qdisc", "change", "dev", self.dev, "root", "bpf", *(word for each in them for word in self.settings(each)))

    def table(self, name):
        return {int(key): value for key, value in lib.instances(self.dev)[0]["options"]["set"][name].items()}

    def counts(self):
        lent, borrowed = self.table("lent"), self.table("borrowed")
        return {minor: (count, lent.get(minor, 0), borrowed.get(minor, 0)) for minor, count in self.table("sent").items()}


@contextlib.contextmanager
def attached(kind, tree, **more):
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        yield kind(device, tree, **more), device, sender, receiver


def of(arrival):
    """The class, which the packet's number tells"""
    return arrival.number >> 32


def send(sender, minor, number, major=1, **more):
    sender.set(SO_PRIORITY, major << 16 | minor)
    return sender.send(minor << 32 | number, SIZE, **more)


def fill(sender, counts):
    """Packets of classes, in turns"""
    for step in range(20):
        for minor, count in counts.items():
            for number in range(count * step // 20, count * (step + 1) // 20):
                lib.true(send(sender, minor, number), f"packet {number} of 1:{minor:x} refused")
    return time.monotonic_ns()


def rates(arrivals, begin, minors):
    """Mbit/s of each of these classes, from a time on until one of them has nothing more"""
    last = {of(each): each.when for each in arrivals}
    end = min(last[minor] for minor in minors)
    inside = [each for each in arrivals if begin <= each.when < end]
    lib.true(end - begin > NSEC, f"{(end - begin) / NSEC} s are too short to judge")
    return {minor: sum(each.size for each in inside if of(each) == minor) * NSEC / (end - begin) / MBIT for minor in minors}


def judge(arrivals, begin, wanted, what):
    got = rates(arrivals, begin, wanted)
    print(f"# {what}: {', '.join(f'1:{minor:x} {rate:.3f}' for minor, rate in got.items())} Mbit/s")
    for minor, rate in wanted.items():
        lib.true(abs(got[minor] / rate - 1) < 0.02, f"{what}: 1:{minor:x} has {got[minor]:.3f} Mbit/s, expected {rate:.3f}")


# --- rates -----------------------------------------------------------------------

# Three levels
TREE = (Class(0x1, 0, 8, 8),
        Class(0x2, 1, 5, 8), Class(0x3, 1, 3, 4),
        Class(0x10, 2, 3, 8), Class(0x11, 2, 2, 8), Class(0x20, 3, 2, 4), Class(0x21, 3, 1, 4))
QUANTA = (Class(0x1, 0, 8, 8), Class(0x10, 1, 1, 8, quantum=1500), Class(0x11, 1, 1, 8, quantum=4500))
CEILINGS = (Class(0x1, 0, 8, 8), Class(0x10, 1, 1, 2), Class(0x11, 1, 1, 8))
PRIORITIES = (Class(0x1, 0, 8, 8), Class(0x10, 1, 1, 8, 2), Class(0x11, 1, 1, 8, 0), Class(0x12, 1, 2, 8, 1))

# Who has packets, and the rate that he gets
CASES = (("all have their rates", TREE, {0x10: 3, 0x11: 2, 0x20: 2, 0x21: 1}),
         ("a sibling borrows first", TREE, {0x10: 5, 0x20: 2, 0x21: 1}),
         ("then others, to the ceiling of the parent", TREE, {0x20: 8 / 3, 0x21: 4 / 3}),
         ("by quantum", QUANTA, {0x10: 2.5, 0x11: 5.5}),
         ("what ceilings leave", CEILINGS, {0x10: 2, 0x11: 6}),
         ("by priority", PRIORITIES, {0x10: 1, 0x11: 5, 0x12: 2}),
         ("nobody lends to who has no parent", (Class(0x10, 0, 2, 4), Class(0x11, 0, 3, 3)), {0x10: 2, 0x11: 3}))


def packets_of(wanted, seconds=SECONDS):
    return {minor: int(rate * MBIT * seconds / SIZE) for minor, rate in wanted.items()}


def rates_are_those_of_htb():
    for what, tree, wanted in CASES:
        for kind in (Native, Ours):
            with attached(kind, tree) as (_, device, sender, receiver):
                counts = packets_of(wanted)
                begin = fill(sender, counts)
                judge(receiver.collect(sum(counts.values())), begin + 100 * MS, wanted, f"{what}, {kind.name}")
                if kind is Ours:
                    lib.balance(device, sender, receiver)


def counters_are_those_of_htb():
    """Bytes of all classes, the inner ones, too; how many packets each has lent and borrowed, within 2 % of all."""
    counts, found = packets_of({0x10: 5, 0x20: 2, 0x21: 1}, 1), []
    for kind in (Native, Ours):
        with attached(kind, TREE) as (qdisc, _, sender, receiver):
            fill(sender, counts)
            receiver.collect(sum(counts.values()))
            found.append(qdisc.counts())
            print(f"# {kind.name}: {found[-1]}")
    wanted, got = found
    lib.equal({minor: each[0] for minor, each in got.items()}, {minor: each[0] for minor, each in wanted.items()}, "bytes by class")
    slack = sum(counts.values()) * 0.02
    for minor, each in wanted.items():
        for ours, theirs, name in zip(got[minor][1:], each[1:], ("lent", "borrowed")):
            lib.true(abs(ours - theirs) <= slack, f"1:{minor:x} has {name} {ours} packets, native {theirs}")


def a_rate_changes_while_packets_wait():
    wanted = {0x10: 1, 0x11: 2, 0x20: 4, 0x21: 1}
    after = [Class(0x2, 1, 3, 8), Class(0x10, 2, 1, 8), Class(0x3, 1, 5, 8), Class(0x20, 3, 4, 8)]
    for kind in (Native, Ours):
        with attached(kind, TREE) as (qdisc, _, sender, receiver):
            waits, comes = packets_of(wanted, 1), packets_of(wanted, SECONDS)
            fill(sender, waits)
            qdisc.change(after)
            begin = time.monotonic_ns()
            fill(sender, comes)
            judge(receiver.collect(sum(waits.values()) + sum(comes.values())), begin + 100 * MS, wanted, f"after a change, {kind.name}")


def who_is_urgent_does_not_wait():
    """A packet each 10 ms, within its rate, beside one who takes all the rest."""
    tree = (Class(0x1, 0, 8, 8), Class(0x10, 1, 2, 8, 0), Class(0x11, 1, 1, 8, 1))
    waits = []
    for kind in (Native, Ours):
        with attached(kind, tree) as (_, _, sender, receiver):
            fill(sender, {0x11: 1000})
            start, came = time.monotonic_ns(), []
            for number in range(60):
                time.sleep(max(0, start + number * 10 * MS - time.monotonic_ns()) / NSEC)
                came.append(time.monotonic_ns())
                lib.true(send(sender, 0x10, number), f"packet {number} refused")
            waits.append([each.when - came[each.number & 0xffffffff] for each in receiver.collect(1060) if of(each) == 0x10])
        print(f"# {kind.name}: ms that a packet waits, mean {sum(waits[-1]) / 60 / MS:.3f}, most {max(waits[-1]) / MS:.3f}")
    packet = SIZE * NSEC // (8 * MBIT)
    lib.true(max(waits[1]) < max(max(waits[0]), packet) + packet // 4, f"ns that packets wait: {waits[1]}, native {waits[0]}")


# --- whose packets -----------------------------------------------------------------

def classes_are_chosen_as_in_htb():
    """By the sender, by filters, else the default class; the qdisc's own handle, and no class at all: at once."""
    tree = (Class(0x10, 0, 8, 8), Class(0x20, 0, 8, 8), Class(0x21, 0, 8, 8))
    # priority, source port -> class; 0: none
    cases = ((1, 0x21, 1, 0x21), (1, 0x21, 2, 0x21), (1, 0x77, 2, 0x10), (0, 0, 2, 0x10), (2, 0x21, 2, 0x10), (0, 0, 1, 0x20),
             (0, 7, 3, 0x20), (1, 0, 2, 0), (0, 0, 5, 0), (1, 0x400, 1, 0x20), (0, 0x21, 1, 0x20))
    for default in (0x20, 0x99):
        wanted = collections.Counter()
        for *_, minor in cases:
            wanted[minor if default == 0x20 or minor != 0x20 else 0] += SIZE
        for kind in (Native, Ours):
            with attached(kind, tree, default=default) as (qdisc, device, sender, receiver):
                for port, what in ((2, ("classid", "1:10")), (3, ("classid", "1:99")), (4, ("classid", "1:10", "action", "drop")),
                                   (5, ("classid", "1:0"))):
                    lib.run("tc", "filter", "add", "dev", device.a, "parent", "1:", "protocol", "ip", "prio", str(port),
                            "flower", "ip_proto", "udp", "src_port", str(port), *what)
                for major, minor, port, _ in cases:
                    lib.true(send(sender, minor, 0, major=major, port=port), f"{kind.name}: {major}:{minor:x} refused")
                lib.true(send(sender, 0, 0, major=0, port=4), "the sender is told of a drop by a filter")
                receiver.collect(len(cases))
                sender.wait_freed()
                lib.equal(receiver.drain(), [], "packets that a filter drops")
                got = {minor: each[0] for minor, each in qdisc.counts().items()}
                lib.equal(got, {minor: size for minor, size in wanted.items() if minor}, f"{kind.name}, default {default:x}: bytes by class")


def what_has_no_class_leaves_at_once():
    with attached(Ours, (Class(0x10, 0, 1, 1),)) as (_, _, sender, receiver):
        fill(sender, {0x10: 50})
        for number in range(30):
            lib.true(send(sender, 0, number), "refused")
        arrivals = receiver.collect(80)
        last = max(index for index, each in enumerate(arrivals) if of(each) == 0)
        lib.true(last < 45, f"the last packet of no class is the {last + 1}th")


def a_leaf_has_a_limit():
    """The qdisc's own counts as well, and that of a class as its qdisc has it."""
    for kind in (Native, Ours):
        with attached(kind, (Class(0x10, 0, 1, 1), Class(0x11, 0, 1, 1)), leaf_limit=30) as (qdisc, device, sender, receiver):
            taken = {minor: sum(send(sender, minor, number) for number in range(60)) for minor in (0x10, 0x11)}
            print(f"# {kind.name}: taken of 60: {taken}")
            lib.true(all(30 <= count < 50 for count in taken.values()), f"{kind.name}: taken of 60: {taken}")
            receiver.collect(sum(taken.values()))
            if kind is Ours:
                lib.equal(qdisc.table("dropped"), {minor: 60 - count for minor, count in taken.items()}, "dropped by class")
                lib.balance(device, sender, receiver)


# --- qdiscs in classes ---------------------------------------------------------------

def a_leaf_may_be_any_qdisc():
    """Rates hold; what came before the class leaves first; the class counts, too."""
    wanted = {0x10: 5, 0x20: 2, 0x21: 1}
    counts = packets_of(wanted)
    with attached(Ours, TREE) as (qdisc, device, sender, receiver):
        for number in range(1000):
            send(sender, 0x10, number)
        for minor, child in ((0x10, "pfifo limit 5000"), (0x20, "fq_codel target 10s interval 100s"), (0x21, "bfifo limit 10mb")):
            lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", f"1:{minor:x}", "bpf")
            lib.run("tc", "qdisc", "add", "dev", device.a, "parent", f"1:{minor:x}", *child.split())
        begin = fill(sender, counts)
        arrivals = receiver.collect(1000 + sum(counts.values()))
        judge(arrivals, begin + 100 * MS, wanted, "qdiscs in classes")
        lib.equal([each.number & 0xffffffff for each in arrivals if of(each) == 0x10], [*range(1000), *range(counts[0x10])], "order")
        classes = json.loads(lib.run("tc", "-s", "-j", "class", "show", "dev", device.a))
        got = {int(each["handle"][2:], 16): each["stats"]["packets"] for each in classes if each["handle"].startswith("1:")}
        lib.equal(got, counts, "packets, as tc class shows them")
        lib.equal(qdisc.counts()[0x1][0], receiver.bytes, "bytes of the root")
        lib.balance(device, sender, receiver)


def a_class_may_hold_its_packets_back():
    """Others go on meanwhile, and it is not late."""
    with attached(Ours, TREE) as (_, device, sender, receiver):
        lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", "1:10", "bpf")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:10", "netem", "delay", "100ms")
        start = time.monotonic_ns()
        for number in range(10):
            send(sender, 0x10, number)
        sent = time.monotonic_ns()
        fill(sender, {0x20: 30})
        arrivals = receiver.collect(40)
        held = [each.when - sent for each in arrivals if of(each) == 0x10]
        print(f"# held for {held[0] / MS:.3f} to {held[-1] / MS:.3f} ms, sent within {(sent - start) / MS:.3f} ms")
        lib.true(100 * MS - (sent - start) <= held[0] and held[-1] < 101 * MS + 10 * MS, f"ns in the class with netem: {held}")
        lib.true(sum(each.when < sent + 90 * MS for each in arrivals if of(each) == 0x20) > 15, "others have waited")
        lib.balance(device, sender, receiver)


# --- changes ---------------------------------------------------------------------------

def new_programs_and_resets_lose_nothing():
    """New programs go on with all that waits, in classes, too, and what they may send; after a reset nothing is left."""
    wanted = {0x10: 3, 0x11: 2, 0x20: 2, 0x21: 1}
    before, after = packets_of(wanted, 1), packets_of(wanted, SECONDS)
    with attached(Ours, TREE) as (qdisc, device, sender, receiver):
        lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", "1:20", "bpf")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:20", "pfifo", "limit", "5000")
        fill(sender, before)
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", OBJ, *sets(f"leaf_limit={LIMIT}"))
        begin = time.monotonic_ns()
        fill(sender, after)
        judge(receiver.collect(sum(before.values()) + sum(after.values())), begin + 100 * MS, wanted, "with new programs")
        lib.balance(device, sender, receiver)
        fill(sender, {0x10: 300, 0x20: 300})
        device.flap()
        sender.wait_freed()
        lib.equal(device.qdisc()["qlen"], 0, "packets after a reset")
    with attached(Ours, TREE, leaf_limit=40) as (qdisc, device, sender, receiver):
        fill(sender, {0x10: 35, 0x11: 35})
        device.flap()
        receiver.drain()
        with lib.Sender(device.a) as later:
            lib.true(sum(send(later, 0x10, number) for number in range(60)) >= 40, "taken after a reset")
            lib.wait_until(lambda: not device.qdisc()["qlen"], "all have left")
        lib.equal(qdisc.table("dropped").keys() - {0x10}, set(), "classes that were full")


def nobody_is_lost_in_a_tree_that_makes_no_sense():
    """Circles, more levels than there are, a parent that is none, a class that ceases to be one."""
    circle = (Class(0x10, 0x11, 1, 2), Class(0x11, 0x10, 1, 2))
    deep = tuple(Class(minor, minor - 1 if minor > 1 else 0, 1 if minor < 12 else 2, 2) for minor in range(1, 13))
    for what, tree, minors in (("circle", circle, (0x10, 0x11)), ("deep", deep, (12,)), ("no parent", (Class(0x10, 0x99, 1, 2),), (0x10,))):
        with attached(Ours, tree) as (_, device, sender, receiver):
            fill(sender, dict.fromkeys(minors, 40))
            receiver.collect(40 * len(minors))
            print(f"# {what}: {lib.balance(device, sender, receiver)['stuck']} times stuck")
    with attached(Ours, TREE) as (_, device, sender, receiver):
        fill(sender, {0x10: 300, 0x11: 300, 0x20: 300})
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf",
                *sets("rate[0x10]=0", "parent[0x11]=3", "rate[2]=0", "parent[0x20]=0x11"))
        receiver.collect(900)
        lib.equal(lib.balance(device, sender, receiver)["stuck"], 0, "found stuck")


def nonsense_is_refused():
    with lib.link() as device:
        device.attach(OBJ)
        for setting, said in (("rate[0x10]=101gbit", 'rate[0x10]" cannot be "101gbit": it is a rate from 0 to 100gbit'),
                              ("rate[0x400]=1mbit", "it is a number from 0 to 1023"), ("rate[0x10]=5ms", "it is a rate"),
                              ("ceiling[0x10]=-1", "it is a rate"), ("prio[0x10]=8", "it is a number from 0 to 7"),
                              ("parent[0x10]=0x400", "it is a number from 0 to 1023"), ("quantum[0x10]=101mb", "it is a size from 0 to 100mb"),
                              ("burst[0x10]=5mbit", "it is a size"), ("cburst[0x10]=101mb", "it is a size"),
                              ("default_class=1024", "it is a number from 0 to 1023"), ("leaf_limit=0", "it is a number from 1 to 100000"),
                              ("rate=1mbit", "rate")):
            lib.contains(lib.refused("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", setting), said)


lib.main(nonsense_is_refused,
         classes_are_chosen_as_in_htb,
         a_leaf_has_a_limit,
         nobody_is_lost_in_a_tree_that_makes_no_sense,
         measured=[what_has_no_class_leaves_at_once,
                   rates_are_those_of_htb,
                   counters_are_those_of_htb,
                   a_rate_changes_while_packets_wait,
                   who_is_urgent_does_not_wait,
                   a_leaf_may_be_any_qdisc,
                   a_class_may_hold_its_packets_back,
                   new_programs_and_resets_lose_nothing])
