#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a policy counts itself, by name: `tc -s qdisc show`, with both tc, and qdisctop."""

import collections
import json
import subprocess

import lib
from lib import NOBODY, POLICIES, compiled, fails, qdisc, with_both, works

STATS = ("obj", compiled("stats"))
FIRST = {"sent": 0, "sizes": [0, 0, 0, 0], "balance": 2, "seen": False, "last": "none"}
AFTER = {"sent": 5, "sizes": [2, 0, 3, 0], "balance": -3, "seen": True, "last": "Xone"}


def show(tc, device, *flags):
    return works(*tc, *flags, "qdisc", "show", "dev", device.a)


def entries(tc, device, *flags):
    return json.loads(show(tc, device, "-j", *flags))


def send(device, first=0):
    """Two packets of 100 bytes and three of 300."""
    with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        for number, size in enumerate((100, 100, 300, 300, 300)):
            lib.true(sender.send(first + number, size), "dropped")
        receiver.collect(5)


@with_both
def statistics(tc, device):
    works(*tc, *qdisc(device, "add", *STATS))
    (entry,) = entries(tc, device, "-s")
    lib.equal(entry["stats"], FIRST, "at first")
    send(device)
    (entry,) = entries(tc, device, "-s")
    lib.equal(entry["stats"], AFTER, "after five packets")
    lib.true("set" not in entry["options"], "parameters")
    lib.contains(show(tc, device, "-s"), " stuck 0\n  balance -3 last Xone sizes 2,0,3,0 sent 5 seen true"
                 " pair (of a type that tc does not show) \n")


@with_both
def only_of_those_who_ask(tc, device):
    """Without -s they are not printed, nor for who may not look into maps, nor of a policy without."""
    works(*tc, *qdisc(device, "add", *STATS))
    for flags, who in (((), ()), (("-s",), NOBODY)):
        lib.true("stats" not in entries((*who, *tc), device, *flags)[0], f"JSON with {flags} {who}")
        lib.true("balance" not in show((*who, *tc), device, *flags), f"text with {flags} {who}")
    works(*tc, *qdisc(device, "replace", "obj", compiled("hold")))
    lib.true("stats" not in entries(tc, device, "-s")[0], "of a policy without")


@with_both
def each_qdisc_shows_its_own(tc, device):
    """Also where a qdisc without any is between them."""
    works(*tc, "qdisc", "add", "dev", device.a, "root", "handle", "1:", "mq")
    for queue, obj in enumerate((STATS, ("obj", compiled("hold")), ("obj", f"{POLICIES}/fifo.bpf.o")), 1):
        works(*tc, "qdisc", "replace", "dev", device.a, "parent", f"1:{queue}", "bpf", *obj)
    got = {entry.get("parent"): entry.get("stats") for entry in entries(tc, device, "-s")}
    lib.equal([got[f"1:{queue}"] for queue in (1, 2, 3, 4)], [FIRST, None, {"dropped": 0, "dropped_bytes": 0}, None],
              "statistics")


@with_both
def instances_share_them(tc, device):
    """The instances of bpf_mq are of one object; it has no statistics of its own."""
    def seen():
        return [entry["stats"] for entry in entries(tc, device, "-s") if entry["kind"] == "bpf"]

    works(*tc, *qdisc(device, "add", "obj", compiled("queues"), kind="bpf_mq"))
    lib.equal(seen(), [{"enqueued": 0}] * 4, "before")
    with lib.Sender(device.a) as sender:
        lib.true(sender.send(0), "dropped")
    lib.equal(seen(), [{"enqueued": 1}] * 4, "after a packet")


@with_both
def what_a_change_does_to_them(tc, device):
    """They stay if something else is changed; a new object begins with its own."""
    works(*tc, *qdisc(device, "add", *STATS))
    send(device)
    works(*tc, *qdisc(device, "change", "limit", "50"))
    lib.equal(entries(tc, device, "-s")[0]["stats"], AFTER, "after another limit")
    words = [fails(1, "the programs have none", *tc, *qdisc(device, "change", "set", "sent=0"))]
    works(*tc, *qdisc(device, "change", *STATS))
    lib.equal(entries(tc, device, "-s")[0]["stats"], FIRST, "of a new object")
    return words


def qdisctop_shows_what_is_new():
    with lib.link() as device:
        device.attach(STATS[1])
        send(device)
        with subprocess.Popen(("qdisctop", "-j", "-i", "0.05", device.a), stdout=subprocess.PIPE, text=True) as top:
            def seen():
                return json.loads(top.stdout.readline())["qdiscs"][0]["stats"]

            lib.equal(seen(), {"sent": 0, "sizes[0]": 0, "sizes[2]": 0, "balance": 0, "seen": 0}, "before")
            send(device, 5)
            total = seen()
            while total["sent"] < 5:
                total = {name: total[name] + value for name, value in seen().items()}
            lib.equal(total, {"sent": 5, "sizes[0]": 2, "sizes[2]": 3, "balance": -5, "seen": 0}, "of five packets")
            works("tc", *qdisc(device, "change", *STATS))
            while seen() != {"sent": 0, "balance": 0, "seen": 0}:
                pass
            top.terminate()
        lib.contains(lib.run("qdisctop", "-n", "1", "-i", "0.01", device.a), "  policy    balance 0  sent 0  seen 0\n")


def qdisctop_shows_the_numbers_that_tc_shows():
    """All of them, enumerations too; not what cannot be counted."""
    with lib.link() as device:
        device.attach(compiled("stats_kinds"))
        (entry,) = entries(("tc",), device, "-s")
        lib.equal((entry["stats"]["many"], entry["stats"]["state"], len(entry["stats"])), ([1] * 100, -1, 5), "tc's")
        with subprocess.Popen(("qdisctop", "-j", "-i", "0.05", device.a), stdout=subprocess.PIPE, text=True) as top:
            def seen():
                return json.loads(top.stdout.readline())["qdiscs"][0]["stats"]

            names = {"state": 0, **{f"many[{i}]": 0 for i in range(100)}, "falling[0]": 0, "falling[1]": 0}
            lib.equal(seen(), names, "before")
            with lib.Sender(device.a) as sender:
                lib.true(sender.send(0), "dropped")
            total, new = collections.Counter(), True
            while new or not total["many[99]"]:         # a program that runs may be seen twice
                new = {name: value for name, value in seen().items() if value}
                total.update(new)
            lib.true("falling[0]" not in seen(), "an element that has become 0 is left out again")
            top.terminate()
        lib.equal(dict(total), {"state": 1, "many[99]": 7, "falling[0]": -7}, "of a packet, also of what falls to 0")


lib.main(statistics,
         only_of_those_who_ask,
         each_qdisc_shows_its_own,
         instances_share_them,
         what_a_change_does_to_them,
         qdisctop_shows_what_is_new,
         qdisctop_shows_the_numbers_that_tc_shows)
