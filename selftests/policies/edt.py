#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy edt: order, times, rate, and time given back for dropped packets."""

import contextlib
import socket
import struct
import subprocess
import time

import lib
from lib import GLOBALS, LATE, MS, NSEC, POLICIES

EDT = f"{POLICIES}/edt.bpf.o"
CATCH_UP = 20 * MS                      # of the policy


def set_rate(device, rate):
    lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", f"edt_rate[{device.a}]={rate}bps")


def set_rate_in_front_of_fq(device, rate):
    lib.run("bpftool", "map", "update", "pinned", f"{GLOBALS}/edt_rate",
            "key", *lib.map_bytes(device.ifindex, 4), "value", *lib.map_bytes(rate, 8))


def stamp(device):
    """Give packets their departure times, by the clsact program of the object."""
    lib.run("tc", "qdisc", "add", "dev", device.a, "clsact")
    lib.run("tc", "filter", "add", "dev", device.a, "egress", "bpf", "da",
            "obj", EDT, "sec", "tc")


def stats(device):
    return device.qdisc()["stats"]


MPLS, PPPOE = 0x8847, 0x8864


def label(last):
    return (0x4567 << 12 | last << 8 | 64).to_bytes(4, "big")


def pppoe(protocol):
    """Version and type, code, session, length (which nobody reads); what PPP carries"""
    return struct.pack("!BBHHH", 0x11, 0, 1, 0, protocol)


def on_time(arrival, when):
    late = arrival.when - when
    lib.true(0 <= late < LATE, f"packet {arrival.number} came {late / MS:.3f} ms late")


def packets_leave_by_departure_time_and_not_before():
    delays = [7, 3, 9, 1, 5, 8, 2, 6, 4, 0]
    with lib.wire(EDT) as (device, sender, receiver):
        # Time flies while the guest reads from the disk: let it read what a packet needs.
        sender.send(99, when=time.monotonic_ns())
        receiver.collect(1)
        start = time.monotonic_ns() + NSEC
        for number, delay in enumerate(delays):
            sender.send(number, when=start + delay * 20 * MS)
        arrivals = receiver.collect(len(delays))
        lib.equal([delays[arrival.number] for arrival in arrivals], sorted(delays), "order")
        for arrival in arrivals:
            on_time(arrival, start + delays[arrival.number] * 20 * MS)
        counts = lib.balance(device, sender, receiver)
        lib.true(counts["overlimits"] > 0, "no throttle was counted")


def equal_times_leave_in_the_order_of_arrival():
    with lib.wire(EDT) as (device, sender, receiver):
        when = time.monotonic_ns() + 100 * MS
        for number in range(200):
            sender.send(number, when=when)
        lib.equal(lib.numbers(receiver.collect(200)), list(range(200)), "order")
        lib.balance(device, sender, receiver)


def an_earlier_packet_moves_the_throttle_forward():
    with lib.wire(EDT) as (device, sender, receiver):
        start = time.monotonic_ns()
        late, early = start + 1500 * MS, start + 300 * MS
        sender.send(0, when=late)
        sender.send(1, when=early)
        arrivals = receiver.collect(2)
        lib.equal(lib.numbers(arrivals), [1, 0], "order")
        on_time(arrivals[0], early)
        on_time(arrivals[1], late)
        lib.balance(device, sender, receiver)


def packets_without_a_time_leave_at_once():
    with lib.wire(EDT) as (device, sender, receiver):
        sender.send(0, when=time.monotonic_ns() + NSEC)
        sender.send(1)
        sent = time.monotonic_ns()
        arrivals = receiver.collect(2)
        lib.equal(lib.numbers(arrivals), [1, 0], "order")
        lib.true(arrivals[0].when < sent + LATE, "the packet was held")
        lib.balance(device, sender, receiver)


def beyond_the_horizon_packets_are_dropped():
    with lib.wire(EDT) as (device, sender, receiver):
        lib.true(not sender.send(0, when=time.monotonic_ns() + 3 * NSEC), "packet taken")
        lib.true(sender.send(1, when=time.monotonic_ns() + NSEC // 2), "packet dropped")
        receiver.collect(1)
        lib.balance(device, sender, receiver)
        lib.equal(stats(device)["dropped"], 1, "drops counted by the policy")


def a_flow_keeps_to_the_rate():
    """1000 bytes at 100,000 bytes a second are 10 ms each."""
    with lib.wire(EDT) as (device, sender, receiver):
        stamp(device)
        set_rate(device, 100_000)
        start = time.monotonic_ns()
        for number in range(50):
            sender.send(number, 1000)
        sent = time.monotonic_ns()
        arrivals = receiver.collect(50)
        lib.equal(lib.numbers(arrivals), list(range(50)), "order")
        for arrival in arrivals:
            early = start + arrival.number * 10 * MS - arrival.when
            late = arrival.when - (sent + arrival.number * 10 * MS)
            lib.true(early <= CATCH_UP, f"packet {arrival.number} came {early / MS:.3f} ms early")
            lib.true(late < LATE, f"packet {arrival.number} came {late / MS:.3f} ms late")
        lib.balance(device, sender, receiver)


def each_flow_has_the_rate_of_its_own():
    with lib.wire(EDT) as (device, sender, receiver):
        stamp(device)
        set_rate(device, 100_000)
        start = time.monotonic_ns()
        for number in range(60):
            sender.send(number, 1000, port=1000 + number % 3)
        arrivals = receiver.collect(60)
        for port in range(3):
            own = [arrival for arrival in arrivals if arrival.number % 3 == port]
            lib.equal(lib.numbers(own), list(range(port, 60, 3)), "order of a flow")
            took = own[-1].when - start
            lib.true(190 * MS - CATCH_UP <= took < 190 * MS + 2 * LATE, f"a flow took {took / MS:.1f} ms")
        lib.balance(device, sender, receiver)


def a_dropped_packet_gives_its_time_back():
    """Twenty packets, of which about ten find no room. What is sent when there is room
    again leaves right after those that found it."""
    each = 100 * MS if not lib.DEBUG else NSEC      # tc takes its time there
    with lib.wire(EDT, "limit", "10", "horizon", "30s", "set", "horizon=20s") as (device, sender, receiver):
        stamp(device)
        set_rate(device, 1000 * NSEC // each)
        start = time.monotonic_ns()
        count = sum(sender.send(number, 1000) for number in range(20))
        sending = time.monotonic_ns() - start
        # Ten have room, and as many more as have left by then
        lib.true(10 <= count <= 11 + (sending + CATCH_UP) // each, f"{count} packets taken")
        lib.true(count < 20, "no packet was dropped")
        # no command: for how long it waits for the host's disk is not certain
        arrivals = receiver.collect(count - 9)
        lib.true(sender.send(99, 1000), "no room after a packet had left")
        arrivals += receiver.collect(10)
        lib.equal(arrivals[-1].number, 99, "last packet")
        took = arrivals[-1].when - start
        lib.true(count * each - CATCH_UP <= took < count * each + sending + LATE,
                 f"the packet left after {took / MS:.1f} ms, expected {count * each / MS}")
        lib.balance(device, sender, receiver)
        policy = stats(device)
        lib.equal(policy["unpaced"], 0, "packets without a time")
        lib.equal((policy["dropped"], policy["dropped_bytes"]), (20 - count, 1000 * (20 - count)),
                  "drops counted by the policy")
        lib.equal(policy["given_back"], (20 - count) * each, "time given back")


def no_more_is_given_back_than_was_reserved():
    """Packets that wait when drop_late comes are late, as no timer is early; and by then their
    flow has another rate."""
    each = 1000 * NSEC if not lib.DEBUG else NSEC   # tc comes in time, however long it takes; the wait costs nothing
    with lib.wire(EDT, "horizon", "86400s", "set", "horizon=86400s") as (device, sender, _):
        stamp(device)
        set_rate(device, 1000 * NSEC // each)
        for number in range(10):
            lib.true(sender.send(number, 1000), f"packet {number} is refused")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "drop_late=true",
                "set", f"edt_rate[{device.a}]=7bps")
        time.sleep(10 * each / NSEC)                # all are due, and their drop is no event
        counts = device.qdisc()
        lib.equal((counts["qlen"], counts["packets"] + counts["drops"]), (0, 10), "packets that wait, and that do not")
        policy = stats(device)
        lib.true(policy["late"] >= 5, f"only {policy['late']} packets were late")
        lib.equal((policy["dropped"], policy["given_back"]), (policy["late"], policy["late"] * each),
                  "packets dropped, and time given back")


def a_time_far_ahead_does_not_hold_up_its_flow():
    """The next packet of the flow finds room within the horizon, 2 s."""
    with lib.wire(EDT) as (device, sender, receiver):
        stamp(device)
        set_rate(device, 1_000_000)
        begin = time.monotonic_ns()
        lib.true(sender.send(0, when=begin + 3600 * NSEC), "the first packet is refused")
        lib.wait_until(lambda: sender.send(1), "the next packet is taken")
        arrivals = receiver.collect(2)
        lib.equal(lib.numbers(arrivals), [0, 1], "order")
        lib.true(arrivals[1].when - begin < 2 * NSEC + LATE, "the flow was held up")


@contextlib.contextmanager
def tagged(device, *tags):
    """The names of both ends of a wire whose frames have these VLAN tags on it: the first, which
    the driver puts in front, and the others in the frame."""
    lines, ends = [], [device.a, device.b]
    for number, tag in enumerate(tags):
        lines += [f"link add link {end} name {end}.{tag} up type vlan id {tag} protocol 802.1{'q' if number else 'ad'}"
                  for end in ends]
        ends = [f"{end}.{tag}" for end in ends]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    yield ends


def on_the_whole(when, start, sizes, rate, what):
    """Packets of these sizes are to have left by then."""
    took, wanted = when - start, sum(sizes[:-1]) * NSEC // rate
    lib.true(wanted - CATCH_UP <= took < wanted * 11 // 10 + LATE,
             f"{what} took {took / MS:.1f} ms, expected {wanted / MS:.1f}")


def behind_vlan_tags_packets_are_paced():
    """Whatever their length, those of each flow at its rate."""
    for tags in ((5, 7), (5, 7, 9)):
        for flows in (1, 2):
            with (lib.link() as device, tagged(device, *tags) as (near, far), lib.Sender(near) as sender,
                  lib.Receiver(far) as receiver):
                device.attach(EDT)
                stamp(device)
                set_rate(device, 100_000)
                start = time.monotonic_ns()
                sizes = [900 + 7 * number % 100 for number in range(40)]
                for number, size in enumerate(sizes):
                    sender.send(number, size, port=1000 + number % flows)
                arrivals = receiver.collect(40)
                for flow in range(flows):
                    own = [arrival for arrival in arrivals if arrival.number % flows == flow]
                    lib.equal(lib.numbers(own), list(range(flow, 40, flows)), "order")
                    on_the_whole(own[-1].when, start, sizes[flow::flows], 100_000, f"{tags}: flow {flow} of {flows}")
                lib.equal(stats(device)["unpaced"], 0, "packets without a time")


def frames_are_paced(device, ends, version, protocol, header=b""):
    """Frames of this protocol, with the header in front of the one of IP; two flows, each at its rate."""
    udp, start_of_udp = struct.Struct("!HHHH"), 14 + len(header) + (20 if version == 4 else 40)
    size = 1000 - start_of_udp                  # of UDP
    if version == 4:
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + size, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    else:
        ip = struct.pack("!IHBB16s16s", 6 << 28, size, 17, 64, b"\xfd" + bytes(15), b"\xfd" + bytes(14) + b"\1")
    with (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender,
          socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as receiver):
        for sock, end in zip((sender, receiver), ends):
            sock.bind((end, protocol))
        receiver.settimeout(lib.TIMEOUT)
        device.attach(EDT)
        stamp(device)
        set_rate(device, 100_000)
        start = time.monotonic_ns()
        for number in range(40):
            sender.send(bytes.fromhex("020000000002" "020000000001") + protocol.to_bytes(2, "big") + header + ip +
                        udp.pack(1000 + number % 2, 9, size, 0) + bytes(size - 8))
        last = {}
        for _ in range(40):
            last[udp.unpack_from(receiver.recv(2048), start_of_udp)[0]] = time.monotonic_ns()
        for port in (1000, 1001):
            on_the_whole(last[port], start, [1000] * 20, 100_000, f"{protocol:#x} {header.hex()}: port {port}")
        lib.equal(stats(device)["unpaced"], 0, "packets without a time")


def behind_vlan_tags_ipv6_is_paced():
    with lib.link() as device, tagged(device, 5, 7) as ends:
        frames_are_paced(device, ends, 6, 0x86DD)


def behind_labels_and_pppoe_packets_are_paced():
    """One label of MPLS, and as many as there may be; a PPPoE session, in a VLAN, too."""
    for version, protocol, header in ((4, MPLS, label(True)), (6, MPLS, 7 * label(False) + label(True)),
                                      (4, PPPOE, pppoe(0x21)), (6, PPPOE, pppoe(0x57))):
        with lib.link() as device:
            frames_are_paced(device, (device.a, device.b), version, protocol, header)
    with lib.link() as device, tagged(device, 5, 7) as ends:
        frames_are_paced(device, ends, 4, PPPOE, pppoe(0x21))


def a_sender_may_ask_for_later():
    """In either clock that a program can read, with a tag in the frame or without: the first
    packet leaves when it is to, the next ones after it at the rate."""
    for clock in (time.CLOCK_MONOTONIC, time.CLOCK_TAI):
        for tags in ((), (5, 7)):
            with (lib.link() as device, tagged(device, *tags) as (near, far), lib.Sender(near, clock) as sender,
                  lib.Receiver(far) as receiver):
                device.attach(EDT)
                stamp(device)
                set_rate(device, 100_000)
                start = time.monotonic_ns() + 300 * MS
                when = time.clock_gettime_ns(clock) + 300 * MS
                for number in range(20):
                    sender.send(number, 1000, when=when)
                arrivals = receiver.collect(20)
                lib.equal(lib.numbers(arrivals), list(range(20)), "order")
                for arrival in arrivals:
                    on_time(arrival, start + arrival.number * 10 * MS)


def a_time_of_the_wall_clock_gives_way_to_the_flows():
    """No program can compare it with another: it would hold up the packet, beside the rate."""
    with lib.link() as device, lib.Sender(device.a, time.CLOCK_REALTIME) as sender, lib.Receiver(device.b) as receiver:
        device.attach(EDT)
        stamp(device)
        set_rate(device, 100_000)
        start = time.monotonic_ns()
        for number in range(40):
            sender.send(number, 1000, when=time.clock_gettime_ns(time.CLOCK_REALTIME) + NSEC)
        arrivals = receiver.collect(40)
        on_the_whole(arrivals[-1].when, start, [1000] * 40, 100_000, "the flow")


def what_cannot_be_paced_is_counted():
    """A frame that is neither IPv4 nor IPv6; nor is it behind labels, of which one is the last, or in a PPPoE session."""
    frames = ((0x88B5, bytes(50)), (MPLS, label(True) + bytes(46)), (MPLS, 9 * label(False) + b"\x45" * 20),
              (MPLS, label(True)), (PPPOE, pppoe(0xC021) + bytes(40)), (PPPOE, b"\x11\0"))
    with lib.wire(EDT) as (device, sender, receiver):
        stamp(device)
        set_rate(device, 100_000)
        for protocol, rest in frames:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as other:
                other.bind((device.a, protocol))
                other.send(bytes(12) + protocol.to_bytes(2, "big") + rest)
        sender.send(1)
        receiver.collect(1)
        lib.equal(stats(device)["unpaced"], len(frames), "packets without a time")


def share_of_the_rate(attach, give=set_rate):
    """Many flows, three times faster than the one rate that their mark gives them,
    into a queue of 20 packets: how much of the rate arrives?"""
    rate, size, seconds = (20_000, 1000, 4) if lib.DEBUG else (250_000, 1000, 2)
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        attach(device)
        stamp(device)
        give(device, rate)
        sender.set(lib.SO_MARK, 1)
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            sender.send(sender.packets, size, port=1000 + sender.packets % 50)
            time.sleep(max(0, start + sender.packets * size / (3 * rate) - time.monotonic()))
        offered = sender.bytes / (time.monotonic() - start)
        lib.true(offered > 2 * rate, f"only {offered:.0f} bytes/s were offered")
        end = time.monotonic_ns()
        arrivals = [arrival for arrival in receiver.drain() if arrival.when <= end]
        return sum(arrival.size for arrival in arrivals) / (rate * (end / NSEC - start))


def many_flows_under_one_rate_get_all_of_it():
    """With clsact in front of fq, packets that fq drops have used their time."""
    theirs = share_of_the_rate(lambda device: lib.run(
        "tc", "qdisc", "add", "dev", device.a, "root", "fq", "limit", "20"), set_rate_in_front_of_fq)
    mine = share_of_the_rate(lambda device: device.attach(EDT, "limit", "20"))
    print(f"# share of the rate: clsact and fq {theirs:.1%}, edt {mine:.1%}")
    lib.true(0.8 < mine < 1.05, f"edt reaches {mine:.1%} of the rate")
    lib.true(theirs < 0.7, f"clsact and fq reach {theirs:.1%}: this test shows nothing")


def a_device_without_a_rate_is_not_paced():
    with lib.wire(EDT) as (device, sender, receiver):
        stamp(device)
        start = time.monotonic_ns()
        for number in range(100):
            sender.send(number, 1000)
        arrivals = receiver.collect(100)
        lib.true(arrivals[-1].when - start < 2 * NSEC, "packets were held")
        lib.equal(device.qdisc()["overlimits"], 0, "throttles")
        lib.balance(device, sender, receiver)


lib.main(packets_leave_by_departure_time_and_not_before,
         equal_times_leave_in_the_order_of_arrival,
         an_earlier_packet_moves_the_throttle_forward,
         packets_without_a_time_leave_at_once,
         beyond_the_horizon_packets_are_dropped,
         a_flow_keeps_to_the_rate,
         each_flow_has_the_rate_of_its_own,
         a_dropped_packet_gives_its_time_back,
         no_more_is_given_back_than_was_reserved,
         a_time_far_ahead_does_not_hold_up_its_flow,
         behind_vlan_tags_packets_are_paced,
         behind_vlan_tags_ipv6_is_paced,
         behind_labels_and_pppoe_packets_are_paced,
         a_sender_may_ask_for_later,
         a_time_of_the_wall_clock_gives_way_to_the_flows,
         what_cannot_be_paced_is_counted,
         many_flows_under_one_rate_get_all_of_it,
         a_device_without_a_rate_is_not_paced)
