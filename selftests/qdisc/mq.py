#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""As child of mq: one instance for each tx queue of a real driver's NIC, eth0,
whose other end is eth1 in the namespace peer."""

import re
import socket
import subprocess

import lib
from lib import POLICIES, compiled

FIFO = f"{POLICIES}/fifo.bpf.o"
HOLD = compiled("hold")
ADDRESS = ("10.0.0.2", 9)
FLOWS, EACH, SIZE = 32, 10, 500


class Nic:
    """eth0, with the few things of lib.Link that are asked of it."""
    a = "eth0"

    def __init__(self, obj):
        lib.run("tc", "qdisc", "replace", "dev", "eth0", "root", "handle", "1:", "mq")
        for minor in self.minors():
            lib.run("tc", "qdisc", "replace", "dev", "eth0", "parent", f"1:{minor}", "bpf", "obj", obj)

    @staticmethod
    def minors():
        shown = lib.run("tc", "class", "show", "dev", "eth0")
        return re.findall(r"class mq 1:([0-9a-f]+)", shown)

    @staticmethod
    def children():
        listed = lib.qdiscs("eth0")
        return {int(entry["parent"].split(":")[1], 16): entry for entry in listed
                if entry["kind"] == "bpf"}

    @staticmethod
    def root():
        listed = lib.qdiscs("eth0")
        (entry,) = [entry for entry in listed if entry["kind"] == "mq"]
        return entry


def driver_packets():
    """Unicast packets that the driver has sent, for each tx queue."""
    shown = lib.run("ethtool", "-S", "eth0")
    return [int(count) for count in re.findall(r"ucast pkts tx: (\d+)", shown)]


class Peer:
    """A UDP receiver in the namespace at the other end."""

    def __enter__(self):
        code = ("import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
                "s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26); s.bind(('10.0.0.2', 9));"
                "print(flush=True); s.settimeout(%d); n = 0\n"
                "while n < %d: n += len(s.recv(2048)) == %d\nprint(n, flush=True)")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", "peer", "/usr/bin/python3", "-S", "-c",
             code % (lib.TIMEOUT, FLOWS * EACH, SIZE)], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def received(self):
        return int(self.process.stdout.readline() or 0)


def send_flows():
    lib.quiet_wire()
    for _ in range(FLOWS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(ADDRESS)
            for _ in range(EACH):
                sock.send(b"x" * SIZE)


def every_queue_has_an_instance_that_counts_its_own():
    nic = Nic(FIFO)
    lib.equal(len(nic.children()), 4, "instances")
    before = driver_packets()
    with Peer() as peer:
        send_flows()
        lib.equal(peer.received(), FLOWS * EACH, "packets received")
    after = driver_packets()
    children = nic.children()
    sent = [children[queue + 1]["packets"] for queue in range(4)]
    lib.equal(sent, [b - a for a, b in zip(before, after)], "sent by each instance, against the driver")
    lib.equal(sum(child["bytes"] for child in children.values()), FLOWS * EACH * (SIZE + 42), "bytes")
    lib.true(sum(count > 0 for count in sent) > 1, f"only one queue was used: {sent}")
    root = nic.root()
    lib.equal((root["packets"], root["qlen"]), (FLOWS * EACH, 0), "sent and queued, by mq")


def packets_queued_in_the_children_are_mqs_queue():
    nic = Nic(HOLD)
    send_flows()
    children = nic.children().values()
    queued = sum(child["qlen"] for child in children)
    lib.equal(queued, FLOWS * EACH, "queued in the children")
    lib.true(sum(child["qlen"] > 0 for child in children) > 1, "only one queue was used")
    root = nic.root()
    lib.equal((root["qlen"], root["backlog"]), (queued, queued * (SIZE + 42)), "queued, by mq")
    lib.run("tc", "qdisc", "del", "dev", "eth0", "root")
    lib.no_maps("hold_pkts")



lib.main(every_queue_has_an_instance_that_counts_its_own,
         packets_queued_in_the_children_are_mqs_queue)
