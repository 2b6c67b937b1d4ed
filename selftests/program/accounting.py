#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The books balance whatever a policy does with its packets, and whatever it returns."""

import collections
import enum
import itertools
import random

import lib
from lib import compiled

VERDICTS = compiled("verdicts")
POP_KEY = compiled("pop_key")
OPEN, ASKED = 0x100, (3, 1, 2, 2, 9, 0, 1, 3)   # also in pop_key.bpf.c


class Mark(enum.IntEnum):
    """What becomes of a packet; also in verdicts.bpf.c."""
    QUEUE = 0
    DROP_NOW = 1
    STEAL = 2
    CLONE = 3
    DROP_HEAD = 4
    LIE = 5
    DROP_AT_DEQUEUE = 6
    MARK_CE = 7
    OPEN = 8


class Model:
    """What the policy should do, in as few lines as possible. No packet can be marked."""

    def __init__(self):
        self.queue = collections.deque()
        self.dropped, self.stolen, self.cloned, self.refused = [], [], [], 0

    def enqueue(self, number, size, mark):
        """Whether the sender is told that the packet was taken."""
        packet = number, size, mark
        if mark in (Mark.DROP_NOW, Mark.MARK_CE):
            self.dropped.append(packet)
            return False
        if mark == Mark.STEAL:
            self.stolen.append(packet)
            return True
        if mark == Mark.DROP_HEAD and self.queue:
            self.dropped.append(self.queue.popleft())
        if mark == Mark.CLONE:
            self.cloned.append(packet)
            self.queue.append(packet)
        self.queue.append(packet)
        return True

    def leave(self):
        """Numbers of the packets that leave when the queue is opened."""
        self.dropped += [packet for packet in self.queue if packet[2] == Mark.DROP_AT_DEQUEUE]
        leaving = [packet[0] for packet in self.queue if packet[2] != Mark.DROP_AT_DEQUEUE]
        self.queue.clear()
        return leaving


def total(packets):
    return len(packets), sum(packet[1] for packet in packets)


def books(device, sender, receiver, model):
    """The balance, in the model's words; and the queue is the model's."""
    stats = lib.balance(device, sender, receiver, stolen=total(model.stolen),
                        cloned=total(model.cloned), dropped=total(model.dropped))
    lib.equal((stats["qlen"], stats["backlog"]), total(model.queue), "queued, against the model")


def send(sender, model, number, mark):
    size = 60 + 7 * number % 800
    sender.set(lib.SO_MARK, mark)
    lib.equal(sender.send(number, size), model.enqueue(number, size, mark), f"{mark.name}: taken")


def each_verdict_alone():
    for mark in Mark:
        model = Model()
        with lib.wire(VERDICTS) as (device, sender, receiver):
            for number in range(3):
                send(sender, model, number, Mark.QUEUE)
            if mark != Mark.OPEN:
                send(sender, model, 3, mark)
                books(device, sender, receiver, model)
            send(sender, model, 4, Mark.OPEN)
            left = model.leave()
            lib.equal(lib.numbers(receiver.collect(len(left))), left, f"{mark.name}: packets that left")
            books(device, sender, receiver, model)


def all_verdicts_mixed():
    seed = random.randrange(1 << 32)
    print(f"# seed {seed}")
    rng = random.Random(seed)
    model = Model()
    with lib.wire(VERDICTS) as (device, sender, receiver):
        for number in range(500):
            send(sender, model, number, Mark(rng.randrange(Mark.OPEN)))
            if number % 100 == 99:
                books(device, sender, receiver, model)
        send(sender, model, 500, Mark.OPEN)
        left = model.leave()
        lib.equal(lib.numbers(receiver.collect(len(left))), left, "packets that left")
        books(device, sender, receiver, model)
        sender.wait_freed()


def parents_count_what_the_qdisc_holds():
    """prio above: its queue is ours after each packet, whatever became of it."""
    def parent():
        listed = lib.qdiscs(device.a)
        (entry,) = [entry for entry in listed if entry["kind"] == "prio"]
        return entry["qlen"], entry["backlog"]

    model = Model()
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "prio",
                "priomap", *["0"] * 16)
        device.attach(VERDICTS, where=("parent", "1:1"))
        for number, mark in enumerate([Mark.QUEUE, Mark.QUEUE, *Mark][:-1]):
            send(sender, model, number, mark)
            lib.equal(parent(), total(model.queue), f"{mark.name}: the parent's queue")
        send(sender, model, 99, Mark.OPEN)
        left = model.leave()
        lib.equal(lib.numbers(receiver.collect(len(left))), left, "packets that left")
        lib.equal(parent(), (0, 0), "the parent's queue at the end")
        books(device, sender, receiver, model)


def a_key_gives_its_oldest_packet():
    """Others do not, whether theirs are older, and nobody's does if it has none."""
    keys = (2, 1, 3, 3, 1, 2, 1, 1, 3, 1, 2)
    queues = {key: collections.deque() for key in range(10)}
    wanted, empty = [], collections.Counter()
    for number, key in enumerate(keys):
        queues[key].append(number)
    for key in itertools.cycle(ASKED):
        if not any(queues.values()):
            break
        if queues[key]:
            wanted.append(queues[key].popleft())
        else:
            empty[key] += 1
    with lib.wire(POP_KEY) as (device, sender, receiver):
        for number, key in enumerate(keys):
            sender.set(lib.SO_MARK, key | (OPEN if number == len(keys) - 1 else 0))
            sender.send(number, 60 + number)
        lib.equal(lib.numbers(receiver.collect(len(keys))), wanted, "packets that left")
        got = {entry["formatted"]["key"]: entry["formatted"]["value"]
               for entry in lib.bpftool("map", "dump", "name", "pop_key_empty")}
        lib.equal({key: count for key, count in got.items() if count}, empty, "how often a key had no packet")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")


lib.main(each_verdict_alone,
         all_verdicts_mixed,
         parents_count_what_the_qdisc_holds,
         a_key_gives_its_oldest_packet)
