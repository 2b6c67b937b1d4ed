#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The building blocks of <bpf/bpf_qdisc_aqm.h>: each in a policy of its own (RED in policies/red), against the figures
of its RFC or paper and against the native qdisc, with the same packets at the same times.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import bisect
import collections
import concurrent.futures
import itertools
import json
import math
import os
import random
import socket
import struct
import time
import types

import lib
from lib import MS, NSEC, POLICIES, SO_MARK, SO_PRIORITY, compiled

SIZE, EACH = 1000, MS           # a packet, and how long the bottleneck is busy with it
SLACK = MS // 4                 # by which timers and time stamps may be late
ECT = 2
CODEL, DRR, PIE, TBF = map(compiled, ("codel", "drr", "pie", "tbf"))
RED = f"{POLICIES}/red.bpf.o"


def native(*words):
    def attach(device, *where):
        lib.run("tc", "qdisc", "add", "dev", device.a, *where, *words)
    return attach


def ours(obj, **parameters):
    def attach(device, *where):
        sets = [word for name, value in parameters.items() for word in ("set", f"{name}={value}")]
        lib.run("tc", "qdisc", "add", "dev", device.a, *where, "bpf", "obj", obj, *sets)
    return attach


Sent = collections.namedtuple("Sent", "when arrivals lost marked")


def send(sender, times, tos=0, ports=()):
    """Packets at these times from now on, of one flow or of these, and when each was sent indeed."""
    start, sent = time.monotonic_ns(), []
    for number, when in enumerate(times, sender.packets):
        time.sleep(max(0, start + when - time.monotonic_ns()) / NSEC)
        sent.append(time.monotonic_ns())
        sender.send(number, SIZE, ports[number] if ports else 1000, tos=tos)
    return sent


def through_a_bottleneck(attach, times, tos=0, ports=()):
    """Packets for each of these times, through a qdisc that a link empties whose packets take
    EACH. What has left when it is empty again."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf", "rate",
                f"{SIZE * 8 * NSEC // EACH}bit", "burst", "2000", "limit", "100000000")
        attach(device, "parent", "1:1", "handle", "2:")
        sent = send(sender, times, tos, ports)
        lib.wait_until(lambda: not queued(device), "the queue is empty")
        time.sleep(0.01)
        arrivals = receiver.drain()
        numbers = lib.numbers(arrivals)
        lib.equal(numbers, sorted(numbers), "order")
        return Sent(sent, arrivals, sorted(set(range(len(sent))) - set(numbers)),
                    [arrival.number for arrival in arrivals if arrival.tos & 3 == 3])


def queued(device):
    listed = lib.qdiscs(device.a)
    return next(entry["qlen"] for entry in listed if entry.get("root"))


def close(got, wanted, tolerance, what):
    print(f"# {what}: {got:.6g}, wanted {wanted:.6g}, off by {got - wanted:+.3g}, tolerance {tolerance:.3g}")
    lib.true(abs(got - wanted) <= tolerance, f"{what}: {got}, wanted {wanted} +- {tolerance}")


def what_came_leaves_or_is_dropped():
    """And that is counted, on every kernel: 200 packets wait for the gate, then for their turn. All but PIE, which
    begins slowly, drop some."""
    for name, obj, *words in (("codel", CODEL, "set", "target=0", "set", "interval=1us"), ("pie", PIE),
                              ("tbf", TBF, "limit", "100"),
                              ("red", RED, "set", "min=1000", "set", "max=5000", "set", "weight_log=0")):
        with lib.behind_the_gate(lambda device, parent, obj=obj, words=words: device.attach(
                obj, *words, where=("parent", parent))) as (device, sender, receiver):
            taken = sum(sender.send(number) for number in range(200))
            lib.equal(device.below()["qlen"], taken, f"{name}: packets that wait")
            sender.set(SO_MARK, 1)
            sender.send(200)
            lib.wait_until(lambda device=device: not device.below()["qlen"], f"{name}: the queue is empty")
            entry = device.below()
            numbers = lib.numbers(receiver.collect(201 - entry["drops"]))
            lib.equal(numbers, sorted(set(numbers)), f"{name}: order")
            lib.equal((receiver.drain(), entry["packets"], entry["backlog"], entry["stuck"]), ([], len(numbers), 0, 0),
                      f"{name}: more that arrive, sent, bytes that wait, times stuck")
            print(f"# {name}: {entry['drops']} of 201 dropped")
            lib.true(entry["drops"] or obj == PIE, f"{name}: no drops")


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
        ours(CODEL, **parameters))]


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
    # What leaves after a time has come after two thirds of it; the first two leave at once
    close(began[1] / MS, (3 * (TARGET + 2 * EACH) + INTERVAL) / MS, 3, "ms until the first drop, by the RFC")


def codel_drops_by_the_square_root():
    """The nth drop is followed by the next one after interval / sqrt(n). They are those of one
    packet's end, so one is late by at most EACH, and no delay adds up."""
    times = dropped_when(through_a_bottleneck(ours(CODEL), FIRST))
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

def settled(attach):
    """The native pie updates nothing in its first 500 ms."""
    def and_wait(device, *where):
        attach(device, *where)
        time.sleep(0.6)
    return and_wait


def pie_keeps_the_delay_as_pie():
    """A quarter too much. At first the delay says how fast the probability follows it, at last
    what it keeps it at. The tolerances are 4 deviations of a difference, which a simulation has
    shown, and at first another 3 ms: the two do not update at the same times."""
    found = []
    for attach in (native("pie", "limit", "10000"), ours(PIE)):
        sent = through_a_bottleneck(settled(attach), [number * EACH * 4 // 5 for number in range(11250)])
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

def steady(count, seconds):
    """So many packets that wait for ever: as many come as leave."""
    return [0] * count + [number * EACH for number in range(int(seconds * NSEC / EACH))]


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
    deviation is 3 to 5 %; of 4 deviations one run in 16000 is off. As no packet is beyond max,
    harddrop drops none."""
    count, settle = 3000, 500
    for waiting in (30, 40, 50):
        for name, attach in (
                ("native red", native("red", "limit", "1000000", "min", str(RED_MIN), "max", str(RED_MAX), "avpkt",
                                      str(SIZE), "burst", "34", "bandwidth", "8mbit", "probability", str(RED_P), "ecn",
                                      "harddrop")),
                ("red", ours(RED, min=RED_MIN, max=RED_MAX, max_p=int(RED_P * 10**6), weight_log=5, ecn=1,
                             harddrop=1))):
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


def options(words):
    return [str(word) for pair in words.items() for word in pair]


def red_drops_and_marks_as_often_as_red():
    """A queue that only grows, up to p = 0.5: so what there is to decide is the same in both. The
    deviation of what differs is 0.5 % of the drops, and 0.4 % of the marks."""
    count, rounds, most, rest = 9000, 12, 0.5, {"min": 60 * 1000, "max": 60 * 9000}
    theirs = {"limit": 10**6, **rest, "avpkt": 60, "burst": 1000, "bandwidth": "8mbit", "probability": most}
    mine = {"limit_bytes": 10**6, **rest, "max_p": int(most * 10**6), "weight_log": 1}
    for what, words, sets in (("early", (), {}), ("marked", ("ecn",), {"ecn": 1})):
        sums = [sum(filled(attach, count)[what] for _ in range(rounds))
                for attach in (native("red", *options(theirs), *words), ours(RED, **mine, **sets))]
        close(sums[1], sums[0], sums[0] / 50, f"{what} beside {count * rounds} packets that were taken")


def filled(attach, count):
    """Statistics of RED when so many packets have been taken, of which next to none has left."""
    device = types.SimpleNamespace(a=f"red-{os.getpid()}")
    with concurrent.futures.ThreadPoolExecutor(1) as pool, lib.pktgen(device.a, "tos 02") as send:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf", "rate", "8kbit", "burst", "2000",
                "limit", "1000000")
        attach(device, "parent", "1:1", "handle", "2:")
        sent = pool.submit(send, count)

        def taken():
            entry = lib.qdiscs(device.a)[0]
            return entry["packets"] + entry["qlen"] == count
        lib.wait_until(taken, f"{count} packets are taken")
        (entry,) = [entry for entry in lib.qdiscs(device.a) if entry.get("parent") == "1:1"]
        lib.run("tc", "qdisc", "del", "dev", device.a, "root")  # pktgen waits for its last packet
        sent.result()
        return entry.get("stats", entry)


BELOW_THE_GATE = 0x10001        # 1:1


def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def adaptive_red(device, _):
    """By a message of our own: the flag is where tc put it once. Where tc puts it now the kernel
    shows it, but does not start the timer."""
    ecn_and_adaptive = 1 | 4
    parameters = [struct.pack("IIIBBBB", 10**6, RED_MIN, RED_MAX, 1, 0, 10, ecn_and_adaptive), bytes(256),
                  struct.pack("I", int(RED_P * 2**32))]
    body = (struct.pack("iiIII", 0, device.ifindex, 0, BELOW_THE_GATE, 0) + attribute(1, b"red\0") +
            attribute(2, b"".join(attribute(kind, data) for kind, data in enumerate(parameters, 1))))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        # RTM_NEWQDISC, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
        sock.send(struct.pack("IHHII", 16 + len(body), 36, 1 | 4 | 0x400, 0, 0) + body)
        (error,) = struct.unpack_from("i", sock.recv(4096), 16)
    lib.equal(error, 0, "error")


def adapted(waiting, periods):
    """The probability after half seconds in which so many packets wait."""
    p = int(RED_P * 10**6)
    for _ in range(periods):
        if waiting > 44 and p <= 500000:
            p += min(p // 4, 10000)
        elif waiting < 36 and p >= 10000:
            p -= p // 10
    return p / 10**6


def red_adapts_as_red():
    """While more packets wait than it likes, fewer, and as many; and to the ends of the range. Ours from
    the first packet to the last; the native one from tc to tc, which takes whatever time."""
    mine = ours(RED, limit_bytes=10**6, min=RED_MIN, max=RED_MAX, max_p=int(RED_P * 10**6), weight_log=1,
                ecn=1, adaptive=1)
    for waiting, seconds in ((55, 2.2), (30, 2.2), (40, 2.2), (55, 31), (30, 31)):
        for attach in (adaptive_red, lambda device, parent: mine(device, "parent", parent)):
            times = [time.monotonic()]
            with lib.behind_the_gate(attach) as (device, sender, _):
                for count in (waiting, 1):
                    times.append(time.monotonic())
                    send(sender, [0] * count, ECT)
                    times.append(time.monotonic())
                    time.sleep(seconds if count > 1 else 0)
                (entry,) = [entry for entry in json.loads(lib.run("tc", "-s", "-d", "-j", "qdisc", "show", "dev", device.a))
                            if entry.get("parent") == "1:1"]
            if attach == adaptive_red:
                got, least, most = entry["options"]["probability"], times[3] - times[1], time.monotonic() - times[0]
            else:
                got, least, most = entry["stats"]["probability"] / 10**6, times[3] - times[2], times[4] - times[1]
            wanted = [adapted(waiting, periods) for periods in range(int(2 * least), int(2 * most) + 1)]
            print(f"# {entry['kind']}: {got}, {waiting} packets, for {least:.3f} to {most:.3f} s")
            lib.true(any(abs(got - each) < 1e-4 for each in wanted), f"probability {got}, wanted one of {wanted}")


def choke_is_hard_on_who_has_most():
    """A flow sends three times what the link takes, ten others a twentieth each. RED drops of all; with CHOKe the
    others lose next to nothing."""
    flood, seconds = [(number * EACH // 3, 1) for number in range(9000)], 3
    others = [(number * 20 * EACH + port * EACH, port) for port in range(2, 12) for number in range(seconds * NSEC // EACH // 20)]
    times, ports = zip(*sorted(flood + others))
    lost = []
    for choke in (0, 1):
        sent = through_a_bottleneck(ours(RED, min=RED_MIN, max=RED_MAX, max_p=int(RED_P * 10**6), weight_log=1, choke=choke),
                                    times, ports=ports)
        lost.append(collections.Counter(ports[number] == 1 for number in sent.lost))
    shares = [(each[False] / len(others), each[True] / len(flood)) for each in lost]
    print(f"# of the others and of the flood are lost: {shares}")
    lib.true(shares[0][0] > 0.3, f"lost of the others with RED: {shares[0][0]}")
    lib.true(shares[1][0] < 0.02 and shares[1][1] > 0.8, f"lost of the others, and of the flood, with CHOKe: {shares[1]}")


# --- token bucket --------------------------------------------------------------

def tbf_is_tbf():
    """A burst of ten packets, then one for each EACH; and again after a pause that has filled a
    part of the bucket, and after one that has filled it."""
    burst = 10
    for name, attach in (("native tbf", native("tbf", "rate", "8mbit", "burst", str(burst * SIZE), "limit", "1000000")),
                         ("tbf", ours(TBF, rate=SIZE * NSEC // EACH, burst=burst * SIZE))):
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
    with lib.wire(TBF, "set", f"rate={SIZE * NSEC // EACH}", "set", "burst=500") as (_, sender, receiver):
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

    for name, attach in (("native drr", attach_native), ("drr", ours(DRR, quantum=QUANTUM))):
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


lib.main(drr_shares_by_quantum,
         what_came_leaves_or_is_dropped,
         measured=[codel_marks_as_codel,
                   codel_drops_as_codel,
                   codel_drops_by_the_square_root,
                   pie_keeps_the_delay_as_pie,
                   red_marks_by_the_average,
                   red_drops_and_marks_as_often_as_red,
                   red_adapts_as_red,
                   choke_is_hard_on_who_has_most,
                   tbf_is_tbf,
                   tbf_sends_what_is_longer_than_the_burst])
