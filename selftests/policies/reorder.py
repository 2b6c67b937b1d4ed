#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy reorder: what leaves, in which order and when; and what TCP gains from it beside a
pfifo, behind a netem that reorders.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import random
import select
import socket
import struct
import time

import lib
from lib import MS, NSEC

OBJ = f"{lib.POLICIES}/reorder.bpf.o"
ACK, SYN = 0x10, 0x02
BYTES = 500                     # of a segment
BEGIN = 2**32 - 20 * BYTES      # sequence numbers wrap around


def segment(port, number, flags=ACK, size=BYTES):
    """Of a connection's segments the one of this number. Both stand in the window, too."""
    tcp = struct.pack("!HHIIBBHHH", port, 80, (BEGIN + number * BYTES) % 2**32, 1, 5 << 4, flags, 1000 * port + number, 0, 0) + bytes(size)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
    return bytes.fromhex("020000000002" "020000000001" "0800") + ip + tcp


def numbers_of(arrivals, port=1):
    windows = [arrival.number & 0xffff for arrival in arrivals]
    return [window % 1000 for window in windows if window // 1000 == port]


def statistics(device):
    return tuple(device.qdisc()["stats"][name] for name in ("held", "in_order", "given_up"))


@contextlib.contextmanager
def wire(*options):
    with lib.wire(OBJ, *options) as (device, sender, receiver):
        def send(*segments, port=1):
            for number in segments:
                sender.sock.send(segment(port, number))
        yield device, sender, receiver, send


def segments_leave_in_order():
    """Of three connections, whose segments overtake up to nine others of their own, with other packets between
    them."""
    rng = random.Random(1)
    with wire("set", "wait=10s") as (device, sender, receiver, _):
        frames, others = {port: [segment(port, 0)] for port in (1, 2, 3)}, 0
        for port, its in frames.items():
            for first in range(1, 201, 10):
                block = [*range(first, first + 10)]
                rng.shuffle(block)
                its += [segment(port, number) for number in block]
        while any(frames.values()):
            sender.sock.send(frames[rng.choice([port for port in frames if frames[port]])].pop(0))
            if rng.random() < 0.1:
                lib.true(sender.send(0), "refused")
                others += 1
        arrivals = receiver.collect(603 + others)
        for port in frames:
            lib.equal(numbers_of(arrivals, port), [*range(201)], f"order of connection {port}")
        stats = statistics(device)
        lib.true(stats[0] > 300, f"held, in order, given up: {stats}")
        lib.equal(stats, (stats[0], stats[0], 0), "held, in order, given up")


def what_is_repeated_leaves_at_once():
    """And a new connection with the same ports begins anywhere."""
    with wire("set", "wait=10s") as (_, sender, receiver, send):
        send(0, 1, 2, 3, 1, 5, 5, 4)
        lib.equal(numbers_of(receiver.collect(8)), [0, 1, 2, 3, 1, 4, 5, 5], "order")
        sender.sock.send(segment(1, 7, SYN, 0))
        send(100, 102, 101)
        lib.equal(numbers_of(receiver.collect(4)), [7, 100, 101, 102], "order behind a SYN")


def what_has_no_data_overtakes():
    with wire("set", "wait=10s") as (_, sender, receiver, send):
        send(0, 2)
        sender.sock.send(segment(1, 3, size=0))
        lib.equal(numbers_of(receiver.collect(2)), [0, 3], "what leaves")
        send(1)
        lib.equal(numbers_of(receiver.collect(2)), [1, 2], "what leaves then")


def a_hole_is_waited_for_so_long():
    """Each segment from when it came; what fills the hole later leaves at once."""
    wait = 50 * MS
    with wire("set", "wait=50ms") as (device, _, receiver, send):
        send(0)
        came = time.monotonic_ns()
        send(2, 3, 6)
        time.sleep(0.02)
        send(8, 7)
        arrivals = receiver.collect(6)
        lib.equal(numbers_of(arrivals), [0, 2, 3, 6, 7, 8], "order")
        for arrival in arrivals[1:]:
            lib.true(wait <= arrival.when - came < wait + lib.LATE, f"{arrival.number & 0xffff} leaves after {arrival.when - came} ns")
        # 7 and 8 have no hole before them when 6 leaves
        lib.true(arrivals[-1].when < came + wait + 20 * MS, "7 and 8 leave late")
        send(1, 9)
        lib.equal(numbers_of(receiver.collect(2)), [1, 9], "what comes late, and what is next")
        lib.equal(statistics(device), (5, 0, 5), "held, in order, given up")


def a_reset_forgets_what_is_held():
    with wire("set", "wait=10s") as (device, _, receiver, send):
        send(0, 2)
        device.flap()
        with lib.Sender(device.a) as later:
            for number in (1, 4, 3, 2):
                later.sock.send(segment(1, number))
            lib.equal(numbers_of(receiver.collect(5)), [0, 1, 2, 3, 4], "what leaves")


# --- TCP -------------------------------------------------------------------------

SECONDS = 4
# A sender without this bound fills what the emulated CPUs can do, and the order is then that of their lateness.
WINDOW = 256 << 10
TCP_INFO_RETRANSMISSIONS, TCP_INFO_OUT_OF_ORDER = 100, 224     # of struct tcp_info
Transfer = collections.namedtuple("Transfer", "rate retransmissions disordered")


def transfer(*qdisc):
    """Bytes a second of a connection through a netem that reorders, and through this qdisc where it
    arrives; the segments that its sender has sent again; and those that its receiver has got before others."""
    lib.run("tc", "-n", "peer", "qdisc", "add", "dev", "ifb0", "root", *qdisc)
    with contextlib.ExitStack() as stack:
        with lib.namespace("peer"):
            server = stack.enter_context(socket.create_server(("10.0.0.2", 5001)))
        client = stack.enter_context(socket.create_connection(("10.0.0.2", 5001)))
        peer = stack.enter_context(server.accept()[0])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW)
        client.setblocking(False)
        end, got = time.monotonic_ns() + SECONDS * NSEC, 0
        while time.monotonic_ns() < end:
            readable, writable, _ = select.select([peer], [client], [], 1)
            lib.true(readable or writable, "the connection stands still")
            if writable:
                client.send(bytes(65536))
            if readable:
                got += len(peer.recv(65536))
        sender, at_peer = (sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256) for sock in (client, peer))
    lib.run("tc", "-n", "peer", "qdisc", "del", "dev", "ifb0", "root")
    found = Transfer(got // SECONDS, struct.unpack_from("I", sender, TCP_INFO_RETRANSMISSIONS)[0],
                     struct.unpack_from("I", at_peer, TCP_INFO_OUT_OF_ORDER)[0])
    print(f"# {qdisc[0]}: {found.rate * 8 / 1e6:.1f} Mbit/s, {found.retransmissions} segments sent again,"
          f" {found.disordered} out of order")
    return found


def tcp_sees_order():
    """Of segments that are 5 ms ahead of others, one in ten, on a path of 20 ms."""
    with lib.far_peer("15ms"), contextlib.ExitStack() as stack:
        lib.run("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "5ms", "reorder", "10%", "limit", "10000")
        stack.callback(lib.run, "tc", "qdisc", "del", "dev", "eth0", "root")
        lib.run("ip", "-n", "peer", "link", "add", "ifb0", "up", "type", "ifb")
        stack.callback(lib.run, "ip", "-n", "peer", "link", "del", "ifb0")
        lib.run("tc", "-n", "peer", "qdisc", "add", "dev", "eth1", "clsact")
        stack.callback(lib.run, "tc", "-n", "peer", "qdisc", "del", "dev", "eth1", "clsact")
        lib.run("tc", "-n", "peer", "filter", "add", "dev", "eth1", "ingress", "matchall", "action", "mirred", "egress",
                "redirect", "dev", "ifb0")
        without, with_it = transfer("pfifo", "limit", "10000"), transfer("bpf", "obj", OBJ, "limit", "10000", "set", "wait=10ms")
    # How much TCP loses by it depends on when it learns that the path reorders; what it sees does not.
    lib.true(without.disordered > 1000, "the path does not reorder")
    lib.true(with_it.disordered < without.disordered / 100, "TCP sees segments out of order")
    lib.true(with_it.retransmissions == 0, "TCP sends again what was not lost")
    lib.true(with_it.rate > 0.95 * without.rate, "TCP loses")


lib.main(segments_leave_in_order,
         what_is_repeated_leaves_at_once,
         what_has_no_data_overtakes,
         a_reset_forgets_what_is_held,
         measured=[a_hole_is_waited_for_so_long,
                   tcp_sees_order])
