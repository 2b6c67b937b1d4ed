#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Change in place: other programs or another limit, and the packets that are queued
stay queued, in their order. What would lose them is refused."""

import os
import threading

import lib
from lib import POLICIES, PROGS

FIFO = f"{POLICIES}/fifo.bpf.o"
HOLD = f"{PROGS}/hold.bpf.o"
RELEASE = f"{PROGS}/release.bpf.o"
# Each takes up to some seconds while an emulated CPU is flooded.
CHANGES = int(os.environ.get("SELFTESTS_CHANGES", 5 if lib.DEBUG else 10))


def change(device, *options):
    return "tc", "qdisc", "change", "dev", device.a, "root", "bpf", *options


def queued_packets_stay():
    with lib.wire(HOLD) as (device, sender, receiver):
        for number in range(50):
            sender.send(number, 100 + number)
        (before,) = lib.maps_named("hold_pkts")
        lib.run(*change(device, "obj", RELEASE))
        lib.equal(lib.maps_named("hold_pkts"), {before}, "the map that is used")
        for number in range(50, 60):
            sender.send(number, 100)
        lib.equal(lib.numbers(receiver.collect(60)), list(range(60)), "order")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")


def a_change_that_would_lose_packets_is_refused():
    with lib.wire(HOLD) as (device, sender, receiver):
        for number in range(20):
            sender.send(number)
        words = lib.refused(*change(device, "obj", FIFO))
        lib.contains(words, "hold_pkts")
        stats = lib.balance(device, sender, receiver)
        lib.equal((stats["qlen"], stats["options"]["obj"]), (20, "hold.bpf.o"), "as before")


def flush_drops_and_counts():
    with lib.wire(HOLD) as (device, sender, receiver):
        for number in range(20):
            sender.send(number, 200)
        lib.run(*change(device, "obj", FIFO, "flush"))
        sender.wait_freed()
        stats = lib.balance(device, sender, receiver, dropped=(20, 4000))
        lib.equal((stats["qlen"], stats["options"]["obj"]), (0, "fifo.bpf.o"), "after")
        sender.send(7)
        lib.equal(lib.numbers(receiver.collect(1)), [7], "packets that leave")


def the_limit_alone():
    with lib.wire(HOLD, "limit", "5") as (device, sender, receiver):
        for number in range(5):
            sender.send(number)
        programs = device.qdisc()["options"]["enqueue"]["id"]
        lib.run(*change(device, "limit", "7"))
        taken = [sender.send(number) for number in range(5, 9)]
        lib.equal(taken, [True, True, False, False], "packets taken")
        options = device.qdisc()["options"]
        lib.equal((options["limit"], options["enqueue"]["id"]), (7, programs), "options")
        lib.balance(device, sender, receiver)


def many_changes_under_traffic():
    """No packet is lost, and none overtakes another."""
    with lib.wire(FIFO) as (device, sender, receiver):
        stop = threading.Event()
        sent = []

        def traffic():
            number = 0
            while not stop.is_set():
                if sender.send(number, 60 + number % 300):
                    sent.append(number)
                number += 1

        thread = threading.Thread(target=traffic)
        thread.start()
        got = []
        try:
            for _ in range(CHANGES):
                lib.run(*change(device, "obj", FIFO))
                got += lib.numbers(receiver.drain())
        finally:
            stop.set()
            thread.join()
        sender.wait_freed()
        got += lib.numbers(receiver.drain())
        lib.true(len(sent) > CHANGES, "there was traffic")
        lib.equal(got, sent, "packets received, in order")
        lib.balance(device, sender, receiver)


lib.main(queued_packets_stay,
         a_change_that_would_lose_packets_is_refused,
         flush_drops_and_counts,
         the_limit_alone,
         many_changes_under_traffic)
