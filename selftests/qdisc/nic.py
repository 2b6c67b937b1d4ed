#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Real traffic through a driver's NIC, eth0, to the other end of its wire: the ring is full, byte
queue limits stop the queue, the link goes down and comes back. What the qdisc counts is what
arrives. For each model of vm/run --nic."""

import errno
import json
import re
import socket
import subprocess

import lib
from lib import POLICIES, compiled

EDT, FIFO = f"{POLICIES}/edt.bpf.o", f"{POLICIES}/fifo.bpf.o"
HOLD, RELEASE = compiled("hold"), compiled("release")
BQL = "/sys/class/net/eth0/queues/tx-0/byte_queue_limits"
COUNT = 2000

SIZE = 2_000_000
RATE = 4_000_000                # bytes a second: no queue behind the qdisc overflows

SERVER = f"""
import socket
with socket.create_server(("10.0.0.2", 5000)) as server:
    print(flush=True)
    peer, _ = server.accept()
    left = {SIZE}
    while left and (got := len(peer.recv(min(left, 65536)))):
        left -= got
    print(left, flush=True)
    peer.recv(1)
"""


def received():
    """Frames and bytes that eth1's driver has received."""
    shown = lib.run("ip", "-n", "peer", "-j", "-s", "link", "show", "dev", "eth1")
    counters = json.loads(shown)[0]["stats64"]["rx"]
    return counters["packets"], counters["bytes"]


def qdisc():
    (found,) = lib.instances("eth0")
    return found


def transfer():
    with subprocess.Popen(["ip", "netns", "exec", "peer", "/usr/bin/python3", "-S", "-c", SERVER],
                          stdout=subprocess.PIPE, text=True) as server:
        try:
            server.stdout.readline()
            with socket.create_connection(("10.0.0.2", 5000)) as sock:
                sock.sendall(b"x" * SIZE)
                lib.equal(server.stdout.readline(), "0\n", "bytes that the receiver lacks")
        finally:
            server.kill()


def driver():
    return re.search(r"driver: (\S+)", lib.run("ethtool", "-i", "eth0")).group(1)


def wait_carrier():
    def has():
        with open("/sys/class/net/eth0/carrier", encoding="ascii") as file:
            return file.read() == "1\n"
    lib.wait_until(has, "the link is up")


def limits(least, most):
    """Bytes that the driver may have been given and not have sent; nothing for one that does
    not tell."""
    for name, value in (("limit_max", most), ("limit_min", least)):
        with open(f"{BQL}/{name}", "w", encoding="ascii") as file:
            file.write(str(value))


def release(what):
    """A queue of many packets is let go at once; what the qdisc counts then."""
    with lib.nic("bpf", "obj", HOLD) as (sender, receiver):
        for number in range(COUNT):
            lib.true(sender.send(number, 60 + number % 1400), f"packet {number} is taken")
        lib.run("tc", "qdisc", "change", "dev", "eth0", "root", "bpf", "obj", RELEASE)
        lib.equal(lib.numbers(receiver.collect(COUNT)), list(range(COUNT)), f"{what}: order")
        sender.wait_freed()
        stats = qdisc()
        lib.equal((stats["packets"], stats["bytes"], stats["qlen"], stats["drops"]),
                  (COUNT, receiver.bytes, 0, 0), f"{what}: sent, queued and dropped")
        print(f"# {what}: {stats['requeues']} requeues")
        return stats["requeues"]


def a_queue_of_many_packets_leaves_in_order():
    release("as the driver is")


def a_ring_that_is_full():
    """Packets go back into the queue, and come first."""
    ring = re.findall(r"TX:\s+(\d+)", lib.run("ethtool", "-g", "eth0"))[-1]
    lib.run("ethtool", "-G", "eth0", "tx", "32")
    wait_carrier()
    limits(1 << 24, 1 << 24)
    try:
        lib.true(release("a small ring") > 0, "the driver was never busy")
    finally:
        limits(0, 1 << 30)
        lib.run("ethtool", "-G", "eth0", "tx", ring)
        wait_carrier()


def byte_queue_limits_of_one_packet():
    """The queue is stopped behind each packet, and the next one waits in the qdisc. Of the drivers
    here vmxnet3 alone knows no limits: it never tells what it has sent."""
    limits(0, 1)
    try:
        release("limits of one byte")
        with open(f"{BQL}/limit", encoding="ascii") as file:
            limit = int(file.read())
        lib.equal(limit, 0 if driver() == "vmxnet3" else 1, "the limit that the driver has come to")
    finally:
        limits(0, 1 << 30)


def segments_are_counted_with_their_headers():
    """Without TSO: QEMU 7 would send a TSO packet as IP fragments."""
    frames, size = received()
    lib.run("ethtool", "-K", "eth0", "tso", "off")
    lib.run("tc", "qdisc", "replace", "dev", "eth0", "root", "bpf", "obj", EDT)
    lib.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    lib.run("tc", "filter", "add", "dev", "eth0", "egress", "bpf", "da", "obj", EDT, "sec", "tc")
    lib.run("tc", "qdisc", "change", "dev", "eth0", "root", "bpf", "set", f"edt_rate[eth0]={RATE}bps")
    transfer()
    lib.wait_until(lambda: qdisc()["qlen"] == 0, "the queue is empty")
    stats = qdisc()
    sent = frames + stats["packets"], size + stats["bytes"]
    lib.wait_until(lambda: sum(received()) >= sum(sent), "what the qdisc sent arrives", 5)
    lib.equal(received(), sent, "frames and bytes received, against sent by the qdisc")
    lib.true(stats["bytes"] > SIZE, "fewer bytes than were transferred")
    lib.equal((stats["drops"], stats["backlog"]), (0, 0), "drops, and bytes left")
    lib.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    lib.run("tc", "qdisc", "del", "dev", "eth0", "root")


def the_link_goes_down_and_up():
    """While packets leave. What waits then is dropped; what arrives is in order, and nothing
    stays behind."""
    with lib.nic("bpf", "obj", FIFO) as (sender, receiver):
        arrived = []

        def send(number):
            try:
                return sender.send(number)
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                sender.packets -= 1
                return False
        for round_number in range(3):
            first = round_number << 32
            with lib.traffic(sender, receiver, lambda number, first=first: send(first + number)) as (_, got):
                lib.run("ip", "link", "set", "eth0", "down")
                lib.run("ip", "link", "set", "eth0", "up")
                wait_carrier()
                before = len(got)
                lib.wait_until(lambda: len(got) > before, "packets arrive again")
            arrived += got
        lib.equal(arrived, sorted(set(arrived)), "packets that arrived, once each and in order")
        stats = qdisc()
        lib.equal((stats["qlen"], stats["backlog"], stats["stored"], stats["stuck"]), (0, 0, 0, 0),
                  "queued, stored and found stuck")


lib.quiet_wire()
# the other end has room for all, however late its CPU comes
lib.run("ip", "netns", "exec", "peer", "ethtool", "-G", "eth1", "rx", "4096")
wait_carrier()
lib.main(segments_are_counted_with_their_headers,
         a_queue_of_many_packets_leaves_in_order,
         a_ring_that_is_full,
         byte_queue_limits_of_one_packet,
         the_link_goes_down_and_up)
