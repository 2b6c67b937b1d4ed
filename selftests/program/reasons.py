#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The tracepoints skb:kfree_skb and qdisc:qdisc_drop tell each drop, and why the
policy, or the kernel for it, has dropped the packet."""

import contextlib
import os
import re

import lib
from lib import SO_MARK, compiled

REASONS = compiled("reasons")
SHARED = compiled("shared")
COSTLY = compiled("costly")
COSTLY_ENTRIES = 4096                                                       # also in costly.bpf.c
LATE, NOWHERE, TWICE, STOLEN, CUT = 0x100, 0x200, 0x400, 0x800, 0x1000     # also in reasons.bpf.c
# of enum qdisc_drop_reason
GENERIC, OVERLIMIT, CONGESTED = 1, 2, 3


def drops(lines, device, at_once=False):
    """Reasons of the drops that the qdisc's tracepoint tells; that of the packet tells
    as many. at_once: the root has no place for packets that are to be freed."""
    told = [re.search(r"reason=(\w+)", line).group(1) for line in lines if "qdisc_drop:" in line
            and f" ifindex={device.ifindex} " in line]
    freed = [line for line in lines if "kfree_skb:" in line and "QDISC_DROP" in line]
    lib.equal(len(freed), len(told), f"packets freed with the reason QDISC_DROP, against {told}")
    lib.equal(any(line.startswith(" =>") and "sch_bpf_" in line for line in lines), at_once,
              "packets are freed with the qdisc's lock held")
    return told


def send(sender, *marks):
    for mark in marks:
        sender.set(SO_MARK, mark)
        sender.send(mark)


@contextlib.contextmanager
def callers():
    """Who calls a tracepoint, after its line"""
    lib.tracing("options/stacktrace", "1")
    try:
        yield
    finally:
        lib.tracing("options/stacktrace", "0")


def each_drop_has_its_reason():
    with callers(), lib.wire(REASONS) as (device, sender, receiver), \
         lib.traced("qdisc/qdisc_drop", "skb/kfree_skb") as lines:
        send(sender, GENERIC, OVERLIMIT, CONGESTED, 99)
        send(sender, LATE + CONGESTED, 0, 0, 0)
        lib.wait_until(lambda: device.qdisc()["drops"] == 6, "six drops")
        sender.sock.close()
        lib.true(any("__tcf_kfree_skb_list" in line for line in lines()), "no caller is shown")
        lib.equal(drops(lines(), device),
                  ["GENERIC", "OVERLIMIT", "CONGESTED", "GENERIC", "CONGESTED", "OVERLIMIT"], "reasons")
        lib.equal(device.qdisc()["qlen"], 2, "queued")


def drops_of_the_kernel_have_theirs():
    """For a class that is not there, and for what is delivered after another packet."""
    with lib.wire(REASONS) as (device, sender, receiver), lib.traced("qdisc/qdisc_drop", "skb/kfree_skb") as lines:
        send(sender, NOWHERE, TWICE)
        lib.wait_until(lambda: device.qdisc()["drops"] == 2, "two drops")
        lib.equal(lib.numbers(receiver.collect(1)), [TWICE], "the clone")
        sender.sock.close()
        lib.equal(drops(lines(), device), ["NO_CLASS", "DELIVERED_TWICE"], "reasons")


def a_drop_in_dequeue_below_another_qdisc_has_its_reason():
    with callers(), lib.link() as device, lib.Sender(device.a) as sender, \
         lib.traced("qdisc/qdisc_drop", "skb/kfree_skb") as lines:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "prio")
        device.attach(REASONS, where=("parent", "1:2"))
        send(sender, LATE + CONGESTED)
        lib.wait_until(lambda: lib.instances(device.a)[0]["drops"] == 1, "a drop")
        sender.sock.close()
        lib.equal(drops(lines(), device, at_once=True), ["CONGESTED"], "reasons")


def what_is_stolen_is_no_drop():
    with lib.wire(REASONS) as (device, sender, _), lib.traced("qdisc/qdisc_drop", "skb/kfree_skb") as lines:
        send(sender, STOLEN)
        lib.wait_until(lambda: device.qdisc()["stolen"] == 1, "a packet is stolen")
        sender.sock.close()
        lib.equal(drops(lines(), device), [], "reasons")
        lib.equal(device.qdisc()["drops"], 0, "drops")


def what_is_cut_is_no_drop():
    """But each segment, which is dropped here, is one."""
    with lib.wire(REASONS) as (device, sender, _), lib.traced("qdisc/qdisc_drop", "skb/kfree_skb") as lines:
        sender.set(SO_MARK, CUT)
        sender.send_gso(1000, 3)
        lib.wait_until(lambda: device.qdisc()["drops"] == 3, "three drops")
        sender.sock.close()
        lib.equal(drops(lines(), device), ["GENERIC"] * 3, "reasons")
        lib.equal([line for line in lines() if "kfree_skb:" in line and "QDISC_DROP" not in line], [], "other drops")


def a_busy_map_is_no_full_one():
    """The first device has packets in the map that both find."""
    with contextlib.ExitStack() as stack:
        stack.callback(os.unlink, f"{lib.GLOBALS}/shared_pkts")
        (_, first, _), (device, sender, _) = (stack.enter_context(lib.wire(SHARED)) for _ in range(2))
        lines = stack.enter_context(lib.traced("qdisc/qdisc_drop", "skb/kfree_skb"))
        lib.true(first.send(1), "the first device takes its packet")
        lib.true(not sender.send(2), "the second one learns of the drop")
        sender.sock.close()
        lib.equal(drops(lines(), device), ["MAP_BUSY"], "reasons")


@contextlib.contextmanager
def memory_group():
    """A group of processes whose memory can be bounded"""
    group = f"/sys/fs/cgroup/reasons-{os.getpid()}"
    lib.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    os.mkdir(group)
    try:
        yield group
    finally:
        os.rmdir(group)


def a_map_without_memory_is_no_full_one():
    """Its elements count as memory of the group whose process has made the map."""
    with memory_group() as group, lib.link() as device, lib.Sender(device.a) as sender, \
         lib.traced("qdisc/qdisc_drop", "skb/kfree_skb") as lines:
        lib.run("sh", "-c", f"echo $$ >{group}/cgroup.procs && exec tc qdisc add dev {device.a} root bpf obj {COSTLY}")
        with open(f"{group}/memory.current", encoding="ascii") as file:
            lib.write(f"{group}/memory.max", file.read().strip())
        taken = 0
        while taken < COSTLY_ENTRIES and sender.send(taken):
            taken += 1
        print(f"# {taken} of {COSTLY_ENTRIES} packets are taken")
        lib.true(0 < taken < COSTLY_ENTRIES, f"{taken} packets are taken")
        lib.write(f"{group}/memory.max", "max")
        lib.wait_until(lambda: sender.send(taken), "a packet is taken when there is memory")
        sent = sender.packets
        sender.sock.close()
        lib.equal(drops(lines(), device), ["MAP_NOMEM"] * (sent - taken - 1), "reasons")
        lib.equal(device.qdisc()["qlen"], taken + 1, "queued")


lib.main(each_drop_has_its_reason,
         drops_of_the_kernel_have_theirs,
         a_drop_in_dequeue_below_another_qdisc_has_its_reason,
         what_is_stolen_is_no_drop,
         what_is_cut_is_no_drop,
         a_busy_map_is_no_full_one,
         a_map_without_memory_is_no_full_one)
