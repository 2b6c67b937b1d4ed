#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Two policies that need what the interface has for authors: packets taken from the
middle, looked at while they wait, put back where they were. None of them counts what it has."""

import collections
import struct

import lib
from lib import SO_MARK, compiled

ACK, PSH, FIN = 0x10, 0x08, 0x01


def below_the_gate(name, *options):
    """Takes packets; lets them go when one with a mark comes."""
    def attach(device, parent):
        device.attach(compiled(name), *options, where=("parent", parent))
    return lib.behind_the_gate(attach)


def open_the_gate(sender, number, port):
    sender.set(SO_MARK, 1)
    lib.true(sender.send(number, 100, port), "the last packet is dropped")


def drops(device):
    return device.below()["drops"]


def numbers_of(arrivals, lowest):
    """Of the flow whose numbers begin there."""
    return [arrival.number for arrival in arrivals if lowest <= arrival.number < lowest + 1000]


# --- fair ----------------------------------------------------------------------

def fair_shares_by_bytes():
    """While all have packets, none is ahead by more than a quantum and a packet or two."""
    flows = [(1000, 1500, 60), (2000, 700, 120), (3000, 300, 280)]
    with below_the_gate("fair") as (device, sender, receiver):
        for lowest, size, count in flows:
            for number in range(count):
                lib.true(sender.send(lowest + number, size, lowest), "dropped")
        open_the_gate(sender, 0, 9)
        arrivals = receiver.collect(461)
        lib.equal(drops(device), 0, "drops")
        had, left = collections.Counter(), {lowest: count for lowest, _, count in flows}
        for arrival in arrivals:
            lowest = arrival.number // 1000 * 1000
            if not lowest:
                continue
            had[lowest] += arrival.size
            left[lowest] -= 1
            if not all(left.values()):
                break
            ahead = max(had[lowest] for lowest in left) - min(had[lowest] for lowest in left)
            lib.true(ahead <= 3 * 1514, f"a flow is {ahead} bytes ahead")
        lib.true(sum(had.values()) > 3 * 70_000, f"only {sum(had.values())} bytes are compared")
        for lowest, _, count in flows:
            lib.equal(numbers_of(arrivals, lowest), list(range(lowest, lowest + count)), "order of a flow")


def fair_drops_the_oldest_of_who_has_most():
    """Also after a reset, when another flow had most."""
    with below_the_gate("fair", "limit", "50") as (device, sender, receiver):
        for number in range(40):
            lib.true(sender.send(number, 1500, 2000), "dropped")
        device.flap()
        with lib.Sender(device.a) as sender_after:
            for number in range(100):
                lib.true(sender_after.send(1000 + number, 1000, 1000), "a packet that comes is dropped")
            for number in range(10):
                lib.true(sender_after.send(2000 + number, 200, 2000), "a packet that comes is dropped")
            open_the_gate(sender_after, 0, 3000)
            arrivals = receiver.collect(50)
            lib.equal(numbers_of(arrivals, 2000), list(range(2000, 2010)), "of the flow with little")
            lib.equal(numbers_of(arrivals, 1000), list(range(1061, 1100)), "of the flow with much, the youngest")
            lib.equal(drops(device), 40 + 61, "drops, by the reset and by the policy")


# --- ackfilter -----------------------------------------------------------------

STAMPS, SACK = bytes.fromhex("0101080a") + bytes(8), bytes.fromhex("0101050a") + bytes(8)


def segment(number, port, acknowledged, flags=ACK, options=b"", payload=b""):
    """A TCP segment on Ethernet. Its number is in the window."""
    tcp = struct.pack("!HHIIBBHHH", port, 80, 0, acknowledged, 20 + len(options) << 2, flags, number, 0, 0)
    tcp += options + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, bytes((192, 0, 2, 1)),
                     bytes((192, 0, 2, 2)))
    return bytes.fromhex("020000000002" "020000000001" "0800") + ip + tcp


def ackfilter_lets_the_newest_do():
    with below_the_gate("ackfilter") as (device, sender, receiver):
        for frame in (segment(0, 1, 1000),
                      segment(1, 1, 2000),              # in the place of 0
                      segment(2, 2, 500),               # another flow's
                      segment(3, 1, 2000),              # the same again: a loss
                      segment(4, 1, 3000),              # in the place of 3
                      segment(5, 1, 3000, ACK | PSH, payload=b"data"),
                      segment(6, 1, 4000),              # behind data, which stays
                      segment(7, 1, 5000),              # in the place of 6
                      segment(8, 1, 6000, ACK | FIN),
                      segment(9, 2, 400),               # late: 2 says more
                      segment(10, 1, 7000, options=SACK),
                      segment(11, 1, 8000, options=STAMPS),     # behind those
                      segment(12, 1, 2**31 + 7999, options=STAMPS)):    # in the place of 11
            sender.sock.send(frame)
        open_the_gate(sender, 0, 3)
        arrivals = [(arrival.number & 0xffff, arrival.number >> 32 & 0xffffffff) for arrival in receiver.collect(10)]
        lib.equal(drops(device), 4, "drops")
        lib.equal([number for number, _ in arrivals if number in (1, 4, 5, 7, 8, 10, 12)], [1, 4, 5, 7, 8, 10, 12],
                  "one flow")
        lib.equal([number for number, ack in arrivals if ack in (400, 500)], [2, 9], "the other flow")


lib.main(fair_shares_by_bytes,
         fair_drops_the_oldest_of_who_has_most,
         ackfilter_lets_the_newest_do)
