#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy fifo, and what the qdisc does for every policy: order, counts,
limits, what it says about itself."""

import lib
from lib import POLICIES, compiled

FIFO = f"{POLICIES}/fifo.bpf.o"
HOLD = compiled("hold")                 # room for 2000 packets; none leaves


def packets_leave_in_the_order_of_arrival():
    def attach(device, parent):
        device.attach(FIFO, where=("parent", parent))

    with lib.behind_the_gate(attach) as (_, sender, receiver):
        for number in range(300):
            sender.set(lib.SO_MARK, number == 299)
            sender.send(number, 60 + number * 7 % 900)
        lib.equal(lib.numbers(receiver.collect(300)), list(range(300)), "order")


def statistics_of_the_policy_agree_with_the_kernels():
    with lib.wire(FIFO) as (device, sender, receiver):
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "limit_bytes=500")
        for number in range(100):
            sender.send(number, 500 + number % 2)
        receiver.collect(50)
        stats = lib.balance(device, sender, receiver)
        lib.equal((stats["packets"], stats["drops"]), (50, 50), "counted by the kernel")
        lib.equal(stats["stats"], {"dropped": 50, "dropped_bytes": 50 * 501}, "counted by the policy")


def a_full_map_drops_and_counts():
    with lib.wire(HOLD) as (device, sender, receiver):
        taken = [sender.send(number, 200) for number in range(2012)]
        lib.equal(taken, [True] * 2000 + [False] * 12, "packets taken")
        stats = lib.balance(device, sender, receiver)
        lib.equal((stats["qlen"], stats["backlog"]), (2000, 400_000), "queued")
        lib.equal(stats["drops"], 12, "drops")


def the_limit_drops_and_counts():
    with lib.wire(HOLD, "limit", "5") as (device, sender, receiver):
        taken = [sender.send(number, 300) for number in range(9)]
        lib.equal(taken, [True] * 5 + [False] * 4, "packets taken")
        stats = lib.balance(device, sender, receiver)
        lib.equal((stats["qlen"], stats["drops"]), (5, 4), "queued and dropped")
        lib.equal(stats["options"]["limit"], 5, "limit shown")


def show_names_object_and_programs():
    with lib.link() as device:
        device.attach(FIFO)
        options = device.qdisc()["options"]
        lib.equal(options["obj"], "fifo.bpf.o", "object")
        for op, name in (("enqueue", "fifo_enqueue"), ("dequeue", "fifo_dequeue")):
            shown = options[op]
            program = lib.bpftool("prog", "show", "id", str(shown["id"]))
            lib.equal((shown["name"], shown["tag"], shown["map_ids"]),
                      (name, program["tag"], program["map_ids"]), op)
            lib.equal(program["type"], "qdisc", "type that bpftool names")


def runs(device):
    """How often the programs ran: for each packet 1, or with bypass 0."""
    options = device.qdisc()["options"]
    return [lib.bpftool("prog", "show", "id", str(options[op]["id"])).get("run_cnt", 0)
            for op in ("enqueue", "dequeue")]


def an_empty_queue_is_passed_by_if_the_policy_says_so():
    def offer(first, count=20):
        for number in range(first, first + count):
            sender.send(number)
        lib.equal(lib.numbers(receiver.collect(count)), list(range(first, first + count)), "order")

    with lib.wire(FIFO, "set", "bypass=true") as (device, sender, receiver), lib.program_statistics():
        offer(0)
        lib.equal(runs(device), [1, 1], "runs: the first packet turns bypass on")
        lib.equal(lib.balance(device, sender, receiver)["packets"], 20, "packets counted")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", FIFO)
        offer(20)
        lib.equal(runs(device), [20, 20], "runs after a change of the programs")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "bypass=true")
        offer(40)
        lib.equal(runs(device), [21, 21], "runs with bypass again")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "bypass=false")
        offer(60)
        lib.equal(runs(device), [41, 41], "runs without")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "bypass=true")
        offer(80)
        lib.equal(runs(device), [42, 42], "runs with bypass once more")
        lib.run("tc", "filter", "add", "dev", device.a, "parent", device.qdisc()["handle"], "matchall",
                "classid", "1:1")
        offer(100)
        lib.equal(runs(device), [62, 62], "runs with a filter on the qdisc")
        lib.balance(device, sender, receiver)


def a_filter_ends_the_bypass_at_once():
    """While packets are sent, of which the first after a change turns it on."""
    with lib.wire(FIFO, "set", "bypass=true") as (device, sender, receiver), lib.program_statistics():
        handle = device.qdisc()["handle"]
        for _ in range(10):
            with lib.traffic(sender, receiver, sender.send):
                lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "bypass=true")
                lib.run("tc", "filter", "add", "dev", device.a, "parent", handle, "matchall", "classid", "1:1")
            receiver.collect(sender.packets - receiver.packets)
            before = runs(device)
            for number in range(20):
                sender.send(number)
            receiver.collect(20)
            lib.equal(runs(device), [each + 20 for each in before], "runs with a filter on the qdisc")
            lib.run("tc", "filter", "del", "dev", device.a, "parent", handle)
        lib.balance(device, sender, receiver)


def an_object_that_is_not_there_is_refused():
    with lib.link() as device:
        words = lib.refused("tc", "qdisc", "add", "dev", device.a, "root", "bpf", "obj", "nosuch.o")
        lib.contains(words, "nosuch.o")


def a_qdisc_without_programs_is_refused():
    with lib.link() as device:
        lib.refused("tc", "qdisc", "add", "dev", device.a, "root", "bpf")
        lib.refused("tc", "qdisc", "add", "dev", device.a, "root", "bpf", "limit", "7")


lib.main(packets_leave_in_the_order_of_arrival,
         statistics_of_the_policy_agree_with_the_kernels,
         a_full_map_drops_and_counts,
         the_limit_drops_and_counts,
         show_names_object_and_programs,
         an_empty_queue_is_passed_by_if_the_policy_says_so,
         a_filter_ends_the_bypass_at_once,
         an_object_that_is_not_there_is_refused,
         a_qdisc_without_programs_is_refused)
