#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""tutorial.py [--measure]: each step of sch_bpf_tutorial.rst does what is said there, with the three
senders that are described there. With --measure, what scripts/draw-tutorial draws."""

import collections
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import lib
import rst
from lib import MS, NSEC

# Of each sender: bytes, how often, ECN
Source = collections.namedtuple("Source", "size each tos", defaults=(0,))
SOURCES = {"a": Source(1000, MS), "b": Source(500, MS // 2), "small": Source(100, 10 * MS)}
ECN = {**SOURCES, "a": Source(1000, MS, 2)}
CE = 3
RATE = 1_000_000                        # bytes a second: 8 Mbit/s
QUANTUM = 1514
FLOW = 1_000_000                        # numbers of its packets are from there
BIN = 25 * MS

Packet = collections.namedtuple("Packet", "flow size left waited tos")     # ns, left since the first was sent


def flow_of(number):
    return list(SOURCES)[number // FLOW]


@contextlib.contextmanager
def computing():
    """A process that computes whenever no other one does, from SIGCONT to SIGSTOP. Where instructions are time,
    that of a VM whose processes all wait for the disk is the next timer's at once: seconds would go by while a
    command reads, the more the slower the host is."""
    with subprocess.Popen(["chrt", "--idle", "0", "sh", "-c", "kill -STOP $$; while :; do :; done"]) as process:
        try:
            os.waitpid(process.pid, os.WUNTRACED)
            yield process
        finally:
            process.kill()


class Run:
    """What came of all that was sent, in a second unless said otherwise."""

    def __init__(self, step, *options, sources=None, then=(), seconds=1):
        """then: (s, words of a command) while packets are sent; done: when each had ended."""
        self.sources = sources or SOURCES
        self.sent, self.done = {}, []
        with lib.wire(rst.path(f"step{step}"), *options) as (device, sender, receiver):
            for number in range(5):
                sender.send(number, 100)
            receiver.collect(5)
            with computing() as other:
                self.send(sender, device, list(then), seconds, other)
            arrivals = self.all_that_leave(receiver)
            self.stats = device.qdisc()
            lib.equal(self.stats["qlen"], 0, "packets left in the queue")
            self.shown = lib.run("tc", "-s", "qdisc", "show", "dev", device.a)
        self.drops = len(self.sent) - len(arrivals)
        self.packets = [Packet(flow_of(arrival.number), arrival.size, arrival.when - self.begin,
                               arrival.when - self.sent[arrival.number], arrival.tos) for arrival in arrivals]

    def send(self, sender, device, commands, seconds, other):
        plan = sorted((number * source.each, flow * FLOW + number, source) for flow, source in enumerate(self.sources.values())
                      for number in range(seconds * NSEC // source.each))
        frames = {number: lib.frame(number, source.size, 1000 + number // FLOW, source.tos) for _, number, source in plan}
        running = None
        self.begin = time.monotonic_ns()
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        for when, number, _ in plan:
            if running is None and commands and when >= commands[0][0] * NSEC:
                other.send_signal(signal.SIGCONT)
                running = subprocess.Popen(["tc", *lib.qdisc(device, "change", *commands.pop(0)[1])])
            if running is not None and not number % 50 and running.poll() is not None:
                lib.equal(running.returncode, 0, "status of the change")
                self.done.append(time.monotonic_ns() - self.begin)
                other.send_signal(signal.SIGSTOP)
                running = None
            time.sleep(max(0, self.begin + when - time.monotonic_ns()) / NSEC)
            self.sent[number] = time.monotonic_ns()
            sender.sock.send(frames[number])
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        lib.equal((len(commands), running), (0, None), "changes that were not made while packets were sent")

    @staticmethod
    def all_that_leave(receiver):
        """Until none has come for 200 ms. No command asks for the length of the queue: it would have to be read
        from the disk, and time flies meanwhile."""
        arrivals = []
        with contextlib.suppress(TimeoutError):
            while True:
                receiver.sock.settimeout(0.2)
                arrivals.append(receiver.take())
        return arrivals

    def of(self, flow):
        return [packet for packet in self.packets if packet.flow == flow]

    def longest_wait(self, *flows):
        return max(packet.waited for packet in self.packets if packet.flow in flows)

    def rate(self, begin=0, end=1 << 62):
        """Bytes a second of what left in this time."""
        inside = [packet for packet in self.packets if begin <= packet.left < end]
        return sum(packet.size for packet in inside[:-1]) * NSEC / (inside[-1].left - inside[0].left)

    def share(self):
        """By how many bytes one of the greedy flows gained upon the other at most, while both had packets."""
        end = min(self.of("a")[-1].left, self.of("b")[-1].left)
        lead = list(itertools.accumulate({"a": packet.size, "b": -packet.size}.get(packet.flow, 0)
                                         for packet in self.packets if NSEC // 10 < packet.left < end))
        return max(lead) - min(lead)

    def bins(self):
        """For the drawing: of each flow the rate, in Mbit/s, and the longest wait, in ms, in each bin."""
        result = {}
        for flow in self.sources:
            rates, waits = collections.Counter(), collections.Counter()
            for packet in self.of(flow):
                rates[packet.left // BIN] += packet.size * 8 * NSEC / BIN / 1e6
                came = (packet.left - packet.waited) // BIN
                waits[came] = max(waits[came], packet.waited / MS)
            result[flow] = [[round(counter[place], 2) for place in range(max(counter) + 1)]
                            for counter in (rates, waits)]
        return result


CHANGES = ((0.5, ("obj", rst.path("step5"), "set", "rate=8mbit")), (1.5, ("set", "rate=12mbit")))
CHANGED = {"sources": ECN, "then": CHANGES, "seconds": 3}


def near(got, expected, what, percent=1):
    lib.true(abs(got / expected - 1) < percent / 100, f"{what}: {got:.0f}, expected {expected} within {percent} %")


def all_arrive(run):
    lib.equal((run.drops, run.stats["drops"]), (0, 0), "lost, dropped")
    lib.equal(run.stats["stuck"], 0, "found stuck")


def shares_equally(run):
    lib.true(run.share() <= QUANTUM + 1000, f"a greedy flow gains {run.share()} bytes")


def have_the_same(run):
    for flow in "a", "b":
        near(sum(packet.size for packet in run.of(flow)),
             sum(packet.size for packet in run.packets if packet.flow != "small") / 2, f"bytes of {flow}")


def dropped_are_counted(run):
    lib.true(run.drops > 0, "nothing is dropped")
    lib.equal(run.stats["drops"], run.drops, "drops")


def each_step_takes_the_place_of_the_one_before():
    """And lets packets go that do not wait for long."""
    with lib.wire(rst.path("step1")) as (device, sender, receiver):
        for step in range(1, 6):
            if step > 1:
                target = ("set", "target=10s") if step > 3 else ()
                lib.run("tc", *lib.qdisc(device, "change", "obj", rst.path(f"step{step}"), *target))
            for number in range(5):
                sender.send(number)
            lib.equal(sorted(lib.numbers(receiver.collect(5))), list(range(5)), f"packets, step {step}")
        lib.balance(device, sender, receiver)


def a_fifo_holds_nothing():
    run = Run(1)
    all_arrive(run)
    lib.true(run.longest_wait(*SOURCES) < MS, f"a packet waited for {run.longest_wait(*SOURCES) / MS:.2f} ms")
    near(run.rate(), 2_010_000, "bytes a second")


def a_rate_is_kept():
    run = Run(2, "set", "rate=8mbit")
    all_arrive(run)
    near(run.rate(), RATE, "bytes a second")
    for flow in SOURCES:
        near(run.of(flow)[-1].waited, NSEC, f"ns that the last of {flow} waits", 2)


def flows_share_it():
    run = Run(3, "set", "rate=8mbit")
    all_arrive(run)
    near(run.rate(), RATE, "bytes a second")
    shares_equally(run)
    have_the_same(run)
    lib.true(run.longest_wait("small") < 5 * MS, f"small waits for {run.longest_wait('small') / MS:.2f} ms")
    lib.true(run.longest_wait("a") > 900 * MS, "a does not wait")


def a_long_packet_is_cut():
    """So that another flow's packet does not wait for more than a turn of its segments, and they are paced."""
    segments, size = 40, 1000
    with lib.wire(rst.path("step4"), "set", "rate=8mbit", "set", "target=10s") as (device, sender, receiver):
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        lib.true(sender.send_gso(size, segments), "the long packet is taken")
        sender.sock.send(lib.frame(2 * FLOW, 100, 1002, 0))
        arrivals = receiver.collect(segments + 1)
    numbers = lib.numbers(arrivals)
    lib.true(numbers.index(2 * FLOW) < 10, f"{numbers.index(2 * FLOW)} segments leave before the other packet")
    numbers.remove(2 * FLOW)
    lib.equal(numbers, list(range(segments)), "segments")
    took, least = arrivals[-1].when - arrivals[0].when, (segments - 1) * size * NSEC // RATE - 5 * MS
    lib.true(took > least, f"{took / MS:.1f} ms, at least {least / MS:.1f}")


def what_waits_too_long_is_dropped():
    run = Run(4, "set", "rate=8mbit")
    near(run.rate(), RATE, "bytes a second")
    shares_equally(run)
    have_the_same(run)
    dropped_are_counted(run)
    lib.equal(len(run.of("small")), 100, "of small, packets that arrive")
    lib.true(run.longest_wait(*SOURCES) < 10 * MS + MS // 10, f"{run.longest_wait(*SOURCES) / MS:.2f} ms waited")


def or_marked():
    run = Run(4, "set", "rate=8mbit", sources=ECN)
    near(run.rate(), RATE, "bytes a second")
    shares_equally(run)
    dropped_are_counted(run)
    for flow, most in (("a", 20 * MS), ("b", 10 * MS), ("small", 10 * MS)):
        lib.true(run.longest_wait(flow) < most + MS // 10, f"{flow} waits for {run.longest_wait(flow) / MS:.2f} ms")
    lib.true(all((packet.tos == CE) == (packet.flow == "a" and packet.waited > 10 * MS)
                 for packet in run.packets if not 10 * MS <= packet.waited < 10 * MS + MS // 10), "marks")


def it_changes_in_place():
    run = Run(4, "set", "rate=8mbit", **CHANGED)
    dropped_are_counted(run)
    lib.equal(len(run.of("small")), 300, "of small, packets that arrive")
    near(run.rate(NSEC // 10, NSEC * 3 // 2), RATE, "bytes a second across the change of programs")
    near(run.rate(run.done[1], 3 * NSEC), 1.5 * RATE, "bytes a second after the change of the rate")
    for flow in SOURCES:
        arrived = [packet.left - packet.waited for packet in run.of(flow)]
        lib.equal(arrived, sorted(arrived), f"order of {flow}")


def what_it_counts_is_shown():
    run = Run(5, "set", "rate=8mbit", sources=ECN)
    marked = run.stats["stats"]["marked"]
    lib.equal(marked, sum(packet.tos == CE for packet in run.packets), "marks that the policy has counted")
    lib.true(marked > 100, "nothing is marked")
    for words in ("mine_enqueue", "mine_dequeue", "map_ids", "set rate=8mbit ", "set target=10ms ", f"marked {marked}",
                  f"dropped {run.drops}"):
        lib.contains(run.shown, words)


def measure():
    for run in (Run(1), *(Run(step, "set", "rate=8mbit") for step in (2, 3, 4)),
                Run(4, "set", "rate=8mbit", **CHANGED)):
        print(json.dumps(run.bins()), flush=True)


if sys.argv[1:] == ["--measure"]:
    measure()
else:
    lib.main(each_step_takes_the_place_of_the_one_before,
             measured=[a_fifo_holds_nothing,
                       a_rate_is_kept,
                       flows_share_it,
                       a_long_packet_is_cut,
                       what_waits_too_long_is_dropped,
                       or_marked,
                       it_changes_in_place,
                       what_it_counts_is_shown])
