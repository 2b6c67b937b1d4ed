#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Departure times are what senders ask for, whoever they are: no policy is found stuck by
them, and what leaves does so at the horizon at the latest. A stamp without the clock that it
is in is read as the native fq reads it."""

import contextlib
import glob
import os
import socket
import struct
import time

import lib
from lib import LATE, MS, NSEC, POLICIES, compiled

EDT_MIN = compiled("edt_min")
PACED = EDT_MIN, f"{POLICIES}/edt.bpf.o", f"{POLICIES}/fq.bpf.o"
# What makes another policy of one
MODES = {"edt": ["delta=100ms"], "fifo": ["head_drop=true limit_bytes=100000"], "prio": ["skbprio=true"],
         "fq": ["ce_threshold=1ms", "group_by=1", "group_by=2", "group_by=3",
                "target=10s since_arrival=1 group_by=1"],
         "fq_codel": ["split_gso=1000 ce_threshold=1ms"], "rate": ["rate=800mbit split_gso=1000"],
         "ets": ["strict=0 quanta=256,256,256", "strict=16"], "red": ["ecn=1 harddrop=1", "adaptive=1", "choke=1"],
         "netem": ["delay=10ms jitter=20ms rate=800mbit gap=3", "slot_delay=2ms slot_jitter=1ms slot_packets=2"],
         "srpt": ["rank_by=3"], "taprio": ["rate=100mbit gates=0x0f,0xff intervals=1ms,2ms"],
         "tenants": ["rate=800mbit leaf_by=3", "leaf_by=1 split_gso=1000", "leaf_by=2", "leaf_by=5"],
         "cake": ["rate=800mbit atm=1 tins=4 ack_filter=1"]}
# What drops packets that ask for a time
DROPPING = {"edt": ["drop_late=true delta=50ms", "horizon=100ms"], "fq": ["horizon=100ms"]}
HORIZON = 300 * MS
WAITS = "horizon", "300ms", "patience", "100ms"
HOUR = 3600 * NSEC
CLOCKS = time.CLOCK_MONOTONIC, time.CLOCK_REALTIME, time.CLOCK_TAI
UPTIME_MAX = 30 * 365 * 86400   # s; a stamp of CLOCK_REALTIME below that is read as monotonic
KNOWN = 9876543210              # ns, which each time of a policy may be
NOBODY = 65534


def policies():
    """Each object, as it is and in its modes: its settings, and whether these drop packets."""
    names = sorted(os.path.basename(path)[:-len(".bpf.c")] for path in glob.glob(f"{POLICIES}/*.bpf.c"))
    lib.equal({*MODES, *DROPPING} - set(names), set(), "modes of policies that are not there")
    yield EDT_MIN, [], False
    for name in names:
        for drops, modes in ((False, ["", *MODES.get(name, [])]), (True, DROPPING.get(name, []))):
            for mode in modes:
                yield f"{POLICIES}/{name}.bpf.o", [word for each in mode.split() for word in ("set", each)], drops


def times(clock):
    """From the past, the far future, and from where numbers end."""
    now = time.clock_gettime_ns(clock)
    return [0, 1, now - HOUR if now > HOUR else 1, now - 1, now + HORIZON // 2, now + HOUR, 1 << 62,
            (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def all_leave(device, what):
    """Some time: it flies while the guest reads tc from the disk."""
    lib.wait_until(lambda: not device.qdisc()["qlen"], f"{what}: all leave", 3600)


def nothing_is_left(device, count, what="", drops=False):
    stats = device.qdisc()
    lib.equal((stats["stuck"], stats["packets"] + stats["drops"], stats["qlen"]), (0, count, 0),
              f"{what}: found stuck, sent or dropped, queued")
    lib.true(drops or not stats["drops"], f"{what}: {stats['drops']} packets are dropped")


@contextlib.contextmanager
def wire(obj, clock, *options):
    with lib.link() as device, lib.Sender(device.a, clock) as sender, lib.Receiver(device.b) as receiver:
        device.attach(obj, *options)
        yield device, sender, receiver


def no_time_holds_a_packet_beyond_the_horizon():
    for obj, settings, drops in policies():
        with lib.link() as device, lib.Receiver(device.b) as receiver:
            device.attach(obj, *WAITS, *settings)
            for clock in CLOCKS:
                what, wanted, before = f"{obj} {settings}, clock {clock}", times(clock), device.qdisc()
                with lib.Sender(device.a, clock) as sender:
                    taken = [sender.send(number, 60 + 100 * number, port=1000 + number, when=when)
                             for number, when in enumerate(wanted)]
                sent = time.monotonic_ns()
                lib.true(drops or all(taken), f"{what}: is refused: {taken}")
                if drops:
                    all_leave(device, what)
                else:
                    receiver.collect(len(wanted))
                    # Not by the arrivals' own times: they are the stamps where nobody reads these.
                    took = time.monotonic_ns() - sent
                    lib.true(took < HORIZON + LATE, f"{what}: the last left after {took / MS:.1f} ms")
                nothing_is_left(device, before["packets"] + before["drops"] + len(wanted), what, drops)


class Nic:                      # as a Link, whose qdisc is asked for
    a = "eth0"
    qdisc = lib.Link.qdisc


def as_nobody(act):
    """In a process without any right; whether the function returned."""
    pid = os.fork()
    if not pid:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            act()
        finally:
            os._exit(1)         # but if it has left before
    return os.waitpid(pid, 0)[1] == 0


def ask_for(when, number, clock=time.CLOCK_MONOTONIC):
    """A packet with a departure time, by UDP."""
    def act():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, lib.SO_TXTIME, struct.pack("iI", clock, 0))
            sock.sendmsg([struct.pack("!Q", number).ljust(60, b"\0")],
                         [(socket.SOL_SOCKET, lib.SO_TXTIME, struct.pack("Q", when))], 0, ("10.0.0.2", 9))
        os._exit(0)
    return act


def send_whatever_is_allowed(flows, each):
    """Packets of each length, class and priority, at the lowest pacing rate, or with any time."""
    def act():
        for number in range(flows):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, lib.SO_MAX_PACING_RATE, 1)
                sock.setsockopt(socket.SOL_SOCKET, lib.SO_PRIORITY, number % 7)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 4 * number % 256)
                sock.setsockopt(socket.SOL_SOCKET, lib.SO_TXTIME, struct.pack("iI", time.CLOCK_MONOTONIC, 0))
                wanted = times(time.CLOCK_MONOTONIC)
                for again in range(each):
                    when = wanted[(number + again) % len(wanted)] if number % 2 else 0
                    sock.sendmsg([bytes((number * 37 + again * 701) % 1400)],
                                 [(socket.SOL_SOCKET, lib.SO_TXTIME, struct.pack("Q", when))] if when else [],
                                 0, ("10.0.0.2", 9))
        os._exit(0)
    return act


def nobody_puts_a_policy_out_of_service():
    """An ordinary user's UDP, to leave in an hour, on an idle link; and what others send
    meanwhile leaves at once. Then all that he may ask for. His other clocks are refused by
    the socket."""
    lib.quiet_wire()
    for obj, settings, drops in policies():
        what, count = f"{obj} {settings}", 0
        with lib.nic("bpf", "obj", obj, *WAITS, *settings) as (sender, receiver):
            if not drops:
                lib.true(as_nobody(ask_for(time.monotonic_ns() + HOUR, 1)), "nobody cannot send")
                lib.true(sender.send(2), f"{what}: another packet is refused")
                sent, count = time.monotonic_ns(), 2
                arrivals = {arrival.number: arrival.when - sent for arrival in receiver.collect(2)}
                lib.true(arrivals[2] < LATE, f"{what}: the other packet was held: {arrivals}")
                lib.true(arrivals[1] < HORIZON + LATE, f"{what}: beyond the horizon: {arrivals}")
                nothing_is_left(Nic(), count, what)
            lib.true(as_nobody(send_whatever_is_allowed(64, 3)), "nobody cannot ask")
            all_leave(Nic(), what)
            nothing_is_left(Nic(), count + 64 * 3, what, drops)
    for clock in CLOCKS[1:]:
        lib.true(not as_nobody(ask_for(time.clock_gettime_ns(clock), 1, clock)), f"nobody has clock {clock}")


def the_qdiscs_horizon_can_be_longer():
    """It is the qdisc's, not a constant."""
    with wire(EDT_MIN, time.CLOCK_MONOTONIC, "horizon", "1s") as (device, sender, receiver):
        sender.send(1, when=time.monotonic_ns() + HOUR)
        sent = time.monotonic_ns()
        (arrival,) = receiver.collect(1)
        lib.true(0 <= arrival.when - (sent - LATE) - NSEC < 2 * LATE,
                 f"it left after {(arrival.when - sent) / MS:.1f} ms")
        nothing_is_left(device, 1)


@contextlib.contextmanager
def wall_clock(seconds):
    """Set to another time, as at boot without a battery."""
    before = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.monotonic_ns()
    time.clock_settime(time.CLOCK_REALTIME, seconds)
    try:
        yield
    finally:
        time.clock_settime_ns(time.CLOCK_REALTIME, before + time.monotonic_ns())


def before_the_clock_is_set():
    """s; the machine has no battery, and was started a while after 1970."""
    return int(time.monotonic()) + 1000


def a_time_is_that_of_its_clock():
    """Also after the wall clock was set. Before, it says as little as a time since the start,
    and is read as such, so that the packet waits until the horizon: by the native fq, too."""
    for setting in (None, before_the_clock_is_set(), 1_500_000_000, 4_000_000_000):
        with wall_clock(setting) if setting else contextlib.nullcontext():
            for qdisc in (["fq", "horizon_cap"], *(["bpf", "obj", obj] for obj in PACED)):
                with lib.link() as device, lib.Receiver(device.b) as receiver:
                    lib.run("tc", "qdisc", "add", "dev", device.a, "root", *qdisc, "horizon", "300ms")
                    for clock in CLOCKS:
                        is_small = clock == time.CLOCK_REALTIME and time.time() < UPTIME_MAX
                        wanted = HORIZON if is_small else 200 * MS
                        with lib.Sender(device.a, clock) as sender:
                            begin = time.monotonic_ns()
                            sender.send(1, when=time.clock_gettime_ns(clock) + 200 * MS)
                            receiver.collect(1)
                            after = time.monotonic_ns() - begin - wanted
                            lib.true(0 <= after < LATE, f"{qdisc}, clock {clock}, {setting}: {after / MS:.1f} ms late")


def stamps_without_a_clock_are_monotonic():
    """From a clsact program, 60 packets at 1 Mbit/s: as the native fq paces them, whatever the
    wall clock says."""
    each = 8 * MS               # of 1000 bytes
    for setting in (None, before_the_clock_is_set()):
        for qdisc in (["fq"], *(["bpf", "obj", obj] for obj in PACED)):
            with (wall_clock(setting) if setting else contextlib.nullcontext(), lib.link() as device,
                  lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver):
                lib.run("tc", "qdisc", "add", "dev", device.a, "root", *qdisc)
                lib.run("tc", "qdisc", "add", "dev", device.a, "clsact")
                lib.run("tc", "filter", "add", "dev", device.a, "egress", "bpf", "da",
                        "obj", compiled("stamp"), "sec", "tc")
                start = time.monotonic_ns()
                for number in range(60):
                    sender.send(number, 1000)
                sent = time.monotonic_ns()
                arrivals = receiver.collect(60)
                lib.equal(lib.numbers(arrivals), list(range(60)), f"{qdisc}: order")
                for arrival in arrivals:
                    lib.true(start + arrival.number * each <= arrival.when < sent + arrival.number * each + LATE,
                             f"{qdisc}, {setting}: packet {arrival.number} after {(arrival.when - start) / MS:.1f} ms")


def store_past_tc(device, name, value):
    """In a parameter, what tc refuses: found by a number that it takes."""
    change = "tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set"
    lib.contains(lib.refused(*change, f"{name}={value}"), f'parameter "{name}" cannot be ')
    lib.run(*change, f"{name}={KNOWN}")
    known, new = (["0x" + byte.to_bytes(1).hex() for byte in struct.pack("<Q", each)] for each in (KNOWN, value))
    for map_id in device.qdisc()["options"]["enqueue"]["map_ids"]:
        if lib.bpftool("map", "show", "id", str(map_id))["name"].endswith(".data.param"):
            (entry,) = lib.bpftool("map", "dump", "id", str(map_id))
            data = entry["value"]
            (at,) = [at for at in range(0, len(data), 8) if data[at:at + 8] == known]
            lib.run("bpftool", "map", "update", "id", str(map_id), "key", *["0"] * 4,
                    "value", *data[:at], *new, *data[at + 8:])
    lib.equal(device.qdisc()["options"]["set"][name], value, f"parameter {name}")


def the_largest_parameter_drops_and_marks_nothing():
    """tc refuses it. What has stored it past tc finds that no sum with it wraps: the longest
    time is none that has passed."""
    for name, parameter, more in (("edt", "horizon", ()), ("edt", "horizon", ("set", "delta=10s")), ("edt", "delta", ()),
                                  ("fq", "horizon", ()), ("fq", "ce_threshold", ()), ("red", "packet_time", ()),
                                  ("fq_codel", "ce_threshold", ()), ("fq_codel", "target", ()), ("fq_codel", "interval", ()),
                                  ("rate", "target", ("set", "rate=8mbit")), ("rate", "burst", ("set", "rate=8mbit")),
                                  ("tenants", "burst", ("set", "rate=8mbit")), ("tenants", "target", ()),
                                  ("cake", "target", ("set", "rate=8mbit")), ("cake", "interval", ("set", "rate=8mbit"))):
        with wire(f"{POLICIES}/{name}.bpf.o", time.CLOCK_MONOTONIC, *more) as (device, sender, receiver):
            store_past_tc(device, parameter, (1 << 64) - 1)
            for number in range(20):
                lib.true(sender.send(number, 1000, when=time.monotonic_ns() + 100 * MS, tos=1),
                         f"{name}, {parameter}: packet {number} is refused")
            arrivals = receiver.collect(20)
            lib.equal([(arrival.number, arrival.tos) for arrival in arrivals], [(number, 1) for number in range(20)],
                      f"{name}, {parameter}: order and marks")
            nothing_is_left(device, 20, f"{name}, {parameter}")


def the_readme_shows_the_shortest_policy():
    with open(f"{lib.TOP}/README.md", encoding="utf-8") as file:
        example = file.read().split("```c\n")[1].split("```")[0]
    with open(EDT_MIN[:-1] + "c", encoding="ascii") as file:
        lib.contains(file.read(), example)


lib.main(no_time_holds_a_packet_beyond_the_horizon,
         nobody_puts_a_policy_out_of_service,
         the_qdiscs_horizon_can_be_longer,
         a_time_is_that_of_its_clock,
         stamps_without_a_clock_are_monotonic,
         the_largest_parameter_drops_and_marks_nothing,
         the_readme_shows_the_shortest_policy)
