#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The safety net: a policy that stores packets and says nothing is replaced by a FIFO of
the kernel's, which says so; `change` brings a policy back. One that waits, that drops, or
whose NIC queue is stopped, is left alone."""

import contextlib
import errno
import select
import socket
import struct
import subprocess
import time

import lib
from lib import MS, NSEC, POLICIES, RING, SO_MARK, Tap, compiled

STUCK = compiled("stuck")
FIFO = f"{POLICIES}/fifo.bpf.o"
LET_GO, SAY_NOTHING, THROTTLE_A_YEAR, DROP_AT_DEQUEUE, DROP_AT_ENQUEUE, THROTTLE_TWO_SECONDS = range(6)
COUNT = 10
MANY = 3000
SOON = "patience", "500ms"

RTM_NEWQDISC, NLM_F_REQUEST, NLM_F_ACK, TC_H_ROOT = 36, 1, 4, 0xFFFFFFFF
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_SCH_BPF_LIMIT, TCA_SCH_BPF_HORIZON, TCA_SCH_BPF_PATIENCE = 2, 7, 8


def wait_stuck(device):
    lib.wait_until(lambda: device.qdisc()["stuck"] == 1, "found stuck", 30)
    lib.contains(lib.run("dmesg"), f"{device.a}: qdisc bpf")
    lib.contains(lib.run("tc", "-s", "qdisc", "show", "dev", device.a), "stuck 1")


def never_dequeues():
    """Packets are stored, none leaves; then all do, in key order: newest first."""
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, SAY_NOTHING)
        for number in range(COUNT):
            sender.send(number)
        wait_stuck(device)
        lib.equal(lib.numbers(receiver.collect(COUNT)), list(range(COUNT - 1, -1, -1)), "order")
        for number in range(COUNT):
            lib.true(sender.send(number), "the FIFO takes packets")
        lib.equal(lib.numbers(receiver.collect(COUNT)), list(range(COUNT)), "order of the FIFO")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")


def throttles_for_a_year():
    """It is asked again at each horizon, and nothing else becomes of it."""
    with lib.wire(STUCK, "horizon", "200ms", "patience", "50ms") as (device, sender, receiver):
        sender.set(SO_MARK, THROTTLE_A_YEAR)
        for number in range(COUNT):
            sender.send(number)
        begin, before = time.monotonic_ns(), device.qdisc()["overlimits"]
        lib.wait_until(lambda: device.qdisc()["overlimits"] >= before + 6, "asked six times")
        lib.true(time.monotonic_ns() - begin > 5 * 200 * MS, "asked before the horizon")
        lib.equal((device.qdisc()["stuck"], receiver.drain()), (0, []), "found stuck, packets that left")
        sender.set(SO_MARK, LET_GO)
        sender.send(COUNT)
        lib.equal(lib.numbers(receiver.collect(COUNT + 1)), list(range(COUNT, -1, -1)), "order")
        lib.equal(lib.balance(device, sender, receiver)["stuck"], 0, "found stuck")


def drops_all(wrong, told):
    """Every packet, on purpose, for several times as long as it may say nothing."""
    with lib.wire(STUCK, "patience", "50ms") as (device, sender, receiver):
        sender.set(SO_MARK, wrong)
        end = time.monotonic_ns() + 500 * MS
        while time.monotonic_ns() < end:
            sender.send(7)
        lib.wait_until(lambda: device.qdisc()["qlen"] == 0, "all are dropped")
        stats = device.qdisc()
        lib.equal((stats["stuck"], stats["drops"]), (0, sender.packets), "found stuck, drops")
        lib.equal(sender.refused_packets, stats["drops"] if told else 0, "drops the sender learns of")
        sender.set(SO_MARK, LET_GO)
        sender.send(8)
        lib.equal(lib.numbers(receiver.collect(1)), [8], "packet that leaves")


def drops_all_at_dequeue():
    drops_all(DROP_AT_DEQUEUE, told=False)


def drops_all_at_enqueue():
    drops_all(DROP_AT_ENQUEUE, told=True)


def drops_are_no_idleness():
    """One in each run, of a hundred that wait, while nothing comes: as soon as the kernel asks."""
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, THROTTLE_A_YEAR)
        for number in range(100):
            sender.send(number)
        sender.set(SO_MARK, DROP_AT_DEQUEUE)
        sender.send(100)
        lib.wait_until(lambda: device.qdisc()["qlen"] == 0, "all are dropped")
        lib.equal((device.qdisc()["stuck"], device.qdisc()["drops"], receiver.drain()), (0, 101, []), "found stuck, drops, packets that left")


def a_policy_that_waits_is_left_alone():
    with lib.wire(STUCK) as (device, sender, receiver):
        sender.set(SO_MARK, THROTTLE_TWO_SECONDS)
        for number in range(COUNT):
            sender.send(number)
        receiver.collect(COUNT, 30)
        lib.equal(lib.balance(device, sender, receiver)["stuck"], 0, "found stuck")


def is_stopped(queues):
    """Longer than the patience, with a full queue; then nothing is missing."""
    device = Tap(queues)
    try:
        with lib.Sender(device.a) as sender:
            device.attach(FIFO, "limit", str(COUNT), "patience", "50ms")
            taken = [number for number in range(RING + COUNT + 2) if sender.send(number)]
            lib.equal(device.qdisc()["stored"], COUNT, "stored, as the queue is stopped")
            end = time.monotonic_ns() + 300 * MS
            while time.monotonic_ns() < end:
                lib.true(not sender.send(0), "a full queue takes a packet")
            lib.equal(device.qdisc()["stuck"], 0, "found stuck while the queue is stopped")
            arrived = []

            def all_arrived():
                arrived.extend(device.drain())
                return len(arrived) >= len(taken)
            lib.wait_until(all_arrived, "what was queued arrives")
            lib.equal(arrived, taken, "packets, in order")
            sender.send(1000)
            lib.wait_until(lambda: device.drain() == [1000], "a packet after that arrives")
            stats = lib.balance(device, sender, device)
            lib.equal((stats["qlen"], stats["stuck"]), (0, 0), "queued, found stuck")
    finally:
        device.delete()


def a_stopped_queue_is_left_alone():
    is_stopped(0)


def a_stopped_queue_of_several_is_left_alone():
    """A packet has left the policy then, and is kept by the kernel."""
    is_stopped(1)


def change_brings_the_policy_back():
    with lib.wire(STUCK, *SOON) as (device, sender, receiver):
        sender.set(SO_MARK, SAY_NOTHING)
        sender.send(1)
        wait_stuck(device)
        receiver.collect(1)
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", FIFO)
        lib.equal(device.qdisc()["options"]["obj"], "fifo.bpf.o", "object")
        sender.send(2)
        lib.equal(receiver.collect(1)[0].number, 2, "packet that leaves")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "limit_bytes=1")
        lib.true(not sender.send(3), "the new policy does not decide: packet taken")


def a_reset_brings_the_policy_back():
    """It can tell that what it remembers is stale: it was given packets that left without it."""
    def generation():
        return device.qdisc()["stats"]["generation"]

    with lib.wire(STUCK, *SOON) as (device, sender, receiver), contextlib.ExitStack() as stack:
        sender.set(SO_MARK, SAY_NOTHING)
        sender.send(1)
        wait_stuck(device)
        receiver.collect(1)
        before = generation()
        device.flap()
        sender = stack.enter_context(lib.Sender(device.a))      # the other has an error to tell
        sender.send(2)
        lib.equal(receiver.collect(1)[0].number, 2, "packet that leaves")
        lib.true(generation() not in (0, before), "the same generation")
        lib.equal(device.qdisc()["is_stuck"], False, "stuck")


def change_with_many_packets(*options):
    """Most are in the stuck policy's map, some in the FIFO, and the device takes few. Returns
    numbers of those that arrived, and of all in the order in which they would."""
    device = Tap()
    where = "parent", "1:1"
    try:
        with lib.Sender(device.a) as sender:
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "prio", "priomap", *["0"] * 16)
            device.attach(STUCK, "patience", "600s", where=where)
            sender.set(SO_MARK, SAY_NOTHING)
            for number in range(MANY):
                lib.true(sender.send(number, 100 + number % 50), f"packet {number} dropped")
            lib.run("tc", "qdisc", "change", "dev", device.a, *where, "bpf", "patience", "10ms")
            wait_stuck(device)
            for number in range(MANY, MANY + COUNT):
                lib.true(sender.send(number, 100 + number % 50), "the FIFO takes packets")
            before = device.qdisc()
            lib.true(before["stored"] > MANY / 2, f"{before['stored']} packets are in the map")
            lib.equal(before["fifo"], COUNT, "packets in the FIFO")
            lib.run("tc", "qdisc", "change", "dev", device.a, *where, "bpf", "obj", FIFO, *options)
            lib.true(sender.send(MANY + COUNT), "the new policy takes packets")
            arrived = []

            def last_arrived():
                arrived.extend(device.drain())
                return MANY + COUNT in arrived
            lib.wait_until(last_arrived, "a packet of the new policy arrives")
            drops = MANY + COUNT + 1 - len(arrived)
            lib.balance(device, sender, device, dropped=(drops, sender.bytes - device.bytes))
            lib.equal([(each["qlen"], each["backlog"]) for each in lib.instances(device.a, "prio")], [(0, 0)],
                      "queued, by the parent")
            sender.wait_freed()
            return arrived, [*range(MANY - 1, -1, -1), *range(MANY, MANY + COUNT + 1)]
    finally:
        device.delete()


def change_of_a_stuck_policy_loses_no_packet():
    arrived, queued = change_with_many_packets()
    lib.equal(arrived, queued, "packets, in order")


def change_of_a_stuck_policy_with_flush_drops_each_packet_once():
    arrived, queued = change_with_many_packets("flush")
    # The device had taken the first of them.
    lib.true(RING <= len(arrived) - 1 < 2 * RING, f"{len(arrived)} packets arrived")
    lib.equal(arrived, queued[:len(arrived) - 1] + queued[-1:], "packets that arrived")


def horizon_and_patience_are_shown_and_changed():
    with lib.wire(STUCK) as (device, sender, receiver):
        def shown():
            options = device.qdisc()["options"]
            return options["horizon"], options["patience"]

        def change(*options):
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", *options)

        lib.equal(shown(), (10 * NSEC, 5 * NSEC), "by default")
        lib.contains(lib.run("tc", "qdisc", "show", "dev", device.a), "horizon 10s patience 5s ")
        change("horizon", "1.5s")
        lib.equal(shown(), (1500 * MS, 5 * NSEC), "after a change of the horizon")
        lib.contains(lib.run("tc", "qdisc", "show", "dev", device.a), "horizon 1500ms patience 5s ")
        change("limit", "7", "patience", "300ms")
        lib.equal(shown(), (1500 * MS, 300 * MS), "after a change of the patience")
        for wrong in ("0s", "9ms", "25000000s"):
            lib.contains(lib.refused("tc", "qdisc", "change", "dev", device.a, "root", "bpf",
                                     "patience", wrong), "range")
        for wrong in ("5", "5bit", "s", "-1s"):
            lib.contains(lib.refused("tc", "qdisc", "change", "dev", device.a, "root", "bpf",
                                     "horizon", wrong), "time such as")
        lib.equal(shown(), (1500 * MS, 300 * MS), "after what was refused")
        sender.set(SO_MARK, SAY_NOTHING)
        sender.send(1)
        wait_stuck(device)
        receiver.collect(1)


def the_kernel_refuses_what_tc_does():
    """Limit, horizon and patience that are out of range, of whoever does not ask tc."""
    def attribute(kind, value):
        text = struct.pack("HH", 4 + len(value), kind) + value
        return text.ljust(-len(text) % 4 + len(text), b"\0")

    def error(device, option, value):
        text = struct.pack("BxHiIII", socket.AF_UNSPEC, 0, device.ifindex, 0, TC_H_ROOT, 0)
        text += attribute(TCA_KIND, b"bpf\0") + attribute(TCA_OPTIONS, attribute(option, value))
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.send(struct.pack("IHHII", 16 + len(text), RTM_NEWQDISC, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + text)
            return -struct.unpack_from("i", netlink.recv(4096), 16)[0]

    with lib.link() as device:
        device.attach(STUCK)
        before = device.qdisc()["options"]
        lib.equal([error(device, TCA_SCH_BPF_LIMIT, struct.pack("I", 0)),
                   *(error(device, option, struct.pack("Q", limit)) for option in (TCA_SCH_BPF_HORIZON, TCA_SCH_BPF_PATIENCE)
                     for limit in (10 * MS - 1, 86400 * NSEC + 1))], [errno.ERANGE] * 5, "errors")
        lib.equal(device.qdisc()["options"], before, "options after these")
        lib.equal(error(device, TCA_SCH_BPF_HORIZON, struct.pack("Q", 86400 * NSEC)), 0, "the longest horizon")


@contextlib.contextmanager
def monitor(device):
    """Yields a function that waits for a notification about the device's qdisc with
    this text in it. Each has several lines."""
    with subprocess.Popen(["tc", "-s", "monitor"], stdout=subprocess.PIPE, text=True) as process:
        def wait(part):
            told = ""
            for line in process.stdout:
                told = told + line if line[0] == " " else line
                if f"dev {device} " in told and part in told:
                    return told
            raise lib.Failure("tc monitor has ended")
        try:
            # It listens when it tells of this
            while not select.select([process.stdout], [], [], 0.1)[0]:
                lib.run("tc", "qdisc", "change", "dev", device, "root", "bpf", "limit", "10000")
            yield wait
        finally:
            process.kill()


def user_space_is_told():
    """By a notification and by tracepoints."""
    with lib.wire(STUCK, *SOON) as (device, sender, receiver), monitor(device.a) as wait, \
         lib.traced("sch_bpf/sch_bpf_stuck", "sch_bpf/sch_bpf_change") as lines:
        ids = programs(device)
        sender.set(SO_MARK, SAY_NOTHING)
        for number in range(COUNT):
            sender.send(number)
        lib.contains(wait("POLICY STUCK"), "obj stuck.bpf.o")
        receiver.collect(COUNT)
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", FIFO)
        (stuck, change) = [line for line in lines() if f"dev={device.a} " in line]
        for part in ("sch_bpf_stuck: ", f"ifindex={device.ifindex} ", ids, f"qlen={COUNT}"):
            lib.contains(stuck, part)
        for part in ("sch_bpf_change: ", programs(device), "qlen=0"):
            lib.contains(change, part)


def programs(device):
    """As the tracepoints show them."""
    options = device.qdisc()["options"]
    return f"enqueue={options['enqueue']['id']} dequeue={options['dequeue']['id']} "


def a_qdisc_removed_as_it_gets_stuck():
    """The notification is made before, or never."""
    for number in range(6):
        with lib.wire(STUCK, "patience", "10ms") as (device, sender, _):
            sender.set(SO_MARK, SAY_NOTHING)
            sender.send(number)
            lib.wait_until(lambda: device.qdisc()["stuck"] == 1, "found stuck")
            if number % 2:
                device.detach()
            else:
                device.delete()
            sender.wait_freed()


lib.main(never_dequeues,
         throttles_for_a_year,
         drops_all_at_dequeue,
         drops_all_at_enqueue,
         drops_are_no_idleness,
         a_policy_that_waits_is_left_alone,
         a_stopped_queue_is_left_alone,
         a_stopped_queue_of_several_is_left_alone,
         change_brings_the_policy_back,
         a_reset_brings_the_policy_back,
         change_of_a_stuck_policy_loses_no_packet,
         change_of_a_stuck_policy_with_flush_drops_each_packet_once,
         horizon_and_patience_are_shown_and_changed,
         the_kernel_refuses_what_tc_does,
         user_space_is_told,
         a_qdisc_removed_as_it_gets_stuck)
