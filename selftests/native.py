#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Policies against the qdiscs that they stand for: the same packets, held back by
the same gate, must leave in the same order, and the same ones must be dropped."""

import collections
import json
import random
import time

import lib
from lib import MS, NSEC, POLICIES, SO_MARK, SO_PRIORITY

FIFO = f"{POLICIES}/fifo.bpf.o"
PRIO = f"{POLICIES}/prio.bpf.o"
FQ = f"{POLICIES}/fq.bpf.o"


Packet = collections.namedtuple("Packet", "number size priority port when tos", defaults=(0, 1000, 0, 0))


def packets(rng, count):
    """With sizes and priorities of all kinds."""
    return [Packet(number, rng.randrange(60, 1500), rng.randrange(16)) for number in range(count)]


def send(sender, packet, mark=0):
    """Whether the qdisc took it."""
    sender.set(SO_PRIORITY, packet.priority)
    sender.set(SO_MARK, mark)
    return sender.send(packet.number, packet.size, packet.port, packet.when, packet.tos)


Result = collections.namedtuple("Result", "arrivals refused drops")


def leave(attach, traffic, wait=0):
    """What a qdisc does with packets that it can all look at before one leaves. The
    last one opens the gate, `wait` s after the others."""
    with lib.behind_the_gate(attach) as (device, sender, receiver):
        refused = [packet.number for packet in traffic[:-1] if not send(sender, packet)]
        time.sleep(wait)
        refused += [packet.number for packet in traffic[-1:] if not send(sender, packet, mark=1)]
        drops = drops_below(device, "1:1")
        arrivals = receiver.collect(len(traffic) - drops)
        lib.equal(receiver.drain(), [], "packets nobody knows of")
        return Result(arrivals, refused, drops)


def drops_below(device, parent):
    listed = json.loads(lib.run("tc", "-s", "-j", "qdisc", "show", "dev", device.a))
    (stats,) = [entry for entry in listed if entry.get("parent") == parent]
    return stats["drops"]


def native(*words):
    def attach(device, parent):
        where = ("root",) if parent == "root" else ("parent", parent)
        lib.run("tc", "qdisc", "add", "dev", device.a, *where, *words)
    return attach


def ours(obj, *words, **parameters):
    def attach(device, parent):
        before = lib.maps_named(".data.param")
        where = ("root",) if parent == "root" else ("parent", parent)
        device.attach(obj, *words, where=where)
        (params,) = lib.maps_named(".data.param") - before
        lib.set_parameters(params, **parameters)
    return attach


def seeded():
    seed = random.randrange(1 << 32)
    print(f"# seed {seed}")
    return random.Random(seed)


def same(theirs, mine, count):
    """Order of departure, and who is dropped."""
    traffic = packets(seeded(), count)
    wanted = leave(theirs, traffic)
    lib.true(wanted.drops > 10, f"the native qdisc has dropped {wanted.drops} packets, too few to compare")
    lib.true(len(wanted.arrivals) > 20, f"only {len(wanted.arrivals)} packets have left the native qdisc")
    got = leave(mine, traffic)
    lib.equal(got.drops, wanted.drops, "drops")
    lib.equal(got.refused, wanted.refused, "packets refused")
    lib.equal(lib.numbers(got.arrivals), lib.numbers(wanted.arrivals), "order of departure")


def fifo_is_pfifo():
    same(native("pfifo", "limit", "50"), ours(FIFO, "limit", "50"), 100)


def fifo_is_bfifo():
    same(native("bfifo", "limit", "30000"),
         ours(FIFO, limit_bytes=30000), 100)


def fifo_is_pfifo_head_drop():
    same(native("pfifo_head_drop", "limit", "50"),
         ours(FIFO, "limit", "50", head_drop=1), 100)


def prio_is_prio():
    same(native("prio"), ours(PRIO), 2500)


def prio_is_pfifo_fast():
    same(native("pfifo_fast"), ours(PRIO), 2500)


def prio_is_skbprio():
    same(native("skbprio", "limit", "40"), ours(PRIO, "limit", "40", skbprio=1), 200)


def same_refused(theirs, mine, traffic, least):
    wanted = leave(theirs, traffic).refused
    lib.true(len(wanted) >= least, f"the native qdisc has refused {len(wanted)} packets, too few to compare")
    lib.equal(leave(mine, traffic).refused, wanted, "packets refused")


def fq_limits_flows_as_fq():
    """The native fq does not count its first 8 packets, which take a short cut."""
    rng = seeded()
    traffic = [Packet(number, 100, port=rng.choice((1, 1, 1, 2, 2, 3)) if number >= 8 else 4)
               for number in range(200)]
    same_refused(native("fq", "flow_limit", "30"), ours(FQ, flow_limit=30), traffic, 20)


def fq_counts_who_has_left():
    """A flow may send more than its limit, one after the other; also while another's
    packet stands, so that the queue is never empty."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        ours(FQ, flow_limit=10)(device, "root")
        sender.send(99, port=2, when=time.monotonic_ns() + 9 * NSEC)
        for number in range(50):
            lib.true(sender.send(number), f"packet {number} refused")
            receiver.collect(1)


def fq_has_a_horizon_as_fq():
    """Of times up to 100 s from now those beyond the first 10 are refused."""
    rng = seeded()
    now = time.monotonic_ns()
    traffic = [Packet(number, 100, port=number, when=now + rng.choice((0, 1, 50, 100)) * NSEC + 1)
               for number in range(60)]
    wanted = [packet.number for packet in traffic if packet.when > now + 40 * NSEC]
    for attach in (native("fq", "horizon_drop"), ours(FQ)):
        with lib.behind_the_gate(attach) as (_, sender, _):
            refused = [packet.number for packet in traffic if not send(sender, packet)]
            lib.equal(refused, wanted, "packets refused")


def fq_is_fair():
    """While three flows all have packets, none is ahead of another by more than the
    quantum and three packets, whatever the sizes: a packet each beyond the quantum, and
    the first one, which finds the queue empty."""
    rng = seeded()
    traffic = [Packet(number, rng.randrange(60, 1500), port=port)
               for number, port in enumerate([1] * 90 + [2] * 60 + [3] * 60)]
    port_of = {packet.number: packet.port for packet in traffic}
    left = collections.Counter(packet.port for packet in traffic)
    had = collections.Counter()
    arrivals = leave(ours(FQ, quantum=1514, initial_quantum=1514), traffic).arrivals
    for arrival in arrivals:
        port = port_of[arrival.number]
        had[port] += arrival.size
        left[port] -= 1
        if not all(left[port] for port in (1, 2, 3)):
            break
        ahead = max(had.values()) - min(had[port] for port in (1, 2, 3))
        lib.true(ahead <= 1514 + 3 * 1500, f"a flow is {ahead} bytes ahead")
    for port in (1, 2, 3):
        own = [number for number in lib.numbers(arrivals) if port_of[number] == port]
        lib.equal(own, sorted(own), "order of a flow")


def paced(attach, traffic):
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        attach(device, "root")
        start = time.monotonic_ns() + NSEC
        for packet in traffic:
            lib.true(send(sender, packet._replace(when=start + packet.when)), "packet refused")
        arrivals = receiver.collect(len(traffic))
        return [arrival._replace(when=arrival.when - start) for arrival in arrivals]


def fq_paces_by_time_stamp_as_fq():
    rng = seeded()
    delays = rng.sample(range(100), 60)
    traffic = [Packet(number, 100, when=delay * 5 * MS) for number, delay in enumerate(delays)]
    wanted = lib.numbers(paced(native("fq"), traffic))
    arrivals = paced(ours(FQ), traffic)
    lib.equal(lib.numbers(arrivals), wanted, "order")
    for arrival in arrivals:
        late = arrival.when - traffic[arrival.number].when
        lib.true(0 <= late < lib.LATE, f"packet {arrival.number} came {late / MS:.3f} ms late")


def fq_paces_by_the_sockets_rate():
    """1000 bytes at 100,000 bytes a second are 10 ms each."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        ours(FQ)(device, "root")
        sender.set(lib.SO_MAX_PACING_RATE, 100_000)
        start = time.monotonic_ns()
        for number in range(30):
            sender.send(number, 1000)
        arrivals = receiver.collect(30)
        lib.equal(lib.numbers(arrivals), list(range(30)), "order")
        took = arrivals[-1].when - start
        lib.true(290 * MS <= took < 290 * MS + 2 * lib.LATE, f"30 packets took {took / MS:.1f} ms")


def fq_marks_what_is_late_as_fq():
    """Behind a gate that opens half a second after their time. The native fq never
    marks its first 8 packets, which take a short cut."""
    now = time.monotonic_ns()
    traffic = [Packet(number, 200, port=number % 4, when=now + 1, tos=number % 3 if number >= 8 else 0)
               for number in range(40)]
    marked = {}
    for name, attach in (("theirs", native("fq", "ce_threshold", "100ms")),
                         ("ours", ours(FQ, ce_threshold=100 * MS))):
        arrivals = leave(attach, traffic, wait=0.5).arrivals
        marked[name] = sorted(arrival.number for arrival in arrivals if arrival.tos & 3 == 3)
    lib.equal(marked["theirs"], [number for number in range(8, 40) if number % 3], "marked by the native fq")
    lib.equal(marked["ours"], marked["theirs"], "marked")


lib.main(fifo_is_pfifo, fifo_is_bfifo, fifo_is_pfifo_head_drop, prio_is_prio, prio_is_pfifo_fast, prio_is_skbprio,
         fq_limits_flows_as_fq, fq_counts_who_has_left, fq_has_a_horizon_as_fq, fq_is_fair, fq_paces_by_time_stamp_as_fq,
         fq_paces_by_the_sockets_rate, fq_marks_what_is_late_as_fq)
