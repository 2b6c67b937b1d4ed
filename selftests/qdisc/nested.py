#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What others do within a run of the qdisc, or expect of one that gives nothing: netem in a class
gives its duplicates to the root; parents give up when a child has dropped all that it had."""

import contextlib

import lib
from lib import SO_MARK, SO_PRIORITY, compiled

NESTED = compiled("nested")
DROPS = compiled("drops")
CHILDREN = compiled("children")
NEWEST = compiled("newest")
PLAIN, CLONE_AWAY, BOTH, PASS, OPEN, AWAY_AND_STORED = range(6)   # also in nested.bpf.c


def tc(*arguments):
    lib.run("tc", *arguments)


def qdiscs(device):
    return {entry["handle"]: entry for entry in lib.qdiscs(device.a)}


@contextlib.contextmanager
def with_duplicates(parent=()):
    """A wire with the qdisc 2:, whose class duplicates every packet; below a root of this kind, 1:, or as the root."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        if parent:
            tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", *parent)
        device.attach(NESTED, where=("parent", "1:1", "handle", "2:") if parent else ("root", "handle", "2:"))
        tc("class", "add", "dev", device.a, "parent", "2:", "classid", "2:1", "bpf")
        tc("qdisc", "add", "dev", device.a, "parent", "2:1", "handle", "21:", "netem", "duplicate", "100%")
        yield device, sender, receiver


def send(sender, mark, number):
    sender.set(SO_MARK, mark)
    lib.true(sender.send(number), f"packet {number} was refused")


def all_leave(device, sender, receiver, numbers):
    send(sender, OPEN, 99)
    lib.equal(sorted(lib.numbers(receiver.collect(len(numbers) + 1))), [*numbers, 99], "packets that leave")
    lib.equal([(each["qlen"], each["backlog"]) for each in lib.qdiscs(device.a)], [(0, 0)] * len(lib.qdiscs(device.a)),
              "queued, by all")
    sender.wait_freed()


def the_context_stays_what_it_is():
    """A clone is passed and comes back while the run goes on; it then waits in the class, as does its duplicate."""
    with with_duplicates() as (device, sender, receiver):
        send(sender, CLONE_AWAY, 1)
        stats = qdiscs(device)["2:"]["stats"]
        lib.equal((stats["runs"], stats["another"]), (2, 0), "runs, and packets that changed within one")
        all_leave(device, sender, receiver, [1, 1, 1])


def a_duplicate_has_no_duplicate():
    """As with netem below prio."""
    with with_duplicates() as (device, sender, receiver):
        for number in range(20):
            send(sender, PASS, number)
        lib.equal(qdiscs(device)["21:"]["qlen"], 40, "packets in netem")
        lib.equal(qdiscs(device)["2:"]["drops"], 0, "drops")
        all_leave(device, sender, receiver, sorted(2 * [*range(20)]))


def parents_count_what_is_there():
    for parent in (("prio", "priomap", *["0"] * 16), ("tbf", "rate", "1gbit", "burst", "100kb", "limit", "1mb")):
        with with_duplicates(parent) as (device, sender, receiver):
            for number in range(10):
                send(sender, (PLAIN, CLONE_AWAY, BOTH, PASS)[number % 4], number)
            counts = {handle: (each["qlen"], each["backlog"]) for handle, each in qdiscs(device).items()}
            lib.true(counts["2:"][0] > 20, f"only {counts['2:'][0]} packets are queued")
            # tbf has a packet that it has peeked at, and that is queued still; else all are the same
            lib.equal(counts["1:"], counts["2:"], f"{parent[0]}: packets and bytes queued, as the qdisc counts them")
            all_leave(device, sender, receiver,
                      sorted(number for number in range(10) for _ in range((1, 3, 3, 2)[number % 4])))


def what_a_class_gives_when_it_is_asked_is_dropped():
    """A netem below a netem duplicates what the other one lets go, within a run of the dequeue program."""
    for parent in ((), ("prio", "priomap", *["0"] * 16)):
        with with_duplicates(parent) as (device, sender, receiver):
            tc("qdisc", "replace", "dev", device.a, "parent", "2:1", "handle", "22:", "netem", "delay", "1us")
            tc("qdisc", "add", "dev", device.a, "parent", "22:", "handle", "23:", "netem", "duplicate", "100%", "delay", "1ms")
            send(sender, OPEN, 99)
            for number in range(10):
                send(sender, AWAY_AND_STORED, number)
            lib.equal(sorted(lib.numbers(receiver.collect(11))), [*range(10), 99], "packets that leave")
            lib.wait_until(lambda: all(not each["qlen"] for each in lib.qdiscs(device.a)), "nothing is queued")
            lib.equal((qdiscs(device)["2:"]["drops"], qdiscs(device)["2:"]["stuck"], qdiscs(device)["2:"]["backlog"]),
                      (10, 0, 0), "drops, found stuck, backlog")
            sender.wait_freed()


def parents_that_look_while_a_packet_comes_see_none():
    """A duplicate comes to another band, hfsc looks what is next, and so asks the qdisc whose class has given it."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", "hfsc", "default", "1")
        tc("class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "hfsc", "sc", "rate", "1gbit")
        tc("qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "5:", "prio", "priomap", *["1"] * 16)
        for mark in (CLONE_AWAY, OPEN):
            tc("filter", "add", "dev", device.a, "parent", "5:", "protocol", "all", "handle", str(mark), "fw", "classid", "5:1")
        device.attach(NESTED, where=("parent", "5:1", "handle", "2:"))
        tc("class", "add", "dev", device.a, "parent", "2:", "classid", "2:1", "bpf")
        tc("qdisc", "add", "dev", device.a, "parent", "2:1", "handle", "21:", "netem", "duplicate", "100%")
        send(sender, CLONE_AWAY, 1)
        stats = qdiscs(device)["2:"]["stats"]
        lib.equal((stats["runs"], stats["another"]), (1, 0), "runs, and packets that changed within one")
        all_leave(device, sender, receiver, [1, 1, 1])


def hfsc_asks_a_class_that_drops_all_others(below):
    """Of three packets, of a flow each, the last one, which is shortest, is kept, while the class waits for its upper limit."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", "hfsc", "default", "1")
        tc("class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "hfsc",
           "ls", "rate", "8kbit", "ul", "rate", "8kbit")
        tc("qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "2:", "prio", "priomap", *["0"] * 16)
        below(device)
        for number in range(4):
            sender.send(number, 500 - 100 * number, port=1000 + number)
        lib.equal(lib.numbers(receiver.collect(2)), [0, 3], "packets that leave")
        lib.equal([each["qlen"] for each in lib.qdiscs(device.a)], [0] * len(lib.qdiscs(device.a)), "queued")


def hfsc_asks_fq_codel():
    hfsc_asks_a_class_that_drops_all_others(
        lambda device: tc("qdisc", "add", "dev", device.a, "parent", "2:1", "handle", "3:", "fq_codel", "limit", "1"))


def hfsc_asks_a_policy():
    hfsc_asks_a_class_that_drops_all_others(
        lambda device: device.attach(NEWEST, where=("parent", "2:1", "handle", "3:")))


def hfsc_forgets_at_reset_that_a_class_had_packets():
    """A class with a real-time curve waits for its rate when the link goes down; what comes when it is up again leaves."""
    with lib.link() as device:
        tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", "hfsc", "default", "1")
        tc("class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "hfsc", "rt", "rate", "800bit")
        with lib.Sender(device.a) as sender:
            for number in range(4):
                sender.send(number, 500)
            lib.true(qdiscs(device)["1:"]["qlen"] > 1, "no packet waits")
            lib.run("ip", "link", "set", device.a, "down")
            lib.run("ip", "link", "set", device.a, "up")
        # A socket that was there before has learned that the network is down
        with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            sender.send(9)
            lib.equal(lib.numbers(receiver.collect(1)), [9], "packets that leave")
            lib.equal(qdiscs(device)["1:"]["qlen"], 0, "queued")


def others_leave_when_all_is_dropped(parent, each_class):
    """Three classes have one packet each, which they drop; then it is the turn of a fourth."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf",
           "rate", "80kbit", "burst", "1500", "limit", "100000")
        tc("qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", *parent)
        for minor in range(1, 5):
            if each_class:
                tc("class", "add", "dev", device.a, "parent", "10:", "classid", f"10:{minor}", *each_class)
            if minor < 4:
                device.attach(DROPS, where=("parent", f"10:{minor}", "handle", f"2{minor}:"))

        def give(minor, *packets):
            sender.set(SO_PRIORITY, 0x100000 | minor)
            for number, size in packets:
                lib.true(sender.send(number, size), f"packet {number} was refused")

        give(4, (1, 1450), (2, 1400))
        for minor in range(1, 4):
            give(minor, (10 + minor, 300))
        give(4, (3, 300), (4, 300))
        lib.equal(lib.numbers(receiver.collect(4)), [1, 2, 3, 4], "packets that leave")
        lib.equal([qdiscs(device)[f"2{minor}:"]["drops"] for minor in range(1, 4)], [1, 1, 1], "drops")


def all_is_dropped_below_prio():
    others_leave_when_all_is_dropped(["prio", "bands", "4"], None)


def all_is_dropped_below_drr():
    others_leave_when_all_is_dropped(["drr"], ["drr", "quantum", "1500"])


def all_is_dropped_below_ets():
    others_leave_when_all_is_dropped(["ets", "bands", "4", "quanta", *["1500"] * 4], None)


def all_is_dropped_below_hfsc():
    others_leave_when_all_is_dropped(["hfsc", "default", "4"], ["hfsc", "ls", "rate", "1gbit"])


def an_empty_queue_has_taken_nothing():
    """hfsc looks at a packet as it comes, and its leaf drops it: drr must not wait for it."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", "drr")
        for minor in (1, 2):
            tc("class", "add", "dev", device.a, "parent", "1:", "classid", f"1:{minor}", "drr", "quantum", "1500")
        device.attach(CHILDREN, where=("parent", "1:1", "handle", "2:"))
        tc("class", "add", "dev", device.a, "parent", "2:", "classid", "2:1", "bpf")
        tc("qdisc", "add", "dev", device.a, "parent", "2:1", "handle", "3:", "hfsc", "default", "1")
        tc("class", "add", "dev", device.a, "parent", "3:", "classid", "3:1", "hfsc", "rt", "rate", "1gbit")
        device.attach(DROPS, where=("parent", "3:1", "handle", "4:"))
        sender.set(SO_PRIORITY, 0x10001)
        sender.set(SO_MARK, 0x101)
        sender.send(1)
        lib.equal([qdiscs(device)[handle]["qlen"] for handle in ("1:", "2:", "3:", "4:")], [0] * 4, "queued")
        sender.set(SO_MARK, 0)
        sender.set(SO_PRIORITY, 0x10002)
        for number in (2, 3, 4):
            sender.send(number)
        lib.equal(lib.numbers(receiver.collect(3)), [2, 3, 4], "packets of the other class")


lib.main(the_context_stays_what_it_is,
         a_duplicate_has_no_duplicate,
         what_a_class_gives_when_it_is_asked_is_dropped,
         parents_that_look_while_a_packet_comes_see_none,
         hfsc_asks_fq_codel, hfsc_asks_a_policy, hfsc_forgets_at_reset_that_a_class_had_packets,
         parents_count_what_is_there,
         all_is_dropped_below_prio, all_is_dropped_below_drr, all_is_dropped_below_ets, all_is_dropped_below_hfsc,
         an_empty_queue_has_taken_nothing)
