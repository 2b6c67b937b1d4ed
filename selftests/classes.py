#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Classes, child qdiscs, and filters that exist already: the qdisc's own, another
device's, clsact's."""

import contextlib
import json
import time

import lib
from lib import PROGS, SO_MARK

CLASSES = f"{PROGS}/classes.bpf.o"
TC_ACT_UNSPEC, TC_ACT_OK, TC_ACT_SHOT = -1, 0, 2
ENOENT, ENODEV = 2, 19


@contextlib.contextmanager
def classful(*classes):
    """A wire whose qdisc is 1: and has these classes, with a bfifo each."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        device.attach(CLASSES, where=("root", "handle", "1:"))
        for classid in classes:
            lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", classid, "bpf")
        yield device, sender, receiver


def mark_filter(device, mark, *action, parent="1:"):
    lib.run("tc", "filter", "add", "dev", device, "parent", parent, "protocol", "ip", "prio", "1",
            "handle", str(mark), "fw", *action)


def class_stats(device):
    listed = json.loads(lib.run("tc", "-s", "-j", "class", "show", "dev", device.a))
    return {entry["handle"]: entry["stats"] for entry in listed if entry["class"] == "bpf"}


def look_at(device, ifindex, handle):
    """Whose filters the program is to run."""
    (where,) = [entry["id"] for entry in lib.bpftool("map", "list")
                if entry.get("name") == "classes_where"]
    lib.run("bpftool", "map", "update", "id", str(where), "key", "0", "0", "0", "0", "value",
            *lib.map_bytes(ifindex, 4), *lib.map_bytes(handle, 4))


def seen():
    (map_id,) = lib.maps_named("classes_seen")
    return lib.bpftool("map", "dump", "id", str(map_id))[0]["formatted"]["value"]


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
                f"{lib.PROGS}/clone_redirect.bpf.o", "sec", "tc")
        sender.send(1)
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that left")
        lib.balance(device, sender, receiver)


def filters_of_another_device():
    with classful("1:1") as (device, sender, receiver), lib.link() as other:
        lib.run("tc", "qdisc", "add", "dev", other.a, "root", "handle", "7:", "prio")
        mark_filter(other.a, 41, "classid", "1:1", parent="7:")
        look_at(device, other.ifindex, 0x70000)
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


def actions_of_another_device_cannot_hurt():
    """They see a clone: the packet itself is not edited, and not gone."""
    with classful() as (device, sender, receiver), lib.link() as other:
        lib.run("tc", "qdisc", "add", "dev", other.a, "clsact")
        lib.run("tc", "filter", "add", "dev", other.a, "egress", "protocol", "ip", "prio", "1",
                "matchall", "action", "pedit", "ex", "munge", "ip", "ttl", "set", "1", "action", "pass")
        look_at(device, other.ifindex, 0xFFFFFFF3)
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
         what_a_class_drops_is_no_trouble,
         a_class_that_is_not_there_drops,
         packets_wait_in_a_throttled_child,
         a_full_child_drops,
         a_class_deleted_with_packets_queued,
         wrong_classes_are_refused,
         actions_decide,
         a_redirect_under_the_root_lock_is_refused,
         a_copy_sent_under_the_root_lock_is_refused,
         filters_of_another_device,
         actions_of_another_device_cannot_hurt)
