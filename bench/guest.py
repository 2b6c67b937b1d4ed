#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""guest.py PLAN: in the VM, measure what PLAN (JSON, written by bench/run) lists, and print
a line of JSON for each measure."""

import contextlib
import ctypes
import json
import mmap
import os
import re
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PKTGEN = "/proc/net/pktgen"
DEV = "d0"
FIRST_SOURCE = (198 << 24) + (18 << 16)         # 198.18.0.0/15 is for benchmarks


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


# --- instructions ------------------------------------------------------------

class Counter:
    """Instructions that bench/insns.c counts: between start() and stop() is a period,
    and the periods are numbered from 1."""

    def __init__(self):
        self.page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        for mark in (1, 2):             # the instruction and a return, see insns.c
            self.page.write(b"\x0f\x1f\x80csb" + bytes([mark]) + b"\xc3" + 8 * b"\xcc")
        self.mark = [ctypes.CFUNCTYPE(None)(address), ctypes.CFUNCTYPE(None)(address + 16)]
        self.period = 0

    def start(self):
        self.period += 1
        self.mark[0]()

    def stop(self):
        """Return the number of the period that it was."""
        self.mark[1]()
        return self.period

    def over(self, action):
        self.start()
        action()
        return self.stop()


# --- packets -----------------------------------------------------------------

def address(number):
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


class Pktgen:
    """Packets of 64 bytes (with the FCS) through the qdisc of a dummy device."""

    def __init__(self):
        run("ip", "link", "add", DEV, "type", "dummy")
        run("ip", "link", "set", DEV, "up")
        write(f"{PKTGEN}/kpktgend_0", f"add_device {DEV}\n")
        for words in ("pkt_size 60", "xmit_mode queue_xmit", "dst 192.0.2.1",
                      "dst_mac 02:00:00:00:00:02", "clone_skb 0", "delay 0"):
            self.set(words)

    @staticmethod
    def set(words):
        write(f"{PKTGEN}/{DEV}", words + "\n")

    def prepare(self, count, flows):
        self.set(f"count {count}")
        self.set(f"src_min {address(FIRST_SOURCE)}")
        self.set(f"src_max {address(FIRST_SOURCE + flows - 1)}")

    @staticmethod
    def start():
        write(f"{PKTGEN}/pgctrl", "start\n")

    @staticmethod
    def sent():
        """Packets that it has offered: those taken and those refused."""
        text = read(f"{PKTGEN}/{DEV}")
        return sum(int(re.search(rf"\b{what}: (\d+)", text)[1]) for what in ("pkts-sofar", "errors"))

    def send(self, count, flows):
        self.prepare(count, flows)
        self.start()

    @contextlib.contextmanager
    def running(self, flows):
        """It sends within this context. (With a count it would, at the end, wait until its
        last packet has left.)"""
        self.prepare(0, flows)
        thread = threading.Thread(target=self.start)
        thread.start()
        while f"Running: {DEV}" not in read(f"{PKTGEN}/kpktgend_0"):
            time.sleep(0.005)
        try:
            yield
        finally:
            write(f"{PKTGEN}/pgctrl", "stop\n")
            thread.join()


# --- a qdisc on the device -----------------------------------------------------

def register(objects):
    """Upstream's qdiscs."""
    for obj in objects:
        run("bpftool", "struct_ops", "register", obj)


class Attached:
    """The qdisc is there within this context."""

    def __init__(self, measure):
        self.words = measure["qdisc"]
        self.parent = measure.get("tbf")
        self.stamp = measure.get("stamp")

    def __enter__(self):
        where = ("root", "handle", "1:")
        if self.parent:
            run("tc", "qdisc", "add", "dev", DEV, *where, "tbf", *self.parent)
            where = ("parent", "1:1", "handle", "2:")
        if self.words:
            run("tc", "qdisc", "add", "dev", DEV, *where, *self.words)
        if self.stamp:
            run("tc", "qdisc", "add", "dev", DEV, "clsact")
            run("tc", "filter", "add", "dev", DEV, "egress", "bpf", "da", "obj",
                f"{HERE}/stamp.bpf.o", "sec", "tc")
        return self

    def __exit__(self, *_):
        if self.words:
            run("tc", "qdisc", "del", "dev", DEV, "root")
        if self.stamp:
            run("tc", "qdisc", "del", "dev", DEV, "clsact")

    def set_stamp(self, standing=0, pace=0):
        value = struct.pack("<7Q", standing, pace, self.stamp["ahead"], self.stamp["clock"], 0, 0, 0)
        run("bpftool", "map", "update", "name", "stamp", "key", "0", "0", "0", "0",
            "value", *(str(byte) for byte in value))

    @staticmethod
    def stats():
        """Of the qdisc at the leaf: the last one listed."""
        qdiscs = [qdisc for qdisc in json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", DEV))
                  if qdisc["kind"] != "clsact"]
        return qdiscs[-1]


def bpf_symbols():
    """Where the programs are now; the kernel's own symbols the host has."""
    with open("/proc/kallsyms", encoding="ascii") as file:
        return [line.split()[:3:2] for line in file if line.endswith("[bpf]\n")]


# --- workloads -----------------------------------------------------------------
#
# Each returns the periods, of which the host takes the cheapest: so it finds one without
# the kernel's own business, which comes now and then.

def direct(measure, pktgen, counter):
    """empty and flows: each packet leaves before the next one comes."""
    with Attached(measure) as attached:
        if attached.stamp:
            attached.set_stamp()
        pktgen.send(measure["warm"], measure["flows"])
        pktgen.prepare(measure["count"], measure["flows"])
        periods = [[counter.over(pktgen.start), measure["count"]] for _ in range(measure["periods"])]
        result = {"periods": periods}
        if measure["qdisc"]:
            result["drops"] = attached.stats()["drops"]
        if measure.get("symbols"):
            result["programs"] = bpf_symbols()
        return result


def count_running(pktgen, counter, measure, each):
    """Periods while pktgen runs, of about as many packets as asked for, if one takes `each` ns."""
    periods = []
    for _ in range(measure["periods"]):
        counter.start()
        before = pktgen.sent()
        time.sleep(measure["count"] * each / 1e9)
        period = counter.stop()
        periods.append([period, pktgen.sent() - before])
    return periods


paces = {}          # qdisc -> ns that a packet took last


def standing(measure, pktgen, counter):
    """As many packets as asked for stand in the queue: bench/stamp.bpf.c sees to that, if it
    knows the pace; and that is known from the smaller queue measured before."""
    name = str(measure["qdisc"])
    packets, pace = measure["standing"], paces.get(name, 4000)
    with Attached(measure) as attached:
        attached.set_stamp(packets, pace)
        with pktgen.running(measure["flows"]):
            time.sleep((3 * packets // 2 + 2000) * pace / 1e9)
            before = attached.stats()
            begin, sent = time.monotonic_ns(), pktgen.sent()
            periods = count_running(pktgen, counter, measure, pace)
            paces[name] = (time.monotonic_ns() - begin) // (pktgen.sent() - sent)
            after = attached.stats()
        return {"periods": periods, "drops": after["drops"], "stood": (before["qlen"] + after["qlen"]) // 2,
                "left": after["packets"] - before["packets"]}


def overload(measure, pktgen, counter):
    """Far more packets come than may leave; tbf lets some go."""
    with Attached(measure) as attached, pktgen.running(measure["flows"]):
        time.sleep(measure["warm"] * 3000 / 1e9)
        before = attached.stats()
        periods = count_running(pktgen, counter, measure, 3000)
        after = attached.stats()
        return {"periods": periods, "drops": after["drops"] - before["drops"],
                "left": after["packets"] - before["packets"]}


WORKLOADS = {"empty": direct, "flows": direct, "standing": standing, "overload": overload}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
    # its cleaner walks all of them now and then
    write("/proc/sys/net/netfilter/nf_conntrack_buckets", "64")
    register(plan["struct_ops"])
    pktgen, counter = Pktgen(), Counter()
    for number, measure in enumerate(plan["measures"]):
        begin = time.monotonic()
        try:
            result = WORKLOADS[measure["workload"]](measure, pktgen, counter)
        except RuntimeError as error:
            result = {"error": str(error)}
        print(json.dumps({"measure": number, **result, "took": time.monotonic() - begin}), flush=True)


main()
