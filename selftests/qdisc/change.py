#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Change in place: other programs or another limit, and the packets that are queued
stay queued, in their order. What would lose them is refused."""

import contextlib
import shutil

import lib
from lib import POLICIES, compiled

FIFO = f"{POLICIES}/fifo.bpf.o"
HOLD = compiled("hold")
RELEASE = compiled("release")
CHANGES = 100 if lib.DEBUG else 1000


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
        lib.contains(words, "Map 'hold_pkts' has packets the new dequeue can't reach; flush drops them")
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


@contextlib.contextmanager
def under_traffic(device, sender, receiver):
    """No packet is lost meanwhile, and none overtakes another."""
    with lib.traffic(sender, receiver, lambda number: sender.send(number, 60 + number % 300)) as (sent, got):
        yield
    got.extend(lib.numbers(receiver.collect(len(sent) - len(got))))
    print(f"# {len(sent)} packets")
    lib.true(len(sent) > 100, "there was traffic")
    lib.equal(got, sent, "packets received, in order")
    lib.balance(device, sender, receiver)


def changes_of_the_object_under_traffic():
    with lib.wire(FIFO) as (device, sender, receiver), under_traffic(device, sender, receiver):
        for _ in range(5):
            lib.run(*change(device, "obj", FIFO))


def many_changes_of_the_programs_under_traffic():
    """From one pair to another that has the same map, and back, in one run of tc."""
    pins = ("/sys/fs/bpf/change1", "/sys/fs/bpf/change2")
    kept = "/sys/fs/bpf/change_maps"

    def programs(where):
        return ("enqueue", "object-pinned", f"{where}/release_enqueue",
                "dequeue", "object-pinned", f"{where}/release_dequeue")

    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver, \
         lib.traced("sch_bpf/sch_bpf_change") as lines:
        lib.run("bpftool", "prog", "loadall", RELEASE, pins[0], "pinmaps", kept)
        lib.run("bpftool", "prog", "loadall", RELEASE, pins[1],
                "map", "name", "hold_pkts", "pinned", f"{kept}/hold_pkts")
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "bpf", *programs(pins[1]))
        batch = [" ".join(change(device, *programs(pins[number % 2]))[1:]) for number in range(CHANGES)]
        with under_traffic(device, sender, receiver):
            lib.run("tc", "-batch", "-", given="\n".join(batch))
        lib.equal(len(lines()), CHANGES, "changes made")
        lib.equal(len({line.split("enqueue=")[1].split()[0] for line in lines()}), 2, "programs")
    for path in (*pins, kept):
        shutil.rmtree(path)


lib.main(queued_packets_stay,
         a_change_that_would_lose_packets_is_refused,
         flush_drops_and_counts,
         the_limit_alone,
         changes_of_the_object_under_traffic,
         many_changes_of_the_programs_under_traffic)
