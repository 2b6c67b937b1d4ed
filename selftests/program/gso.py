#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Packets that are cut into segments behind the qdisc, or by it."""

import contextlib
import re
from errno import EINVAL

import lib
from lib import SO_MARK, compiled

VERDICTS = compiled("verdicts")
MARK_CE, OPEN = 7, 8            # also in verdicts.bpf.c
SEGMENT = compiled("segment")
# As in segment.bpf.c
WHAT = ["KEEP", "DROP_ODD", "DROP_ALL", "PASS", "FORCE", "CUT_A_CLONE", "KEEP_A_CLONE", "TAKE_BACK", "STEAL_ODD", "STEAL_OR_PASS",
        "EMPTY_CLASS", "REPLACE", "OPEN_AND_LOOK",
        "LOOK_BEHIND_THE_LAST", "OPEN"]
DRR = ("drr",)
HFSC = ("hfsc", "default", "1")
PARENTS = ((), ("prio", "bands", "2", "priomap", *["0"] * 16), ("tbf", "rate", "1gbit", "burst", "100kb", "limit", "1mb"))


def every_segment_is_marked():
    """If the transport takes part in ECN; else none is."""
    with lib.wire(VERDICTS) as (device, sender, receiver):
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        sender.set(SO_MARK, OPEN)
        sender.send(0)
        receiver.collect(1)
        sender.set(SO_MARK, MARK_CE)
        for tos in (0xA8, 0xA9, 0xAA, 0xAB):
            lib.equal(sender.send_gso(1000, 5, tos), tos != 0xA8, f"tos {tos:x}: taken")
        arrivals = receiver.collect(15)
        lib.equal([(arrival.size, arrival.tos) for arrival in arrivals], [(1000 + lib.HEADERS, 0xAB)] * 15,
                  "size and TOS of each segment")
        lib.equal(receiver.drain(), [], "more packets")
        stats = device.qdisc()
        lib.equal((stats["packets"], stats["bytes"], stats["drops"], stats["qlen"]),
                  (receiver.packets, receiver.bytes, 1, 0), "sent, dropped and queued")


def policy(device):
    """The qdisc that cuts; one of a class may have the same policy."""
    (found,) = [each for each in lib.instances(device.a) if each["handle"] == "2:"]
    return found


@contextlib.contextmanager
def cut(*parent):
    """A wire whose qdisc, 2:, cuts GSO packets, below this one as root, or as root."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        if parent:
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", *parent)
            if "drr" in parent:
                for classid in ("1:1", "1:2"):
                    lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", classid, "drr")
                sender.set(lib.SO_PRIORITY, 0x10001)
            if "hfsc" in parent:
                lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "hfsc",
                        "rt", "rate", "8kbit", "ls", "rate", "1gbit")
        device.attach(SEGMENT, where=("parent", "1:1", "handle", "2:") if parent else ("root", "handle", "2:"))
        yield device, sender, receiver


def add_class(device, *child):
    """2:1, with this qdisc."""
    lib.run("tc", "class", "add", "dev", device.a, "parent", "2:", "classid", "2:1", "bpf")
    lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "2:1", "handle", "3:", *child)


def send(sender, what, segments=5):
    """Five segments of a GSO packet, as a rule. Whether they were taken."""
    sender.set(SO_MARK, WHAT.index(what))
    return sender.send_gso(1000, segments) if segments > 1 else sender.send(0, 1000 + lib.HEADERS)


def shown(device):
    return lib.qdiscs(device.a)


def queued(device, packets, more=0, empty=()):
    """All qdiscs of the device but the empty ones count so many packets, of 1000 bytes and their
    headers, and so many bytes more."""
    for entry in shown(device):
        count = 0 if entry["handle"] in empty else packets
        lib.equal((entry["qlen"], entry["backlog"]), (count, count * (1000 + lib.HEADERS) + more),
                  f"packets and bytes in {entry['kind']}")


def dropped(device):
    """By the qdisc, and by those above it."""
    return [entry["drops"] for entry in sorted(shown(device), key=lambda entry: entry["kind"] != "bpf")]


def let_go(device, sender, receiver, numbers, what="OPEN"):
    send(sender, what, 1)
    arrivals = receiver.collect(len(numbers))
    lib.equal(lib.numbers(arrivals), list(numbers), "what arrives")
    lib.equal(policy(device)["stats"]["strange"], 0, "segments without the note and the stamp of the packet")
    lib.equal({arrival.size for arrival in arrivals}, {1000 + lib.HEADERS}, "size of what arrives")
    sender.wait_freed()
    lib.equal(receiver.drain(), [], "more packets")
    queued(device, 0)


def other_class_sends(sender, receiver):
    """drr's, whose first one is asked before it if it passes for active."""
    sender.set(lib.SO_PRIORITY, 0x10002)
    sender.send(7)
    lib.equal(lib.numbers(receiver.collect(1)), [7], "packets of the other class")


def each_segment_comes_to_the_policy():
    """In order, with the note and the stamp of the packet."""
    for parent in PARENTS:
        with cut(*parent) as (device, sender, receiver):
            lib.true(send(sender, "KEEP"), "the sender learns of a drop")
            queued(device, 5)
            lib.true(send(sender, "KEEP", 1), "the sender learns of a drop")
            queued(device, 6)
            lib.equal(set(dropped(device)), {0}, "drops")
            let_go(device, sender, receiver, [*range(5), 0])


def of_a_packet_some_segments_are_dropped():
    """Its sender learns of it if all are, and so do the parents."""
    for parent in PARENTS:
        with cut(*parent) as (device, sender, receiver):
            lib.true(send(sender, "DROP_ODD"), "the sender learns of a drop")
            queued(device, 3)
            lib.true(not send(sender, "DROP_ALL"), "the sender does not learn of the drops")
            queued(device, 3)
            lib.equal(dropped(device), [2 + 5, 1][:1 + bool(parent)], "drops")
            let_go(device, sender, receiver, [0, 2, 4])


def some_segments_are_stolen():
    for parent in PARENTS:
        with cut(*parent) as (device, sender, receiver):
            lib.true(send(sender, "STEAL_ODD"), "the sender learns of a drop")
            queued(device, 3)
            lib.equal((set(dropped(device)), policy(device)["stolen"]), ({0}, 2), "drops, and stolen")
            let_go(device, sender, receiver, [0, 2, 4])


def a_segment_that_is_dropped_hides_none_that_was_stolen():
    """The class has no room for the last one."""
    with cut() as (device, sender, _):
        add_class(device, "pfifo", "limit", "1")
        lib.true(send(sender, "PASS", 1), "the sender learns of a drop")
        lib.true(send(sender, "STEAL_OR_PASS", 4), "the sender learns of a drop")
        lib.equal((policy(device)["stolen"], policy(device)["drops"]), (2, 2), "stolen, and dropped")
        queued(device, 1)


def what_is_taken_back_in_the_end_nobody_waits_for():
    """Each second segment is dropped, and the one before it. A parent that was told of a packet
    would ask for it, before it asks other classes."""
    for parent in (*PARENTS, DRR):
        with cut(*parent) as (device, sender, receiver):
            lib.true(not send(sender, "TAKE_BACK", 4), "the sender does not learn of the drops")
            queued(device, 0)
            lib.true(send(sender, "TAKE_BACK", 5), "the sender learns of a drop")
            queued(device, 1)
            lib.equal(dropped(device), [8, 1][:1 + bool(parent)], "drops")
            let_go(device, sender, receiver, [4])
            if parent == DRR:
                send(sender, "TAKE_BACK", 4)
                other_class_sends(sender, receiver)


@contextlib.contextmanager
def one_packet_in_each(parent, *child):
    """Of the map, and of a class with this qdisc."""
    with cut(*parent) as (device, sender, receiver):
        add_class(device, *child)
        sender.set(SO_MARK, WHAT.index("PASS"))
        lib.true(sender.send(1, 1400, port=7), "the class takes a packet")
        lib.true(send(sender, "KEEP", 1), "the map takes a packet")
        lib.equal(policy(device)["qlen"], 2, "packets queued")
        yield device, sender, receiver


def what_is_held_while_a_class_drops_all():
    """The parents are not to believe that nothing is left: the packet is put back."""
    for parent in (*PARENTS, DRR):
        for what in ("OPEN", "OPEN_AND_LOOK"):
            with one_packet_in_each(parent, "bpf", "obj", SEGMENT) as (device, sender, receiver):
                if what == "OPEN":
                    lib.true(not send(sender, "EMPTY_CLASS", 1), "the sender does not learn of the drop")
                    queued(device, 1, empty=("3:",))
                let_go(device, sender, receiver, [0], what)


def what_is_delivered_while_a_class_drops_all():
    """Nor while a packet leaves that a parent has asked for, to look at it. (All but the first packet hfsc
    sends by its link-sharing curve: after that it does not look again whether the class is active.)"""
    for parent in (*PARENTS, DRR, HFSC):
        with one_packet_in_each(parent, "bpf", "obj", SEGMENT) as (device, sender, receiver):
            lib.true(send(sender, "KEEP", 1) and send(sender, "KEEP", 1), "the map takes packets")
            let_go(device, sender, receiver, [0, 0, 0], "LOOK_BEHIND_THE_LAST")


def what_a_class_takes_while_it_drops_all_others():
    """It had one packet, and has one."""
    for parent in (*PARENTS, DRR):
        with one_packet_in_each(parent, "fq_codel", "limit", "1") as (device, sender, receiver):
            lib.true(not send(sender, "REPLACE", 1), "the sender does not learn of the drop")
            queued(device, 1)
            let_go(device, sender, receiver, [0])


def a_class_that_drops_the_last_packet_of_all():
    """The parents do hear of it: they would ask in vain."""
    with cut(*DRR) as (device, sender, receiver):
        add_class(device, "bpf", "obj", SEGMENT)
        lib.true(send(sender, "PASS", 1), "the class takes a packet")
        send(sender, "EMPTY_CLASS", 1)
        queued(device, 0)
        other_class_sends(sender, receiver)


def segments_fill_the_limit():
    with cut() as (device, sender, receiver):
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "limit", "7")
        lib.true(send(sender, "KEEP") and send(sender, "KEEP"), "the sender learns of a drop")
        lib.true(not send(sender, "KEEP"), "the sender does not learn of the drops")
        queued(device, 7)
        lib.equal(dropped(device), [3 + 5], "drops")
        let_go(device, sender, receiver, [*range(5), 0, 1])


def segments_are_passed_to_a_class():
    """Its qdisc is too short for all."""
    for parent in PARENTS:
        with cut(*parent) as (device, sender, receiver):
            add_class(device, "pfifo", "limit", "3")
            lib.true(send(sender, "PASS"), "the sender learns of a drop")
            lib.true(not send(sender, "PASS"), "the sender does not learn of the drops")
            queued(device, 3)
            lib.equal(policy(device)["drops"], 2 + 5, "drops")
            let_go(device, sender, receiver, range(3))


def a_size_table_counts_for_each_segment():
    """Of the link layer's 24 bytes a packet, every segment has its own; the table is the root's."""
    stab = ("stab", "overhead", "24", "linklayer", "ethernet")
    with cut() as (device, sender, receiver):
        device.detach()
        device.attach(SEGMENT, where=("root", "handle", "2:", *stab))
        lib.true(send(sender, "KEEP"), "the sender learns of a drop")
        queued(device, 5, 5 * 24)
        let_go(device, sender, receiver, range(5))
    for parent in PARENTS[1:]:
        with cut(*stab, *parent) as (device, sender, receiver):
            lib.true(send(sender, "DROP_ODD"), "the sender learns of a drop")
            queued(device, 3, 3 * 24)
            let_go(device, sender, receiver, [0, 2, 4])


def a_clone_is_kept_whole():
    """Beside the segments of the packet: one packet of 5000 bytes and its headers."""
    for parent in PARENTS:
        with cut(*parent) as (device, sender, receiver):
            lib.true(send(sender, "KEEP_A_CLONE"), "the sender learns of a drop")
            queued(device, 6, 4000 + 4 * lib.HEADERS)
            let_go(device, sender, receiver, [*range(5), *range(5)])


def what_cannot_be_cut_is_dropped():
    """A packet that is none of several, and one that is not the one that came."""
    for parent in PARENTS:
        with cut(*parent) as (device, sender, receiver), lib.traced("qdisc/qdisc_drop") as lines:
            lib.true(not send(sender, "FORCE", 1), "the sender does not learn of the drop")
            lib.equal(policy(device)["stats"]["error"], -EINVAL, "the policy is told")
            lib.true(send(sender, "KEEP"), "the sender learns of a drop")
            lib.equal(policy(device)["stats"]["error"], 0, "the policy is told")
            lib.true(send(sender, "CUT_A_CLONE"), "the sender learns of a drop of its packet")
            lib.equal(policy(device)["stats"]["error"], -EINVAL, "the policy is told")
            queued(device, 6, 4000 + 4 * lib.HEADERS)
            lib.equal([re.search(r"reason=(\w+)", line).group(1) for line in lines()
                       if f" ifindex={device.ifindex} " in line], ["SEGMENT"] * 2, "reasons of the drops")
            let_go(device, sender, receiver, [*range(5), *range(5)])


lib.main(every_segment_is_marked,
         each_segment_comes_to_the_policy,
         of_a_packet_some_segments_are_dropped,
         some_segments_are_stolen,
         a_segment_that_is_dropped_hides_none_that_was_stolen,
         what_is_taken_back_in_the_end_nobody_waits_for,
         what_is_held_while_a_class_drops_all,
         what_is_delivered_while_a_class_drops_all,
         what_a_class_takes_while_it_drops_all_others,
         a_class_that_drops_the_last_packet_of_all,
         segments_fill_the_limit,
         segments_are_passed_to_a_class,
         a_size_table_counts_for_each_segment,
         a_clone_is_kept_whole,
         what_cannot_be_cut_is_dropped)
