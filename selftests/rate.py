#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy rate: all tx queues together keep to one rate, in the order of arrival."""

import contextlib
import json
import time

import lib
from lib import LATE, MS, POLICIES

RATE = f"{POLICIES}/rate.bpf.o"
BURST = 5 * MS                          # of the policy
TX = 4
SIZE, EACH = 1000, 10 * MS              # at 100,000 bytes a second


@contextlib.contextmanager
def queues(*options):
    with lib.link("numtxqueues", str(TX)) as device:
        lib.run("tc", *lib.qdisc(device, "add", "obj", RATE, *options, kind="bpf_mq"))
        with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            yield device, sender, receiver


def send(sender, numbers):
    """Packets of twenty flows. Returns which were taken, and how long it took, ns."""
    start = time.monotonic_ns()
    taken = [number for number in numbers if sender.send(number, SIZE, port=1000 + number % 20)]
    return taken, start, time.monotonic_ns()


def totals(device):
    """Of the instances: sent, dropped, still there."""
    listed = json.loads(lib.run("tc", "-s", "-j", "qdisc", "show", "dev", device.a))
    each = [entry for entry in listed if entry["kind"] == "bpf"]
    lib.equal(len(each), TX, "instances")
    lib.true(min(entry["packets"] + entry["drops"] for entry in each) > 0, "a queue was not used")
    return tuple(sum(entry[what] for entry in each) for what in ("packets", "drops", "qlen"))


def on_time(arrivals, start, sent):
    """Each leaves at the rate, counted from the time at which the first was sent."""
    for number, arrival in enumerate(arrivals):
        early, late = start + number * EACH - arrival.when, arrival.when - (sent + number * EACH)
        lib.true(early <= BURST, f"packet {number} came {early / MS:.3f} ms early")
        lib.true(late < LATE, f"packet {number} came {late / MS:.3f} ms late")


def all_queues_keep_to_one_rate():
    with queues("set", "rate=800kbit") as (device, sender, receiver):
        _, start, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        lib.equal(lib.numbers(arrivals), list(range(60)), "order")
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def what_is_dropped_uses_no_time():
    with queues("limit", "3", "set", "rate=800kbit") as (device, sender, receiver):
        taken, start, sent = send(sender, range(60))
        lib.true(TX * 3 <= len(taken) < 60, f"{len(taken)} of 60 packets taken")
        arrivals = receiver.collect(len(taken))
        lib.equal(lib.numbers(arrivals), taken, "order")
        on_time(arrivals, start, sent)
        lib.equal(totals(device), (len(taken), 60 - len(taken), 0), "sent, dropped and queued")


def another_rate_holds_for_packets_to_come():
    with queues("set", "rate=800kbit") as (device, sender, receiver):
        _, start, sent = send(sender, range(30))
        lib.run("tc", *lib.qdisc(device, "change", "set", "rate=0", kind="bpf_mq"))
        send(sender, range(30, 60))
        arrivals = receiver.collect(60)
        # The others leave at one time, and the queues do not wait for each other.
        lib.equal(lib.numbers(arrivals[:30]), list(range(30)), "order of those with a rate")
        lib.equal(sorted(lib.numbers(arrivals[30:])), list(range(30, 60)), "those without")
        on_time(arrivals[:30], start, sent)
        lib.true(arrivals[-1].when - arrivals[29].when < EACH + LATE, "without a rate, packets were held")
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def without_a_rate_packets_leave_at_once():
    with queues() as (device, sender, receiver):
        _, _, sent = send(sender, range(60))
        arrivals = receiver.collect(60)
        lib.true(max(arrival.when for arrival in arrivals) < sent + LATE, "packets were held")
        lib.equal(totals(device), (60, 0, 0), "sent, dropped and queued")


def one_queue():
    with lib.wire(RATE, "set", "rate=800kbit") as (device, sender, receiver):
        _, start, sent = send(sender, range(20))
        on_time(receiver.collect(20), start, sent)
        lib.true(lib.balance(device, sender, receiver)["overlimits"] > 0, "no throttle was counted")


lib.main(all_queues_keep_to_one_rate,
         what_is_dropped_uses_no_time,
         another_rate_holds_for_packets_to_come,
         without_a_rate_packets_leave_at_once,
         one_queue)
