#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""qdisctop: its numbers are those of the packets sent; its words for what is wrong."""

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import time

import lib
from lib import MS, NOBODY, POLICIES, SO_MARK, compiled, fails

COUNT = 20
SIZE = 150
DELAY = 700 * MS
SAY_NOTHING = 1                 # the mark by which stuck.bpf.c keeps a packet for good


class Top:
    """qdisctop -j on a device, and the sum of all that it has said of the qdisc."""

    def __init__(self, dev, *options):
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(("qdisctop", "-j", "-i", "0.1", *options, dev), stdout=subprocess.PIPE,
                                        text=True)
        self.total = collections.Counter()
        self.delays = {}
        self.qlen = self.backlog = 0
        self.is_missed = False          # the device may have none for a moment
        self.read()                     # from the first line on nothing is missed

    def read(self):
        (entry,) = json.loads(self.process.stdout.readline())["qdiscs"]
        if self.is_missed and entry["kind"] == "noqueue":
            return
        lib.equal(entry["kind"], "bpf", "kind")
        self.qlen, self.backlog = entry["qlen"], entry["backlog"]
        for way in ("in", "out"):
            for unit, number in entry.get(way, {}).items():
                self.total[f"{way} {unit}"] += number
        self.total["drops"] += entry["drops"]
        for reason, number in entry["reasons"].items():
            self.total[f"dropped {reason}"] += number
        for slot in entry.get("delay", ()):
            self.delays[slot["from_ns"]] = self.delays.get(slot["from_ns"], 0) + slot["packets"]

    def wait_for(self, what, number):
        """Until it has counted so many."""
        end = time.monotonic() + lib.TIMEOUT
        while self.total[what] < number:
            lib.true(time.monotonic() < end, f"{what}: {self.total}")
            self.read()


@contextlib.contextmanager
def top(device, *options):
    made = Top(device.a, *options)
    try:
        yield made
    finally:
        made.process.terminate()
        lib.equal(made.process.wait(lib.TIMEOUT), 0, "status after SIGTERM")
        made.process.stdout.close()


def what_comes_in_and_what_is_dropped():
    with lib.link() as device, lib.Sender(device.a) as sender:
        device.attach(compiled("hold"), "limit", str(COUNT))
        sender.send(0, SIZE)            # before it is started: queued, not counted
        with top(device) as seen:
            for number in range(1, COUNT + 5):
                sender.send(number, SIZE)
            seen.wait_for("dropped OVERLIMIT", 5)
            seen.wait_for("in packets", COUNT - 1)
            seen.wait_for("drops", 5)
            lib.equal(dict(+seen.total), {"in packets": COUNT - 1, "in bytes": (COUNT - 1) * SIZE,
                                          "drops": 5, "dropped OVERLIMIT": 5}, "numbers")
            lib.equal((seen.qlen, seen.backlog), (COUNT, COUNT * SIZE), "queued")
            lib.equal(seen.delays, {}, "delays of what has not left")
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "flush")
            seen.wait_for("drops", 5 + COUNT)
            lib.equal(seen.total["dropped OVERLIMIT"], 5, "drops with a reason")
            seen.wait_for("dropped other", COUNT)


def what_goes_out_and_how_long_it_took():
    """Packets that ask to leave in a while: none has waited for less."""
    shortest = DELAY
    with lib.wire(compiled("map_packets")) as (device, sender, receiver), top(device) as seen:
        for number in range(COUNT):
            when = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + DELAY
            lib.true(sender.send(number, SIZE, when=when), "dropped")
            # it came at some time before this one, and so waits for longer than what is left
            shortest = min(shortest, when - time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        receiver.collect(COUNT)
        seen.wait_for("out packets", COUNT)
        seen.read()             # the length of the queue was asked for before the packets that left
        lib.equal(dict(+seen.total), {"in packets": COUNT, "in bytes": COUNT * SIZE,
                                      "out packets": COUNT, "out bytes": COUNT * SIZE}, "numbers")
        lib.equal(sum(seen.delays.values()), COUNT, "packets with a delay")
        lib.true(min(seen.delays) * 2 > shortest > 0, f"delays: {seen.delays}, shortest {shortest}")
        lib.equal((seen.qlen, seen.backlog), (0, 0), "queued")


def each_tx_queue():
    with lib.link("numtxqueues", "4") as device:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "7:", "bpf_mq", "obj",
                compiled("queues"))
        shown = json.loads(lib.run("qdisctop", "-j", "-n", "1", "-i", "0.01", device.a))
        lib.equal(sorted((entry["kind"], entry["parent"]) for entry in shown["qdiscs"]),
                  [("bpf", f"7:{queue}") for queue in range(1, 5)] + [("bpf_mq", "root")], "qdiscs")


def a_qdisc_that_is_made_anew():
    """It begins with zeros: nothing is dropped that was not."""
    with lib.link() as device, lib.Sender(device.a) as sender:
        def make():
            device.attach(compiled("hold"), "limit", "1", where=("root", "handle", "5:"))

        make()
        with top(device, "-i", "1") as seen:
            for number in range(6):
                sender.send(number)
            seen.wait_for("drops", 5)
            seen.is_missed = True
            device.detach()
            make()
            sender.send(6)
            sender.send(7)              # is dropped, as one of before was
            seen.wait_for("drops", 6)
            seen.read()
            lib.equal(seen.total["drops"], 6, "drops of both")


def a_device_that_has_gone():
    with lib.link() as device:
        with subprocess.Popen(("qdisctop", "-j", "-i", "0.1", device.a), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            lib.contains(process.stdout.readline(), f'"dev":"{device.a}"')
            device.delete()
            lib.equal((process.communicate(timeout=lib.TIMEOUT)[1], process.returncode),
                      (f"qdisctop: {device.a} is gone\n", 1), "words and status")


def a_name_that_json_escapes():
    """Each byte is a character: it need not be UTF-8."""
    name = os.fsdecode(b'q"x\\y\x01\x7f\xe9z')
    lib.run("ip", "link", "add", name, "type", "dummy")
    try:
        lib.equal(json.loads(lib.run("qdisctop", "-j", "-n", "1", "-i", "0.01", name))["dev"],
                  os.fsencode(name).decode("latin-1"), "name of the device")
    finally:
        lib.run("ip", "link", "del", name)


def a_screen():
    with lib.link() as device:
        device.attach(compiled("hold"), where=("root", "handle", "9:"))
        text = lib.run("qdisctop", "-n", "1", "-i", "0.01", device.a)
        for part in (device.a, "qdisc bpf 9: parent root", "dropped           0 packets",
                     "queued            0 packets              0 bytes"):
            lib.contains(text, part)


def the_examples_of_the_man_page_work():
    """The first runs until it is interrupted."""
    screen, drops, stuck = lib.man_page_examples(f"{lib.TOP}/tools/net/qdisctop/qdisctop.8")
    with subprocess.Popen(("bash", "-c", f"exec {screen}"), stdout=subprocess.PIPE, text=True) as process:
        lib.contains(process.stdout.readline(), " eth0, the last ")
        process.send_signal(signal.SIGINT)
        lib.contains(process.stdout.read(), "parent root")
        lib.equal(process.wait(), 0, "status after SIGINT")
    lib.equal(lib.run("bash", "-o", "pipefail", "-c", drops), "0\n" * 10, "drops of a NIC that does nothing")
    with lib.link() as device:
        device.attach(f"{POLICIES}/fifo.bpf.o")
        lib.contains(lib.run("bash", "-o", "pipefail", "-c", stuck), f'{{device="{device.a}",')


def metrics(*options, command=("qdisctop",)):
    """Value by name and labels, of what is written for Prometheus: each name has its head once, before it."""
    found, names = {}, []
    for line in lib.run(*command, *options).splitlines():
        if line.startswith("#"):
            sign, what, name, rest = line.split(" ", 3)
            lib.true((sign, what) in (("#", "HELP"), ("#", "TYPE")) and rest, line)
            if what == "HELP":
                names.append(name)
            continue
        name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (-?\d+)", line).groups()
        lib.equal(name, names[-1], "name below its head")
        key = name, frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\["\\n])*)"(?:,|$)', labels))
        lib.true(key not in found, f"{line} is there twice")
        found[key] = int(value)
    lib.equal(len(set(names)), len(names), "names")
    return found


def one(found, name, **labels):
    """The value of the one that has these labels, among others."""
    (value,) = [value for (each, has), value in found.items() if each == name and set(labels.items()) <= has]
    return value


def for_prometheus():
    """What the qdisc has counted since it was made, with nothing that had to run before."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        device.attach(compiled("hold"), "limit", str(COUNT))
        for number in range(COUNT + 5):
            sender.send(number, SIZE)
        expected = {"sent_packets_total": 0, "sent_bytes_total": 0, "dropped_packets_total": 5, "queued_packets": COUNT,
                    "queued_bytes": COUNT * SIZE, "bpf_stored_packets": COUNT, "bpf_fifo_packets": 0,
                    "bpf_stuck": 0, "bpf_stuck_events_total": 0}
        for found in (metrics("-p", device.a), metrics("--prometheus"), metrics("-p", device.a, command=(*NOBODY, "qdisctop"))):
            lib.equal({name: one(found, f"qdisc_{name}", device=device.a, kind="bpf", parent="root") for name in expected},
                      expected, "metrics")
        lib.equal(one(metrics("-p"), "qdisc_bpf_info", device=device.a, object="hold.bpf.o"), 1, "object")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", compiled("release"))
        receiver.collect(COUNT)
        lib.wait_until(lambda: one(metrics("-p"), "qdisc_queued_packets", device=device.a, kind="bpf") == 0, "all have left")
        found = metrics("-p", device.a)
        lib.equal([one(found, f"qdisc_sent_{unit}_total", device=device.a, kind="bpf") for unit in ("packets", "bytes")],
                  [COUNT, COUNT * SIZE], "sent")
        lib.equal({dict(labels)["device"] for _, labels in found}, {device.a}, "devices")


def a_stuck_policy_for_prometheus():
    with lib.link() as device, lib.Sender(device.a) as sender:
        device.attach(compiled("stuck"), "patience", "10ms")
        sender.set(SO_MARK, SAY_NOTHING)
        sender.send(0)
        lib.wait_until(lambda: one(metrics("-p"), "qdisc_bpf_stuck", device=device.a) == 1, "the policy is stuck")
        lib.equal(one(metrics("-p"), "qdisc_bpf_stuck_events_total", device=device.a), 1, "times")


def policies_for_prometheus():
    """Of all queues: one sum of what is shared, one for each instance of what is not."""
    for policy, times in ((compiled("queues"), 1), (f"{POLICIES}/fq.bpf.o", 4)):
        with lib.link("numtxqueues", "4") as device:
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", "bpf_mq", "obj", policy)
            found = metrics("-p", device.a)
            lib.equal(sorted(dict(labels)["kind"] for name, labels in found if name == "qdisc_bpf_info"),
                      ["bpf"] * 4 + ["bpf_mq"], "instances")
            names = collections.Counter(dict(labels)["name"] for name, labels in found if name == "qdisc_bpf_policy_stat")
            lib.true(names, "the policy counts something")
            lib.equal(set(names.values()), {times}, f"each of {policy}'s variables")


def odd_names_for_prometheus():
    with lib.link() as device:
        device.attach(f"{POLICIES}/fifo.bpf.o")
        for name, label in (('a"b\\c', r'a\"b\\c'), ("\N{LATIN SMALL LETTER E WITH ACUTE}", r"\\xc3\\xa9")):
            lib.run("ip", "link", "set", device.a, "name", name)
            try:
                found = metrics("-p", name)
            finally:
                lib.run("ip", "link", "set", name, "name", device.a)
            lib.equal(one(found, "qdisc_bpf_stuck", device=label), 0, f"found by {label}")


def what_is_wrong():
    fails(1, "qdisctop: nosuch0: No such device", "qdisctop", "nosuch0")
    fails(2, '"x" is not a number', "qdisctop", "-i", "x", "lo")
    fails(2, '"0" is not a number from 1 on', "qdisctop", "-n", "0", "lo")
    for form in ((), ("-j",)):
        fails(1, "qdisctop: cannot write: No space left on device", "sh", "-c", 'exec "$@" >/dev/full', "sh",
              "qdisctop", *form, "-n", "1", "-i", "0.01", "lo")
    fails(2, "Usage: qdisctop", "qdisctop")
    fails(1, "qdisctop: nosuch0: No such device", "qdisctop", "-p", "nosuch0")
    fails(1, "qdisctop: cannot write: No space left on device", "sh", "-c", "qdisctop -p >/dev/full")
    fails(2, "Usage: qdisctop", "qdisctop", "lo", "lo")
    fails(2, "Usage: qdisctop", "qdisctop", "-p", "lo", "lo")
    fails(2, "Usage: qdisctop", "qdisctop", "-p", "-j", "lo")
    fails(1, "no permission: CAP_BPF and CAP_PERFMON are needed", *NOBODY, "qdisctop", "lo")
    lib.contains(lib.works("qdisctop", "-h"), "Usage: qdisctop")


lib.main(what_comes_in_and_what_is_dropped,
         what_goes_out_and_how_long_it_took,
         each_tx_queue,
         a_qdisc_that_is_made_anew,
         a_device_that_has_gone,
         a_name_that_json_escapes,
         a_screen,
         the_examples_of_the_man_page_work,
         for_prometheus,
         a_stuck_policy_for_prometheus,
         policies_for_prometheus,
         odd_names_for_prometheus,
         what_is_wrong)
