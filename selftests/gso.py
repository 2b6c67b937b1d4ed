#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Packets that are cut into segments behind the qdisc. What it counts for real TCP on
the driver's NIC is what arrives at the other end, to the byte."""

import json
import socket
import subprocess

import lib
from lib import POLICIES, PROGS, SO_MARK

EDT = f"{POLICIES}/edt.bpf.o"
VERDICTS = f"{PROGS}/verdicts.bpf.o"
MARK_CE, OPEN = 7, 8            # also in verdicts.bpf.c
SIZE = 2_000_000
RATE = 4_000_000                # bytes a second: no queue behind the qdisc overflows

SERVER = f"""
import socket
with socket.create_server(("10.0.0.2", 5000)) as server:
    print(flush=True)
    peer, _ = server.accept()
    left = {SIZE}
    while left:
        left -= len(peer.recv(min(left, 65536)))
    print("all", flush=True)
    peer.recv(1)
"""


def received():
    """Frames and bytes that eth1's driver has received."""
    shown = lib.run("ip", "-n", "peer", "-j", "-s", "link", "show", "dev", "eth1")
    counters = json.loads(shown)[0]["stats64"]["rx"]
    return counters["packets"], counters["bytes"]


def qdisc():
    listed = json.loads(lib.run("tc", "-s", "-j", "qdisc", "show", "dev", "eth0"))
    (entry,) = [entry for entry in listed if entry["kind"] == "bpf"]
    return entry


def transfer():
    with subprocess.Popen(["ip", "netns", "exec", "peer", "/usr/bin/python3", "-S", "-c", SERVER],
                          stdout=subprocess.PIPE, text=True) as server:
        server.stdout.readline()
        with socket.create_connection(("10.0.0.2", 5000)) as sock:
            sock.sendall(b"x" * SIZE)
            lib.equal(server.stdout.readline(), "all\n", "what the receiver says")


def segments_are_counted_with_their_headers():
    """Without TSO: QEMU 7 would send a TSO packet as IP fragments."""
    lib.quiet_wire()
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


def every_segment_is_marked():
    """If the transport takes part in ECN; else none is."""
    with lib.wire(VERDICTS) as (device, sender, receiver):
        lib.run("ethtool", "-K", device.a, "tx-udp-segmentation", "off")
        sender.set(SO_MARK, OPEN)
        sender.send(0)
        receiver.collect(1)
        sender.set(SO_MARK, MARK_CE)
        for tos in (0xA8, 0xA9, 0xAA, 0xAB):
            lib.equal(sender.send_gso(1000, 5, tos), tos != 0xA8, f"tos {tos:x}: taken")
        arrivals = receiver.collect(15)
        lib.equal([(arrival.size, arrival.tos) for arrival in arrivals], [(1000 + lib.HEADERS, 0xAB)] * 15,
                  "size and TOS of each segment")
        lib.equal(receiver.drain(), [], "more packets")
        stats = device.qdisc()
        lib.equal((stats["packets"], stats["bytes"], stats["drops"], stats["qlen"]),
                  (receiver.packets, receiver.bytes, 1, 0), "sent, dropped and queued")


lib.main(segments_are_counted_with_their_headers,
         every_segment_is_marked)
