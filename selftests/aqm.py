#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The building blocks of <bpf/bpf_qdisc_aqm.h>: each in a policy of progs/, against the figures
of its RFC or paper and against the native qdisc, with the same packets at the same times.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import bisect
import collections
import contextlib
import itertools
import json
import math
import random
import shutil
import struct
import tempfile
import time

import lib
from lib import MS, NSEC, PROGS, SO_MARK, SO_PRIORITY

SIZE, EACH = 1000, MS           # a packet, and how long the bottleneck is busy with it
SLACK = MS // 4                 # by which timers and time stamps may be late
ECT = 2


def native(*words):
    def attach(device, *where):
        lib.run("tc", "qdisc", "add", "dev", device.a, *where, *words)
    return attach


def ours(name, **parameters):
    def attach(device, *where):
        sets = [word for name, value in parameters.items() for word in ("set", f"{name}={value}")]
        device.attach(f"{PROGS}/{name}.bpf.o", *sets, where=where)
    return attach


Sent = collections.namedtuple("Sent", "when arrivals lost marked")


def send(sender, times, tos=0):
    """Packets at these times from now on, and when each was sent indeed."""
    start, sent = time.monotonic_ns(), []
    for number, when in enumerate(times, sender.packets):
        time.sleep(max(0, start + when - time.monotonic_ns()) / NSEC)
        sent.append(time.monotonic_ns())
        sender.send(number, SIZE, tos=tos)
    return sent


def through_a_bottleneck(attach, times, tos=0, during=None):
    """Packets for each of these times, through a qdisc that a link empties whose packets take
    EACH. What has left, after `during` was called when the last was sent."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf", "rate",
                f"{SIZE * 8 * NSEC // EACH}bit", "burst", "2000", "limit", "100000000")
        attach(device, "parent", "1:1", "handle", "2:")
        sent = send(sender, times, tos)
        if during:
            during(device)
        lib.wait_until(lambda: not queued(device), "the queue is empty")
        time.sleep(0.01)
        arrivals = receiver.drain()
        numbers = lib.numbers(arrivals)
        lib.equal(numbers, sorted(numbers), "order")
        return Sent(sent, arrivals, sorted(set(range(len(sent))) - set(numbers)),
                    [arrival.number for arrival in arrivals if arrival.tos & 3 == 3])


def queued(device):
    listed = json.loads(lib.run("tc", "-s", "-j", "qdisc", "show", "dev", device.a))
    return next(entry["qlen"] for entry in listed if entry.get("root"))


def close(got, wanted, tolerance, what):
    print(f"# {what}: {got:.6g}, wanted {wanted:.6g}, off by {got - wanted:+.3g}, tolerance {tolerance:.3g}")
    lib.true(abs(got - wanted) <= tolerance, f"{what}: {got}, wanted {wanted} +- {tolerance}")


# --- numbers -------------------------------------------------------------------

BPFFS = "/sys/fs/bpf/aqm"


@contextlib.contextmanager
def blocks():
    """Yields a function that calls a block with numbers: what comes out of it."""
    lib.run("bpftool", "prog", "loadall", f"{PROGS}/aqm.bpf.o", BPFFS)
    bss = str(max(lib.maps_named("aqm.bss")))

    def call(name, *numbers):
        with tempfile.NamedTemporaryFile() as file:
            file.write(struct.pack("<4Q", *numbers, *[0] * (4 - len(numbers))))
            file.flush()
            lib.run("bpftool", "prog", "run", "pinned", f"{BPFFS}/{name}", "data_in", file.name)
        (content,) = lib.bpftool("map", "dump", "id", bss)
        ((variable,),) = [content["formatted"]["value"][".bss"]]
        return variable["result"]
    try:
        yield call
    finally:
        shutil.rmtree(BPFFS)


def numbers_are_those_of_the_papers():
    with blocks() as call:
        for size, rate in ((64, 1), (1514, 125_000_000), (64, 12_500_000_000), (2 ** 32 - 1, 7), (1000, 2 ** 64 - 1)):
            lib.equal(call("tx_time", size, rate), -(-size * NSEC // rate), f"ns for {size} bytes at {rate}")
        lib.equal(call("tx_time", 1000, 0), 0, "ns without a rate")
        for count in (1, 2, 3, 10, 1000, 2 ** 32 - 1):
            for interval in (INTERVAL, 2 ** 63):
                wanted = interval / math.sqrt(count)
                close(call("codel_spacing", count, interval), wanted, wanted / 10_000 + 1, f"CoDel, after drop {count}")
        for log in (1, 5, 9, 16, 24):
            for idle in (1, 37, 1369, 50653):
                wanted = 2 ** 56 * (1 - 2 ** -log) ** idle
                close(call("red_decay", 2 ** 56, log, 1000 * idle), wanted, wanted / 10_000 + 2 ** 24,
                      f"RED, after {idle} packets of 2^-{log}")
        for begin, old, delay, updates in ((0, 0, 60, 10), (0, 0, 60, 100), (0, 0, 20, 200), (0.5, 100, 0, 100),
                                           (0.05, 0, 300, 10), (0.3, 1000, 10, 3)):
            wanted = pie_probability(begin, old / 1000, delay / 1000, updates)
            close(call("pie_probability", int(begin * 2 ** 56), old * MS, delay * MS, updates) / 2 ** 56, wanted,
                  wanted / 10_000, f"PIE, {updates} updates with {delay} ms")


def nothing_overflows():
    with blocks() as call:
        lib.equal(call("extremes"), 0, "blocks that do not hold, a bit each")


# --- CoDel ---------------------------------------------------------------------

INTERVAL, TARGET = 100 * MS, 5 * MS

def half_too_much(begin, seconds):
    """Three packets for each two that can leave."""
    return [begin + number * EACH * 2 // 3 for number in range(int(seconds * NSEC * 3 / 2 / EACH))]


FIRST = half_too_much(0, 3)
# The first queue needs 1.5 s; then 1 s of nothing, less than 16 intervals
SECOND = half_too_much(5500 * MS, 0.6)


def codels(tos=0, *words, **parameters):
    """What the native codel and ours do with two times of too much."""
    return [through_a_bottleneck(attach, FIRST + SECOND, tos) for attach in (
        native("codel", "limit", "10000", "target", "5ms", "interval", "100ms", *words),
        ours("codel", **parameters))]


def dropped_when(sent):
    """When those packets left that the dropped ones gave way to."""
    numbers = lib.numbers(sent.arrivals)
    return [sent.arrivals[bisect.bisect(numbers, number)].when for number in sent.lost]


def same_count(theirs, mine, what):
    """The root that the native codel approximates is 0.5 for 0.707 in its first step, and better
    soon: it is ahead by 25 ms for ever, which are 1.2 % of what is dropped in 4 s."""
    close(mine, theirs, 2 + theirs / 50, what)


def codel_drops_as_codel():
    theirs, mine = codels()
    for first, what in ((True, "drops"), (False, "drops when it is too much again")):
        counts = [sum((number < len(FIRST)) == first for number in sent.lost) for sent in (theirs, mine)]
        lib.true(counts[0] > 50, f"{what}: the native codel has {counts[0]}, too few to compare")
        same_count(*counts, what)
    began = [dropped_when(sent)[0] - sent.when[0] for sent in (theirs, mine)]
    close(began[1] / MS, began[0] / MS, 3, "ms until the first drop")
    # What leaves after a time has come after two thirds of it
    close(began[1] / MS, (3 * TARGET + INTERVAL) / MS, 3, "ms until the first drop, by the RFC")


def codel_drops_by_the_square_root():
    """The nth drop is followed by the next one after interval / sqrt(n). They are those of one
    packet's end, so one is late by at most EACH, and no delay adds up."""
    times = dropped_when(through_a_bottleneck(ours("codel"), FIRST))
    lib.true(len(times) > 200, f"only {len(times)} drops")
    wanted = itertools.accumulate([times[0], *(INTERVAL / math.sqrt(n) for n in range(1, len(times)))])
    late = [when - want for when, want in zip(times, wanted)]
    print(f"# {len(times)} drops, early by {-min(late) / MS:.3f} ms at most, late by {max(late) / MS:.3f}")
    # The first of them may have been late itself
    lib.true(min(late) > -EACH - SLACK and max(late) < EACH + SLACK,
             f"drops are {min(late) / MS:.3f} to {max(late) / MS:.3f} ms late")


def codel_marks_as_codel():
    theirs, mine = codels(ECT, "ecn", ecn=1)
    lib.equal((len(theirs.lost), len(mine.lost)), (0, 0), "drops")
    same_count(len(theirs.marked), len(mine.marked), "marks")


# --- PIE -----------------------------------------------------------------------

TUPDATE = 300 * MS


def steady(count, seconds):
    """So many packets that wait for ever: as many come as leave."""
    return [0] * count + [number * EACH for number in range(int(seconds * NSEC / EACH))]


def pie_probability(probability, old, delay, updates, target=0.015, alpha=0.125, beta=1.25):
    """By RFC 8033, 4.2 and 5, after so many updates with one delay; all in s. And, as Linux'
    pie does, 2 % more at each beyond 250 ms."""
    for _ in range(updates):
        delta = alpha * (delay - target) + beta * (delay - old)
        for limit, divisor in ((1e-6, 2048), (1e-5, 512), (1e-4, 128), (1e-3, 32), (1e-2, 8), (1e-1, 2)):
            if probability < limit:
                delta /= divisor
                break
        else:
            delta = min(delta, 0.02)
        probability = min(max(0, probability + delta + (0.02 if delay > 0.25 else 0)), 1)
        probability *= 1 if delay or old else 63 / 64
        old = delay
    return probability


def pie_has_the_probability_of_the_rfc():
    """60 packets wait, marked at most. So few updates that it is certain which was the last."""
    updates, waiting = 6, 60
    found = {}

    def read_native(device):
        listed = json.loads(lib.run("tc", "-s", "-j", "qdisc", "show", "dev", device.a))
        (found["native pie"],) = [entry["prob"] for entry in listed if entry["kind"] == "pie"]

    def read_ours(_):
        (content,) = lib.bpftool("map", "dump", "id", str(max(lib.maps_named("pie.bss"))))
        (state,) = [entry["pie"] for entry in content["formatted"]["value"][".bss"] if "pie" in entry]
        found["pie"] = state["prob"] / 2 ** 56

    def native_in_step(device, *where):
        """It updates 500 ms after it was made, and from then on."""
        native("pie", "limit", "10000", "target", "15ms", "tupdate", f"{TUPDATE // MS}ms",
               "alpha", "32", "beta", "32", "ecn")(device, *where)
        time.sleep(0.51)

    times = steady(waiting, (updates * TUPDATE + TUPDATE / 3) / NSEC)
    for attach, read in ((native_in_step, read_native),
                         (ours("pie", target="15ms", tupdate=f"{TUPDATE // MS}ms", alpha=32, beta=32, ecn=1), read_ours)):
        sent = through_a_bottleneck(attach, times, ECT, read)
        delays = [arrival.when - sent.when[arrival.number] for arrival in sent.arrivals[2 * waiting:len(times) - waiting]]
        # A packet leaves the qdisc when the one before it leaves the link
        delay = (sum(delays) / len(delays) - EACH) / NSEC
        wanted = pie_probability(0, 0, delay, updates, alpha=2, beta=2)
        # The delay is right to half a packet, of the 45 ms above the target
        (name,) = found
        close(found.pop(name), wanted, wanted * 0.03, f"probability of {name}, delay {delay * 1000:.1f} ms")
        lib.equal(sent.lost, [], "drops")


def pie_keeps_the_delay_as_pie():
    """A quarter too much. At first the delay says how fast the probability follows it, at last
    what it keeps it at. The tolerances are 4 deviations of a difference, which a simulation has
    shown, and at first another 3 ms: the two do not update at the same times."""
    found = []
    for attach in (native("pie", "limit", "10000"), ours("pie")):
        def settled(device, *where, attach=attach):
            attach(device, *where)
            time.sleep(0.6)             # the native one updates nothing in its first 500 ms
        sent = through_a_bottleneck(settled, [number * EACH * 4 // 5 for number in range(11250)])
        at_first, at_last = ([arrival.when - sent.when[arrival.number] - EACH for arrival in sent.arrivals
                              if arrival.number in numbers] for numbers in (range(1750), range(7500, 11250)))
        lost = [number for number in sent.lost if number >= 7500]
        gaps = [later - number for number, later in zip(lost, lost[1:])]
        found.append((sum(at_first) / len(at_first) / MS, sum(number < 1750 for number in sent.lost),
                      sum(at_last) / len(at_last) / MS, len(lost), sum(gap * gap for gap in gaps) / len(gaps)))
    what = ("delay at first in ms", "drops at first", "delay in ms", "drops", "mean square of the distance of two drops")
    for theirs, mine, tolerance, name in zip(*found, (12, 40, 5.6, 27, 3.4), what):
        close(mine, theirs, tolerance, name)
    close(found[1][2], 15, 5, "delay in ms, by the target")


# --- RED -----------------------------------------------------------------------

RED_MIN, RED_MAX, RED_P = 20 * SIZE, 60 * SIZE, 0.1


def red_wanted(average):
    return RED_P * (average - RED_MIN) / (RED_MAX - RED_MIN)


def average_backlog(sent, numbers):
    """Of what each of these packets found, in bytes; the one that is on the link is none."""
    left = [arrival.when for arrival in sent.arrivals]
    return sum(number - bisect.bisect(left, sent.when[number]) for number in numbers) / len(numbers) * SIZE


def red_marks_by_the_average():
    """Of a queue that does not change, 2 p / (1 + p) of the packets, with at most 1 / p of them
    from one to the next. The number of marks of N packets has the variance 2 p N / 3, so its
    deviation is 3 to 5 %; of 4 deviations one run in 16000 is off."""
    count, settle = 3000, 500
    for waiting in (30, 40, 50):
        for name, attach in (
                ("native red", native("red", "limit", "1000000", "min", str(RED_MIN), "max", str(RED_MAX), "avpkt",
                                      str(SIZE), "burst", "34", "bandwidth", "8mbit", "probability", str(RED_P), "ecn")),
                ("red", ours("red", min=RED_MIN, max=RED_MAX, percent=int(100 * RED_P), weight_log=5, ecn=1))):
            sent = through_a_bottleneck(attach, steady(waiting, (settle + count) * EACH / NSEC), ECT)
            lib.equal(sent.lost, [], "drops")
            looked_at = range(waiting + settle, waiting + settle + count)
            average = average_backlog(sent, looked_at)
            p = red_wanted(average)
            marks = [number for number in sent.marked if number in looked_at]
            # Half a packet more or less in the average
            error = count * 2 * (red_wanted(average + SIZE / 2) - p)
            close(len(marks), count * 2 * p / (1 + p), 4 * math.sqrt(2 * p * count / 3) + error,
                  f"marks of {name}, average {average:.0f}")
            gap = max(later - number for number, later in zip(marks, marks[1:]))
            lib.true(gap <= 1 / red_wanted(average - SIZE) + 1, f"{name}: {gap} packets from one mark to the next")


# --- token bucket --------------------------------------------------------------

def tbf_is_tbf():
    """A burst of ten packets, then one for each EACH; and again after a pause that has filled a
    part of the bucket, and after one that has filled it."""
    burst = 10
    for name, attach in (("native tbf", native("tbf", "rate", "8mbit", "burst", str(burst * SIZE), "limit", "1000000")),
                         ("tbf", ours("tbf", rate=SIZE * NSEC // EACH, burst=burst * SIZE))):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            attach(device, "root")
            sent = send(sender, [0] * 200)
            arrivals = receiver.collect(200)
            time.sleep(0.005)
            sent += send(sender, [0] * 100)
            arrivals += receiver.collect(100)
            time.sleep(0.1)
            sent += send(sender, [0] * 200)
            arrivals += receiver.collect(200)
            lib.equal(lib.numbers(arrivals), list(range(500)), "order")
            tokens, last, off = burst * EACH, sent[0], []
            for arrival in arrivals:        # what a bucket says, which is full at the beginning
                when = max(sent[arrival.number], last)
                tokens = min(tokens + when - last, burst * EACH)
                if tokens < EACH:
                    when, tokens = when + EACH - tokens, EACH
                tokens, last = tokens - EACH, when
                off.append(arrival.when - when)
            print(f"# {name}: {min(off) / MS:.3f} to {max(off) / MS:.3f} ms late")
            lib.true(min(off) >= 0 and max(off) < SLACK, f"{name}: packets are {min(off)} to {max(off)} ns late")
            took = arrivals[-1].when - arrivals[300 + burst].when
            close(took / EACH, 200 - burst - 1, (200 - burst - 1) / 100, f"{name}: packets' times for a full queue")
            at_once = sum(arrival.when - sent[arrival.number] < SLACK for arrival in arrivals[300:])
            # While they are sent the bucket fills
            lib.true(burst <= at_once <= burst + (sent[300 + burst] - sent[300]) // EACH + 1,
                     f"{name}: {at_once} packets at once")


def tbf_sends_what_is_longer_than_the_burst():
    with lib.wire(f"{PROGS}/tbf.bpf.o", "set", f"rate={SIZE * NSEC // EACH}", "set", "burst=500") as (_, sender, receiver):
        send(sender, [0] * 50)
        arrivals = receiver.collect(50)
        close((arrivals[-1].when - arrivals[0].when) / EACH, 49, 0.49, "packets' times")


# --- DRR -----------------------------------------------------------------------

QUANTUM = 1500
MINORS = (1, 2, 3)              # of classes, whose quanta are 2, 3 and 4 times QUANTUM


def drr_shares_by_quantum():
    """While all have packets: in rounds of their quanta, none is ahead of another by more than
    a round and a packet."""
    rng = random.Random(1)
    sizes = [rng.randrange(60, 1500) for _ in range(900)]
    quanta = {minor: QUANTUM * (minor + 1) for minor in MINORS}

    def attach_native(device, *where):
        native("drr")(device, *where)
        for minor, quantum in quanta.items():
            lib.run("tc", "class", "add", "dev", device.a, "parent", "2:", "classid", f"2:{minor}", "drr",
                    "quantum", str(quantum))
            lib.run("tc", "qdisc", "add", "dev", device.a, "parent", f"2:{minor}", "pfifo", "limit", "1000")

    for name, attach in (("native drr", attach_native), ("drr", ours("drr", quantum=QUANTUM))):
        with lib.behind_the_gate(lambda device, parent, attach=attach: attach(
                device, "parent", parent, "handle", "2:")) as (_, sender, receiver):
            for number, size in enumerate(sizes):
                sender.set(SO_PRIORITY, 0x20000 + MINORS[number % 3])
                sender.set(SO_MARK, number == len(sizes) - 1)
                lib.true(sender.send(number, size), f"packet {number} refused")
            arrivals = receiver.collect(len(sizes))
        had, left, most = collections.Counter(), collections.Counter({minor: 300 for minor in MINORS}), 0
        for arrival in arrivals:
            minor = MINORS[arrival.number % 3]
            had[minor] += arrival.size
            left[minor] -= 1
            if not left[minor]:
                break
            rounds = [had[minor] / quanta[minor] for minor in MINORS]
            most = max(most, max(rounds) - min(rounds))
        print(f"# {name}: ahead by {most:.2f} rounds at most; bytes {dict(had)}")
        lib.true(sum(had.values()) > 300_000, f"only {sum(had.values())} bytes are compared")
        lib.true(most <= 1 + 1500 / min(quanta.values()), f"{name}: a flow is {most} rounds ahead")
        total, all_quanta = sum(had.values()), sum(quanta.values())
        for minor in MINORS:
            close(had[minor] / total, quanta[minor] / all_quanta, 0.01, f"{name}: share of class {minor}")
            own = [number for number in lib.numbers(arrivals) if MINORS[number % 3] == minor]
            lib.equal(own, sorted(own), "order of a class")


lib.main(numbers_are_those_of_the_papers,
         nothing_overflows,
         codel_drops_as_codel,
         codel_drops_by_the_square_root,
         codel_marks_as_codel,
         pie_has_the_probability_of_the_rfc,
         pie_keeps_the_delay_as_pie,
         red_marks_by_the_average,
         tbf_is_tbf,
         tbf_sends_what_is_longer_than_the_burst,
         drr_shares_by_quantum)
