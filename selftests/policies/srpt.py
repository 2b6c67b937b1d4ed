#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""srpt.py [--measure]: the policy srpt. Which packet leaves and which is dropped; and how long flows
take, with sizes of web search, beside pfifo and fq. With --measure, what policies/fct draws.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import contextlib
import ctypes
import itertools
import json
import random
import select
import socket
import struct
import sys
import time

import lib
from lib import MS, NSEC, SO_MARK, SO_PRIORITY

OBJ = f"{lib.POLICIES}/srpt.bpf.o"
PRIORITY, MARK = "rank_by=1", "rank_by=2"
SIZE = 1000
FLOW = 1000                     # numbers of its packets are from there
LET = 10_000                    # of gate.bpf.c: so many and N as a mark let N packets go
GATE = 9999                     # flow of the packet that opens it


# --- which packet ----------------------------------------------------------------

@contextlib.contextmanager
def below_the_gate(*settings, limit=10000):
    """Takes packets; lets them go when one with the mark 1 comes, which tells that it is the last byte."""
    words = [word for each in settings for word in ("set", each)]
    with lib.behind_the_gate(lambda device, parent: device.attach(OBJ, "limit", str(limit), *words, where=("parent", parent))) as made:
        yield made


def give(sender, flow, first, remaining, option=SO_PRIORITY):
    """Packets of a flow, numbered from there, each of which tells how many bytes remain; which are taken."""
    taken = []
    for number, left in enumerate(remaining, FLOW * flow + first):
        sender.set(option, left)
        if sender.send(number, SIZE, 1000 + flow):
            taken.append(number - FLOW * flow)
    sender.set(option, 0)
    return taken


def leave(sender, receiver, count):
    """(flow, number) of each in order, but for the one that opens the gate."""
    sender.set(SO_MARK, 1)
    lib.true(sender.send(GATE * FLOW, 100, 99), "the packet that opens the gate is dropped")
    return [divmod(arrival.number, FLOW) for arrival in receiver.collect(count + 1) if arrival.number != GATE * FLOW]


def flow(number, numbers):
    return [(number, each) for each in numbers]


def least_left_goes_first():
    """Whichever field tells it; and packets of a flow in their order."""
    for setting, option in ((PRIORITY, SO_PRIORITY), (MARK, SO_MARK)):
        with below_the_gate(setting) as (device, sender, receiver):
            for number, remaining in ((1, (9000, 8000)), (2, (3000, 2000, 1000)), (3, (7000, 6000, 5000, 4000))):
                lib.equal(len(give(sender, number, 0, remaining, option)), len(remaining), "taken")
            told = device.below()["stats"]["told"]
            lib.equal((leave(sender, receiver, 9), told), ([*flow(2, range(3)), *flow(3, range(4)), *flow(1, range(2))], 9),
                      f"{setting}: order, told")


def the_oldest_packet_of_the_flow_leaves():
    """Flow 1 is nearly done: its first packets, sent when it had more left than flow 2, do not wait behind that."""
    with below_the_gate(PRIORITY) as (_, sender, receiver):
        give(sender, 1, 0, (50_000, 40_000, 100))
        give(sender, 2, 0, (30_000, 20_000))
        lib.equal(leave(sender, receiver, 5), [*flow(1, range(3)), *flow(2, range(2))], "order")


def equals_leave_as_they_came():
    with below_the_gate(PRIORITY) as (_, sender, receiver):
        for number in range(20):
            give(sender, number, 0, (5000,))
        lib.equal(leave(sender, receiver, 20), [(number, 0) for number in range(20)], "order")


def most_left_is_dropped():
    """For a packet that has less. One that has as many finds no room."""
    with below_the_gate(PRIORITY, limit=6) as (device, sender, receiver):
        lib.equal(give(sender, 1, 0, (9000, 8000, 7000)), [0, 1, 2], "taken")
        lib.equal(give(sender, 2, 0, (5000, 4000, 3000)), [0, 1, 2], "taken")
        lib.equal(give(sender, 3, 0, (9001, 9000, 8999, 2000)), [2, 3], "taken of flow 3, by what it had left")
        shown = device.below()
        lib.equal((shown["drops"], shown["stats"]), (4, {"told": 10, "evicted": 2}), "drops, statistics")
        # The last packet takes the place of 8000.
        lib.equal(leave(sender, receiver, 5), [*flow(3, (3,)), *flow(2, range(3)), *flow(1, (2,))], "order")


def a_lower_limit_drops_what_has_most_left():
    with below_the_gate(PRIORITY, limit=20) as (device, sender, receiver):
        give(sender, 1, 0, range(30_000, 10_000, -1000))
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", "limit", "5")
        lib.equal(give(sender, 2, 0, (1000,)), [0], "taken")
        lib.equal(leave(sender, receiver, 4), [*flow(2, (0,)), *flow(1, range(17, 20))], "order")


def who_tells_nothing_is_ranked_by_what_it_has_sent():
    """A priority that anyone may set tells nothing."""
    for setting, left in (("rank_by=0", 0), ("rank_by=0", 7), (PRIORITY, 0), (PRIORITY, 6), (MARK, 7)):
        with below_the_gate(setting) as (device, sender, receiver):
            give(sender, 1, 0, [left] * 5)
            give(sender, 2, 0, [left] * 2)
            lib.equal(device.below()["stats"]["told"], 0, f"{setting}: told")
            lib.equal(leave(sender, receiver, 7), [(1, 0), (2, 0), (1, 1), (2, 1), *flow(1, (2, 3, 4))], f"{setting}, {left}: order")


def a_flow_goes_on_while_its_packets_wait():
    """However long."""
    with below_the_gate("idle=1s") as (_, sender, receiver):
        give(sender, 1, 0, [0] * 3)
        time.sleep(2)
        give(sender, 2, 0, [0] * 2)
        give(sender, 1, 3, [0] * 2)
        lib.equal(leave(sender, receiver, 7), [(1, 0), (2, 0), (1, 1), (2, 1), *flow(1, range(2, 5))], "order")


def an_idle_flow_begins_anew():
    """It is idle from when its last packet left."""
    goes_on, anew = [*flow(2, range(2)), *flow(1, (3, 4))], [(1, 3), (2, 0), (1, 4), (2, 1)]
    for waits, pause, wanted in ((0, 0, goes_on), (2, 0, goes_on), (0, 2, anew)):
        with below_the_gate("idle=1s") as (_, sender, receiver):
            give(sender, 1, 0, [0] * 3)
            time.sleep(waits)
            give(sender, 3, 0, [LET + 4], SO_MARK)
            lib.equal(len(receiver.collect(4)), 4, "packets that leave first")
            time.sleep(pause)
            give(sender, 1, 3, [0] * 2)
            give(sender, 2, 0, [0] * 2)
            lib.equal(leave(sender, receiver, 4), wanted, f"order after {waits} and {pause} s")


def a_reset_forgets_all():
    with below_the_gate(PRIORITY, limit=20) as (device, sender, receiver):
        give(sender, 1, 0, range(9000, 4000, -1000))
        device.flap()
        with lib.Sender(device.a) as after:
            lib.equal(len(give(after, 2, 0, range(40_000, 20_000, -1000))), 20, "taken")
            lib.equal(leave(after, receiver, 19), flow(2, range(1, 20)), "order")


def a_change_keeps_all():
    with below_the_gate(PRIORITY) as (device, sender, receiver):
        give(sender, 1, 0, (9000, 8000, 7000))
        give(sender, 2, 0, (5000, 4000))
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", "obj", OBJ, "set", PRIORITY)
        give(sender, 1, 3, (6000,))
        give(sender, 3, 0, (4500,))
        lib.equal(leave(sender, receiver, 7), [*flow(2, range(2)), (3, 0), *flow(1, range(4))], "order")


def of_many_those_with_least_are_left():
    """Also in a queue that is full again and again; the last packet takes a place."""
    remaining = [1000 + number * 7919 % 1000 for number in range(1000)]
    with below_the_gate(PRIORITY, limit=10) as (device, sender, receiver):
        for number, left in enumerate(remaining):
            give(sender, number, 0, (left,))
        order = leave(sender, receiver, 9)
        lib.equal([remaining[number] for number, _ in order], list(range(1000, 1009)), "what is left, in its order")
        lib.equal((device.below()["drops"], device.below()["qlen"]), (991, 0), "drops, packets queued")


def nonsense_is_refused():
    with lib.link() as device:
        device.attach(OBJ)
        for setting, words in (("rank_by=4", "it is a number from 0 to 3"), ("rank_by=-1", "it is a number from 0 to 3"),
                               ("idle=0", "it is a time from 1ms to 86400s"), ("idle=2d", "it is a time from 1ms to 86400s"),
                               ("remaining=1", 'unknown parameter "remaining"')):
            lib.fails(1, words, "tc", *lib.qdisc(device, "change", "set", setting))


def tcp_is_ranked_by_what_is_not_acknowledged():
    """Of two connections the one with half as many bytes is done before the other one goes on. Without it both get as far."""
    lib.quiet_wire()
    lib.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")     # QEMU 7 would send a TSO packet as IP fragments
    most, least = 400_000, 200_000
    for setting, low, high in (("rank_by=3", 0, least // 2), ("rank_by=0", least * 3 // 4, least * 5 // 4)):
        with contextlib.ExitStack() as stack:
            with lib.namespace("peer"):
                server = stack.enter_context(socket.create_server(("10.0.0.2", 5001)))
            clients, peers = [], []
            for _ in range(2):
                clients.append(stack.enter_context(socket.create_connection(("10.0.0.2", 5001))))
                clients[-1].setsockopt(socket.SOL_SOCKET, lib.SO_SNDBUFFORCE, 1 << 22)
                peers.append(stack.enter_context(server.accept()[0]))
            lib.run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "tbf", "rate", "8mbit", "burst", "1600", "limit", "1000000")
            stack.callback(lib.run, "tc", "qdisc", "del", "dev", "eth0", "root")
            lib.run("tc", "qdisc", "add", "dev", "eth0", "parent", "1:1", "bpf", "obj", OBJ, "set", setting)
            for client, count in zip(clients, (most, least)):
                client.sendall(bytes(count))
            got, then = [0, 0], None
            while sum(got) < most + least:
                readable = select.select(peers, [], [], 60)[0]
                lib.true(readable, f"{setting}: nothing arrives, after {got} bytes")
                for peer in readable:
                    got[peers.index(peer)] += len(peer.recv(1 << 16))
                if then is None and got[1] == least:
                    then = got[0]
            (stats,) = [each for each in lib.qdiscs("eth0") if each.get("parent") == "1:1"]
            print(f"# {setting}: the longer one has {then} bytes when the other one is done; told {stats['stats']['told']}")
            lib.true(low <= then <= high, f"{setting}: the longer one has {then} bytes, wanted {low} to {high}")


# --- how long flows take -----------------------------------------------------------

# Web search, the workload of "Data Center TCP (DCTCP)" (SIGCOMM 2010), in the points that pFabric and others
# have taken since: of all flows this share is at most so many kilobytes. Between two points a line.
WEB_SEARCH = ((0, 0), (.15, 10), (.2, 20), (.3, 30), (.4, 50), (.53, 80), (.6, 200), (.7, 1000), (.8, 2000), (.9, 5000),
              (.97, 10_000), (1, 30_000))
SCALE = 10                      # a packet of 1500 bytes stands for so many: the VM is slow
PACKET = 1500                   # bytes
EACH = MS                       # what one takes on the link of 12 Mbit/s, ns
SMALL, LARGE = 100, 1000        # kilobytes: at most, at least
LAST = 4                        # TOS of a flow's last packet
FIRST_PORT = 1024
SO_ATTACH_FILTER = 26
BATCH = 1024                    # of sendmmsg()

QDISCS = {
    "pfifo": ("pfifo", "limit", "100000"),
    # A new flow is ahead of others with its first packets: with as many bytes as of real flows. And there is one band: of
    # three, a new flow stands in the first at the beginning, whatever its own is, and waits for the quantum of that.
    "fq": ("fq", "limit", "100000", "flow_limit", "100000", "orphan_mask", "0xffffff", "quantum", "1514", "initial_quantum", "1514",
           "bands", "3", "priomap", *"0" * 16),
    "srpt, not told": ("bpf", "obj", OBJ),
    "srpt, told": ("bpf", "obj", OBJ, "set", MARK),
}


def kilobytes(share):
    """Of the flow than which this share of all is smaller"""
    for (low, least), (high, most) in itertools.pairwise(WEB_SEARCH):
        if share <= high:
            return least + (most - least) * (share - low) / (high - low)
    raise ValueError(share)


def packets_of(size):
    return max(1, round(size * 1000 / (PACKET * SCALE)))


def flows(count, load, seed=1):
    """(ns, kilobytes) of each: a Poisson process. Sizes are spread evenly over the distribution and
    shuffled, so that their mean is its own; a load changes nothing but the times."""
    rng = random.Random(seed)
    sizes = [kilobytes((number + .5) / count) for number in range(count)]
    rng.shuffle(sizes)
    between = sum(map(packets_of, sizes)) / count * EACH / load
    times = itertools.accumulate(rng.expovariate(1) for _ in sizes)
    return [(round(when * between), size) for when, size in zip(times, sizes)]


class Burst:
    """Hands the packets of a flow to the kernel, all at once, so that each tells by its mark what all of them are."""

    def __init__(self, dev, most):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.bind((dev, lib.ETH_P_IP))
        self.sock.setsockopt(socket.SOL_SOCKET, lib.SO_SNDBUFFORCE, 1 << 30)
        self.frames = [ctypes.create_string_buffer(PACKET) for _ in range(2)]      # the last, and any other
        vectors = b"".join(struct.pack("QQ", ctypes.addressof(frame), PACKET) for frame in self.frames)
        self.vectors = ctypes.create_string_buffer(vectors, len(vectors))
        # struct mmsghdr
        last, other = (struct.pack("QQQQQQQQ", 0, 0, ctypes.addressof(self.vectors) + 16 * which, 1, 0, 0, 0, 0) for which in range(2))
        self.headers = ctypes.create_string_buffer(other * (most - 1) + last, 64 * most)
        self.most = most

    def send(self, number, packets):
        for frame, tos in zip(self.frames, (LAST, 0)):
            frame.raw = lib.frame(number, PACKET, FIRST_PORT + number, tos)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_MARK, packets * PACKET)
        while packets:
            at = ctypes.byref(self.headers, 64 * (self.most - packets))
            sent = self.libc.sendmmsg(self.sock.fileno(), at, min(packets, BATCH), 0)
            if sent <= 0:
                raise OSError(ctypes.get_errno(), f"{packets} packets of flow {number}")
            packets -= sent


def only_the_last(sock):
    """A filter of the socket: what is no flow's last packet is nothing to wake up for."""
    code = b"".join(struct.pack("HBBI", *each) for each in ((0x30, 0, 0, 15), (0x15, 0, 1, LAST), (0x06, 0, 0, 0xffff), (0x06, 0, 0, 0)))
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)))


def completion_times(qdisc, plan):
    """ms of each flow, from when it came until its last packet has arrived"""
    most = max(packets_of(size) for _, size in plan)
    with lib.link() as device, lib.Receiver(device.b) as receiver:
        only_the_last(receiver.sock)
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf", "rate", f"{PACKET * 8 * NSEC // EACH}bit",
                "burst", "1600", "limit", "1000000")
        lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "1:1", *QDISCS[qdisc])
        sender = Burst(device.a, most)
        begin = time.monotonic_ns() + 10 * MS
        for number, (when, size) in enumerate(plan):
            time.sleep(max(0, begin + when - time.monotonic_ns()) / NSEC)
            sender.send(number, packets_of(size))
        took = {arrival.number: (arrival.when - begin - plan[arrival.number][0]) / MS
                for arrival in receiver.collect(len(plan), 600)}
        (stats,) = [each for each in lib.qdiscs(device.a) if each.get("parent") == "1:1"]
        lib.equal((stats["packets"], stats["drops"], stats["qlen"]), (sum(packets_of(size) for _, size in plan), 0, 0),
                  f"{qdisc}: packets sent, dropped, queued")
        return [took[number] for number in range(len(plan))]


def mean(values):
    return sum(values) / len(values)


def summary(plan, took):
    """ms: the mean and the 99th percentile of small flows, the means of large ones and of all"""
    small = sorted(each for each, (_, size) in zip(took, plan) if size <= SMALL)
    return {"small": mean(small), "small_99": small[len(small) * 99 // 100],
            "large": mean([each for each, (_, size) in zip(took, plan) if size >= LARGE]), "all": mean(took)}


def measure(count=400):
    for load in (40, 60, 80):
        plan = flows(count, load / 100)
        for qdisc in QDISCS:
            print(json.dumps({"load": load, "qdisc": qdisc, "flows": count, **summary(plan, completion_times(qdisc, plan))}), flush=True)


def small_flows_are_done_first():
    """At 60 % of the link, whether their size is told or not."""
    plan = flows(100, .6)
    found = {qdisc: summary(plan, completion_times(qdisc, plan)) for qdisc in QDISCS if qdisc != "fq"}
    for qdisc, figures in found.items():
        print("#", qdisc, {name: round(value, 2) for name, value in figures.items()})
    for qdisc in ("srpt, not told", "srpt, told"):
        for what, times in (("small", 20), ("small_99", 20), ("large", 1), ("all", 1.5)):
            had, wanted = found[qdisc][what], found["pfifo"][what] / times
            lib.true(had < wanted, f"{qdisc}: {what} {had:.1f} ms, wanted less than {wanted:.1f} ms")


if sys.argv[1:] == ["--measure"]:
    measure()
else:
    lib.main(least_left_goes_first,
             the_oldest_packet_of_the_flow_leaves,
             equals_leave_as_they_came,
             most_left_is_dropped,
             a_lower_limit_drops_what_has_most_left,
             who_tells_nothing_is_ranked_by_what_it_has_sent,
             a_flow_goes_on_while_its_packets_wait,
             an_idle_flow_begins_anew,
             a_reset_forgets_all,
             a_change_keeps_all,
             of_many_those_with_least_are_left,
             nonsense_is_refused,
             measured=[tcp_is_ranked_by_what_is_not_acknowledged, small_flows_are_done_first])
