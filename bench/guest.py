#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""guest.py PLAN: in the VM, measure what PLAN (JSON, written by bench/run) lists, and print
a line of JSON for each measure."""

import contextlib
import ctypes
import functools
import json
import mmap
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PKTGEN = "/proc/net/pktgen"
PKTGEN_SETTINGS = ("pkt_size 60", "xmit_mode queue_xmit", "dst 192.0.2.1",
                   "dst_mac 02:00:00:00:00:02", "clone_skb 0", "delay 0")
DEV = "d0"
PINS = "/sys/fs/bpf/bench"
UNDO = {"push": "pop", "pop": "push"}
IFB = "i0"
QUEUES, PLAIN = "d2", "d3"
VETH = "v0"
MSS = 1448                                      # with 1500 bytes of MTU and timestamps
HEADERS = 14 + 20 + 8
SO_MARK, SOL_PACKET, PACKET_VNET_HDR = 36, 263, 15
CLONE_NEWNET = 0x40000000
SYS_BPF, BPF_MAP_UPDATE_ELEM, BPF_MAP_GET_FD_BY_ID = 321, 2, 14
MINORS = 16384                                  # of classes; bench/class.bpf.c has it, too
MONOTONIC, TAI = 1, 2                           # BPF_SKB_CLOCK_*
COMES, LEAVES = 20_000, 6_000                   # ns: time enough for a packet
GRACE = 0.05                                    # s, after which memory that was freed can be had again
SPREAD, STEP = 1_000_000, 16_000                # ns over which departures spread, and between two
EARLY = 2_000_000                               # ns
TICK = 1_000_000                                # ns, of the kernel's timer
CLOCK_MONOTONIC_COARSE = 6                      # as it was at the last tick
FIRST_SOURCE = (198 << 24) + (18 << 16)         # 198.18.0.0/15 is for benchmarks
APART = 64                                      # flows whose hashes are kept apart (bench/sources.bpf.c),
SOURCES = 4096                                  # found among so many


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


def bpf(command, attributes):
    """The system call."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(SYS_BPF, command, attributes, ctypes.sizeof(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return result


# --- instructions ------------------------------------------------------------

class Counter:
    """Instructions that bench/insns.c counts: between start() and stop() is a period, which
    it cuts if pktgen runs in it, and the periods are numbered from 1."""

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


@contextlib.contextmanager
def clsact(dev, obj):
    """The program of the object sees each packet on its way to the qdisc."""
    run("tc", "qdisc", "add", "dev", dev, "clsact")
    try:
        run("tc", "filter", "add", "dev", dev, "egress", "bpf", "da", "obj", obj, "sec", "tc")
        yield
    finally:
        run("tc", "qdisc", "del", "dev", dev, "clsact")


class Pktgen:
    """Packets of 64 bytes (with the FCS) through the qdisc of a dummy device."""

    def __init__(self):
        run("ip", "link", "add", DEV, "type", "dummy")
        run("ip", "link", "set", DEV, "up")
        write(f"{PKTGEN}/kpktgend_0", f"add_device {DEV}\n")
        for words in PKTGEN_SETTINGS:
            self.set(words)
        self.apart = self.sources_apart()

    @staticmethod
    def set(words):
        write(f"{PKTGEN}/{DEV}", words + "\n")

    def sources_apart(self):
        """The first of APART addresses with hashes apart."""
        with clsact(DEV, f"{HERE}/sources.bpf.o"):
            self.send(SOURCES, SOURCES)
            dump = json.loads(run("bpftool", "-j", "map", "dump", "name", "sources.bss"))
        (section,) = dump[0]["formatted"]["value"].values()
        found = {name: value for variable in section for name, value in variable.items()}
        if found["last"] - found["first"] != APART - 1:
            raise RuntimeError(f"among {SOURCES} no {APART} source addresses in a row with hashes apart")
        return found["first"]

    def first(self, flows):
        """The first of so many source addresses"""
        return self.apart if flows <= APART else FIRST_SOURCE

    def prepare(self, count, flows):
        first = self.first(flows)
        self.set(f"count {count}")
        self.set(f"src_min {address(first)}")
        self.set(f"src_max {address(first + flows - 1)}")

    @staticmethod
    def start():
        write(f"{PKTGEN}/pgctrl", "start\n")

    @staticmethod
    def left():
        """Packets that have left the device."""
        return int(read(f"/sys/class/net/{DEV}/statistics/tx_packets"))

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

    def __init__(self, measure, dev=DEV):
        self.dev = dev
        self.words = measure["qdisc"]
        self.parent = measure.get("tbf")
        self.stamp = measure.get("stamp")
        self.stamp_map = None
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        where = ("root", "handle", "1:")
        if self.parent:
            run("tc", "qdisc", "add", "dev", self.dev, *where, "tbf", *self.parent)
            where = ("parent", "1:1", "handle", "2:")
        if self.words:
            run("tc", "qdisc", "add", "dev", self.dev, *where, *self.words)
        if self.stamp:
            self.stack.enter_context(clsact(self.dev, f"{HERE}/stamp.bpf.o"))
        return self

    def __exit__(self, *_):
        if self.words:
            run("tc", "qdisc", "del", "dev", self.dev, "root")
        self.stack.close()

    def set_stamp(self, batch=0, part=0, first=0, second=0):
        """What bench/stamp.bpf.c does from now on. By system call, because a command would
        take its time."""
        value = struct.pack("<9Q", batch, part, first, second, SPREAD, STEP, self.stamp["ahead"],
                            self.stamp["clock"], 88172645463325252)
        if self.stamp_map is None:
            found = json.loads(run("bpftool", "-j", "map", "show", "name", "stamp"))
            self.stamp_map = bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("<I", found["id"]))
            self.stack.callback(os.close, self.stamp_map)
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value)
        bpf(BPF_MAP_UPDATE_ELEM, struct.pack("<IxxxxQQQ", self.stamp_map, ctypes.addressof(key),
                                             ctypes.addressof(value), 0))

    def now(self):
        """On the clock of the departure times."""
        return time.clock_gettime_ns(time.CLOCK_TAI if self.stamp["clock"] == TAI else time.CLOCK_MONOTONIC)

    def stats(self):
        """Of the qdisc at the leaf: the last one listed."""
        qdiscs = [qdisc for qdisc in json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", self.dev))
                  if qdisc["kind"] != "clsact"]
        return qdiscs[-1]


class Arriving(Attached):
    """The qdisc is there for what arrives: at ingress, or on an ifb."""

    def __init__(self, measure):
        super().__init__(measure, IFB if measure["by"] == "ifb" else DEV)
        self.by = measure["by"]

    def __enter__(self):
        if self.by:
            run("tc", "qdisc", "add", "dev", DEV, "clsact")
        if self.by == "ingress":
            run("tc", "qdisc", "add", "dev", DEV, "parent", "ffff:fff2", *self.words)
        elif self.by == "ifb":
            run("ip", "link", "add", IFB, "type", "ifb")
            run("ip", "link", "set", IFB, "up")
            super().__enter__()
            run("tc", "filter", "add", "dev", DEV, "ingress", "matchall", "action", "mirred", "egress", "redirect", "dev", IFB)
        return self

    def __exit__(self, *_):
        if self.by:
            run("tc", "qdisc", "del", "dev", DEV, "clsact")
        if self.by == "ifb":
            run("ip", "link", "del", IFB)


def bpf_symbols():
    """Where the programs are now; the kernel's own symbols the host has."""
    with open("/proc/kallsyms", encoding="ascii") as file:
        return [line.split()[:3:2] for line in file if line.endswith("[bpf]\n")]


# --- workloads -----------------------------------------------------------------
#
# Each returns what was counted, some times over: lists of a period and its packets, to be
# added up. Of these sums the host takes the middle.

def memory():
    """Bytes that the kernel has in use, caches of files excepted."""
    fields = dict(re.findall(r"(\w+):\s+(\d+) kB", read("/proc/meminfo")))
    return 1024 * (int(fields["MemTotal"]) - sum(int(fields[name]) for name in
                                                 ("MemFree", "Buffers", "Cached", "SReclaimable")))


def memory_at_rest():
    """When what was freed before, by workers, can be had again"""
    before, used = None, memory()
    while before is None or used < before:
        time.sleep(GRACE)
        before, used = used, memory()
    return used


def classes(first, count):
    """Of htb, one for each source address, by a filter"""
    lines = [f"class add dev {DEV} parent 1: classid 1:1 htb rate 100gbit"]
    for source in range(first, first + count):
        leaf = f"1:{source % MINORS + 2:x}"
        lines += [f"class add dev {DEV} parent 1:1 classid {leaf} htb rate 1mbit ceil 100gbit quantum 1514",
                  f"qdisc add dev {DEV} parent {leaf} fq_codel"]
    write("/tmp/classes", "\n".join(lines) + "\n")
    run("tc", "-batch", "/tmp/classes")
    run("tc", "filter", "add", "dev", DEV, "parent", "1:", "bpf", "obj", f"{HERE}/class.bpf.o", "sec", "tc")


def store(name, elements):
    """In the map of the qdisc that has come last."""
    found = json.loads(run("bpftool", "-j", "map", "list"))
    fd = bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("<I", max(each["id"] for each in found if each.get("name") == name)))
    for key, value in elements:
        key, value = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
        bpf(BPF_MAP_UPDATE_ELEM, struct.pack("<IxxxxQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0))
    os.close(fd)


def subscribers(first, count):
    """Of the policy tenants, likewise"""
    numbers = range(1, count + 1)
    store("subscriber", ((struct.pack("<I", number), struct.pack("<QQQ", 0, 125000, 12_500_000_000)) for number in numbers))
    store("tenants_prefix", ((struct.pack("<I10x2s", 128, b"\xff\xff") + struct.pack("!I", first + number - 1),
                              struct.pack("<I", number)) for number in numbers))


def count_direct(measure, pktgen, counter):
    pktgen.send(measure["warm"], measure["flows"])
    pktgen.prepare(measure["count"], measure["flows"])
    return {"periods": [[[counter.over(pktgen.start), measure["count"]]] for _ in range(measure["periods"])]}


def direct(measure, pktgen, counter):
    """empty, flows and leaves: each packet leaves before the next one comes."""
    before = memory_at_rest() if "leaves" in measure else memory()
    with Attached(measure) as attached:
        if attached.stamp:
            attached.set_stamp()
        if "leaves" in measure:
            {"htb": classes, "tenants": subscribers}[measure["leaves"]](pktgen.first(measure["flows"]), measure["flows"])
        result = {**count_direct(measure, pktgen, counter), "memory": memory() - before}
        if measure["qdisc"]:
            result["drops"] = attached.stats()["drops"]
        if measure.get("symbols"):
            result["programs"] = bpf_symbols()
        return result


def arrive(measure, pktgen, counter):
    """As if they were received, given away each, for this host's protocols, which find that they are for another."""
    pktgen.set("xmit_mode netif_receive")
    pktgen.set("flag !SHARED")
    with Arriving(measure) as attached:
        result = count_direct(measure, pktgen, counter)
        sent = measure["warm"] + measure["periods"] * measure["count"]
        if measure["by"] and attached.stats()["packets"] != sent:
            raise RuntimeError(f"of {sent} packets the qdisc has sent {attached.stats()['packets']}")
    pktgen.set("flag SHARED")
    pktgen.set("xmit_mode queue_xmit")
    return result


def count_running(pktgen, counter, measure, each):
    """Periods while pktgen runs, of about as many packets as asked for, if one takes `each` ns."""
    periods = []
    for _ in range(measure["periods"]):
        packets = 0
        while not packets:              # time may have passed without any
            counter.start()
            before = pktgen.sent()
            time.sleep(measure["count"] * each / 1e9)
            period = counter.stop()
            packets = pktgen.sent() - before
        periods.append([[period, packets]])
    return periods


def over_time(counter, window):
    """The period of so many ns, begun at a tick and ended between two, so that their number is
    always the same; and in user space, because idle CPUs do what they can to have none."""
    wait_for_tick()
    # what is to be done in the kernel goes before
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    end = time.monotonic_ns() + -(-window // TICK) * TICK + TICK // 2
    counter.start()
    while time.monotonic_ns() < end:
        pass
    period = counter.stop()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return period


def stand(measure, pktgen, counter, attached, number):
    """Let packets stand in an empty queue, then count what it costs to add some, and, when the
    time has come, to take as many out: each time at another phase of the timer's tick."""
    standing, count = measure["standing"], measure["count"]
    wait_for_tick()
    first = (attached.now() + 500_000_000 + -(-(standing + count) * COMES // TICK) * TICK +
             number * TICK // measure["rounds"])
    second = first + 4_000_000_000
    times = (count * 2 ** 32 // (standing + count), first, second)
    attached.set_stamp(standing + 1, *times)
    pktgen.send(standing + 1, measure["flows"])
    attached.set_stamp(count + 1, *times)
    # No need to wait for a tick: pktgen's thread is woken by the timer.
    added = counter.over(lambda: pktgen.send(count + 1, measure["flows"]))
    if attached.now() > first - EARLY:
        raise RuntimeError("adding the packets took too long")
    # Before the first packet is due: who then runs first, they or this, is not certain.
    time.sleep(max(0, first - EARLY - attached.now()) / 1e9)
    before = pktgen.left()
    if attached.now() > first - EARLY + TICK // 2:
        raise RuntimeError("no time is left before the packets are due")
    window = EARLY + count * LEAVES + 2 * SPREAD
    taken = over_time(counter, window)
    left = pktgen.left() - before
    waited = over_time(counter, window)         # what the time alone costs is taken off
    if not left or pktgen.left() != before + left or attached.now() > second:
        raise RuntimeError(f"{left} packets left in their time, {pktgen.left() - before} until later")
    about = {"left": left, "stood": standing + count - left, "used": memory()}
    if number + 1 < measure["rounds"]:
        # etf takes nothing that is due before what has left
        time.sleep(max(0, second + 4 * SPREAD + attached.stamp["ahead"] - attached.now()) / 1e9)
    return [[added, count + 1], [taken, left], [waited, -left]], about


def standing(measure, pktgen, counter):
    """Packets with departure times in the future stand in the queue, in random order."""
    periods, programs = [], []
    rounds = measure["rounds"]
    for _ in range(measure["periods"]):
        before = memory()
        with Attached(measure) as attached:
            attached.set_stamp()
            for number in range(rounds):
                parts, about = stand(measure, pktgen, counter, attached, number)
                periods.append(parts)
            # Not after each round: a command may wait for the host's disk, for seconds of the guest.
            after = attached.stats()
            programs += bpf_symbols()
        sent = rounds * (measure["standing"] + measure["count"] + 2)
        if after["packets"] + after["qlen"] != sent:
            raise RuntimeError(f"of {sent} packets {after['packets']} left and {after['qlen']} stand")
        about["memory"] = about.pop("used") - before
        about["drops"] = after["drops"]
    return {"periods": periods, "programs": programs, **about}


def overload(measure, pktgen, counter):
    """Far more packets come than may leave; tbf lets some go."""
    with Attached(measure) as attached, pktgen.running(measure["flows"]):
        time.sleep(measure["warm"] * 3000 / 1e9)
        before = attached.stats()
        periods = count_running(pktgen, counter, measure, 3000)
        after = attached.stats()
        return {"periods": periods, "drops": after["drops"] - before["drops"],
                "left": after["packets"] - before["packets"]}


def add_veth():
    """A veth device, its other end in a namespace."""
    run("ip", "netns", "add", "far")
    run("ip", "link", "add", VETH, "type", "veth", "peer", "name", "far0", "netns", "far")
    run("ip", "addr", "add", "198.51.100.1/24", "dev", VETH)
    run("ip", "link", "set", VETH, "up")
    run("ip", "-n", "far", "addr", "add", "198.51.100.2/24", "dev", "far0")
    run("ip", "-n", "far", "link", "set", "far0", "up")


class Tcp:
    """A TCP connection through the veth device."""

    def __enter__(self):
        with netns("far"):
            listener = socket.create_server(("198.51.100.2", 5000))
        self.sender = socket.create_connection(("198.51.100.2", 5000))
        self.receiver, _ = listener.accept()
        listener.close()
        return self

    def __exit__(self, *_):
        self.sender.close()
        self.receiver.close()

    def send(self, count):
        """Bytes, until all have been received."""
        def send_all():
            chunk = bytes(1 << 18)
            for _ in range(count // len(chunk)):
                self.sender.sendall(chunk)

        thread = threading.Thread(target=send_all)
        thread.start()
        buffer = bytearray(1 << 18)
        while count > 0:
            count -= self.receiver.recv_into(buffer, min(count, len(buffer)))
        thread.join()


@contextlib.contextmanager
def netns(name):
    """This thread is in that network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{name}", "rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


def gso(measure, _, counter):
    """TCP in packets as large as they come; the figure is of a segment on the wire."""
    with Attached(measure, VETH), Tcp() as connection:
        connection.send(measure["count"])       # until its window is open
        return {"periods": [[[counter.over(lambda: connection.send(measure["count"])),
                              measure["count"] / MSS]] for _ in range(measure["periods"])]}


def commands(measure, *_):
    """How long tc takes to add the qdisc, and to change it in place if it can be; ns. The
    shortest times: who reads a file may have to wait for the host."""
    found = {"add_ns": [], "change_ns": []}
    for _ in range(measure["periods"]):
        for key, verb in (("add_ns", "add"), ("change_ns", "change")):
            begin = time.monotonic_ns()
            done = subprocess.run(("tc", "qdisc", verb, "dev", DEV, "root", *measure["qdisc"]),
                                  capture_output=True, check=False)
            if not done.returncode:
                found[key].append(time.monotonic_ns() - begin)
        run("tc", "qdisc", "del", "dev", DEV, "root")
    return {key: min(values) for key, values in found.items() if values}


class Queues:
    """Packets on several CPUs, each with a tx queue of the device of its own."""

    def __init__(self, dev):
        self.dev = dev
        run("ip", "link", "add", dev, "numtxqueues", str(os.cpu_count()), "type", "dummy")
        run("ip", "link", "set", dev, "up")
        for cpu in range(os.cpu_count()):
            write(f"/sys/class/net/{dev}/queues/tx-{cpu}/xps_cpus", f"{1 << cpu:x}")

    def attach(self, root, words):
        """@root, which makes an instance for each queue, or mq with one below for each"""
        run("tc", "qdisc", "replace", "dev", self.dev, "root", "handle", "1:", *([root, *words[1:]] if root else ["mq"]))
        for queue in range(0 if root else os.cpu_count()):
            run("tc", "qdisc", "add", "dev", self.dev, "parent", f"1:{queue + 1:x}", *words)

    def detach(self):
        run("tc", "qdisc", "del", "dev", self.dev, "root")

    def rate(self, count, cpus):
        """Packets a second, all CPUs together."""
        for cpu in range(os.cpu_count()):
            write(f"{PKTGEN}/kpktgend_{cpu}", "rem_device_all\n")
        for cpu in range(cpus):
            device = f"{self.dev}@{cpu}"
            write(f"{PKTGEN}/kpktgend_{cpu}", f"add_device {device}\n")
            for words in (*PKTGEN_SETTINGS, f"count {count}"):
                write(f"{PKTGEN}/{device}", words + "\n")
        write(f"{PKTGEN}/pgctrl", "start\n")
        said = [read(f"{PKTGEN}/{self.dev}@{cpu}") for cpu in range(cpus)]
        rates = [int(each) for text in said for each in re.findall(r"(\d+)pps", text)]
        if len(rates) < cpus:
            raise RuntimeError(f"pktgen tells no rate: {said}")
        return sum(rates)


@functools.cache
def device_with_queues(dev):
    return Queues(dev)


def queues(measure, *_):
    """The rate of two queues against that of one, in turns."""
    root = measure["root"]
    device = device_with_queues(QUEUES)
    device.attach(root, measure["qdisc"])
    device.rate(measure["count"], 2)
    ratios = []
    for _ in range(measure["periods"]):
        one = device.rate(measure["count"], 1)
        ratios.append(device.rate(measure["count"], 2) / one)
    leaves = [qdisc["packets"] for qdisc in json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", QUEUES))
              if qdisc["kind"] not in ("mq", root)]
    device.detach()
    # the warm-up and each period's second half for both; the first one has the rest
    if sorted(leaves) != [count * measure["count"] for count in (1 + measure["periods"], 1 + 2 * measure["periods"])]:
        raise RuntimeError(f"packets of the tx queues: {leaves}")
    return {"ratio": sorted(ratios)[len(ratios) // 2]}


def contention(measure, *_):
    """The rate of all CPUs, each into a queue of its own, against that through mq with pfifo; and the same of one
    CPU alone. In turns, so that whatever else the host does is the same for all."""
    ours, plain, count = device_with_queues(QUEUES), device_with_queues(PLAIN), measure["count"]
    ours.attach(measure["root"], measure["qdisc"])
    plain.attach(None, ["pfifo"])
    found = []
    for _ in range(1 + measure["periods"]):
        found.append([ours.rate(count, cpus) / plain.rate(count, cpus) for cpus in (os.cpu_count(), 1)])
    for device in (ours, plain):
        device.detach()
    of_all, of_one = (sorted(each)[len(each) // 2] for each in zip(*found[1:]))
    return {"ratio": of_all, "ratio_of_one": of_one}


def loaded(obj):
    """Where the programs of an object are pinned."""
    pins = f"{PINS}_{os.path.basename(obj).split('.')[0]}"
    if not os.path.exists(pins):
        os.mkdir(pins)
        run("bpftool", "prog", "loadall", obj, pins)
    return pins


class Program:
    """A pinned program, which is run with BPF_PROG_TEST_RUN: bpftool would cost more than the
    program."""
    OBJ_GET, TEST_RUN = 7, 10
    libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, path):
        self.path = ctypes.create_string_buffer(path.encode())
        self.fd = self.bpf(self.OBJ_GET, struct.pack("<QII", ctypes.addressof(self.path), 0, 0))[0]

    @classmethod
    def bpf(cls, command, attributes):
        """What the system call returns, and the attributes after it."""
        buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
        got = cls.libc.syscall(SYS_BPF, command, buffer, 128)
        if got < 0:
            raise RuntimeError(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
        return got, buffer.raw

    def run(self, packet=b""):
        """What the program returns, or, if it gets a packet, what becomes of that."""
        data = ctypes.create_string_buffer(packet, len(packet))
        where = ctypes.addressof(data) if packet else 0
        _, after = self.bpf(self.TEST_RUN, struct.pack("<IIIIQ", self.fd, 0, len(packet), 0, where))
        return struct.unpack_from("<I", after, 4)[0]


def wait_for_tick():
    """Until the timer has just ticked: so as many ticks are in each short period."""
    before = time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
    while time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) == before:
        pass


def maps(measure, _, counter):
    """One program of bench/map.bpf.c; push, find and pop come in this order."""
    pins = loaded(measure["object"])
    periods, failed = [], []

    def do(operation):
        program = Program(f"{pins}/{operation}_{measure['map']}")
        time.sleep(GRACE)
        wait_for_tick()
        period = counter.over(lambda: failed.append(program.run()))
        if failed[-1] and operation != "find":      # some keys have nothing above them
            raise RuntimeError(f"{failed[-1]} times no {operation}")
        return period

    do(measure["operation"])
    for _ in range(measure["periods"]):
        if measure["operation"] in UNDO:
            do(UNDO[measure["operation"]])
        periods.append([[do(measure["operation"]), measure["count"]]])
    return {"periods": periods}


def functions(measure, pktgen, counter):
    """One program of bench/functions.bpf.c, on a UDP packet that can be marked."""
    if measure["qdisc"]:
        return on_a_device(measure, pktgen, counter)
    packet = bytes.fromhex("020000000002" "020000000001" "0800" "4501002e00000000401100000a0000010a000002"
                           "03e80009001a0000").ljust(60, b"\0")
    program = Program(f"{loaded(measure['object'])}/{measure['operation']}")
    periods, dropped = [], []
    for _ in range(1 + measure["periods"]):
        time.sleep(GRACE)
        wait_for_tick()
        periods.append([[counter.over(lambda: dropped.append(program.run(packet))), measure["count"]]])
        if dropped.pop():
            raise RuntimeError("a function failed")
    return {"periods": periods[1:]}


class Marked:
    """UDP packets on the dummy device from a packet socket; with more than a segment, GSO packets."""

    def __init__(self, segments=1):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.bind((DEV, 0x0800))
        self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        length = segments * 1472
        gso = (1, 5, HEADERS, 1472, 34, 6) if segments > 1 else (0, 0, 0, 0, 0, 0)
        self.packet = struct.pack("<BBHHHH", *gso) + bytes.fromhex("020000000002" "020000000001" "0800") + struct.pack(
            "!BBHHHBBH4s4sHHHH", 0x45, 0, 28 + length, 0, 0, 64, 17, 0, bytes(4), bytes(4), 1000, 9, 8 + length, 0) + bytes(length)

    def send(self, count=1, mark=0):
        self.sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        for _ in range(count):
            self.sock.send(self.packet)


def on_a_device(measure, pktgen, counter):
    """One function of bench/dequeue.bpf.c, whose class has a packet."""
    operation, count = measure["operation"], measure["count"]
    with Attached(measure) as attached:
        if operation in ("whole", "segment"):
            sender = Marked(measure["segments"])
            times = count // measure["segments"]
            action, count = lambda: sender.send(times), times * measure["segments"]
        elif operation in ("sent", "orphan"):
            sender = Marked()
            action = functools.partial(sender.send, count)
        elif operation in ("pop", "pop_from", "pop_until", "pop_key", "take_deliver", "pass_pop_class"):
            if operation == "pass_pop_class":
                run("tc", "class", "add", "dev", DEV, "parent", "1:", "classid", "1:1", "bpf")
            pktgen.prepare(count, 1)
            action = pktgen.start
        else:
            run("tc", "class", "add", "dev", DEV, "parent", "1:", "classid", "1:1", "bpf")
            sender = Marked()
            sender.send(mark=1)
            if operation == "classify":
                run("tc", "filter", "add", "dev", DEV, "parent", "1:", "matchall", "classid", "1:1")
            action = sender.send
        action()
        periods = []
        for _ in range(measure["periods"]):
            time.sleep(GRACE)
            wait_for_tick()
            periods.append([[counter.over(action), count]])
        stats = [qdisc for qdisc in json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", DEV)) if qdisc["kind"] == "bpf"][0]
    if stats["stats"]["failed"]:
        raise RuntimeError(f"a function failed {stats['stats']['failed']} times")
    return {"periods": periods}


WORKLOADS = {"map": maps, "functions": functions, "empty": direct, "arrive": arrive, "flows": direct, "leaves": direct, "standing": standing,
             "overload": overload, "gso": gso, "commands": commands, "queues": queues, "contention": contention}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
    register(plan["struct_ops"])
    add_veth()
    pktgen, counter = Pktgen(), Counter()
    for number, measure in enumerate(plan["measures"]):
        begin = time.monotonic()
        try:
            result = WORKLOADS[measure["workload"]](measure, pktgen, counter)
        except RuntimeError as error:
            result = {"error": str(error)}
        print(json.dumps({"measure": number, **result, "took": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main()
