#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy rate: all tx queues together keep to one rate, and take turns; flows of a queue are
fair, and CoDel keeps them short.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import contextlib
import time

import lib
from lib import LATE, MS, NSEC, POLICIES, SO_MARK

RATE = f"{POLICIES}/rate.bpf.o"
BURST = 5 * MS                          # of the policy
TX = 4
SIZE, EACH = 1000, 10 * MS              # at 100,000 bytes a second
SLOW = "rate=800kbit"


def settings(*sets):
    """Words of tc; without CoDel, unless it is asked for."""
    return [word for text in ("target=0", *sets) for word in ("set", text)]


@contextlib.contextmanager
def queues(*sets, options=()):
    with lib.link("numtxqueues", str(TX)) as device:
        lib.run("tc", *lib.qdisc(device, "add", "obj", RATE, *options, *settings(*sets), kind="bpf_mq"))
        with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            yield device, sender, receiver


def wire(*sets, options=()):
    return lib.wire(RATE, *options, *settings(*sets))


def change(device, *options, kind="bpf_mq"):
    lib.run("tc", *lib.qdisc(device, "change", *options, kind=kind))


def send(sender, numbers):
    """Packets, each of a flow of its own. Returns which were taken, and when it began and ended."""
    start = time.monotonic_ns()
    taken = [number for number in numbers if sender.send(number, SIZE, port=1000 + number)]
    return taken, start, time.monotonic_ns()


def totals(device):
    """Of the instances: sent, dropped, still there."""
    each = lib.instances(device.a)
    lib.equal(len(each), TX, "instances")
    lib.equal([entry["stuck"] for entry in each], [0] * TX, "times that one was stuck")
    lib.true(min(entry["packets"] + entry["drops"] for entry in each) > 0, "a queue was not used")
    return tuple(sum(entry[what] for entry in each) for what in ("packets", "drops", "qlen"))


def all_arrived(arrivals, numbers):
    lib.equal(sorted(lib.numbers(arrivals)), list(numbers), "packets that arrived")


def on_time(arrivals, start, sent, burst=BURST, ahead=TX - 1):
    """Each leaves at the rate, counted from the time at which the first was sent; a queue may be ahead by a packet."""
    for number, arrival in enumerate(arrivals):
        after = (number - ahead) * EACH - burst
        early, late = start + after - arrival.when, arrival.when - (sent + max(0, after))
        lib.true(early <= 0, f"packet {number} came {early / MS:.3f} ms early")
        lib.true(late < LATE, f"packet {number} came {late / MS:.3f} ms late")


def all_queues_keep_to_one_rate():
    with queues(SLOW) as (device, sender, receiver):
        _, start, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        all_arrived(arrivals, range(60))
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def after_a_pause_a_burst_leaves_at_once():
    with queues(SLOW, "burst=100ms") as (device, sender, receiver):
        _, start, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        on_time(arrivals, start, sent, 100 * MS)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def what_is_dropped_uses_no_time():
    with queues(SLOW, options=("limit", "3")) as (device, sender, receiver):
        taken, start, sent = send(sender, range(60))
        lib.true(TX * 3 <= len(taken) < 60, f"{len(taken)} of 60 packets taken")
        arrivals = receiver.collect(len(taken))
        all_arrived(arrivals, taken)
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (len(taken), 60 - len(taken), 0), "sent, dropped and queued")


def another_rate_holds_for_what_waits():
    with queues(SLOW) as (device, sender, receiver):
        send(sender, range(300))
        change(device, "set", "rate=8mbit")
        begin = time.monotonic_ns() + (1 + TX) * EACH       # when each queue has waited for its turn
        arrivals = receiver.collect(300)
        later = [arrival.when for arrival in arrivals if arrival.when >= begin]
        lib.true(len(later) > 100, f"{len(later)} packets left later")
        mean = (later[-1] - later[0]) / (len(later) - 1)
        lib.true(abs(mean / MS - 1) < 0.02, f"{mean} ns between packets")
        all_arrived(arrivals, range(300))
        lib.equal(totals(device), (300, 0, 0), "sent, dropped and queued")


def without_a_rate_nothing_is_held():
    with queues(SLOW) as (device, sender, receiver):
        send(sender, range(60))
        change(device, "set", "rate=0")
        _, _, sent = send(sender, range(60, 120))
        arrivals = receiver.collect(120)
        all_arrived(arrivals, range(120))
        lib.true(arrivals[-1].when < sent + (1 + TX) * EACH + LATE, "packets were held")
        lib.equal(totals(device), (120, 0, 0), "sent, dropped and queued")


def other_programs_go_on_where_these_were():
    with queues(SLOW) as (device, sender, receiver):
        _, start, _ = send(sender, range(30))
        change(device, "obj", RATE, *settings(SLOW))
        _, _, sent = send(sender, range(30, 60))
        arrivals = receiver.collect(60)
        all_arrived(arrivals, range(60))
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def a_rate_that_was_a_mistake():
    """Each queue has had one packet, which takes 2 s, before nothing is left of it; and nobody is stuck."""
    with queues("rate=8") as (device, sender, receiver):
        send(sender, range(60))
        change(device, "set", SLOW)
        sent = time.monotonic_ns()
        arrivals = receiver.collect(60)
        lib.true(arrivals[-1].when - sent < TX * 2 * NSEC + 60 * EACH + LATE, "the mistake has lasted too long")
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def without_a_rate_packets_leave_at_once():
    with queues() as (device, sender, receiver):
        _, _, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        lib.true(max(arrival.when for arrival in arrivals) < sent + LATE, "packets were held")
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


# --- flows of a queue ----------------------------------------------------------------

def put(sender, flow, numbers):
    """Packets of a flow, which their number tells. How many were taken"""
    return sum(sender.send(flow << 32 | number, SIZE, port=1000 + flow) for number in numbers)


def flows(arrivals):
    return [arrival.number >> 32 for arrival in arrivals]


def in_turns(order, flow, other, slack=2):
    """From where both have packets until one has none, neither is ahead by more."""
    last = min(len(order) - 1 - order[::-1].index(each) for each in (flow, other))
    part = order[order.index(other):last]
    lib.true(len(part) > 10, f"{part} are few")
    for end in range(len(part)):
        ahead = part[:end].count(flow) - part[:end].count(other)
        lib.true(abs(ahead) <= slack, f"flow {flow} is ahead by {ahead} packets: {part}")


def flows_of_a_queue_take_turns():
    """However many packets of one came first; each keeps its order."""
    with wire(SLOW, f"quantum={SIZE}") as (device, sender, receiver):
        put(sender, 1, range(40))
        put(sender, 2, range(20))
        arrivals = receiver.collect(60)
        in_turns(flows(arrivals), 1, 2)
        for flow, count in ((1, 40), (2, 20)):
            lib.equal([arrival.number & 0xffffffff for arrival in arrivals if arrival.number >> 32 == flow],
                      list(range(count)), "order of a flow")
        lib.balance(device, sender, receiver)


def an_empty_queue_ends_all_debts():
    """Of a flow whose packets, of several quanta, were second in the queue as often as it ran empty."""
    with wire("rate=8mbit", "quantum=100") as (device, sender, receiver):
        for number in range(50):
            put(sender, 3, (number,))
            put(sender, 1, (number,))
            receiver.collect(2)
        put(sender, 3, (50,))
        put(sender, 1, range(50, 70))
        put(sender, 2, range(20))
        in_turns(flows(receiver.collect(41)), 1, 2)
        lib.balance(device, sender, receiver)


def who_fills_the_queue_loses():
    """And owes nothing afterwards."""
    with wire(SLOW, f"quantum={SIZE}", options=("limit", "20")) as (device, sender, receiver):
        first = put(sender, 1, range(100))
        lib.true(20 <= first <= 22, f"{first} packets of the first were taken")
        lib.equal(put(sender, 2, range(8)), 8, "packets of the second that were taken")
        again = put(sender, 1, range(100, 150))
        lib.true(again <= 1, f"{again} packets more of the first were taken")
        arrivals = receiver.collect(14)
        lib.equal(put(sender, 1, range(150, 153)) + put(sender, 3, range(10)), 13, "packets taken later")
        later = receiver.collect(first + again + 13 - 14)
        lib.equal(flows(arrivals + later).count(2), 8, "packets of the second that arrived")
        in_turns(flows(later), 1, 3)
        lost = sender.refused_packets + 8
        lib.balance(device, sender, receiver, dropped=(lost, lost * SIZE))


def codel_bounds_the_delay_of_a_flow():
    """Of the one that sends too much, and not of its neighbour in the queue."""
    with wire("rate=8mbit", "target=5ms", "ecn=0") as (device, sender, receiver):
        start, sent = time.monotonic_ns(), {}
        for step in range(1000):        # 2 packets of one in each ms, and of the other one in 4 ms
            time.sleep(max(0, start + step * MS - time.monotonic_ns()) / NSEC)
            for flow, some in ((1, 2), (2, step % 4 == 0)):
                for number in range(2 * step, 2 * step + some):
                    sent[flow << 32 | number] = time.monotonic_ns()
                    put(sender, flow, (number,))
        lib.wait_until(lambda: not device.qdisc()["qlen"], "all have left")
        stats = device.qdisc()
        delays = [arrival.when - sent[arrival.number] for arrival in receiver.drain() if arrival.number >> 32 == 2]
        lib.equal(len(delays), 250, "packets of the neighbour")
        lib.true(max(delays) < 5 * MS, f"a packet of the neighbour waited for {max(delays) / MS:.1f} ms")
        drops = stats["stats"]["codel_drops"]
        lib.true(drops > 20, f"CoDel dropped {drops} packets")
        lib.equal((stats["drops"], stats["stats"]["ecn_marks"]), (drops, 0), "drops and marks")
        lib.balance(device, sender, receiver, dropped=(drops, drops * SIZE))
        print(f"# {drops} drops, the neighbour's delays up to {max(delays) / MS:.2f} ms")


def codel_marks_who_takes_part():
    with wire(SLOW, "target=5ms") as (device, sender, receiver):
        for number in range(60):
            sender.send(number, SIZE, tos=2)
        arrivals = receiver.collect(60)
        marked = sum(arrival.tos == 3 for arrival in arrivals)
        lib.true(marked > 1, f"{marked} marks arrived")
        lib.equal(lib.balance(device, sender, receiver)["stats"]["ecn_marks"], marked, "marks counted")


# --- load that is skewed -----------------------------------------------------------

LOAD = 1_300_000                # bytes a second that are offered, at a rate of 1,000,000
SPREADS = (90, 5, 3, 2), (25, 25, 25, 25)


def spread(device, sender, shares, seconds=1):
    """Each queue is offered its part of LOAD. When all was sent, and how many packets each got in"""
    lib.to_queues(device.a, TX)
    start, sent, owed = time.monotonic_ns(), [0] * TX, [0] * TX
    for number in range(LOAD * seconds // SIZE):
        time.sleep(max(0, start + number * SIZE * NSEC // LOAD - time.monotonic_ns()) / NSEC)
        owed = [debt + share for debt, share in zip(owed, shares)]
        queue = owed.index(max(owed))
        owed[queue] -= 100
        sender.set(SO_MARK, queue + 1)
        sent[queue] += 1
        sender.send(queue << 32 | number, SIZE, port=1000 + queue)
    return start, sent


def no_capacity_is_lost_whatever_the_load_of_a_queue():
    """While any has packets the link is full; who asks for less than his turn has what he asks for."""
    for shares in SPREADS:
        with queues("rate=8mbit", options=("limit", "1000")) as (device, sender, receiver):
            start, sent = spread(device, sender, shares)
            end = time.monotonic_ns()
            arrivals = [arrival for arrival in receiver.drain() if start + 100 * MS <= arrival.when < end]
            got = sum(arrival.size for arrival in arrivals) / (end - start - 100 * MS) * NSEC
            print(f"# {shares}: {got:.0f} bytes a second")
            lib.true(abs(got / 1_000_000 - 1) < 0.02, f"{shares}: {got:.0f} bytes a second, wanted 1000000")
            for queue, share in enumerate(shares):
                mine = sum(arrival.number >> 32 == queue for arrival in arrivals)
                wanted = min(share * LOAD // 100, 250_000 if share <= 25 else 1_000_000 - 10 * LOAD // 100)
                wanted = wanted * (end - start - 100 * MS) / NSEC / SIZE
                lib.true(abs(mine - wanted) <= max(3, 0.02 * wanted), f"{shares}: queue {queue} had {mine} packets, wanted {wanted:.0f}")
            receiver.collect(sum(sent) - receiver.packets)
            lib.equal(totals(device), (sum(sent), 0, 0), "sent, dropped and queued")


def a_packet_is_cut_to_keep_the_rate():
    """Of 64 kB at 5 Mbit/s: one segment after the other, each when the one before has left; or, as it is, at once."""
    segments, size, rate = 43, 1514, 625_000
    each = size * NSEC // rate
    for split, least, most in ((size, each * 0.99, each * 1.01), (0, 0, each * 0.01)):
        with queues("rate=5mbit", "burst=0", f"split_gso={split}") as (device, sender, receiver):
            lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
            lib.true(sender.send_gso(size - lib.HEADERS, segments), "refused")
            arrivals = receiver.collect(segments)
        lib.equal(lib.numbers(arrivals), list(range(segments)), "order")
        gaps = [later.when - arrival.when for arrival, later in zip(arrivals, arrivals[1:])]
        lib.true(least <= min(gaps) and max(gaps) <= most, f"split_gso {split}: {min(gaps)} to {max(gaps)} ns between segments")


def one_instance_for_all_queues():
    with wire(SLOW) as (device, sender, receiver):
        _, start, sent = send(sender, range(20))
        on_time(receiver.collect(20), start, sent, ahead=0)
        lib.true(lib.balance(device, sender, receiver)["overlimits"] > 0, "no throttle was counted")


def packets_leave_as_from_tbf():
    """The native one, with the same rate and burst, also after pauses that fill half of the burst and all of it. Here
    a packet's time begins when it leaves, there it is over: so a burst here is one packet longer."""
    when = {}
    for name, words in (("tbf", ("tbf", "rate", "8mbit", "burst", "10000", "limit", "1000000")),
                        ("rate", ("bpf", "obj", RATE, *settings("rate=8mbit", "burst=9ms")))):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", *words)
            start = time.monotonic_ns()
            for begin, numbers in ((0, range(200)), (195 * MS, range(200, 300)), (400 * MS, range(300, 500))):
                time.sleep(max(0, start + begin - time.monotonic_ns()) / NSEC)
                for number in numbers:
                    sender.send(number, SIZE)
            arrivals = receiver.collect(500)
        lib.equal(lib.numbers(arrivals), list(range(500)), f"{name}: order")
        when[name] = [arrival.when - start for arrival in arrivals]
    off = [ours - theirs for ours, theirs in zip(when["rate"], when["tbf"])]
    print(f"# {min(off) / MS:.3f} to {max(off) / MS:.3f} ms later than from tbf")
    lib.true(max(map(abs, off)) < MS // 4, f"off by {min(off)} to {max(off)} ns")


lib.main(all_queues_keep_to_one_rate,
         after_a_pause_a_burst_leaves_at_once,
         what_is_dropped_uses_no_time,
         without_a_rate_nothing_is_held,
         other_programs_go_on_where_these_were,
         a_rate_that_was_a_mistake,
         without_a_rate_packets_leave_at_once,
         flows_of_a_queue_take_turns,
         an_empty_queue_ends_all_debts,
         codel_marks_who_takes_part,
         one_instance_for_all_queues,
         measured=[another_rate_holds_for_what_waits,
                   who_fills_the_queue_loses,
                   codel_bounds_the_delay_of_a_flow,
                   no_capacity_is_lost_whatever_the_load_of_a_queue,
                   a_packet_is_cut_to_keep_the_rate,
                   packets_leave_as_from_tbf])
