#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy tenants: ceilings, guarantees, borrowing and weights of a link, its tenants and
their subscribers; fair queueing and CoDel in each; thousands of them, changed while they run.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import ctypes
import ipaddress
import os
import re
import socket
import struct
import time

import lib
from lib import MS, NSEC, POLICIES, SO_MARK

TENANTS = f"{POLICIES}/tenants.bpf.o"
SIZE = 1000
FULL = 10_000_000               # bytes a second of the link where it is full: 10 packets a ms
WINDOW = 100 * MS
BURST = 5 * MS                  # of the policy
CLOSED = "rate=4kbit"           # a packet takes 2 s: the queues fill


def mbit(number):
    return f"{number}mbit"


def of(arrival):
    """The subscriber, which the packet's number tells."""
    return arrival.number >> 32


ROOM = ("target=0", "leaf_limit=20000")       # all that is sent waits, if it has to


def settings(*sets):
    """Words of tc: those above, unless they are given."""
    names = {text.split("=")[0] for text in sets}
    return [word for text in (*(text for text in ROOM if text.split("=")[0] not in names), *sets)
            for word in ("set", text)]


@contextlib.contextmanager
def policy(*sets, limit=20000):
    words = settings(*sets)
    with lib.wire(TENANTS, "limit", str(limit), *words) as (device, sender, receiver):
        yield device, sender, receiver


def change(device, *sets, kind="bpf"):
    words = [word for text in sets for word in ("set", text)]
    lib.run("tc", *lib.qdisc(device, "change", *words, kind=kind))


def wait_empty(device):
    """Until all has left. To look is a command, and a packet may wait for 10 s."""
    for _ in range(100):
        if not device.qdisc()["qlen"]:
            time.sleep(0.01)
            return
        time.sleep(1)
    raise lib.Failure("packets still wait")


SYS_BPF, MAP_GET_FD_BY_ID, MAP_UPDATE_BATCH = 321, 14, 26


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(SYS_BPF, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return result


class Map:
    """A map of the policy, to store elements in: all in one system call."""

    def __init__(self, name):
        self.fd = bpf(MAP_GET_FD_BY_ID, struct.pack("<I", max(lib.maps_named(name))))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def store(self, elements):
        """By number, or bytes; numbers"""
        if not elements:
            return
        keys, values = (ctypes.create_string_buffer(data, len(data)) for data in (
            b"".join(key if isinstance(key, bytes) else struct.pack("<I", key) for key in elements),
            b"".join(struct.pack(f"<{len(value)}Q", *value) if isinstance(value, tuple) else struct.pack("<I", value)
                     for value in elements.values())))
        bpf(MAP_UPDATE_BATCH, struct.pack("<QQQQIIQQ", 0, 0, ctypes.addressof(keys), ctypes.addressof(values),
                                          len(elements), self.fd, 0, 0))


class Traffic:
    """Numbers packets by subscriber, and remembers how many were taken."""

    def __init__(self, sender):
        self.sender, self.taken, self.sent = sender, collections.Counter(), collections.Counter()

    def send(self, subscriber, count, flows=1, size=SIZE, port=1000):
        self.sender.set(SO_MARK, subscriber)
        for _ in range(count):
            number = self.sent[subscriber]
            self.sent[subscriber] += 1
            self.taken[subscriber] += self.sender.send(subscriber << 32 | number, size,
                                                       port=port + number % flows)


def fill(sender, *queues):
    """Packets of some subscribers, in turns: (subscriber, packets, flows)."""
    traffic = Traffic(sender)
    for step in range(20):
        for subscriber, count, flows in queues:
            part = count * (step + 1) // 20 - count * step // 20
            traffic.send(subscriber, part, flows)
    lib.equal(traffic.taken, traffic.sent, "packets taken")
    return sum(traffic.sent.values())


def opened(device, receiver, total, rate=FULL, kind="bpf"):
    """What leaves when the link gets its rate, but for the first burst. Only then is it judged, when
    nothing more has to come: how long a command takes, and what leaves meanwhile, is chance."""
    before = time.monotonic_ns()
    change(device, f"rate={rate}", kind=kind)
    time.sleep(2.5 + total * SIZE / rate)       # whose CPU the qdiscs need
    return judged([arrival for arrival in receiver.collect(total) if arrival.when >= before])


def judged(arrivals):
    times = [arrival.when for arrival in arrivals]
    begin = next(time for time, after in zip(times[2:], times[3:]) if after - time < 20 * MS)
    return [arrival for arrival in arrivals if arrival.when >= begin + 20 * MS]


def busy(arrivals, totals):
    """Until the first of these subscribers has nothing more."""
    left = collections.Counter(of(arrival) for arrival in arrivals)
    for index, arrival in enumerate(arrivals):
        left[of(arrival)] -= 1
        if of(arrival) in totals and left[of(arrival)] == 0:
            return arrivals[:index]
    return arrivals


def windows(arrivals, length):
    """What left in each time of this length, without the last, shorter one."""
    found, start = [], arrivals[0].when
    for arrival in arrivals:
        while arrival.when >= start + len(found) * length:
            found.append([])
        found[-1].append(arrival)
    return found[:-1]


def shares(arrivals, wanted, key=of, slack=0.02, window=WINDOW):
    """Each has its share of each window, within 2 % of it or the packet that is under way."""
    wanted_sum, worst = sum(wanted.values()), 0
    found = windows(arrivals, window)
    print("#", [dict(collections.Counter(key(arrival) for arrival in window)) for window in found])
    lib.true(len(found) > 0, f"{len(arrivals)} packets are less than a window")
    for window in found:
        total = sum(arrival.size for arrival in window)
        got = collections.Counter()
        for arrival in window:
            got[key(arrival)] += arrival.size
        for who, weight in wanted.items():
            share = total * weight / wanted_sum
            off = abs(got[who] - share)
            worst = max(worst, off / share)
            lib.true(off <= max(slack * share, SIZE), f"{who} has {got[who]} of {total}, wanted {share:.0f}: {dict(got)}")
    print(f"# {len(found)} windows, {wanted}: off by {100 * worst:.2f} % at most")


def full(arrivals, rate=FULL):
    """The link is never idle: the packets have left in the time that they take."""
    took = arrivals[-1].when - arrivals[0].when
    needs = sum(arrival.size for arrival in arrivals[1:]) * NSEC / rate
    print(f"# {len(arrivals)} packets took {took / needs:.4f} times their time")
    lib.true(needs - BURST < 1.01 * took and took < 1.02 * needs, f"{len(arrivals)} packets took {took} ns, at the rate {needs:.0f}")


def ceiling(arrivals, rate, what, settled=20 * MS):
    """After the time in which what was saved up before leaves, too."""
    start = arrivals[0].when
    later = [arrival for arrival in arrivals if arrival.when >= start + settled]
    took = later[-1].when - later[0].when
    got = sum(arrival.size for arrival in later[1:]) * NSEC / took
    print(f"# {what}: {got:.0f} bytes a second, wanted {rate}, off by {100 * (got / rate - 1):+.2f} %")
    lib.true(abs(got / rate - 1) < 0.02, f"{what}: {got:.0f} bytes a second, wanted {rate}")


# --- ceilings --------------------------------------------------------------------

def ceilings_of_subscriber_tenant_and_link():
    """Subscriber 1 alone is held by its own, 2 and 3 together by their tenant's, all by the link's."""
    with policy(CLOSED, "subscriber[1]=1,1mbit,1600kbit", "tenant[1]=1mbit,8mbit", "tenant[2]=1mbit,4mbit",
                "subscriber[2]=2,1mbit", "subscriber[3]=2,1mbit", "subscriber[4]=3,1mbit", "tenant[3]=8kbit") as (
                device, sender, receiver):
        total = fill(sender, (1, 80, 1), (2, 100, 1), (3, 100, 1), (4, 200, 1))
        arrivals = opened(device, receiver, total, 1_000_000)
        together = busy(arrivals, (1, 2, 3, 4))
        ceiling(together, 1_000_000, "link")
        ceiling([arrival for arrival in together if of(arrival) == 1], 200_000, "subscriber")
        ceiling([arrival for arrival in together if of(arrival) in (2, 3)], 500_000, "tenant")
        full(together, 1_000_000)
        lib.balance(device, sender, receiver)


# --- shares ----------------------------------------------------------------------

GUARANTEES = ("tenant[1]=60mbit", "subscriber[1]=1,40mbit", "subscriber[2]=1,20mbit",
              "tenant[2]=20mbit", "subscriber[3]=2,15mbit", "subscriber[4]=2,5mbit")


def guarantees_when_all_are_busy():
    with policy(CLOSED, *GUARANTEES) as (device, sender, receiver):
        total = fill(sender, (1, 1200, 1), (2, 600, 1), (3, 450, 1), (4, 150, 1))
        arrivals = opened(device, receiver, total)
        full(arrivals)
        shares(busy(arrivals, (1, 2, 3, 4)), {1: 40, 2: 20, 3: 15, 4: 5})
        lib.balance(device, sender, receiver)


def what_one_leaves_its_siblings_borrow():
    """First those of its tenant; and what a tenant leaves, the other one."""
    with policy(CLOSED, *GUARANTEES) as (device, sender, receiver):
        total = fill(sender, (2, 1050, 1), (3, 260, 1), (4, 88, 1))
        arrivals = opened(device, receiver, total)
        full(arrivals)
        shares(busy(arrivals, (2, 3, 4)), {2: 60, 3: 15, 4: 5})
        change(device, CLOSED)
        total = fill(sender, (3, 1050, 1), (4, 350, 1))
        arrivals = opened(device, receiver, total)
        full(arrivals)
        shares(busy(arrivals, (3, 4)), {3: 15, 4: 5})
        lib.balance(device, sender, receiver)


def a_ceiling_leaves_the_link_full():
    """Who is held at it leaves the rest to its siblings, and to the other tenant."""
    with policy(CLOSED, "tenant[1]=40mbit", "tenant[2]=40mbit", "subscriber[1]=1,20mbit,8mbit", "subscriber[2]=1,20mbit,8mbit",
                "subscriber[3]=2,40mbit") as (device, sender, receiver):
        total = fill(sender, (1, 140, 1), (2, 140, 1), (3, 1040, 1))
        arrivals = opened(device, receiver, total)
        together = busy(arrivals, (1, 2, 3))
        full(together)
        shares(together, {1: 10, 2: 10, 3: 80})
        lib.balance(device, sender, receiver)


def weights_whatever_the_number_of_flows():
    with policy("tenant[2]=1mbit", "subscriber[1]=1", "subscriber[2]=2") as (device, sender, receiver):
        for weight in (1, 3):
            change(device, CLOSED, f"tenant[1]={mbit(weight)}")
            total = fill(sender, (1, 350 * (weight + 1), 1), (2, 704, 64))
            arrivals = opened(device, receiver, total)
            full(arrivals)
            shares(busy(arrivals, (1, 2)), {1: weight, 2: 1})
            lib.balance(device, sender, receiver)


def flows_of_a_subscriber_are_fair():
    """One came first with three times as many packets."""
    with policy(CLOSED, "subscriber[1]=1,1mbit") as (device, sender, receiver):
        for flow, count in ((0, 1000), (1, 500), (2, 500)):
            sender.set(SO_MARK, 1)
            for number in range(count):
                lib.true(sender.send(flow << 32 | number, SIZE, port=1000 + flow), "a packet was refused")
        arrivals = opened(device, receiver, 2000)
        shares(busy(arrivals, (0, 1, 2)), {0: 1, 1: 1, 2: 1})
        for flow in range(3):
            own = [arrival.number for arrival in arrivals if of(arrival) == flow]
            lib.equal(own, sorted(own), "order of a flow")
        lib.balance(device, sender, receiver)


# --- delay and limits ------------------------------------------------------------

def codel_bounds_the_delay_of_a_subscriber():
    """Of the one that sends too much, and not of its neighbour."""
    with policy("target=5ms", "ecn=0", "rate=8mbit", "subscriber[1]=1,4mbit", "subscriber[2]=1,4mbit") as (
            device, sender, receiver):
        start, sent = time.monotonic_ns(), {}
        for step in range(1500):        # 2 packets of one in each ms, and of the other one in 4 ms
            time.sleep(max(0, start + step * MS - time.monotonic_ns()) / NSEC)
            for subscriber, some in ((1, 2), (2, step % 4 == 0)):
                sender.set(SO_MARK, subscriber)
                for number in range(some):
                    sent[subscriber << 32 | 2 * step + number] = time.monotonic_ns()
                    sender.send(subscriber << 32 | 2 * step + number, SIZE)
        wait_empty(device)
        stats = device.qdisc()
        time.sleep(0.01)
        arrivals = receiver.drain()
        delays = [arrival.when - sent[arrival.number] for arrival in arrivals if of(arrival) == 2]
        lib.equal(len(delays), 375, "packets of the neighbour")
        lib.true(max(delays) < 5 * MS, f"a packet of the neighbour waited for {max(delays) / MS:.1f} ms")
        drops = stats["stats"]["codel_drops"]
        lib.true(drops > 20, f"CoDel dropped {drops} packets")
        lost = stats["drops"]
        lib.equal(lost, drops + stats["stats"]["limit_drops"], "drops, by reason")
        lib.balance(device, sender, receiver, dropped=(lost, lost * SIZE))
        print(f"# {drops} drops, the neighbour's delays up to {max(delays) / MS:.2f} ms")


def nobody_takes_all_the_room():
    """A subscriber that floods has at most half of it, and the next one half of the rest."""
    with policy(CLOSED, "subscriber[1]=1,1mbit", "subscriber[2]=1,1mbit", limit=100) as (device, sender, receiver):
        traffic = Traffic(sender)
        traffic.send(1, 100)
        traffic.send(2, 20)
        lib.true(49 <= traffic.taken[1] <= 52, f"{traffic.taken[1]} of the first were taken")
        lib.equal(traffic.taken[2], 20, "those of the second that were taken")
        change(device, "rate=0")
        receiver.collect(sum(traffic.taken.values()))
        stats = lib.balance(device, sender, receiver)["stats"]
        lib.equal(stats["limit_drops"], sender.refused_packets, "drops that it has counted")


def a_packet_is_cut_to_keep_a_ceiling():
    """Of 64 kB at 5 Mbit/s: one segment after the other, each when the one before has left; or, as it
    is, at once. The second one makes up for a packet's time."""
    segments, size, rate = 43, 1514, 625_000
    each = size * NSEC // rate
    with policy("subscriber[0]=0,0,5mbit", "burst=0") as (device, sender, receiver):
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        for split, least, most in ((size, each * 0.99, each * 1.01), (0, 0, each * 0.01)):
            change(device, f"split_gso={split}")
            lib.true(sender.send_gso(size - lib.HEADERS, segments), "refused")
            arrivals = receiver.collect(segments)
            gaps = [later.when - arrival.when for arrival, later in zip(arrivals[1:], arrivals[2:])]
            lib.true(least <= min(gaps) and max(gaps) <= most, f"split_gso {split}: {min(gaps)} to {max(gaps)} ns between segments")


# --- what is changed while it runs -----------------------------------------------

def terms_change_while_packets_wait():
    """By system calls: a command reads its file first, and on a busy host seconds go by meanwhile."""
    with policy("subscriber[1]=1,1mbit,800kbit") as (device, sender, receiver), contextlib.ExitStack() as stack:
        tenant, subscriber = (stack.enter_context(Map(name)) for name in ("tenant", "subscriber"))
        fill(sender, (1, 1000, 1))
        for tenants, subscribers, rate in (({}, {}, 100_000), ({}, {1: (1, 125_000, 200_000)}, 200_000),
                                           ({2: (125_000, 400_000)}, {1: (2, 125_000, 0)}, 400_000)):
            tenant.store(tenants)
            subscriber.store(subscribers)
            begin = time.monotonic_ns()
            time.sleep(0.3)
            arrivals = [arrival for arrival in receiver.drain() if arrival.when >= begin]
            ceiling(arrivals, rate, f"tenant {tenants}, subscriber {subscribers}")
        change(device, "subscriber[1]=")        # what is there leaves all the same
        wait_empty(device)
        lib.balance(device, sender, receiver)


def who_moves_to_another_tenant_has_its_share_there():
    """However many rounds it has had where it was. The other one comes first: the first packet leaves at once."""
    with policy(f"rate={FULL}", "subscriber[1]=1,8kbit", "subscriber[2]=2,1mbit") as (device, sender, receiver):
        fill(sender, (1, 300, 1))
        receiver.collect(300)
        change(device, CLOSED, "subscriber[1]=2,1mbit")
        total = fill(sender, (2, 700, 1), (1, 700, 1))
        arrivals = opened(device, receiver, total)
        full(arrivals)
        shares(busy(arrivals, (1, 2)), {1: 1, 2: 1})
        lib.balance(device, sender, receiver)


def other_programs_go_on_where_these_were():
    with policy(CLOSED, *GUARANTEES) as (device, sender, receiver):
        total = fill(sender, (1, 800, 1), (2, 400, 1), (3, 300, 1), (4, 100, 1))
        lib.run("tc", *lib.qdisc(device, "change", "obj", TENANTS, *settings(CLOSED)))
        arrivals = opened(device, receiver, total)
        full(arrivals)
        shares(busy(arrivals, (1, 2, 3, 4)), {1: 40, 2: 20, 3: 15, 4: 5})
        lib.balance(device, sender, receiver)


def a_reset_leaves_nothing_behind():
    """The link goes down with full queues; then they are as new."""
    with policy(CLOSED, *GUARANTEES, limit=1000) as (device, sender, receiver):
        fill(sender, (1, 100, 1), (2, 100, 1), (3, 100, 1), (4, 100, 1))
        device.flap()
        sender.wait_freed()
        before = device.qdisc()
        lib.equal(before["qlen"], 0, "packets after the reset")
        receiver.drain()
        sender.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)     # that the device was down
        change(device, f"rate={FULL}")
        fill(sender, (4, 100, 1), (3, 100, 1), (2, 100, 1), (1, 100, 1))
        wait_empty(device)
        lib.equal(len(receiver.drain()), 400, "packets that arrived")
        after = device.qdisc()
        lib.equal((after["packets"] - before["packets"], after["stuck"]), (400, 0), "sent, and times that it was stuck")


# --- several tx queues -----------------------------------------------------------

TX = 4
HALF = FULL // 2


def while_all_wait(sender, receiver, rate, *queues):
    """What leaves after all has been put in, faster than it leaves: by instructions, not by the host. (A
    link that is closed meanwhile, as above, leaves tenants in debt for seconds.)"""
    total = fill(sender, *queues)
    begin = time.monotonic_ns() + 20 * MS
    time.sleep(1 + total * SIZE / rate)
    return total, [arrival for arrival in receiver.collect(total) if arrival.when >= begin]


@contextlib.contextmanager
def queues(*sets):
    words = settings("burst=1ms", *sets)
    with lib.link("numtxqueues", str(TX)) as device:
        lib.run("tc", *lib.qdisc(device, "add", "obj", TENANTS, "limit", "20000", *words, kind="bpf_mq"))
        with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            yield device, sender, receiver


def totals(device):
    """Of the instances: sent, dropped, still there."""
    each = lib.instances(device.a)
    lib.equal([entry["stuck"] for entry in each], [0] * TX, "times that one was stuck")
    lib.true(min(entry["packets"] for entry in each) > 0, "a queue was not used")
    return tuple(sum(entry[what] for entry in each) for what in ("packets", "drops", "qlen"))


def two_tenants_over_all_queues():
    """One has one flow, and so one queue; the other one has 64, and all queues."""
    sent = 0
    with queues("rate=40mbit", "tenant[2]=10mbit", "subscriber[1]=1", "subscriber[2]=2") as (device, sender, receiver):
        for weight in (1, 3):
            change(device, f"tenant[1]={mbit(10 * weight)}", kind="bpf_mq")
            total, arrivals = while_all_wait(sender, receiver, HALF, (1, 700 * weight, 1), (2, 800, 64))
            full(arrivals, HALF)
            shares(busy(arrivals, (1, 2)), {1: weight, 2: 1})
            sent += total
            lib.equal(totals(device), (sent, 0, 0), "sent, dropped and queued")


def ceilings_are_one_for_all_queues():
    with queues("rate=8mbit", "tenant[1]=3mbit,4mbit", "subscriber[1]=1,3mbit,1600kbit", "subscriber[2]=1,1mbit",
                "subscriber[3]=2,1mbit") as (device, sender, receiver):
        total, arrivals = while_all_wait(sender, receiver, 1_000_000, (1, 160, 64), (2, 240, 64), (3, 400, 64))
        # until a queue has nothing more, which then is no packet ahead any more
        together = [arrival for arrival in arrivals if arrival.when < arrivals[0].when + 500 * MS]
        ceiling(together, 1_000_000, "link")
        ceiling([arrival for arrival in together if of(arrival) == 1], 200_000, "subscriber", 100 * MS)
        ceiling([arrival for arrival in together if of(arrival) in (1, 2)], 500_000, "tenant", 100 * MS)
        full(together, 1_000_000)
        lib.equal(totals(device), (total, 0, 0), "sent, dropped and queued")


def what_a_tenant_leaves_the_others_have_on_all_queues():
    """One is held at its ceiling, below its share."""
    with queues("rate=40mbit", "tenant[1]=40mbit,8mbit", "tenant[2]=40mbit", "subscriber[1]=1", "subscriber[2]=2") as (
            device, sender, receiver):
        total, arrivals = while_all_wait(sender, receiver, HALF, (1, 280, 1), (2, 1040, 64))
        together = busy(arrivals, (1, 2))
        full(together, HALF)
        shares(together, {1: 20, 2: 80})
        lib.equal(totals(device), (total, 0, 0), "sent, dropped and queued")


def other_programs_go_on_with_the_shares_of_all_queues():
    """What tenants had of a slow link, as above: it is past when they are judged."""
    with queues("rate=160kbit", "tenant[1]=10mbit", "tenant[2]=10mbit", "subscriber[1]=1", "subscriber[2]=2") as (
            device, sender, receiver):
        total = fill(sender, (1, 1400, 1), (2, 1600, 64))
        lib.run("tc", *lib.qdisc(device, "change", "obj", TENANTS, *settings("burst=1ms", "rate=160kbit"), kind="bpf_mq"))
        arrivals = opened(device, receiver, total, HALF, kind="bpf_mq")
        later = [arrival for arrival in arrivals if arrival.when >= arrivals[0].when + 200 * MS]
        full(later, HALF)
        shares(busy(later, (1, 2)), {1: 1, 2: 1})
        lib.equal(totals(device), (total, 0, 0), "sent, dropped and queued")


LEFT = "what another one leaves"        # to which queues come when their timers do, a packet each
TURNS = {"link": ("rate=8mbit",),
         "tenant's ceiling": ("rate=80mbit", "tenant[1]=1mbit,8mbit"),
         "own ceiling": ("rate=0", "tenant[1]=1mbit", "subscriber[0]=1,1mbit,8mbit"),
         LEFT: ("rate=10mbit", "subscriber[0]=1", "tenant[2]=9mbit,2mbit")}


def queues_of_a_subscriber_take_turns():
    """Whatever holds it: three queues have packets all the time, of different lengths, and send as many bytes; the fourth
    one has some now and then, which wait for a packet of each of the others at most. All are number 0, whom no mark names."""
    sent = 0
    with queues("subscriber[0]=1", "subscriber[9]=2") as (device, sender, receiver):
        lib.to_queues(device.a, TX)
        for what, sets in TURNS.items():
            change(device, *sets, kind="bpf_mq")
            traffic, when = Traffic(sender), {}
            traffic.send(9, 250 if what == LEFT else 0, flows=64)
            for step in range(20):
                for queue in (1, 2, 3):
                    parts = 1 if what == LEFT else 2 ** (queue - 1)
                    traffic.send(queue, 16 * parts, size=SIZE // parts, port=1000 + queue)
            for number in range(45):
                time.sleep(0.02)
                when[4 << 32 | number] = time.monotonic_ns()
                traffic.send(4, 1, port=1004)
            total = traffic.sent.total()
            arrivals = receiver.collect(total)
            delays = sorted(arrival.when - when[arrival.number] for arrival in arrivals if of(arrival) == 4)
            print(f"# {what}: the fourth queue waits for {delays[22] / MS:.2f} ms (p50), {delays[-1] / MS:.2f} at most")
            together = [arrival for arrival in judged(busy(arrivals, (1, 2, 3))) if of(arrival) != 9]
            how = {"slack": 0.05, "window": 4 * WINDOW} if what == LEFT else {}
            shares([arrival for arrival in together if of(arrival) != 4], {1: 1, 2: 1, 3: 1}, **how)
            full(together, 1_000_000)
            lib.true(delays[-1] < 5 * MS, f"{what}: the fourth queue waited for {delays[-1] / MS:.2f} ms")
            sent += total
            lib.equal(totals(device), (sent, 0, 0), "sent, dropped and queued")


def small_flows_wait_for_turns_of_the_queues():
    """A tenant offers more than the link takes, of which the queues have these parts; a small flow in each
    does not wait for the second packet of any queue."""
    with queues("rate=8mbit") as (device, sender, receiver):
        lib.to_queues(device.a, TX)
        for parts in ((90, 5, 3, 2), (25, 25, 25, 25)):
            owed, when, start = [0] * TX, {}, time.monotonic_ns()
            for number in range(2000):          # in 1.6 s
                time.sleep(max(0, start + number * 800_000 - time.monotonic_ns()) / NSEC)
                owed = [debt + part for debt, part in zip(owed, parts)]
                large = owed.index(max(owed))
                owed[large] -= 100
                small = [] if number % 7 else [number // 7 % TX]
                for queue, size in ((large, SIZE), *((queue, SIZE // 4) for queue in small)):
                    sender.set(SO_MARK, queue + 1)
                    key = size << 32 | number
                    when[key] = time.monotonic_ns()
                    lib.true(sender.send(key, size, port=size + queue), "a packet was not taken")
            end = time.monotonic_ns()
            arrivals = receiver.collect(len(when))
            delays = sorted(arrival.when - when[arrival.number] for arrival in arrivals
                            if of(arrival) != SIZE and when[arrival.number] > start + 100 * MS)
            print(f"# {parts} %: small flows wait for {delays[len(delays) // 2] / MS:.2f} ms (p50), {delays[-1] / MS:.2f} at most")
            full([arrival for arrival in judged(arrivals) if arrival.when < end], 1_000_000)
            lib.true(delays[-1] < 6 * MS, f"{parts} %: a packet of a small flow waited for {delays[-1] / MS:.2f} ms")


# --- who is who --------------------------------------------------------------------

def who_is_unknown_goes_to_number_0():
    with policy("subscriber[0]=1,1mbit,1600kbit", "subscriber[1]=1,1mbit") as (device, sender, receiver):
        traffic = Traffic(sender)
        for mark in (7, 0x7fffffff):
            traffic.send(mark, 30)
        traffic.send(1, 30)
        arrivals = receiver.collect(90)
        ceiling([arrival for arrival in arrivals if of(arrival) != 1], 200_000, "number 0")
        stats = lib.balance(device, sender, receiver)["stats"]
        lib.equal(stats["unknown"], 60, "packets of nobody")


def subscribers_by_class():
    with policy("leaf_by=1", "subscriber[0x12]=1,1mbit,1600kbit") as (device, sender, receiver):
        handle = device.qdisc()["handle"]
        lib.run("tc", "filter", "add", "dev", device.a, "parent", handle, "protocol", "ip", "u32", "match", "ip",
                "sport", "1001", "0xffff", "classid", f"{handle}12")
        for number in range(60):
            sender.send(number, SIZE, port=1000 + number % 2)
        arrivals = receiver.collect(60)
        ceiling([arrival for arrival in arrivals if arrival.number % 2], 200_000, "the class")
        stats = lib.balance(device, sender, receiver)["stats"]
        lib.equal(stats["unknown"], 30, "packets of nobody")


def subscribers_by_cgroup():
    """A packet socket has one, too: that of the process."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = os.stat("/sys/fs/cgroup" + file.read().strip().split("::")[1]).st_ino
    with policy("leaf_by=2", f"subscriber[{own}]=1,1mbit,1600kbit") as (device, sender, receiver):
        for number in range(40):
            sender.send(number, SIZE)
        ceiling(receiver.collect(40), 200_000, "the cgroup")
        lib.equal(lib.balance(device, sender, receiver)["stats"]["unknown"], 0, "packets of nobody")


def prefix(address, length):
    """A key of tenants_prefix"""
    packed = ipaddress.ip_address(address).packed
    short = len(packed) == 4
    return struct.pack("<I", length + 96 * short) + (bytes(10) + b"\xff\xff") * short + packed


def subscribers_by_address():
    """The longest prefix counts: packets are from 192.0.2.1 to 192.0.2.2."""
    with policy("subscriber[1]=1,1mbit,800kbit", "subscriber[2]=1,1mbit,3200kbit",
                "subscriber[3]=1,1mbit,1600kbit") as (device, sender, receiver), Map("tenants_prefix") as prefixes:
        prefixes.store({prefix("192.0.2.0", 24): 1, prefix("192.0.2.1", 32): 2, prefix("192.0.2.2", 31): 3})
        for leaf_by, wanted in ((3, 400_000), (4, 200_000)):
            change(device, f"leaf_by={leaf_by}")
            for number in range(40):
                sender.send(number, SIZE)
            ceiling(receiver.collect(40), wanted, f"addresses by {leaf_by}")
            lib.equal(lib.balance(device, sender, receiver)["stats"]["unknown"], 0, "packets of nobody")


def subscribers_by_ipv6_address():
    """Of prefixes that are stored by the command in the policy's head, for the other family; and one
    address that is in none."""
    with open(f"{POLICIES}/tenants.bpf.c", encoding="ascii") as file:
        (command,) = re.findall(r"# (bpftool map update .*? value [\d ]+)\n", file.read().replace("\\\n *", " "), re.S)
    lib.no_maps("tenants_prefix")
    with policy("leaf_by=3", "subscriber[7]=1,1mbit") as (device, sender, _), Map("tenants_prefix") as prefixes:
        lib.run(*command.split())
        (entry,) = lib.bpftool("map", "dump", "name", "tenants_prefix")
        lib.equal(bytes(int(byte, 16) for byte in entry["key"]), prefix("192.0.2.0", 24), "key of the command")
        prefixes.store({prefix("2001:db8::", 32): 7})
        for source, count in (("2001:db8::1", 10), ("2001:db9::1", 5)):
            header = struct.pack("!IHBB", 6 << 28, 8, 17, 64) + ipaddress.ip_address(source).packed + bytes(15) + b"\1"
            for _ in range(count):
                sender.sock.send(bytes.fromhex("020000000002" "020000000001" "86dd") + header + struct.pack("!HHHH", 1, 9, 8, 0))
        sender.send(1)
        stats = device.qdisc()
        lib.equal((stats["packets"], stats["stats"]["unknown"]), (16, 5), "packets sent, and those of nobody")


def subscribers_by_vlan():
    """The tag is beside the packet, or in it where the device puts none there."""
    with policy("leaf_by=5", "subscriber[5]=1,1mbit,1600kbit") as (device, sender, receiver):
        tagged = f"{device.a}.5"
        lib.run("ip", "link", "add", "link", device.a, "name", tagged, "up", "type", "vlan", "id", "5")
        for unknown, offload in enumerate(("on", "off")):
            lib.run("ethtool", "-K", device.a, "tx-vlan-offload", offload)
            with lib.Sender(tagged) as sender_of_tagged:
                for number in range(40):
                    sender_of_tagged.send(number, SIZE)
            ceiling(receiver.collect(40), 200_000, f"the VLAN, with the offload {offload}")
            lib.equal(device.qdisc()["stats"]["unknown"], unknown, "packets of nobody")
            sender.send(40)
            receiver.collect(1)
            lib.equal(device.qdisc()["stats"]["unknown"], unknown + 1, "packets without a tag")


# --- many ------------------------------------------------------------------------

MANY = 10000


def configure(count):
    """So many subscribers of a hundred tenants; two of three have a ceiling, which is high."""
    with Map("subscriber") as subscriber:
        subscriber.store({number: (number % 100, 125000, 12_500_000 * (number % 3)) for number in range(1, count + 1)})


def runs():
    """Of the programs: how often they ran, and for how many ns, which are instructions."""
    found = {}
    for program in lib.bpftool("prog", "list"):
        if program.get("name") in ("tenants_enqueue", "tenants_dequeue"):
            found[program["name"]] = (program["id"], program.get("run_cnt", 0), program.get("run_time_ns", 0))
    return found


def memory():
    """Bytes of the maps of this policy."""
    newest = {}
    for entry in lib.bpftool("map", "list"):
        if entry.get("name", "").startswith(("tenants_", "subscriber", "tenant")):
            newest[entry["name"]] = max(newest.get(entry["name"], (0, 0)), (entry["id"], entry["bytes_memlock"]))
    return sum(size for _, size in newest.values())


def what_a_packet_costs_does_not_grow_with_their_number():
    """Of the programs, with all that they call. First one subscriber has a packet at a time, then
    all have some: each gets what it has sent."""
    costs = {}
    for count in (10, 1000, MANY):
        with policy("rate=0", limit=100000) as (device, sender, receiver), lib.program_statistics():
            configure(count)
            empty, traffic = memory(), Traffic(sender)
            for subscriber in range(1, count + 1):      # all have their memory then
                traffic.send(subscriber, 1, size=100)
            receiver.collect(count)
            for number, what in enumerate(("one with a packet", "all with packets")):
                if number:
                    change(device, CLOSED)
                before, begun = runs(), traffic.sent.total()
                for _ in range(max(1, 1000 // count)):
                    for subscriber in range(1, (count if number else min(count, 500)) + 1):
                        traffic.send(subscriber, 1, size=100)
                sent = traffic.sent.total() - begun
                if number:
                    change(device, "rate=0")
                arrivals = receiver.collect(sent)
                after = runs()
                spent = [(after[name][2] - before[name][2]) / sent for name in ("tenants_enqueue", "tenants_dequeue")]
                costs[count, number] = sum(spent)
                print(f"# {count} subscribers, {what}: {spent[0]:.0f} to enqueue, {spent[1]:.0f} to dequeue, {sum(spent):.0f}")
            got = collections.Counter(of(arrival) for arrival in arrivals)
            lib.equal(got, {subscriber: sent // count for subscriber in range(1, count + 1)}, "packets of each")
            print(f"# {count} subscribers: {(memory() - empty) / count:.0f} bytes each beside the table")
            stats = lib.balance(device, sender, receiver)
            lib.equal((stats["stats"]["unknown"], stats["drops"]), (0, 0), "of nobody, and dropped")
        if count == MANY:
            lib.true(memory() - empty < 2000 * MANY, f"memory of {MANY}: {memory() - empty}")
    for number in (0, 1):
        lib.true(costs[MANY, number] < 1.5 * costs[10, number], f"with {MANY}: {costs}")


# --- whatever is set -------------------------------------------------------------

def what_is_out_of_range_is_refused():
    with policy() as (device, _, _):
        for text in ("rate=2tbit", "leaf_by=6", "leaf_limit=0", "quantum=0", "quantum=2mb", "burst=11s",
                     "interval=0", "subscriber[1]=1,2tbit", "tenant[1]=18446744073709551615", "subscriber[1]=1,2,3,4"):
            lib.contains(lib.refused("tc", *lib.qdisc(device, "change", "set", text)), "cannot be")


def any_parameters_lose_nothing():
    """And nobody is stuck; what waits for a rate that was a mistake leaves some seconds later."""
    with policy() as (device, sender, receiver):
        traffic = Traffic(sender)
        for sets in (("rate=8",), ("rate=1tbit", "burst=10s"), ("subscriber[1]=0,0,8",), ("tenant[1]=0,8", "subscriber[1]=1"),
                     ("tenant[1]=1tbit,1tbit", "subscriber[1]=1,1tbit,1tbit", "subscriber[2]=1,1"),
                     ("subscriber[1]=4294967295,1", "subscriber[2]=18446744073,1"),
                     ("quantum=1", "subscriber[1]=1", "target=0", "interval=1ms"), ("quantum=1mb", "leaf_limit=1", "burst=0"),
                     ("target=1ns", "interval=1ms", "subscriber[1]=1")):
            change(device, *sets)
            for subscriber in (1, 2, 3):
                traffic.send(subscriber, 5)
            change(device, "rate=0", "burst=5ms", "quantum=1514", "interval=100ms", *ROOM,
                   *(f"subscriber[{number}]=1,1mbit" for number in (1, 2, 3)), "tenant[1]=1mbit", "tenant[0]=1mbit")
            wait_empty(device)
            stats = lib.balance(device, sender, receiver)
            lib.equal(stats["stuck"], 0, "times that it was stuck")
            change(device, *(f"subscriber[{number}]=" for number in (1, 2, 3)), "tenant[1]=", "tenant[0]=")


lib.main(ceilings_of_subscriber_tenant_and_link,
         guarantees_when_all_are_busy,
         what_one_leaves_its_siblings_borrow,
         a_ceiling_leaves_the_link_full,
         weights_whatever_the_number_of_flows,
         flows_of_a_subscriber_are_fair,
         codel_bounds_the_delay_of_a_subscriber,
         nobody_takes_all_the_room,
         a_packet_is_cut_to_keep_a_ceiling,
         terms_change_while_packets_wait,
         who_moves_to_another_tenant_has_its_share_there,
         other_programs_go_on_where_these_were,
         a_reset_leaves_nothing_behind,
         two_tenants_over_all_queues,
         ceilings_are_one_for_all_queues,
         what_a_tenant_leaves_the_others_have_on_all_queues,
         other_programs_go_on_with_the_shares_of_all_queues,
         queues_of_a_subscriber_take_turns,
         small_flows_wait_for_turns_of_the_queues,
         who_is_unknown_goes_to_number_0,
         subscribers_by_class,
         subscribers_by_cgroup,
         subscribers_by_address,
         subscribers_by_ipv6_address,
         subscribers_by_vlan,
         what_a_packet_costs_does_not_grow_with_their_number,
         what_is_out_of_range_is_refused,
         any_parameters_lose_nothing)
