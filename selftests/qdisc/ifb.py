#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What arrives is queued by an ifb, set up by the commands of sch_bpf.rst: each packet comes to the
policy, and to the protocols, once."""

import contextlib
import os
import re
import time

import lib
import rst
from lib import LATE, MS, POLICIES, compiled

RATE = f"{POLICIES}/rate.bpf.o"
HOLD, RELEASE = compiled("hold"), compiled("release")
TX = 4
SIZE, EACH = 1000, 10 * MS              # at 100,000 bytes a second
SENDER, NIC, IFB = (f"{name}-{os.getpid()}" for name in ("a0", "b0", "a1"))


@contextlib.contextmanager
def arriving(qdisc):
    """Packets that are sent arrive on a NIC with several queues, behind an ifb with this qdisc."""
    commands = re.findall(r"^\t# (.*)$", rst.of_title("sch_bpf", "What arrives, by an ifb"), re.M)
    lib.equal(len(commands), 5, "commands in the document")
    names = (("eth0", NIC), ("ifb0", IFB), ("bpf_mq obj rate.bpf.o set rate=20mbit", qdisc))
    lib.run("ip", "link", "add", SENDER, "numtxqueues", str(TX), "type", "veth",
            "peer", "name", NIC, "numrxqueues", str(TX))
    try:
        for dev in (SENDER, NIC):
            lib.run("ip", "link", "set", dev, "up")
        for command in commands:
            for old, new in names:
                command = command.replace(old, new)
            lib.run(*command.split())
        with lib.Sender(SENDER) as sender, lib.Receiver(NIC) as receiver:
            yield sender, receiver
    finally:
        for dev in (SENDER, IFB):
            if os.path.exists(f"/sys/class/net/{dev}"):
                lib.run("ip", "link", "del", dev)


def totals():
    """Sent, dropped and queued, by each instance."""
    return [tuple(each[what] for what in ("packets", "drops", "qlen")) for each in lib.instances(IFB)]


def count(*expected):
    """The only instance comes to this; packets arrive a moment after they were sent."""
    lib.wait_until(lambda: totals() == [expected], f"sent, dropped and queued are {expected}")


def all_queues_keep_to_one_rate():
    with arriving(f"bpf_mq obj {RATE} set rate=800kbit set target=0") as (sender, receiver):
        start = time.monotonic_ns()
        for number in range(60):
            sender.send(number, SIZE, port=1000 + number)
        sent = time.monotonic_ns()
        arrivals = receiver.collect(60)
        lib.equal(sorted(lib.numbers(arrivals)), list(range(60)), "packets")
        for number, arrival in enumerate(arrivals):
            after = (number - TX + 1) * EACH - 5 * MS       # each queue may be ahead by a packet; and the policy's burst
            lib.true(start + after <= arrival.when <= sent + max(0, after) + LATE,
                     f"packet {number} came {(arrival.when - start - after) / MS:.3f} ms after its time")
        each = totals()
        lib.equal([sum(column) for column in zip(*each)], [60, 0, 0], "sent, dropped and queued")
        lib.true(sum(packets > 0 for packets, _, _ in each) > 1, f"one queue was used: {each}")
        lib.equal(receiver.drain(), [], "more packets")


def what_is_held_is_not_there_yet():
    """A change in place lets it go, in order; what came on is what the policy was given."""
    with arriving(f"bpf obj {HOLD}") as (sender, receiver):
        for number in range(50):
            sender.send(number, 100 + number)
        count(0, 0, 50)
        lib.equal(receiver.drain(), [], "packets that arrived")
        lib.run("tc", "qdisc", "change", "dev", IFB, "root", "bpf", "obj", RELEASE)
        lib.equal([(arrival.number, arrival.size) for arrival in receiver.collect(50)],
                  [(number, 100 + number) for number in range(50)], "packets and their sizes")
        count(50, 0, 0)
        sender.wait_freed()
        lib.equal(receiver.drain(), [], "more packets")


def what_finds_no_room_is_dropped():
    with arriving(f"bpf obj {HOLD} limit 5") as (sender, receiver):
        for number in range(8):
            sender.send(number)
        count(0, 3, 5)
        lib.run("tc", "qdisc", "change", "dev", IFB, "root", "bpf", "obj", RELEASE)
        lib.equal(lib.numbers(receiver.collect(5)), list(range(5)), "packets")


def the_ifb_goes_while_packets_wait():
    """They are freed, and what comes then is dropped by the filter's action."""
    with arriving(f"bpf obj {HOLD}") as (sender, receiver):
        for number in range(20):
            sender.send(number)
        count(0, 0, 20)
        lib.run("ip", "link", "del", IFB)
        sender.wait_freed()
        sender.send(1)
        sender.wait_freed()
        lib.run("tc", "qdisc", "del", "dev", NIC, "clsact")
        sender.send(20)
        lib.equal(lib.numbers(receiver.collect(1)), [20], "packets without an ifb")


lib.main(all_queues_keep_to_one_rate,
         what_is_held_is_not_there_yet,
         what_finds_no_room_is_dropped,
         the_ifb_goes_while_packets_wait)
