#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy rate: all tx queues together keep to one rate, in the order of arrival."""

import contextlib
import time

import lib
from lib import LATE, MS, NSEC, POLICIES

RATE = f"{POLICIES}/rate.bpf.o"
BURST = 5 * MS                          # of the policy
TX = 4
SIZE, EACH = 1000, 10 * MS              # at 100,000 bytes a second
SLOW = "rate=800kbit"


@contextlib.contextmanager
def queues(*options):
    with lib.link("numtxqueues", str(TX)) as device:
        lib.run("tc", *lib.qdisc(device, "add", "obj", RATE, *options, kind="bpf_mq"))
        with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            yield device, sender, receiver


def change(device, *options):
    lib.run("tc", *lib.qdisc(device, "change", *options, kind="bpf_mq"))


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


def in_order(arrivals, numbers):
    """On a slow kernel the CPUs on which two queues wait may come to it one after the other."""
    got = lib.numbers(arrivals)
    lib.equal(sorted(got) if lib.DEBUG else got, numbers, "order")


def on_time(arrivals, start, sent, burst=BURST):
    """Each leaves at the rate, counted from the time at which the first was sent."""
    for number, arrival in enumerate(arrivals):
        after = number * EACH - burst
        early, late = start + after - arrival.when, arrival.when - (sent + max(0, after))
        lib.true(early <= 0, f"packet {number} came {early / MS:.3f} ms early")
        lib.true(late < LATE, f"packet {number} came {late / MS:.3f} ms late")


def all_queues_keep_to_one_rate():
    with queues("set", SLOW) as (device, sender, receiver):
        _, start, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        in_order(arrivals, list(range(60)))
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def after_a_pause_a_burst_leaves_at_once():
    with queues("set", SLOW, "set", "burst=100ms") as (device, sender, receiver):
        _, start, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        on_time(arrivals, start, sent, 100 * MS)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def what_is_dropped_uses_no_time():
    with queues("limit", "3", "set", SLOW) as (device, sender, receiver):
        taken, start, sent = send(sender, range(60))
        lib.true(TX * 3 <= len(taken) < 60, f"{len(taken)} of 60 packets taken")
        arrivals = receiver.collect(len(taken))
        in_order(arrivals, taken)
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (len(taken), 60 - len(taken), 0), "sent, dropped and queued")


def beyond_the_horizon_packets_are_dropped():
    """But one that finds its queue empty."""
    with queues("set", SLOW, "set", "horizon=200ms") as (device, sender, receiver):
        taken, start, sent = send(sender, range(60))
        room = (200 * MS + BURST) // EACH + 2
        lib.true(room - 1 <= len(taken) <= room + (sent - start) // EACH + TX, f"{len(taken)} packets taken")
        arrivals = receiver.collect(len(taken))
        lib.true(arrivals[-1].when - sent < 200 * MS + EACH + LATE, "a packet waited for longer")
        lib.equal(totals(device), (len(taken), 60 - len(taken), 0), "sent, dropped and queued")


def another_rate_holds_for_packets_to_come():
    with queues("set", SLOW) as (device, sender, receiver):
        _, start, sent = send(sender, range(30))
        change(device, "set", "rate=0")
        _, _, last = send(sender, range(30, 60))
        arrivals = receiver.collect(60)
        # The others leave at one time, and the queues do not wait for each other.
        in_order(arrivals[:30], list(range(30)))
        lib.equal(sorted(lib.numbers(arrivals[30:])), list(range(30, 60)), "those without a rate")
        on_time(arrivals[:30], start, sent)
        lib.true(arrivals[-1].when - max(last, arrivals[29].when) < EACH + LATE, "without a rate, packets were held")
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def other_programs_go_on_where_these_were():
    with queues("set", SLOW) as (device, sender, receiver):
        _, start, _ = send(sender, range(30))
        change(device, "obj", RATE, "set", SLOW)
        _, _, sent = send(sender, range(30, 60))
        arrivals = receiver.collect(60)
        in_order(arrivals, list(range(60)))
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def a_rate_that_was_a_mistake():
    """Nothing is left of it some seconds later, and nobody is stuck."""
    with queues("set", "rate=8", "set", "horizon=500ms") as (device, sender, receiver):
        taken, _, sent = send(sender, range(60))
        change(device, "set", SLOW)
        arrivals = receiver.collect(len(taken))
        lib.true(arrivals[-1].when - sent < 2000 * MS + LATE, "the mistake has lasted too long")
        lib.equal(totals(device), (len(taken), 60 - len(taken), 0), "sent, dropped and queued")


def without_a_rate_packets_leave_at_once():
    with queues() as (device, sender, receiver):
        _, _, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        lib.true(max(arrival.when for arrival in arrivals) < sent + LATE, "packets were held")
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def a_packet_is_cut_to_keep_the_rate():
    """Of 64 kB at 5 Mbit/s: one segment after the other, each when the one before has left; or, as it is, at once."""
    segments, size, rate = 43, 1514, 625_000
    each = size * NSEC // rate
    for split, least, most in ((size, each * 0.99, each * 1.01), (0, 0, each * 0.01)):
        with queues("set", "rate=5mbit", "set", "burst=0", "set", f"split_gso={split}") as (device, sender, receiver):
            lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
            lib.true(sender.send_gso(size - lib.HEADERS, segments), "refused")
            arrivals = receiver.collect(segments)
        lib.equal(lib.numbers(arrivals), list(range(segments)), "order")
        gaps = [later.when - arrival.when for arrival, later in zip(arrivals, arrivals[1:])]
        lib.true(least <= min(gaps) and max(gaps) <= most, f"split_gso {split}: {min(gaps)} to {max(gaps)} ns between segments")


def one_instance_for_all_queues():
    with lib.wire(RATE, "set", SLOW) as (device, sender, receiver):
        _, start, sent = send(sender, range(20))
        on_time(receiver.collect(20), start, sent)
        lib.true(lib.balance(device, sender, receiver)["overlimits"] > 0, "no throttle was counted")


def packets_leave_as_from_tbf():
    """The native one, with the same rate and burst, also after pauses that fill half of the burst and all of it. Here
    a packet's time begins when it leaves, there it is over: so a burst here is one packet longer."""
    when = {}
    for name, words in (("tbf", ("tbf", "rate", "8mbit", "burst", "10000", "limit", "1000000")),
                        ("rate", ("bpf", "obj", RATE, "set", "rate=8mbit", "set", "burst=9ms"))):
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
         beyond_the_horizon_packets_are_dropped,
         another_rate_holds_for_packets_to_come,
         other_programs_go_on_where_these_were,
         a_rate_that_was_a_mistake,
         without_a_rate_packets_leave_at_once,
         one_instance_for_all_queues,
         measured=[a_packet_is_cut_to_keep_the_rate,
                   packets_leave_as_from_tbf])
