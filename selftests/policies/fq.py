#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""fq paces each socket by its own rate, however many there are, and forgets those that send
nothing. What native.py compares is not here.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import contextlib
import ctypes
import os
import resource
import socket
import struct
import time

import lib
from lib import MS, NSEC, SO_MAX_PACING_RATE

FQ = f"{lib.POLICIES}/fq.bpf.o"
SYS_BPF, MAP_GET_FD_BY_ID, MAP_UPDATE_BATCH = 321, 14, 26
SOCKETS, IDLE = 65536, 3                # of policies/fq.bpf.c
SIZE, EACH = 100, 5                     # bytes of a packet, packets of a socket
NEAR, FAR = "198.18.0.1", "198.18.0.2"


def rates(count):
    """Bytes a second: intervals of 300 to 499 ms between packets, of neighbours not the same."""
    return [SIZE * NSEC // ((300 + 7 * number % 200) * MS) for number in range(count)]


def errors(words, count):
    """By how much each of so many sockets is off its rate, in parts of that."""
    with lib.link() as device, lib.Receiver(device.b) as receiver, contextlib.ExitStack() as sockets:
        lib.run("ip", "addr", "add", f"{NEAR}/24", "dev", device.a)
        lib.run("ip", "neigh", "add", FAR, "lladdr", "02:00:00:00:00:02", "dev", device.a)
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", *words)
        senders, times = [], [[] for _ in range(count)]
        for rate in rates(count):
            sender = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sender.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
            sender.connect((FAR, 9))
            senders.append(sender)
        for _ in range(EACH):
            for number, sender in enumerate(senders):
                sender.send(struct.pack("!Q", number).ljust(SIZE - lib.HEADERS, b"\0"))
        for arrival in receiver.collect(count * EACH):
            times[arrival.number].append(arrival.when)
        return [SIZE * (EACH - 1) * NSEC / (each[-1] - each[0]) / rate - 1 for rate, each in zip(rates(count), times)]


def each_of_1000_sockets_has_its_own_rate_as_with_the_native_fq():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    for name, words in (("native", ["fq"]), ("ours", ["bpf", "obj", FQ])):
        worst = sorted(errors(words, 1000), key=abs)
        print(f"# {name}: the worst of {len(worst)} rates is {100 * worst[-1]:+.3f} % off")
        lib.true(abs(worst[-1]) < 0.0005, f"{name}: rates are off, in %: {[round(100 * each, 2) for each in worst[-50:]]}")


def a_rate_ends_with_its_socket():
    """The next one may have its address, and owes nothing. A packet takes a second at this rate."""
    with lib.link() as device, lib.Receiver(device.b) as receiver:
        device.attach(FQ)
        for number in range(30):
            with lib.Sender(device.a) as sender:
                sender.set(SO_MAX_PACING_RATE, SIZE)
                sent = time.monotonic_ns()
                sender.send(number, SIZE)
                (arrival,) = receiver.collect(1)
            lib.true(arrival.when - sent < lib.LATE, f"socket {number} waits for {(arrival.when - sent) / MS:.1f} ms")


def what_is_flushed_is_not_paid_for():
    """A packet takes a second at this rate; the next one after a flush goes at once."""
    with lib.link() as device, lib.Receiver(device.b) as receiver, lib.Sender(device.a) as sender:
        device.attach(FQ)
        sender.set(SO_MAX_PACING_RATE, SIZE)
        for number in range(10):
            lib.true(sender.send(number, SIZE), "packet refused")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", FQ, "flush")
        lib.true(device.qdisc()["drops"] > 2, "no packets waited")
        sent = time.monotonic_ns()
        sender.send(10, SIZE)
        while (arrival := receiver.collect(1)[0]).number != 10:
            pass
        lib.true(arrival.when - sent < lib.LATE, f"it waits for {(arrival.when - sent) / MS:.1f} ms")


def paces():
    """The only map of that name"""
    lib.wait_until(lambda: len(lib.maps_named("fq_paces")) == 1, "maps of earlier tests are gone")
    (number,) = lib.maps_named("fq_paces")
    return number


def sockets_that_send_nothing_are_forgotten():
    """As new ones come, two for each, wherever they are in the map."""
    with lib.link() as device, lib.Receiver(device.b) as receiver, contextlib.ExitStack() as stack:
        device.attach(FQ)
        for many in (200, 250):
            for number in range(many):
                sender = stack.enter_context(lib.Sender(device.a))
                sender.set(SO_MAX_PACING_RATE, 1_000_000)
                sender.send(number, SIZE)
            receiver.collect(many)
            lib.equal(len(lib.bpftool("map", "dump", "id", str(paces()))), many, "sockets that are remembered")
            time.sleep(IDLE + 1)


def fill(map_id, count, when):
    """With sockets that may send no more until that time."""
    libc = ctypes.CDLL(None, use_errno=True)
    keys, values = (ctypes.create_string_buffer(data) for data in (
        struct.pack(f"{count}Q", *range(1, count + 1)), struct.pack("QQ", when, 0) * count))
    get = struct.pack("III", map_id, 0, 0)
    fd = libc.syscall(SYS_BPF, MAP_GET_FD_BY_ID, get, len(get))
    update = struct.pack("QQQQIIQQ", 0, 0, ctypes.addressof(keys), ctypes.addressof(values), count, fd, 0, 0)
    lib.equal(libc.syscall(SYS_BPF, MAP_UPDATE_BATCH, update, len(update)), 0, "map filled")
    os.close(fd)


def sockets_beyond_the_limit_send_unpaced():
    """They are counted, until there is room."""
    with lib.wire(FQ) as (device, sender, receiver):
        fill(paces(), SOCKETS, time.monotonic_ns() + 3600 * NSEC)
        sender.set(SO_MAX_PACING_RATE, SIZE)
        for packets, unpaced, seconds in ((10, 10, 0), (3, 10, 2)):
            sent = time.monotonic_ns()
            for number in range(packets):
                lib.true(sender.send(number, SIZE), "packet refused")
            took = receiver.collect(packets)[-1].when - sent
            lib.true(0 <= took - seconds * NSEC < lib.LATE, f"{packets} packets take {took / MS:.1f} ms, expected {seconds} s")
            lib.equal(device.qdisc()["stats"]["unpaced"], unpaced, "packets that were not paced")
            if not seconds:
                lib.run("bpftool", "map", "delete", "id", str(paces()), "key", *lib.map_bytes(1, 8))


lib.main(a_rate_ends_with_its_socket, what_is_flushed_is_not_paid_for, sockets_beyond_the_limit_send_unpaced,
         measured=[each_of_1000_sockets_has_its_own_rate_as_with_the_native_fq, sockets_that_send_nothing_are_forgotten])
