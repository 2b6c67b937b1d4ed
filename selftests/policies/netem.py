#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy netem beside the native netem, with the same packets at the same times. With the same
seed both decide the same of each packet.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import glob
import os
import random
import re
import select
import socket
import time

import lib
from lib import MS, NSEC, SO_MARK, SO_RCVBUFFORCE

OBJ = f"{lib.POLICIES}/netem.bpf.o"
(DISTRIBUTIONS,) = glob.glob("/usr/lib/*/tc/normal.dist")
SLACK = MS // 4                 # by which timers and time stamps may be late
SEED = 7
# Name of each in the native netem's words
STATISTICS = {"delayed": "delayed", "lost": "dropped", "duplicated": "duplicated", "marked": "ecn_marked", "reordered": "reordered"}


def native(words, seed=SEED, limit=10000):
    def attach(device, *where):
        lib.run("env", f"TC_LIB_DIR={os.path.dirname(DISTRIBUTIONS)}", "tc", "qdisc", "add", "dev", device, *where, "netem",
                "limit", str(limit), *words.split(), "seed", str(seed))
    return attach


def sets(words):
    return [word for each in words.split() for word in ("set", each)]


def ours(words, seed=SEED, limit=10000):
    def attach(device, *where):
        lib.run("tc", "qdisc", "add", "dev", device, *where, "bpf", "obj", OBJ, "limit", str(limit), *sets(words),
                "set", f"seed={seed}")
    return attach


def with_distribution(name, words, of="delay"):
    """By the commands at the policy's head."""
    with open(OBJ[:-1] + "c", encoding="ascii") as file:
        commands = re.search(r"^ \*\tvalues\(\).*?^ \*$", file.read(), re.M | re.S)[0].replace("\n *", "\n")[2:]

    def attach(device, *where):
        lib.equal(where, ("root",), "where the head attaches it")
        lib.run("bash", "-ec", commands.replace("eth0", device).replace("obj netem", f"obj {OBJ} limit 10000")
                .replace("normal", name).replace("delay_", f"{of}_"))
        lib.run("tc", "qdisc", "change", "dev", device, *where, "bpf", *sets(words), "set", f"seed={SEED}")
    return attach


Packet = collections.namedtuple("Packet", "when size tos")
Through = collections.namedtuple("Through", "sent arrivals counts")


def packets(count, pause):
    """Of all lengths, at random times; every other one takes part in ECN."""
    rng, when, made = random.Random(count), 0, []
    for number in range(count):
        made.append(Packet(when, rng.randrange(60, 1500), 2 * (number % 2)))
        when += rng.randrange(pause)
    return made


def root(device):
    return lib.qdiscs(device.a)[0]


def counts(entry):
    """What either netem counts"""
    stats = entry.get("stats") or {name: entry[theirs] for name, theirs in STATISTICS.items()}
    return {name: entry[name] for name in ("packets", "bytes", "drops")} | {name: stats[name] for name in STATISTICS}


def through(attach, traffic):
    """What becomes of packets. Their senders are not told of any loss."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        attach(device.a, "root")
        start, sent = time.monotonic_ns(), []
        for number, packet in enumerate(traffic):
            time.sleep(max(0, start + packet.when - time.monotonic_ns()) / NSEC)
            sent.append(time.monotonic_ns())
            lib.true(sender.send(number, packet.size, tos=packet.tos), f"packet {number} refused")
        lib.wait_until(lambda: not root(device)["qlen"], "all have left")
        entry = root(device)
        arrivals = receiver.collect(entry["packets"])
        lib.equal((receiver.drain(), entry["backlog"]), ([], 0), "packets nobody knows of, bytes that are left")
        return Through([when - start for when in sent], [each._replace(when=each.when - start) for each in arrivals],
                       counts(entry))


# --- what is not left to chance ------------------------------------------------------

FIXED = (("delay 30ms", "delay=30ms"),
         ("rate 2mbit", "rate=2mbit"),
         ("rate 2mbit -14 48 5", "rate=2mbit overhead=-14 cell_size=48 cell_overhead=5"),
         ("delay 50ms rate 2mbit", "delay=50ms rate=2mbit"),
         ("delay 5ms reorder 100% gap 5", "delay=5ms gap=5"),
         ("rate 2mbit delay 1ms reorder 100% gap 3", "rate=2mbit delay=1ms gap=3"),
         ("delay 3ms duplicate 100%", "delay=3ms duplicate=1000000"),
         ("rate 4mbit duplicate 100%", "rate=4mbit duplicate=1000000"),
         ("slot 20ms 20ms packets 3", "slot_delay=20ms slot_packets=3"),
         ("slot 15ms 15ms bytes 3000 delay 5ms", "slot_delay=15ms slot_bytes=3000 delay=5ms"),
         ("slot 15ms 15ms packets 4 delay 5ms reorder 100% gap 4", "slot_delay=15ms slot_packets=4 delay=5ms gap=4"),
         ("loss 100%", "loss=1000000"),
         ("loss 100% ecn", "loss=1000000 ecn=1"))


def by_packet(found, since=0):
    """Number -> marks and delays of those that have arrived, sorted"""
    delays = collections.defaultdict(list)
    for each in found.arrivals:
        if each.number >= since:
            delays[each.number].append((each.tos, each.when - found.sent[each.number]))
    return {number: sorted(each) for number, each in sorted(delays.items())}


def same(theirs, mine, traffic, what, since=0):
    """What is lost, doubled and marked, and how long each packet is on its way: so, the order is
    the same but of packets that leave at nearly the same time. A slot begins after the last one, so
    that what timers are late by adds up. Of many packets one in a thousand may be held up."""
    wanted, got = through(theirs, traffic), through(mine, traffic)
    if not since:
        lib.equal(got.counts, wanted.counts, f"{what}: counters")
    mine, theirs = by_packet(got, since), by_packet(wanted, since)
    differ = [number for number in range(since, len(traffic))
              if [tos for tos, _ in mine.get(number, ())] != [tos for tos, _ in theirs.get(number, ())]]
    lib.equal(differ, [], f"{what}: packets that do not arrive as often, or with other marks")
    off = sorted((abs(delay - other) - delay // 500 for number in mine
                  for (_, delay), (_, other) in zip(mine[number], theirs[number])), reverse=True)
    delays = [delay / MS for each in mine.values() for _, delay in each] or [0]
    print(f"# {what}: {len(mine)} of {len(traffic) - since} packets arrive, {sum(map(len, mine.values())) - len(mine)} twice, "
          f"delays from {min(delays):.2f} to {max(delays):.2f} ms, mean {sum(delays) / len(delays):.3f} ms, beyond 0.2 % "
          f"{[each / MS for each in (*off[:1], *off[len(off) // 1000:][:1])]} ms apart, {got.counts}")
    if not lib.DEBUG:
        lib.true(not off or off[len(off) // 1000] < SLACK, f"{what}: the delays of packets differ by more, in ns, than 0.2 %: {off[:200]}")


def what_is_not_left_to_chance_is_as_in_netem():
    traffic = packets(100, 4 * MS)
    for theirs, mine in FIXED:
        same(native(theirs), ours(mine), traffic, theirs)


def a_full_queue_drops_as_netems():
    """The sender is told."""
    def refused(attach):
        with lib.behind_the_gate(lambda device, parent: attach(device.a, "parent", parent)) as (device, sender, receiver):
            numbers = [number for number in range(100) if not sender.send(number)]
            sender.set(SO_MARK, 1)
            lib.true(not sender.send(100), "room in a full queue")
            drops = device.below()["drops"]
            return numbers, drops, lib.numbers(receiver.collect(101 - drops))

    for theirs, mine in (("delay 1ms", "delay=1ms"), ("delay 1ms reorder 100% gap 4", "delay=1ms gap=4")):
        wanted, got = refused(native(theirs, limit=20)), refused(ours(mine, limit=20))
        lib.equal(wanted[:2], ([*range(20, 100)], 81), "refused by the native netem, drops")
        lib.equal(got, wanted, f"{theirs}: packets refused, drops, order of what leaves")


def every_packet_is_counted():
    """Those that are made here, too; and no duplicate goes beyond the limit."""
    for words, cloned, dropped in (("delay=5ms duplicate=1000000", 50, 0), ("delay=5ms loss=1000000", 0, 50)):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            ours(words)(device.a, "root")
            for number in range(50):
                lib.true(sender.send(number), f"{words}: packet {number} refused")
            receiver.collect(50 + cloned - dropped)
            lib.balance(device, sender, receiver, cloned=(cloned, cloned * 100), dropped=(dropped, dropped * 100))
    with lib.behind_the_gate(lambda device, parent: ours("duplicate=1000000", limit=25)(device.a, "parent", parent)) as (
            device, sender, _):
        for number in range(50):
            sender.send(number)
        lib.equal((device.below()["qlen"], device.below()["drops"]), (25, 1 + 37), "packets that wait, drops")


# --- what is ----------------------------------------------------------------------

MANY = ("delay 20ms 8ms loss 5% duplicate 6% reorder 30% gap 3",
        "delay=20ms jitter=8ms loss=50000 duplicate=60000 reorder=300000 gap=3")
RANDOM = ((native("delay 50ms 10ms distribution normal"), with_distribution("normal", "delay=50ms jitter=10ms"), "normal"),
          (native("delay 20ms 3ms distribution pareto rate 20mbit"),
           with_distribution("pareto", "delay=20ms jitter=3ms rate=20mbit"), "pareto, and a rate"),
          (native("slot distribution paretonormal 20ms 5ms packets 8"),
           with_distribution("paretonormal", "delay=0 jitter=0 slot_delay=20ms slot_jitter=5ms slot_packets=8", "slot"), "slots"),
          (native("delay 1ms 3ms"), ours("delay=1ms jitter=3ms"), "delays below 0"))
# Of each there is one random number a packet, so that the first ones, on which others depend, make no difference for long.
# tc sends the correlation of duplicates only beside another one.
CORRELATED = (("loss 30% 25%", "loss=300000 loss_corr=250000"),
              ("delay 20ms 8ms 50%", "delay=20ms jitter=8ms delay_corr=500000"),
              ("duplicate 30% 50% loss 0% 1%", "duplicate=300000 duplicate_corr=500000"),
              ("delay 10ms reorder 40% 50%", "delay=10ms gap=1 reorder=400000 reorder_corr=500000"))


def a_seed_decides_as_in_netem():
    traffic = packets(600, 2 * MS)
    for theirs, mine, what in RANDOM:
        same(theirs, mine, traffic, what)


def so_does_it_for_10000_packets():
    same(native(f"{MANY[0]} ecn"), ours(f"{MANY[1]} ecn=1"), packets(10_000, MS // 5), f"{MANY[0]} ecn")


def correlation_is_that_of_netem():
    traffic = packets(600, 2 * MS)
    for theirs, mine in CORRELATED:
        same(native(theirs), ours(mine), traffic, theirs, since=100)


def slots_are_spread():
    """The native netem takes them from numbers of no seed."""
    for attach in (native("slot 5ms 15ms packets 1"), ours("slot_delay=10ms slot_jitter=5ms slot_packets=1")):
        times = [each.when for each in through(attach, [Packet(0, 100, 0)] * 150).arrivals]
        found = sorted(after - before for before, after in zip(times, times[1:]))
        mean = sum(found) / len(found)
        print(f"# ms between slots: {found[0] / MS:.2f} to {found[-1] / MS:.2f}, mean {mean / MS:.2f}")
        lib.true(5 * MS - SLACK < found[0] < 6 * MS and 14 * MS < found[-1] < 15 * MS + SLACK, f"ns between slots: {found}")
        lib.true(abs(mean - 10 * MS) < 1.5 * MS, f"ns between slots, on average: {mean}")


def sums(attach, count=100_000):
    """Of packets of pktgen's, 10 us apart"""
    device = f"netem-{os.getpid()}"
    with lib.pktgen(device, "delay 10000") as send:
        attach(device, "root")
        send(count)
        lib.wait_until(lambda: not lib.qdiscs(device)[0]["qlen"], "all have left")
        return counts(*lib.qdiscs(device))


def sums_of_100000_packets_are_netems():
    for theirs, mine in (MANY,
                         ("loss state 5% 40% 20% 60% 3%", "loss_model=1 loss_chain=50000,400000,200000,600000,30000"),
                         ("loss gemodel 5% 30% 60% 2%", "loss_model=2 loss_chain=50000,300000,600000,20000")):
        wanted, got = sums(native(theirs)), sums(ours(mine))
        print(f"# {theirs}: {got}")
        lib.true(wanted["lost"] > 3000, f"{theirs}: {wanted['lost']} are lost, too few to compare")
        lib.equal(got, wanted, f"{theirs}: counters")
    wanted, got = (sums(attach)["lost"] for attach in (native("loss 30% 50%"), ours("loss=300000 loss_corr=500000")))
    print(f"# loss 30% 50%: {got} lost, native {wanted}")
    lib.true(wanted > 3000 and abs(got - wanted) < 50, f"{got} lost, native {wanted}")


def a_seed_begins_anew():
    """With new numbers, or those from before; without one they are others each time."""
    def lost(sender, receiver, device):
        before = root(device)["packets"]
        for number in range(200):
            sender.send(number)
        return set(range(200)) - set(lib.numbers(receiver.collect(root(device)["packets"] - before)))

    for words in ("loss=300000 loss_corr=500000", "loss_model=1 loss_chain=100000,50000,0,1000000,0"):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            ours(words, seed=4)(device.a, "root")
            found = []
            for seed in (1, 2, 1, 0, 1, 0):
                lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", f"seed={seed}")
                found.append(lost(sender, receiver, device))
            print(f"# {words}: lost of 200: {[*map(len, found)]}")
            lib.equal((found[2], found[4]), (found[0], found[0]), f"{words}: lost with the same seed")
            lib.equal(len({frozenset(each) for each in found}), 4, f"{words}: kinds of what is lost")


# --- TCP ---------------------------------------------------------------------------

def tcp_rate(attach, window=64 * 1024, begin=NSEC, end=4 * NSEC):
    """Bytes a second of a connection whose window is what bounds it, from `begin` to `end`"""
    attach("eth0", "root")
    with contextlib.ExitStack() as stack:
        with lib.namespace("peer"):
            server = stack.enter_context(socket.create_server(("10.0.0.2", 5001)))
        server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 * window)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, window)
        client = stack.enter_context(socket.create_connection(("10.0.0.2", 5001)))
        peer = stack.enter_context(server.accept()[0])
        client.setblocking(False)
        start, now, received = time.monotonic_ns(), 0, 0
        while now < end:
            readable, writable, _ = select.select([peer], [client], [])
            now = time.monotonic_ns() - start
            if writable:
                client.send(bytes(65536))
            if readable:
                received += len(peer.recv(1 << 20)) * (now > begin)
    lib.run("tc", "qdisc", "del", "dev", "eth0", "root")
    return received * NSEC // (end - begin)


def tcp_gets_as_far_as_with_netem():
    lib.quiet_wire()
    lib.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")     # QEMU 7 would send a TSO packet as IP fragments
    wanted, got = tcp_rate(native("delay 25ms")), tcp_rate(ours("delay=25ms"))
    print(f"# bytes a second: {got}, native {wanted}, {100 * (got / wanted - 1):+.2f} %")
    lib.true(wanted > 2_000_000, f"the native netem lets {wanted} bytes a second through")
    lib.true(abs(got - wanted) < wanted / 50, f"bytes a second: {got}, native {wanted}")


lib.main(a_full_queue_drops_as_netems, every_packet_is_counted, a_seed_decides_as_in_netem, correlation_is_that_of_netem,
         a_seed_begins_anew, measured=[what_is_not_left_to_chance_is_as_in_netem, so_does_it_for_10000_packets,
                                       sums_of_100000_packets_are_netems, slots_are_spread, tcp_gets_as_far_as_with_netem])
