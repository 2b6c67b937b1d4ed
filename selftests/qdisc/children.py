#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The qdisc between parents and children of other kinds: whatever a child drops,
cuts into segments or holds back, all count the same packets. A policy that asks the
wrong class, or waits for a class, does no harm."""

import collections
import contextlib
import subprocess

import lib
from lib import SO_MARK, compiled

CHILDREN = compiled("children")
# also in children.bpf.c; a class can be added
OPEN, ASK_EMPTY_CLASS, ASK_NO_CLASS, DROP_REST, WAIT_FOR_CLASSES, SILENT, SHUT, AGAIN = range(0x100, 0x900, 0x100)

# Each has the qdisc under 1:1. hfsc peeks and forgets a class that says it is
# empty; htb and prio do not peek; tbf peeks and keeps the packet.
PARENTS = {
    "htb": (["htb", "default", "1"], ["htb", "rate", "1gbit", "quantum", "1500"]),
    "prio": (["prio", "priomap", *["0"] * 16], None),
    "tbf": (["tbf", "rate", "1gbit", "burst", "100kb", "limit", "1mb"], None),
    "hfsc": (["hfsc", "default", "1"], ["hfsc", "ls", "rate", "1gbit"]),
}
FEW = "fq_codel limit 5 flows 2 drop_batch 1"
SHORT = "pfifo limit 3"
CODEL = ("fq_codel", "flows", "1", "target", "1us", "interval", "1us")

Count = collections.namedtuple("Count", "packets bytes")


def tc(*arguments):
    lib.run("tc", *arguments)


@contextlib.contextmanager
def under(parent, *options):
    """A wire with this parent as root, 1:, and the qdisc below it, 2:."""
    qdisc, klass = PARENTS[parent]
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        tc("qdisc", "add", "dev", device.a, "root", "handle", "1:", *qdisc)
        if klass:
            tc("class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", *klass)
        device.attach(CHILDREN, *options, where=("parent", "1:1", "handle", "2:"))
        yield device, sender, receiver


@contextlib.contextmanager
def alone(*options):
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        device.attach(CHILDREN, *options, where=("root", "handle", "2:"))
        yield device, sender, receiver


def child(device, minor, *kind):
    tc("class", "add", "dev", device.a, "parent", "2:", "classid", f"2:{minor}", "bpf")
    if kind:
        tc("qdisc", "add", "dev", device.a, "parent", f"2:{minor}", "handle", f"{20 + minor}:", *kind)


def children(device):
    """Two leaves that drop; tbf; the two again, under other kinds. In one run of tc."""
    lines = [f"class add dev {device.a} parent 2: classid 2:{minor} bpf" for minor in range(1, 6)]
    lines += [f"qdisc add dev {device.a} {child}" for child in (
        f"parent 2:1 handle 21: {FEW}", f"parent 2:2 handle 22: {SHORT}",
        "parent 2:3 handle 23: tbf rate 80mbit burst 2000 limit 18000",
        f"parent 2:4 handle 24: prio priomap {'0 ' * 16}", f"parent 24:1 handle 41: {FEW}",
        "parent 2:5 handle 25: htb default 1")]
    lines += [f"class add dev {device.a} parent 25: classid 25:1 htb rate 1gbit quantum 1500",
              f"qdisc add dev {device.a} parent 25:1 handle 51: {SHORT}"]
    subprocess.run(["tc", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def send(sender, mark, number, size=100, **more):
    sender.set(SO_MARK, mark)
    return sender.send(number, size, **more)


def qdiscs(device):
    """What `tc -s qdisc show` says, by handle."""
    listed = lib.qdiscs(device.a)
    return {entry["handle"]: entry for entry in listed}


def queues_agree(device, *levels):
    """What the parents count is what is there: in all qdiscs of a level below, too.
    Returns the qdisc's queue."""
    seen = {handle: Count(entry["qlen"], entry["backlog"]) for handle, entry in qdiscs(device).items()}
    ours = seen["2:"]
    lib.equal(seen.get("1:", ours), ours, "the parent's queue")
    for level in levels:
        lib.equal(tuple(map(sum, zip(*(seen[each] for each in level)))), ours, f"queued in {level}")
    return ours


class Books:
    """A qdisc, 2:, under a parent. Packets are sent and leave; after each step all
    agree on what is queued, and on what was dropped."""

    def __init__(self, device, sender, receiver):
        self.device, self.sender, self.receiver = device, sender, receiver
        self.number = self.drops = 0

    def send(self, mark, count=1, size=100):
        """Returns how many were taken."""
        taken = 0
        for _ in range(count):
            self.number += 1
            taken += send(self.sender, mark, self.number, size, port=1000 + self.number % 5)
        return taken

    def dropped(self, count):
        """Since the last time; by the qdisc, and by its parent."""
        self.drops += count
        stats = qdiscs(self.device)
        lib.equal([stats[each]["drops"] for each in ("2:", "1:")], [self.drops] * 2, "drops")

    def leave(self, count, mark=OPEN):
        """One more packet opens the qdisc; this many leave, and nothing is left."""
        self.send(mark)
        self.receiver.collect(count + 1)
        lib.equal(self.receiver.drain(), [], "more packets")
        for handle, entry in qdiscs(self.device).items():
            lib.equal((entry["qlen"], entry["backlog"]), (0, 0), f"{handle} queued at the end")
            if handle in ("1:", "2:"):
                lib.equal((entry["packets"], entry["bytes"]),
                          (self.receiver.packets, self.receiver.bytes), f"sent by {handle}")
        self.sender.wait_freed()


def children_that_are_full(books):
    """fq_codel drops older packets; it says so to some of its callers with CN."""
    queued = {"21:": 5, "41:": 5, "22:": 3, "51:": 3}
    before = qdiscs(books.device)
    for _ in range(2):
        for minor, size in (1, 100), (4, 200), (2, 300), (5, 400):
            books.send(SHUT + minor, 6, size)
            queues_agree(books.device, tuple(queued), ("21:", "22:", "24:", "25:"))
    stats = qdiscs(books.device)
    lib.equal({each: stats[each]["qlen"] for each in queued}, queued, "queued in the children")
    lib.equal(sum(stats[each]["drops"] - before[each]["drops"] for each in queued), 32,
              "the children's drops")
    books.dropped(32)
    books.leave(16)


def a_child_that_drops_while_packets_leave(books):
    tc("qdisc", "replace", "dev", books.device.a, "parent", "2:1", "handle", "31:", *CODEL)
    books.send(SHUT + 1, 40, 1000)
    books.send(OPEN)
    lib.wait_until(lambda: qdiscs(books.device)["2:"]["qlen"] == 0, "all have left")
    drops = qdiscs(books.device)["31:"]["drops"]
    lib.true(drops > 0, "codel drops nothing")
    books.dropped(drops)
    books.receiver.collect(41 - drops)
    books.leave(0)


def a_policy_that_drops_all_but_what_leaves(books):
    """The parent must not take the class for empty while it holds, or peeks at, the
    last packet."""
    books.send(SHUT, 10, 120)
    books.leave(0, DROP_REST)
    books.dropped(10)
    books.leave(0)


def a_child_that_cuts_into_segments(books):
    """tbf cuts what is larger than its burst. It counts itself the segments that find no
    room; if none does, the packet is dropped."""
    books.send(SHUT + 3)
    books.sender.set(SO_MARK, 3)
    queue = Count(1, 100)
    for size, room in (1300, 6), (1000, 6), (1400, 2), (1400, 0):
        taken = books.sender.send_gso(size, 6)
        lib.equal(taken, room > 0, f"{room} segments: taken")
        queue = Count(queue.packets + room, queue.bytes + room * (size + lib.HEADERS))
        lib.equal(queues_agree(books.device, ("23:",)), queue, "segments queued")
    books.dropped(1)
    books.leave(queue.packets)


def a_class_that_goes(books):
    for minor in (1, 2, 4, 5):
        books.send(SHUT + minor, 3)
    for minor in (1, 4, 5):
        tc("class", "del", "dev", books.device.a, "classid", f"2:{minor}")
    lib.equal(queues_agree(books.device, ("22:",)), (3, 300), "queued")
    tc("qdisc", "replace", "dev", books.device.a, "parent", "2:2", "handle", "32:", "sfq")
    lib.equal(queues_agree(books.device, ("32:",)), (0, 0), "queued")
    books.dropped(12)
    books.leave(0)


def a_packet_that_is_kept_twice(books):
    """The first one is the very packet that has just been kept."""
    for count in range(1, 4):
        lib.equal(books.send(AGAIN), 1, "packets taken")
        lib.equal(queues_agree(books.device).packets, count, "queued")
    books.leave(3)


def a_class_that_is_not_there(books):
    """At enqueue the packet is dropped, in all books; at dequeue the policy is asked
    again."""
    lib.equal(books.send(7), 0, "packets taken")
    books.dropped(1)
    books.leave(0)
    books.leave(0, ASK_NO_CLASS)
    books.leave(0, ASK_EMPTY_CLASS)
    lib.equal(qdiscs(books.device)["2:"]["stuck"], 0, "stuck")


def below(parent):
    with under(parent) as (device, sender, receiver):
        children(device)
        books = Books(device, sender, receiver)
        for step in (children_that_are_full,
                     a_policy_that_drops_all_but_what_leaves,
                     a_child_that_drops_while_packets_leave,
                     a_child_that_cuts_into_segments,
                     a_packet_that_is_kept_twice,
                     a_class_that_is_not_there,
                     a_class_that_goes):
            try:
                step(books)
            except lib.Failure as failure:
                raise lib.Failure(f"{step.__name__}: {failure}") from failure


def below_htb():
    below("htb")


def below_prio():
    below("prio")


def below_tbf():
    below("tbf")


def below_hfsc():
    below("hfsc")


def a_slow_class_is_no_trouble():
    """Nothing leaves for several times as long as the policy may let nothing leave:
    the class does not give more. What the policy keeps meanwhile waits with it."""
    with alone("patience", "100ms") as (device, sender, receiver):
        child(device, 1, "tbf", "rate", "8kbit", "burst", "1000", "limit", "10000")
        send(sender, OPEN, 0)
        for number in (1, 2):
            send(sender, 1, number, 1000)
        arrivals = receiver.collect(3)
        lib.equal(lib.numbers(arrivals), [0, 1, 2], "order")
        lib.true(arrivals[2].when - arrivals[1].when > 500 * lib.MS, "the class was not slow")
        lib.equal(qdiscs(device)["2:"]["stuck"], 0, "stuck")

        for number in (3, 4, 5):
            send(sender, WAIT_FOR_CLASSES + 1, number, 1000)
        send(sender, 0, 6)
        lib.equal(lib.numbers(receiver.collect(2)), [3, 4], "packets of the class")
        send(sender, OPEN, 7)
        lib.equal(lib.numbers(receiver.collect(3)), [6, 7, 5], "what was kept, and the class")
        lib.equal(qdiscs(device)["2:"]["stuck"], 0, "stuck")


def a_silent_policy_whose_packets_are_in_classes():
    """The kernel takes them from there, whether the policy keeps any itself or not."""
    for kept in (0, 3):
        with alone("patience", "200ms") as (device, sender, receiver):
            child(device, 1)
            child(device, 2, "fq_codel")
            for number in range(10):
                send(sender, 1 + number % 2, number)
            for number in range(10, 10 + kept):
                send(sender, 0, number)
            send(sender, SILENT + 1, 99)
            left = lib.numbers(receiver.collect(11 + kept))
            lib.equal(sorted(left), [*range(10 + kept), 99], "packets that left")
            stats = qdiscs(device)["2:"]
            lib.equal((stats["stuck"], stats["is_stuck"], stats["qlen"], stats["backlog"]),
                      (1, True, 0, 0), "stuck and queued")
            lib.balance(device, sender, receiver)


lib.main(below_htb, below_prio, below_tbf, below_hfsc,
         a_slow_class_is_no_trouble,
         a_silent_policy_whose_packets_are_in_classes)
