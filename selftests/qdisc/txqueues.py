#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Several tx queues: a policy at the root chooses, or each has an instance; the number
of queues changes while packets leave; the driver starts anew."""

import contextlib
import re

import lib
from lib import POLICIES, SO_MARK, SO_PRIORITY, compiled

CHOOSE = compiled("choose")
CLASSES = compiled("classes")
QUEUES = compiled("queues")
FIFO = f"{POLICIES}/fifo.bpf.o"
HOLD, RELEASE = compiled("hold"), compiled("release")
RATE = f"{POLICIES}/rate.bpf.o"
TX = 4
ANNOUNCED = 760, 4096           # tx queues of a device that uses four


def tx_packets(dev):
    """Packets that the driver has sent, for each tx queue."""
    shown = lib.run("ethtool", "-S", dev)
    return [int(count) for count in re.findall(r"ucast pkts tx: (\d+)", shown)]


def entry(dev):
    (found,) = lib.instances(dev)
    return found


def the_policy_chooses_the_queue():
    """What the driver counts in each queue is what the policy put there."""
    with lib.nic("bpf", "obj", CHOOSE) as (sender, receiver):
        before = tx_packets("eth0")
        lib.equal(len(before), TX, "tx queues")
        choices = [number * number % 7 for number in range(70)]
        for number, choice in enumerate(choices):
            sender.set(SO_MARK, choice)
            lib.equal(sender.send(number), choice < TX, f"queue {choice}: packet taken")
        receiver.collect(sum(choice < TX for choice in choices))
        lib.equal([after - count for after, count in zip(tx_packets("eth0"), before)],
                  [choices.count(queue) for queue in range(TX)], "packets in each queue of the driver")
        stats = entry("eth0")
        lib.equal((stats["packets"], stats["drops"]), (receiver.packets, sender.refused_packets),
                  "sent and dropped")


def below_mq_and_prio(obj):
    """The handles of its instances, one of each tx queue."""
    for minor in range(1, TX + 1):
        lib.run("tc", "qdisc", "replace", "dev", "eth0", "parent", f"1:{minor}", "handle", f"{minor + 1}:",
                "prio", "priomap", *["0"] * 16)
        lib.run("tc", "qdisc", "add", "dev", "eth0", "parent", f"{minor + 1}:1", "handle", f"1{minor}:", "bpf", "obj", obj)
    return [f"1{minor}:" for minor in range(1, TX + 1)]


def below_another_qdisc_of_one_queue_it_does_not():
    """mq has the locks; a queue that was chosen below it would be used without its own. The
    policy drops packets whose queue it cannot choose."""
    with lib.nic("mq") as (sender, _):
        below_mq_and_prio(CHOOSE)
        for number in range(20):
            sender.set(SO_MARK, number % TX)
            lib.true(not sender.send(number, port=1000 + number), f"queue {number % TX} was chosen")
        lib.equal([sum(each[what] for each in lib.instances("eth0")) for what in ("packets", "drops", "qlen")],
                  [0, 20, 0], "sent, dropped and queued")


def below_another_qdisc_of_one_queue_filters_do_not():
    """Neither: what they write into a packet is not taken over."""
    with lib.nic("mq") as (sender, receiver):
        def sent_by_each():
            before = tx_packets("eth0")
            for number in range(60):
                lib.true(sender.send(number, port=1000 + number % 30), "dropped")
            receiver.collect(60)
            return [after - count for after, count in zip(tx_packets("eth0"), before)]

        handles = below_mq_and_prio(CLASSES)
        without = sent_by_each()
        lib.true(without[0] < 60, "all leave by the first queue")
        for handle in handles:
            lib.run("tc", "filter", "add", "dev", "eth0", "parent", handle, "matchall",
                    "action", "skbedit", "queue_mapping", "0", "continue")
        lib.equal(sent_by_each(), without, "packets in each queue of the driver")


def each_counts_what_its_queue_sends(sender, receiver, priorities):
    """Packets of several flows; returns how many each queue of the driver has sent."""
    before = tx_packets("eth0")
    for number in range(200):
        sender.set(SO_PRIORITY, priorities[number % len(priorities)])
        sender.send(number, 60 + number, port=1000 + number % 51)
    receiver.collect(200)
    sent = [after - count for after, count in zip(tx_packets("eth0"), before)]
    ours = lib.instances("eth0")
    lib.equal([each["packets"] for each in ours], sent, "sent by each instance, against the driver")
    lib.equal(sum(each["bytes"] for each in ours), receiver.bytes, "bytes")
    lib.true(min(sent) > 0, f"a queue was not used: {sent}")
    return sent


def an_instance_for_each_queue():
    with lib.nic("bpf_mq", "obj", QUEUES) as (sender, receiver):
        each_counts_what_its_queue_sends(sender, receiver, [0])


def below_mqprio():
    """The priority chooses two of the queues."""
    with lib.nic("mqprio", "num_tc", "2", "map", "0", "1", *["0"] * 14,
             "queues", "2@0", "2@2", "hw", "0") as (sender, receiver):
        for minor in range(1, TX + 1):
            lib.run("tc", "qdisc", "replace", "dev", "eth0", "parent", f"1:{minor}", "bpf", "obj", FIFO)
        sent = each_counts_what_its_queue_sends(sender, receiver, [0, 1, 0, 0])
        lib.equal((sum(sent[:2]), sum(sent[2:])), (150, 50), "sent by the queues of each priority")


def another_mtu():
    """The driver makes its queues anew; what is queued stays."""
    with lib.nic("bpf", "obj", HOLD) as (sender, receiver):
        for number in range(20):
            sender.send(number)
        lib.run("ip", "link", "set", "eth0", "mtu", "1400")
        lib.run("tc", "qdisc", "change", "dev", "eth0", "root", "bpf", "obj", RELEASE)
        lib.equal(lib.numbers(receiver.collect(20)), list(range(20)), "packets")
        lib.run("ip", "link", "set", "eth0", "mtu", "1500")


def the_number_of_queues_changes():
    """While packets leave. Those that wait in a queue that ends are dropped with it;
    no other is, and nothing stays behind."""
    for kind, obj in (("bpf", CHOOSE), ("bpf_mq", QUEUES)):
        with lib.link("numtxqueues", str(TX)) as device, lib.Receiver(device.b) as receiver:
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", kind, "obj", obj)
            with lib.Sender(device.a) as sender:
                def send(number):
                    sender.set(SO_MARK, number % TX)
                    return sender.send(number)
                with lib.traffic(sender, receiver, send):
                    for count in (1, 4, 2, 3, 1, 2, 4) * 3:
                        lib.run("ethtool", "-L", device.a, "tx", str(count))
                lib.true(sender.packets > 100, f"{kind}: no traffic")
                ours = lib.instances(device.a)
                # a packet is nobody's for a moment before the receiver has it
                receiver.collect(sum(each["packets"] for each in ours) - receiver.packets)
                lib.equal(len(ours), 1 if kind == "bpf" else TX, f"{kind}: instances")
                lib.equal([each["qlen"] for each in ours], [0] * len(ours), f"{kind}: queued")
                lib.equal(sum(each["packets"] for each in ours), receiver.packets, f"{kind}: sent")
                for queue in range(TX):
                    sender.set(SO_MARK, queue)
                    lib.true(sender.send(queue), f"{kind}: queue {queue} takes packets")
                receiver.collect(TX)


def free_memory():
    """kB, once all has been given back that can be."""
    seen = []

    def settled():
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
        with open("/proc/meminfo", encoding="ascii") as file:
            seen.append(int(re.search(r"MemFree: *(\d+) kB", file.read())[1]))
        return len(seen) >= 20 and max(seen[-20:]) - min(seen[-20:]) < 100
    lib.wait_until(settled, "the free memory is the same twenty times")
    return seen[-1]


def memory(device, *qdisc):
    """kB that a qdisc takes with what is below it, the least and the most of three times when no page
    is new: what workers of the kernel give back late is no qdisc's."""
    took = []
    for _ in range(4):
        before = free_memory()
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", *qdisc)
        took.append(before - free_memory())
        lib.run("tc", "qdisc", "del", "dev", device.a, "root")
    return min(took[1:]), max(took[1:])


@contextlib.contextmanager
def announces(queues):
    with lib.link("numtxqueues", str(queues)) as device:
        lib.run("ethtool", "-L", device.a, "tx", str(TX))
        yield device


def queues_that_are_not_used_take_no_more_memory_than_with_fq():
    path = "/proc/sys/net/core/default_qdisc"
    with open(path, encoding="ascii") as file:
        default = file.read().strip()
    for queues in ANNOUNCED:
        with announces(queues) as device:
            lib.sysctl("core/default_qdisc", "fq")
            try:
                _, of_fq = memory(device, "mq")
            finally:
                lib.sysctl("core/default_qdisc", default)
            lib.true(of_fq > queues * 8, f"mq takes {of_fq} kB, and the hash of an fq alone 8")
            for obj in (QUEUES, RATE, FIFO):
                ours, _ = memory(device, "bpf_mq", "obj", obj)
                print(f"# {queues} queues, kB: {of_fq} with fq, {ours} with {obj.rpartition('/')[2]}")
                lib.true(ours < 2 * of_fq, f"bpf_mq takes {ours} kB, twice as much as mq with fq, {of_fq}")


def memory_of_packets(device, count):
    """kB that these packets take, in four queues: neither the first time, when pages are new, nor one
    beside which workers of the kernel take or give back theirs, but that in the middle of the rest."""
    took = []
    for _ in range(4):
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "bpf_mq", "obj", RATE,
                "set", "rate=1000bps", "set", "target=0")
        with lib.Sender(device.a) as sender:
            before = free_memory()
            taken = sum(sender.send(number, port=1000 + number % 64) for number in range(count))
            used = [each["qlen"] for each in lib.instances(device.a) if each["qlen"]]
            took.append(before - free_memory())
        lib.equal((taken, len(used)), (count, TX), "packets taken, and queues in use")
        lib.run("tc", "qdisc", "del", "dev", device.a, "root")
    return sorted(took[1:])[1]


def memory_grows_with_the_queues_that_are_used():
    """However many are announced: that of the same packets, in the same four queues."""
    grown, count = [], 8000
    for queues in ANNOUNCED:
        with announces(queues) as device:
            grown.append(memory_of_packets(device, count))
    print(f"# {count} packets, kB: {grown} with {ANNOUNCED} queues")
    lib.true(max(grown) < 1.5 * min(grown), f"memory grew by {grown} kB with {ANNOUNCED} queues")


def no_default():
    """Programs are given when the qdisc is made: it cannot be every device's default."""
    path = "/proc/sys/net/core/default_qdisc"
    with open(path, encoding="ascii") as file:
        before = file.read()
    for kind in ("bpf", "bpf_mq"):
        try:
            lib.sysctl("core/default_qdisc", kind)
        except OSError as error:
            lib.equal(error.strerror, "Operation not supported", f"{kind}: why not")
        else:
            raise lib.Failure(f"{kind} is the default qdisc")
        with open(path, encoding="ascii") as file:
            lib.equal(file.read(), before, "the default qdisc")
    lib.sysctl("core/default_qdisc", "pfifo")
    lib.sysctl("core/default_qdisc", before.strip())


lib.main(the_policy_chooses_the_queue,
         below_another_qdisc_of_one_queue_it_does_not,
         below_another_qdisc_of_one_queue_filters_do_not,
         an_instance_for_each_queue,
         below_mqprio,
         another_mtu,
         the_number_of_queues_changes,
         no_default,
         # What KASAN keeps is no memory of a qdisc
         measured=[queues_that_are_not_used_take_no_more_memory_than_with_fq,
                   memory_grows_with_the_queues_that_are_used])
