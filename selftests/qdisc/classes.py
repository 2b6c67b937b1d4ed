#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Classes, child qdiscs, and filters that exist already: the qdisc's own, another
device's, clsact's."""

import collections
import contextlib
import json
import os
import re
import subprocess
import time

import lib
import rst
from lib import SO_MARK, SO_PRIORITY, compiled

CLASSES = compiled("classes")
WAIT_CLASS = compiled("wait_class")
DRR = compiled("class_drr")
FORGOTTEN = compiled("class_forgotten")
FIFO = f"{lib.POLICIES}/fifo.bpf.o"
DRR_OPEN = 3                            # also in class_drr.bpf.c
DEPARTURE = compiled("departure")
DELAY = 100 * lib.MS                    # also in wait_class.bpf.c
TC_ACT_UNSPEC, TC_ACT_OK, TC_ACT_SHOT = -1, 0, 2
ENOENT, ENODEV, EINVAL, EOPNOTSUPP = 2, 19, 22, 95
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3        # of clsact


@contextlib.contextmanager
def classful(*classes, options=(), obj=CLASSES):
    """A wire whose qdisc is 1: and has these classes, with a pfifo each."""
    with lib.link(*options) as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        device.attach(obj, where=("root", "handle", "1:"))
        for classid in classes:
            lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", classid, "bpf")
        yield device, sender, receiver


def tc_filter(device, prio, *words, parent="1:", chain=0):
    lib.run("tc", "filter", "add", "dev", device, "parent", parent, "protocol", "ip", "prio", str(prio),
            "chain", str(chain), *words)


def mark_filter(device, mark, *action, parent="1:"):
    tc_filter(device, 1, "handle", str(mark), "fw", *action, parent=parent)


def class_stats(device):
    listed = json.loads(lib.run("tc", "-s", "-j", "class", "show", "dev", device.a))
    return {entry["handle"]: entry["stats"] for entry in listed if entry["class"] == "bpf"}


def look_at(*where):
    """Whose filters the program is to run for packets of priority 0, 1 and so on:
    device and handle."""
    commands = ""
    for which, (ifindex, handle) in enumerate(where):
        words = ("map", "update", "name", "classes_where", "key", *lib.map_bytes(which, 4),
                 "value", *lib.map_bytes(ifindex, 4), *lib.map_bytes(handle, 4))
        commands += " ".join(words) + "\n"
    subprocess.run(["bpftool", "batch", "file", "-"], input=commands, text=True, check=True, capture_output=True)


def seen_all():
    return [entry["formatted"]["value"] for entry in lib.bpftool("map", "dump", "name", "classes_seen")]


def seen():
    """Of priority 0."""
    return seen_all()[0]


def classes_are_those_of_the_instances():
    with lib.link("numtxqueues", "4") as device:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "7:", "bpf_mq", "obj", rst.idiom("Classes and filters"))
        lib.contains(lib.refused("tc", "class", "add", "dev", device.a, "parent", "7:", "classid", "7:10", "bpf"),
                     "Add classes and filters to each instance, 'parent HANDLE:' of its qdisc")


def each_tx_queue_has_classes_and_filters():
    """By the commands of the document, but with a filter that is easier to send for. Neither fewer
    queues for a while nor another policy takes them away."""
    title = "Classes and filters"
    obj = rst.idiom(title)
    _, rest = rst.of_title("sch_bpf_idioms", title).split("bpf_mq", 1)
    commands = "\n".join(re.findall(r"^\t(.*)$", rest, re.M)).replace("# ", "")

    with lib.link("numtxqueues", "4") as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        for old, new in (("eth0", device.a), ("mine.bpf.o", obj), ("flower ip_proto udp dst_port 53", "handle 11 fw")):
            lib.true(old in commands, f"{old} is not in the document's commands")
            commands = commands.replace(old, new)
        lib.run("sh", "-ec", commands)
        queues = [each["handle"] for each in lib.instances(device.a)]
        lib.equal(len(set(queues)), 4, "handles")
        wanted = collections.Counter()
        for when in "at first", "with fewer queues", "with all again", "with the same policy anew":
            if when.startswith("with fewer"):
                lib.run("ethtool", "-L", device.a, "tx", "1")
            elif when.startswith("with all"):
                lib.run("ethtool", "-L", device.a, "tx", "4")
            elif when.startswith("with the same"):
                lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf_mq", "obj", obj)
            for port in range(1000, 1064):
                sender.set(SO_MARK, 10 + port % 3)
                lib.true(sender.send(port, port=port), f"{when}: port {port} was refused")
                wanted[1 if port % 3 == 1 else 2] += 1
            lib.equal(sorted(lib.numbers(receiver.collect(64))), list(range(1000, 1064)), f"{when}: arrived")
        had, used = collections.Counter(), set()
        for classid, stats in class_stats(device).items():
            queue, minor = classid.split(":")
            had[int(minor)] += stats["packets"]
            used.update([queue + ":"] if stats["packets"] else [])
        lib.equal((had, used), (wanted, set(queues)), "packets of the classes, queues with packets")
        lib.equal([each["qlen"] for each in lib.instances(device.a)], [0] * 4, "queued")
        device.detach()
        lib.equal(class_stats(device), {}, "classes afterwards")


def what_a_class_drops_is_no_trouble():
    """A policy is not stuck because it passes all to a class whose qdisc drops all."""
    with classful("1:1") as (device, sender, _):
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "blackhole")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "handle", "1:", "bpf", "patience", "50ms")
        mark_filter(device.a, 11, "classid", "1:1")
        sender.set(SO_MARK, 11)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            sender.send(1)
        stats = device.qdisc()
        lib.equal((stats["stuck"], stats["drops"]), (0, sender.packets), "found stuck, dropped")


def filters_choose_the_class():
    with classful("1:1", "1:2") as (device, sender, receiver):
        mark_filter(device.a, 11, "classid", "1:1")
        mark_filter(device.a, 12, "classid", "1:2")
        for mark in (11, 12, 13, 12):
            sender.set(SO_MARK, mark)
            sender.send(mark)
        lib.equal(sorted(lib.numbers(receiver.collect(4))), [11, 12, 12, 13], "packets that left")
        stats = class_stats(device)
        lib.equal((stats["1:1"]["packets"], stats["1:2"]["packets"]), (1, 2), "packets of the classes")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")


def rounds_over_classes_by_the_lengths_of_their_first_packets():
    """What has left at any time is in the proportion of the quanta, to a packet and a quantum."""
    with classful("1:1", "1:2", obj=DRR) as (device, sender, receiver):
        for number in range(40):
            sender.set(SO_MARK, 1)
            sender.send(1, 1000)
            sender.set(SO_MARK, 2)
            for _ in range(20):
                sender.send(2, 100)
        seen = lib.policy_stats(max(lib.maps_named("class_drr_seen")))
        lib.equal(seen["len"], [40, 800, -ENOENT], "packets of the classes, of one that is not there")
        sender.set(SO_MARK, DRR_OPEN)
        sender.send(0)
        left = [0, 0]
        for arrival in receiver.collect(840):
            left[arrival.number - 1] += arrival.size
            if max(left) < 40000:
                lib.true(abs(2 * left[0] - left[1]) <= 2 * 2000 + 1000, f"bytes that have left: {left}")
        lib.equal(left, [40000, 80000], "bytes in the end")
        seen = lib.policy_stats(max(lib.maps_named("class_drr_seen")))
        lib.equal((seen["head"], seen["held"]), ([1000, -ENOENT, -ENOENT], 0), "first packets in the last run")


def the_first_packet_of_a_class_that_holds_it_back():
    """It is not known before that time, and waiting is no trouble. Also if the qdisc's own peek
    shows it, as that of etf does."""
    for clock, slack, below in (
            (time.CLOCK_MONOTONIC, lib.MS, ("fq",)),
            (time.CLOCK_TAI, DELAY, ("etf", "clockid", "CLOCK_TAI", "delta", str(DELAY), "skip_sock_check"))):
        with classful("1:1", "1:2", obj=DRR) as (device, _, receiver), lib.Sender(device.a, clock) as sender:
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "patience", "50ms")
            lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", *below)
            sender.set(SO_MARK, 1)
            start = time.monotonic_ns()
            sender.send(1, 500, when=time.clock_gettime_ns(clock) + 3 * DELAY)
            sender.set(SO_MARK, DRR_OPEN)
            sender.send(0)
            (arrival,) = receiver.collect(1)
            seen = lib.policy_stats(max(lib.maps_named("class_drr_seen")))
            early = start + 3 * DELAY - slack - arrival.when
            lib.true(early <= 0 and seen["held"], f"{below[0]}: left {early / 1e6} ms too early, {seen}")
            lib.equal((device.qdisc()["stuck"], device.qdisc()["qlen"]), (0, 0), f"{below[0]}: stuck, and queued")


def what_a_class_drops_late_is_not_queued():
    """By etf, which drops a packet when its time has passed."""
    with classful("1:1") as (device, _, _), lib.Sender(device.a, time.CLOCK_TAI) as sender:
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "patience", "50ms")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:",
                "etf", "clockid", "CLOCK_TAI", "delta", "0", "skip_sock_check")
        mark_filter(device.a, 11, "classid", "1:1")
        sender.set(SO_MARK, 11)
        lib.true(sender.send(1, when=time.clock_gettime_ns(time.CLOCK_TAI) + 2 * DELAY), "refused")
        lib.wait_until(lambda: device.qdisc()["qlen"] == 0, "the packet is not counted any more")
        sender.wait_freed()
        stats = device.qdisc()
        lib.equal((stats["packets"], stats["backlog"], stats["stuck"]), (0, 0, 0), "sent, queued, found stuck")


def a_change_does_not_forget_the_packets_of_classes():
    with classful("1:1", "1:2") as (device, sender, receiver):
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "patience", "50ms")
        mark_filter(device.a, 12, "classid", "1:2")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:2", "handle", "20:", "tbf",
                "rate", "800bit", "burst", "1000", "limit", "100000")
        sender.set(SO_MARK, 12)
        for number in range(12):
            sender.send(number, 500)
        change = "tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj"
        lib.contains(lib.refused(*change, FIFO), "A class has packets the new dequeue can't take; flush drops them")
        lib.run(*change, CLASSES)
        before = device.qdisc()
        lib.true(before["qlen"] >= 9, f"{before['qlen']} packets are queued in the child")
        lib.run(*change, FIFO, "flush")
        stats = device.qdisc()
        lib.equal((stats["qlen"], stats["backlog"], stats["drops"] + stats["packets"]), (0, 0, 12), "queued, dropped or sent")
        lib.equal(lib.numbers(receiver.collect(stats["packets"])), list(range(stats["packets"])), "sent before")
        sender.set(SO_MARK, 0)
        sender.send(12)
        lib.equal(lib.numbers(receiver.collect(1)), [12], "what leaves")
        sender.wait_freed()
        lib.equal((device.qdisc()["qlen"], device.qdisc()["stuck"]), (0, 0), "queued, found stuck")


def what_comes_does_not_overtake_the_classes_of_a_stuck_policy():
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        tbf = "dev", device.a, "root", "handle", "1:", "tbf", "burst", "1000", "limit", "100000", "rate"
        lib.run("tc", "qdisc", "add", *tbf, "8kbit")
        device.attach(FORGOTTEN, "patience", "50ms", where=("parent", "1:1", "handle", "2:"))
        lib.run("tc", "class", "add", "dev", device.a, "parent", "2:", "classid", "2:1", "bpf")
        sender.set(SO_MARK, 1)
        for number in range(6):
            sender.send(number, 500)
        lib.wait_until(lambda: device.below()["stuck"] == 1, "found stuck")
        sender.set(SO_MARK, 0)
        for number in range(6, 12):
            lib.true(sender.send(number, 500), "refused")
        lib.run("tc", "qdisc", "change", *tbf, "8mbit")
        lib.equal(lib.numbers(receiver.collect(12)), list(range(12)), "order")
        lib.equal((device.below()["qlen"], device.below()["backlog"]), (0, 0), "queued")


def a_packet_that_the_program_leaves_does_not_wait_for_a_class_that_holds_back():
    """It is too long for the deficit of one run, while the other class waits for a time."""
    with classful("1:1", "1:2", obj=DRR) as (device, sender, receiver):
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", "fq")
        sender.set(SO_MARK, 1)
        when = time.monotonic_ns() + 5 * lib.NSEC
        sender.send(1, 500, when=when)
        sender.set(SO_MARK, 2)
        lib.true(sender.send_gso(1000, 20), "the long packet is taken")
        sender.set(SO_MARK, DRR_OPEN)
        sender.send(0)
        last = receiver.collect(20)[-1]
        lib.true(last.when < when, f"it left {(last.when - when) / 1e6} ms after the other class's time")
        lib.equal((device.qdisc()["stuck"], device.qdisc()["qlen"]), (0, 1), "stuck, and queued")


def a_qdisc_below_sends_at_the_time_of_departure():
    """Whatever the stamp was before, and its clock; with none, at once."""
    for clock in (time.CLOCK_MONOTONIC, time.CLOCK_TAI):
        with classful("1:1", obj=DEPARTURE) as (device, _, receiver), lib.Sender(device.a, clock) as sender:
            lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", "fq")
            for when in (0, time.clock_gettime_ns(clock) + 9 * lib.NSEC):
                for delay in (300, 100, 0):
                    start = time.monotonic_ns()
                    sender.set(SO_MARK, delay)
                    lib.true(sender.send(delay, when=when), "another stamp is read than was written")
                    (arrival,) = receiver.collect(1)
                    lib.true(delay * lib.MS <= arrival.when - start <= delay * lib.MS + lib.LATE,
                             f"{delay} ms: left after {(arrival.when - start) / 1e6} ms")


def a_class_that_is_not_there_drops():
    with classful("1:1") as (device, sender, receiver):
        mark_filter(device.a, 11, "classid", "1:7")
        sender.set(SO_MARK, 11)
        lib.true(not sender.send(1), "the sender learns of the drop")
        lib.balance(device, sender, receiver)


def packets_wait_in_a_throttled_child():
    with classful("1:1", "1:2") as (device, sender, receiver):
        mark_filter(device.a, 12, "classid", "1:2")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:2", "handle", "20:", "tbf",
                "rate", "8kbit", "burst", "1000", "limit", "100000")
        sender.set(SO_MARK, 12)
        for number in range(12):
            sender.send(number, 500)
        lib.true(device.qdisc()["qlen"] >= 5, "packets are queued in the child")
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:2", "handle", "20:", "tbf",
                "rate", "80kbit", "burst", "1000", "limit", "100000")
        lib.equal(lib.numbers(receiver.collect(12)), list(range(12)), "order")
        stats = lib.balance(device, sender, receiver)
        lib.equal((stats["qlen"], stats["backlog"], stats["stuck"]), (0, 0, 0), "queued")


def a_full_child_drops():
    with classful("1:1") as (device, sender, receiver):
        mark_filter(device.a, 11, "classid", "1:1")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", "tbf",
                "rate", "800bit", "burst", "1000", "limit", "1200")
        sender.set(SO_MARK, 11)
        for number in range(8):
            sender.send(number, 500)
        lib.true(sender.refused_packets >= 3, "the child's drops reach the sender")
        lib.true(device.qdisc()["qlen"] > 0, "packets stand in the child")
        lib.balance(device, sender, receiver)


def a_class_deleted_with_packets_queued():
    with classful("1:1", "1:2") as (device, sender, receiver):
        mark_filter(device.a, 11, "classid", "1:1")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", "tbf",
                "rate", "8kbit", "burst", "1000", "limit", "100000")
        sender.set(SO_MARK, 11)
        for number in range(20):
            sender.send(number, 500)
        lib.contains(lib.refused("tc", "class", "del", "dev", device.a, "classid", "1:1"), "filter")
        lib.run("tc", "filter", "del", "dev", device.a, "parent", "1:")
        lib.run("tc", "class", "del", "dev", device.a, "classid", "1:1")
        stats = device.qdisc()
        lib.equal((stats["qlen"], stats["backlog"]), (0, 0), "queued")
        sender.wait_freed()


def wrong_classes_are_refused():
    with classful() as (device, _, _):
        add = ("tc", "class", "add", "dev", device.a, "parent", "1:", "classid")
        lib.refused(*add, "2:1", "bpf")
        lib.run(*add, "1:1", "bpf")
        lib.refused(*add, "1:1", "bpf")
        below = ("tc", "class", "add", "dev", device.a, "parent", "1:1", "classid", "1:2", "bpf")
        lib.contains(lib.refused(*below), "A class of the bpf qdisc has no classes below it")
        lib.equal(list(class_stats(device)), ["1:1"], "classes")


def a_throttle_holds_while_a_class_waits():
    """The policy asks for a time, and the class has another one, much later."""
    with classful("1:1", "1:2", obj=WAIT_CLASS) as (device, sender, receiver):
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "netem", "delay", "10s")
        begin = time.monotonic_ns()
        for mark in (1, 2):
            sender.set(SO_MARK, mark)
            sender.send(mark)
        (arrival,) = receiver.collect(1)
        lib.equal(arrival.number, 2, "packet that left")
        after = arrival.when - begin
        lib.true(DELAY <= after < DELAY + lib.LATE, f"it left after {after / lib.MS:.1f} ms")
        lib.equal(device.qdisc()["stuck"], 0, "found stuck")


def actions_decide():
    with classful("1:1") as (device, sender, receiver):
        mark_filter(device.a, 21, "action", "drop")
        mark_filter(device.a, 22, "action", "gact", "trap")
        sender.set(SO_MARK, 21)
        lib.true(not sender.send(1), "a packet shot")
        sender.set(SO_MARK, 22)
        lib.true(sender.send(2), "a packet trapped is no drop")
        lib.equal(device.qdisc()["stolen"], 1, "packets stolen")
        sender.set(SO_MARK, 0)
        sender.send(3)
        lib.equal(lib.numbers(receiver.collect(1)), [3], "packets that left")
        lib.balance(device, sender, receiver, stolen=(1, 100))


def a_program_steals():
    with classful() as (device, sender, receiver):
        lib.run("tc", "filter", "add", "dev", device.a, "parent", "1:", "bpf", "da", "obj",
                lib.compiled("clone_redirect"), "sec", "classifier")
        for number in range(3):
            lib.true(sender.send(number), "a packet stolen is no drop")
        lib.equal(device.qdisc()["stolen"], 3, "packets stolen")
        sender.wait_freed()
        lib.equal(lib.balance(device, sender, receiver, stolen=(3, 300))["qlen"], 0, "queued")


def what_actions_edit_is_taken_over():
    """Not from filters of another device."""
    def edited(sender):
        sender.send(1)
        entry = seen()
        return entry["mark"], entry["priority"], entry["queue"]

    with classful("1:1", options=("numtxqueues", "4")) as (device, sender, receiver), \
         lib.link("numtxqueues", "4") as other:
        sender.set(SO_MARK, 11)
        before = edited(sender)
        lib.equal(before[:2], (11, 0), "mark and priority")
        wanted = 77, 6, (before[2] + 1) % 4
        edit = ("classid", "1:1", "action", "skbedit", "mark", "77", "priority", "6",
                "queue_mapping", str(wanted[2]), "pass")
        lib.run("tc", "qdisc", "add", "dev", other.a, "root", "handle", "7:", "prio")
        mark_filter(other.a, 11, *edit, parent="7:")
        look_at((other.ifindex, 0x70000))
        lib.equal(edited(sender), before, "mark, priority and queue, by another device's filter")
        look_at((0, 0))
        mark_filter(device.a, 11, *edit)
        lib.equal(edited(sender), wanted, "mark, priority and queue")
        lib.equal(class_stats(device)["1:1"]["packets"], 2, "packets of the class")
        receiver.collect(3)
        lib.balance(device, sender, receiver)


def filters_do_not_leave_the_devices_tx_queues():
    """Whoever asks for one that is not there, the packet keeps its own."""
    def queue_of(sender, receiver, number):
        sender.send(number)
        lib.equal(lib.numbers(receiver.collect(1)), [number], "packet that left")
        return seen()["queue"]

    with classful(options=("numtxqueues", "4")) as (device, sender, receiver):
        before = queue_of(sender, receiver, 1)
        for number, words in enumerate((("matchall", "action", "skbedit", "queue_mapping", "100", "continue"),
                                        ("bpf", "da", "obj", compiled("clone_redirect"), "sec", "tc/queue")), 2):
            lib.run("tc", "filter", "add", "dev", device.a, "parent", "1:", *words)
            lib.equal(queue_of(sender, receiver, number), before, f"tx queue, with {words}")
        lib.balance(device, sender, receiver)


def references(sock):
    """To a packet socket."""
    with open("/proc/net/packet", encoding="ascii") as sockets:
        (found,) = [line.split() for line in sockets if line.split()[-1] == str(os.fstat(sock.fileno()).st_ino)]
    return int(found[1])


def filters_see_the_socket():
    with classful() as (device, sender, receiver):
        lib.run("tc", "filter", "add", "dev", device.a, "parent", "1:", "bpf", "da", "obj",
                compiled("clone_redirect"), "sec", "tc/socket")
        before = references(sender.sock)
        lib.true(not sender.send(1), "a packet is dropped for its socket")
        sender.wait_freed()
        lib.equal(references(sender.sock), before, "references to the socket")
        lib.balance(device, sender, receiver)


def packets_are_cloned_for_filters_alone():
    """Where there are none, no clone is made."""
    def clones(lines, sender, receiver):
        sender.send(1)
        receiver.collect(1)
        return sum(" => bpf_skb_tc_classify" in line for line in lines())

    lib.tracing("kprobe_events", "p:selftests/clone skb_clone")
    lib.tracing("options/stacktrace", "1")
    try:
        with classful() as (device, sender, receiver), lib.traced("selftests/clone") as lines:
            lib.equal(clones(lines, sender, receiver), 0, "clones without filters")
            mark_filter(device.a, 11, "classid", "1:1")
            lib.equal(clones(lines, sender, receiver), 1, "clones with a filter")
            lib.run("tc", "filter", "del", "dev", device.a, "parent", "1:")
            lib.equal(clones(lines, sender, receiver), 1, "clones after it has gone")
    finally:
        lib.tracing("options/stacktrace", "0")
        lib.tracing("kprobe_events", "")


def u32_chooses_the_class():
    with classful("1:1", "1:2") as (device, sender, receiver):
        for minor in (1, 2):
            tc_filter(device.a, 1, "u32", "match", "ip", "sport", f"{1000 + minor}", "0xffff", "flowid", f"1:{minor}")
        for port in (1001, 1002, 1003, 1002):
            sender.send(port, port=port)
        lib.equal(sorted(lib.numbers(receiver.collect(4))), [1001, 1002, 1002, 1003], "packets that left")
        stats = class_stats(device)
        lib.equal((stats["1:1"]["packets"], stats["1:2"]["packets"]), (1, 2), "packets of the classes")
        lib.balance(device, sender, receiver)


def chains_choose_the_class():
    """One leads to the next, or round and round: that ends too."""
    with classful("1:1", "1:2") as (device, sender, receiver):
        mark_filter(device.a, 11, "action", "goto", "chain", "5")
        mark_filter(device.a, 12, "action", "goto", "chain", "7")
        tc_filter(device.a, 1, "u32", "match", "ip", "sport", "1001", "0xffff", "flowid", "1:1", chain=5)
        tc_filter(device.a, 2, "matchall", "action", "goto", "chain", "6", chain=5)
        tc_filter(device.a, 1, "matchall", "classid", "1:2", chain=6)
        tc_filter(device.a, 1, "matchall", "action", "goto", "chain", "7", chain=7)
        for mark, port, verdict, classid in ((11, 1001, TC_ACT_OK, 0x10001), (11, 1002, TC_ACT_OK, 0x10002),
                                             (13, 1001, TC_ACT_UNSPEC, 0), (12, 1001, TC_ACT_SHOT, 0)):
            sender.set(SO_MARK, mark)
            lib.equal(sender.send(mark, port=port), verdict != TC_ACT_SHOT, f"mark {mark}: taken")
            entry = seen()
            lib.equal((entry["verdict"], entry["classid"]), (verdict, classid), f"mark {mark}: verdict and class")
        receiver.collect(3)
        stats = class_stats(device)
        lib.equal((stats["1:1"]["packets"], stats["1:2"]["packets"]), (1, 1), "packets of the classes")
        lib.balance(device, sender, receiver)


def a_redirect_under_the_root_lock_is_refused():
    """Sent from there, it would wait for the lock that its sender holds."""
    with classful() as (device, sender, receiver):
        vlan = f"{device.a}.5"
        lib.run("ip", "link", "add", "link", device.a, "name", vlan, "type", "vlan", "id", "5")
        lib.run("ip", "link", "set", vlan, "up")
        mark_filter(device.a, 31, "action", "mirred", "egress", "redirect", "dev", vlan)
        sender.set(SO_MARK, 31)
        lib.true(not sender.send(1), "the packet is shot")
        lib.equal(seen()["verdict"], TC_ACT_SHOT, "verdict")
        lib.balance(device, sender, receiver)


def a_copy_sent_under_the_root_lock_is_refused():
    """The same, by a program among the filters."""
    with classful() as (device, sender, receiver):
        lib.run("tc", "filter", "add", "dev", device.a, "parent", "1:", "bpf", "da", "obj",
                lib.compiled("clone_redirect"), "sec", "tc")
        sender.send(1)
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that left")
        lib.balance(device, sender, receiver)


def filters_of_another_device():
    with classful("1:1") as (device, sender, receiver), lib.link() as other:
        lib.run("tc", "qdisc", "add", "dev", other.a, "root", "handle", "7:", "prio")
        mark_filter(other.a, 41, "classid", "1:1", parent="7:")
        look_at((other.ifindex, 0x70000))
        sender.set(SO_MARK, 41)
        sender.send(1)
        sender.set(SO_MARK, 42)
        sender.send(2)
        lib.equal(lib.numbers(receiver.collect(2)), [1, 2], "packets that left")
        lib.equal(seen()["verdict"], TC_ACT_UNSPEC, "verdict without a match")
        lib.equal(class_stats(device)["1:1"]["packets"], 1, "packets of the class")
        lib.balance(device, sender, receiver)
        lib.run("tc", "qdisc", "del", "dev", other.a, "root")
        sender.send(3)
        receiver.collect(1)
        lib.equal(seen()["verdict"], -ENOENT, "verdict without the qdisc")
        other.delete()
        sender.send(4)
        receiver.collect(1)
        lib.equal(seen()["verdict"], -ENODEV, "verdict without the device")


def filters_of_a_shared_block():
    """At ingress of two devices, whose egress has no filter."""
    with classful("1:1") as (device, sender, receiver), lib.link() as one, lib.link() as two:
        for other in (one, two):
            lib.run("tc", "qdisc", "add", "dev", other.a, "ingress_block", "22", "clsact")
        lib.run("tc", "filter", "add", "block", "22", "protocol", "ip", "prio", "1", "handle", "41", "fw",
                "classid", "1:1")
        sender.set(SO_MARK, 41)

        look_at(*((other.ifindex, handle) for other in (one, two) for handle in (INGRESS, EGRESS)))

        def verdicts():
            """In the ingress and egress of one, in those of the other."""
            for which in range(4):
                sender.set(SO_PRIORITY, which)
                sender.send(which)
            receiver.collect(4)
            return [entry["verdict"] for entry in seen_all()[:4]]
        match, no_match, no_qdisc = TC_ACT_OK, TC_ACT_UNSPEC, -ENOENT
        lib.equal(verdicts(), [match, no_match, match, no_match], "verdicts")
        lib.run("tc", "qdisc", "del", "dev", one.a, "clsact")
        lib.equal(verdicts(), [no_qdisc, no_qdisc, match, no_match], "verdicts without one's qdisc")
        lib.run("tc", "filter", "del", "block", "22")
        lib.equal(verdicts(), [no_qdisc, no_qdisc, no_match, no_match], "verdicts without the filter")
        lib.equal(class_stats(device)["1:1"]["packets"], 3, "packets of the class")
        lib.balance(device, sender, receiver)


def filters_that_are_not_there():
    """The program learns why, and keeps the packet."""
    with classful("1:1", "1:2") as (device, sender, receiver), lib.link("numtxqueues", "4") as other:
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", "pfifo")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:2", "handle", "20:", "prio")
        lib.run("tc", "qdisc", "add", "dev", other.a, "root", "handle", "7:", "mq")
        own = device.ifindex
        cases = ((0, 0, TC_ACT_UNSPEC), (own, 0x10000, TC_ACT_UNSPEC), (0, 0x200000, TC_ACT_UNSPEC),
                 (0, 0x100000, -EOPNOTSUPP), (other.ifindex, 0x70000, -EOPNOTSUPP),
                 (0, 0x990000, -ENOENT), (own, EGRESS, -ENOENT), (own, INGRESS, -ENOENT),
                 (own, 0xFFFFFFF1, -EINVAL), (own, 0xFFFF0000, -EINVAL),
                 (0x7FFFFFFF, 0, -ENODEV), (0xFFFFFFFF, EGRESS, -ENODEV))
        look_at(*(case[:2] for case in cases))
        for which in range(len(cases)):
            sender.set(SO_PRIORITY, which)
            lib.true(sender.send(which), "the packet is taken")
        for case, entry in zip(cases, seen_all()):
            lib.equal((entry["packets"], entry["verdict"]), (1, case[2]),
                      f"packets and verdict, device {case[0]} handle {case[1]:x}")
        lib.equal(lib.numbers(receiver.collect(len(cases))), list(range(len(cases))), "packets")
        lib.balance(device, sender, receiver)


def filters_that_go_while_packets_are_sent():
    """First the filter, then its qdisc, then its device: each is noticed, and no packet lost."""
    with classful("1:1") as (device, sender, receiver), lib.link() as other:
        look_at((other.ifindex, 0x70000))
        # fw is found before its first filter is in it, and then takes a mark for the class itself:
        # not this one, which names another qdisc's.
        mark = 0x50029
        sender.set(SO_MARK, mark)

        def becomes(verdict, what):
            lib.wait_until(lambda: seen()["verdict"] == verdict, f"verdict {verdict} {what}")

        def add():
            lib.run("tc", "qdisc", "replace", "dev", other.a, "root", "handle", "7:", "prio")
            mark_filter(other.a, mark, "classid", "1:1", parent="7:")
            becomes(TC_ACT_OK, "with the filter")
        with lib.traffic(sender, receiver, sender.send):
            add()
            lib.run("tc", "filter", "del", "dev", other.a, "parent", "7:")
            becomes(TC_ACT_UNSPEC, "without the filter")
            add()
            lib.run("tc", "qdisc", "del", "dev", other.a, "root")
            becomes(-ENOENT, "without the qdisc")
            add()
            other.delete()
            becomes(-ENODEV, "without the device")
        receiver.collect(sender.packets - receiver.packets)
        stats = lib.balance(device, sender, receiver)
        lib.equal((stats["qlen"], stats["drops"], stats["stuck"]), (0, 0, 0), "queued, dropped, found stuck")
        lib.true(0 < class_stats(device)["1:1"]["packets"] < sender.packets, "the class got all packets, or none")


def actions_of_another_device_cannot_hurt():
    """They see a clone: the packet itself is not edited, and not gone."""
    with classful() as (device, sender, receiver), lib.link() as other:
        lib.run("tc", "qdisc", "add", "dev", other.a, "clsact")
        lib.run("tc", "filter", "add", "dev", other.a, "egress", "protocol", "ip", "prio", "1",
                "matchall", "action", "pedit", "ex", "munge", "ip", "ttl", "set", "1", "action", "pass")
        look_at((other.ifindex, EGRESS))
        sender.send(5)
        lib.equal(seen()["verdict"], TC_ACT_OK, "verdict")
        lib.equal(device.qdisc()["drops"], 1, "dropped: class 0 does not exist")
        lib.run("tc", "filter", "del", "dev", other.a, "egress")
        lib.run("tc", "filter", "add", "dev", other.a, "egress", "protocol", "ip", "prio", "1",
                "matchall", "action", "pedit", "ex", "munge", "ip", "ttl", "set", "1",
                "pipe", "action", "continue")
        sender.send(6)
        receiver.sock.settimeout(lib.TIMEOUT)
        data = receiver.sock.recv(2048)
        lib.equal(data[14 + 8], 64, "ttl of the packet that left")


lib.main(filters_choose_the_class,
         classes_are_those_of_the_instances,
         each_tx_queue_has_classes_and_filters,
         what_a_class_drops_is_no_trouble,
         rounds_over_classes_by_the_lengths_of_their_first_packets,
         the_first_packet_of_a_class_that_holds_it_back,
         what_a_class_drops_late_is_not_queued,
         a_change_does_not_forget_the_packets_of_classes,
         what_comes_does_not_overtake_the_classes_of_a_stuck_policy,
         a_packet_that_the_program_leaves_does_not_wait_for_a_class_that_holds_back,
         a_qdisc_below_sends_at_the_time_of_departure,
         a_class_that_is_not_there_drops,
         packets_wait_in_a_throttled_child,
         a_full_child_drops,
         a_class_deleted_with_packets_queued,
         wrong_classes_are_refused,
         a_throttle_holds_while_a_class_waits,
         actions_decide,
         a_program_steals,
         what_actions_edit_is_taken_over,
         filters_do_not_leave_the_devices_tx_queues,
         filters_see_the_socket,
         packets_are_cloned_for_filters_alone,
         u32_chooses_the_class,
         chains_choose_the_class,
         a_redirect_under_the_root_lock_is_refused,
         a_copy_sent_under_the_root_lock_is_refused,
         filters_of_another_device,
         filters_of_a_shared_block,
         filters_that_are_not_there,
         filters_that_go_while_packets_are_sent,
         actions_of_another_device_cannot_hurt)
