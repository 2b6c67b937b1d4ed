#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy fq_codel beside the native fq_codel and codel, with the same packets. Where CoDel
does nothing, order and drops are the same; where it does, its drops and marks, rates and
delays agree within 2 %, or a packet's time. SEED=N takes other packets.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import os
import random
import select
import socket
import struct
import time

import lib
import rst
from lib import MS, NSEC, SO_MARK

OBJ = f"{lib.POLICIES}/fq_codel.bpf.o"
FQ = f"{lib.POLICIES}/fq.bpf.o"
IDIOM = rst.idiom("Fair, and each flow kept short")
ECT = 2
# With which CoDel does nothing
PATIENT = {"target": "10s", "interval": "100s"}


def native(kind, **parameters):
    words = [word for name, value in parameters.items() for word in (name, str(value))]

    def attach(device, *where):
        lib.run("tc", "qdisc", "add", "dev", device, *where, kind, *words)
    return attach


def ours(limit=10000, *words, obj=OBJ, **parameters):
    sets = [word for name, value in parameters.items() for word in ("set", f"{name}={value}")]

    def attach(device, *where):
        lib.run("tc", "qdisc", "add", "dev", device, *where, "bpf", "obj", obj, "limit", str(limit), *words, *sets)
    return attach


def both(limit=10000, **parameters):
    return native("fq_codel", limit=limit, **parameters), ours(limit, **parameters)


def statistics(device, *names):
    """Of the native fq_codel or ours, whichever is there, and its drops."""
    listed = lib.qdiscs(device.a)
    entry = listed[-1]
    return {"drops": entry["drops"], **{name: entry.get("stats", entry).get(name, 0) for name in names}}


def apart(count):
    """Ports whose flows have a queue each: a hash, which is another one after each boot, decides."""
    with lib.behind_the_gate(lambda device, parent: ours()(device.a, "parent", parent)) as (device, sender, _):
        ports, port = [], 0
        while len(ports) < count:
            port += 1
            sender.send(0, port=port)
            if statistics(device, "new_flow_count")["new_flow_count"] > len(ports):
                ports.append(port)
    return ports


def seeded():
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"# SEED={seed}")
    return random.Random(seed)


def jain(shares):
    return sum(shares) ** 2 / len(shares) / sum(share * share for share in shares)


def close(got, wanted, tolerance, what):
    print(f"# {what}: {got:.6g}, native {wanted:.6g}, {100 * (got / wanted - 1) if wanted else 0:+.2f} %, tolerance {tolerance:.3g}")
    lib.true(abs(got - wanted) <= tolerance, f"{what}: {got}, native {wanted}, tolerance {tolerance}")


# --- order and drops, where CoDel does nothing -----------------------------------

Packet = collections.namedtuple("Packet", "port size tos", defaults=(0,))
Left = collections.namedtuple("Left", "numbers statistics marked")


def leave(attach, traffic, wait=0):
    """What leaves of packets that all wait before one does, and in which order. The last one
    opens the gate, `wait` s after the others."""
    with lib.behind_the_gate(lambda device, parent: attach(device.a, "parent", parent)) as (device, sender, receiver):
        for number, packet in enumerate(traffic):
            if number == len(traffic) - 1:
                time.sleep(wait)
                sender.set(SO_MARK, 1)
            sender.send(number, packet.size, packet.port, tos=packet.tos)
        stats = statistics(device, "drop_overlimit", "new_flow_count", "ce_mark")
        arrivals = receiver.collect(len(traffic) - stats["drops"])
        lib.equal(receiver.drain(), [], "packets nobody knows of")
        return Left(lib.numbers(arrivals), stats, [each.number for each in arrivals if each.tos & 3 == 3])


def order_and_drops_are_fq_codels():
    """Twenty flows, of which some have far more than others, in a queue that is too short."""
    rng = seeded()
    traffic = [Packet(min(rng.randrange(1, 21), rng.randrange(1, 21)), rng.randrange(60, 1500)) for _ in range(600)]
    wanted, got = (leave(attach, traffic) for attach in both(limit=150, **PATIENT))
    lib.true(wanted.statistics["drop_overlimit"] > 300, f"too few drops to compare: {wanted.statistics}")
    lib.equal(got, wanted, "order of departure, and statistics")


def a_thousand_flows_leave_as_fq_codels():
    """Of a packet, or of up to seven."""
    rng = seeded()
    traffic = [Packet(port, rng.randrange(60, 1500)) for port in range(1, 1001) for _ in range(rng.randrange(1, 8))]
    rng.shuffle(traffic)
    wanted, got = (leave(attach, traffic) for attach in both(**PATIENT))
    lib.equal(got, wanted, "order of departure, and statistics")
    flows = wanted.statistics["new_flow_count"]
    lib.true(500 < flows < 1000, f"{flows} queues")


def a_full_queue_drops_from_the_fattest_flow():
    """Of five with twenty packets each, and one with 500, the queue is full of: all that are
    dropped are of that one, and of these the oldest."""
    flood, *others = apart(6)
    traffic = [Packet(flood if number % 6 else others[number // 6 % 5], 1000) for number in range(600)]
    got = leave(ours(limit=200, **PATIENT), traffic)
    lost = sorted(set(range(600)) - set(got.numbers))
    lib.true(len(lost) >= 400, f"{len(lost)} packets are lost")
    lib.equal([number for number in lost if not number % 6], [], "lost packets of flows that are not the fattest")
    rest = [number for number in got.numbers if number % 6]
    lib.true(min(rest) > max(lost), "a packet is lost that is younger than one that left")


def bytes_are_bounded():
    """Each packet is longer than those before, and of another flow: so its own flow has most."""
    bound = 20000
    with lib.behind_the_gate(lambda device, parent: ours(limit_bytes=bound)(device.a, "parent", parent)) as (device, sender, _):
        for number in range(200):
            sender.send(number, 100 + 4 * number, number)
            if number % 20 == 19:
                (entry,) = [each for each in lib.instances(device.a) if each.get("parent") == "1:1"]
                lib.true(entry["backlog"] <= bound, f"{entry['backlog']} bytes wait after {number + 1} packets")
        lib.true(entry["backlog"] > bound - 900, f"{entry['backlog']} bytes wait at last")
        lib.equal(entry["drops"] + entry["qlen"], 200, "packets dropped and waiting")
        lib.equal(entry["stats"]["drop_overlimit"], entry["drops"], "by the statistics")


def marks_what_waits_too_long_as_fq_codel():
    """Behind a gate that opens half a second later."""
    traffic = [Packet(number % 4 + 1, 200, number % 4) for number in range(40)]
    wanted, got = (leave(attach, traffic, wait=0.5) for attach in (
        native("fq_codel", ce_threshold="100ms", **PATIENT), ours(ce_threshold="100ms", **PATIENT)))
    lib.equal(sorted(wanted.marked), [number for number in range(40) if number % 4], "marked by the native fq_codel")
    lib.equal(got, wanted, "marked, and order of departure")


# --- CoDel -----------------------------------------------------------------------

RATE = 500_000                  # bytes a second
THIN = 100                      # bytes of a packet of a flow that sends little
SECONDS = 6
SIZES = (1000, 1400, 600)       # of the packets of flows that send half as much again as they can
Through = collections.namedtuple("Through", "lost marked delays rates statistics")


def too_much(ports, sizes=SIZES, rate=RATE, pause=10 * MS, seconds=SECONDS):
    """Times, flows and sizes of packets: of a flow for each size, and of a thin one."""
    events = []
    for port, size in zip(ports, sizes):
        each = size * NSEC * len(sizes) * 2 // 3 // rate
        events += [(when, port, size) for when in range(0, seconds * NSEC, each)]
    events += [(when, ports[len(sizes)], THIN) for when in range(0, seconds * NSEC, pause)]
    return sorted(events)


def through_a_bottleneck(attach, events, tos=0, rate=RATE):
    """Rates are those while all flows have packets: after the first second and before the last
    packet was sent."""
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf", "rate", f"{rate * 8}bit",
                "burst", "2000", "limit", "100000000")
        attach(device.a, "parent", "1:1", "handle", "2:")
        start, sent = time.monotonic_ns(), []
        for number, (when, port, size) in enumerate(events):
            time.sleep(max(0, start + when - time.monotonic_ns()) / NSEC)
            sent.append(time.monotonic_ns())
            lib.true(sender.send(number, size, port, tos=tos), f"packet {number} refused")
        last = time.monotonic_ns()
        lib.wait_until(lambda: sender.memory() == 0, "the queue is empty", 4 * lib.TIMEOUT)
        time.sleep(0.01)
        arrivals = receiver.drain()
        stats = statistics(device, "ecn_mark")
    port_of = [port for _, port, _ in events]
    lost = collections.Counter(port_of) - collections.Counter(port_of[each.number] for each in arrivals)
    rates, delays = collections.Counter(), collections.defaultdict(list)
    for each in arrivals:
        port = port_of[each.number]
        delays[port].append(each.when - sent[each.number])
        if start + NSEC <= each.when < last:
            rates[port] += each.size * NSEC / (last - start - NSEC)
    for port in {*port_of}:
        numbers = [each.number for each in arrivals if port_of[each.number] == port]
        lib.equal(numbers, sorted(numbers), "order of a flow")
    return Through(lost, sum(each.tos & 3 == 3 for each in arrivals), delays, rates, stats)


def quantile(values, part):
    return sorted(values)[int(len(values) * part)]


# The native CoDel takes 0.5 for the root of 1/2, so its second drop, and all that follow, are so many ms early
EARLY = 25


def same_count(got, wanted, what):
    lib.true(wanted > 50, f"{what}: the native qdisc has {wanted}, too few to compare")
    close(got, wanted, 2 + wanted / 50, what)


def compare(got, wanted, thin, longest, rate=RATE):
    for port in wanted.rates:
        close(got.rates[port], wanted.rates[port], wanted.rates[port] / 50, f"flow {port}, bytes a second")
    for part in (0.5, 0.99):
        close(*(quantile(each.delays[thin], part) / MS for each in (got, wanted)),
              max(quantile(wanted.delays[thin], part) / 50, longest * NSEC / rate) / MS, f"{part}-quantile of the thin flow's delay, ms")
    for each in (got, wanted):
        lib.equal(each.lost[thin], 0, "packets that the thin flow has lost")


def flows_are_short_and_fair_as_fq_codels():
    """Three flows whose packets are of different lengths, and of which CoDel drops; and a thin one.
    So do the idiom of the documents, and fq with CoDel."""
    ports = apart(4)
    wanted, got, idiom, fq = (through_a_bottleneck(attach, too_much(ports)) for attach in (
        *both(limit=10000), ours(obj=IDIOM),
        ours(obj=FQ, target="5ms", quantum=1514, initial_quantum=1514, flow_limit=10000)))
    for each in (got, idiom, fq):
        compare(each, wanted, ports[3], max(SIZES))
    for name, each in (("native", wanted), ("ours", got), ("the idiom", idiom), ("fq", fq)):
        fair = jain([each.rates[port] for port in ports[:3]])
        print(f"# {name}: Jain's index {fair:.6f}, lost {dict(each.lost)}")
        lib.true(fair >= 0.999, f"{name}: Jain's index {fair}, bytes a second {each.rates}")
        same_count(each.lost.total(), wanted.lost.total(), f"packets that CoDel has dropped, {name}")


def a_packet_takes_longer_than_the_target():
    """At 1 Mbit/s, 12 ms. So a packet of the thin flow waits too long behind each one of the other
    flow; but it is alone in its queue, and CoDel leaves it there. So does that of the idiom."""
    ports, rate = apart(2), 125_000
    events = too_much(ports, (1514,), rate, 200 * MS, 12)
    wanted, got, idiom = (through_a_bottleneck(attach, events, rate=rate)
                          for attach in (*both(limit=10000), ours(obj=IDIOM)))
    for name, each in (("ours", got), ("the idiom", idiom)):
        compare(each, wanted, ports[1], 1514, rate)
        same_count(each.lost.total(), wanted.lost.total(), f"packets that CoDel has dropped, {name}")


def marks_as_fq_codel():
    """Senders that take part in ECN lose nothing."""
    ports = apart(4)
    wanted, got = (through_a_bottleneck(attach, too_much(ports), ECT) for attach in both(limit=10000))
    compare(got, wanted, ports[3], max(SIZES))
    for each in (wanted, got):
        lib.equal(each.lost.total(), 0, "packets lost")
    same_count(got.marked, wanted.marked, "marks")
    same_count(got.statistics["ecn_mark"], wanted.statistics["ecn_mark"], "marks, by the statistics")


def of_one_queue_it_is_codel():
    """Which packets of the thin flow are dropped is chance."""
    events = too_much((1, 2), SIZES[:1])
    wanted, got = (through_a_bottleneck(attach, events) for attach in (native("codel", limit=10000), ours(flows=1)))
    close(got.rates.total(), wanted.rates.total(), wanted.rates.total() / 50, "bytes a second")
    for part in (0.5, 0.99):
        close(*(quantile(each.delays[1], part) / MS for each in (got, wanted)),
              EARLY + quantile(wanted.delays[1], part) / 50 / MS, f"{part}-quantile of the delay, ms")
    same_count(got.lost.total(), wanted.lost.total(), "packets that CoDel has dropped")


# --- TCP -------------------------------------------------------------------------

TCP = collections.namedtuple("TCP", "rates delays")
BEGIN, END = 3 * NSEC, 13 * NSEC


def three_tcp_flows(attach):
    """10 Mbit/s and 20 ms, with a datagram each 20 ms beside them. Bytes and delays are those from
    BEGIN to END."""
    lib.run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "tbf", "rate", "10mbit", "burst", "3100",
            "limit", "10000000")
    attach("eth0", "parent", "1:1", "handle", "2:")
    with contextlib.ExitStack() as stack:
        with lib.namespace("peer"):
            server = stack.enter_context(socket.create_server(("10.0.0.2", 5001)))
            arrive = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        arrive.bind(("10.0.0.2", 5002))
        arrive.setsockopt(socket.SOL_SOCKET, lib.SO_TIMESTAMPNS, 1)
        probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        probe.connect(("10.0.0.2", 5002))
        clients, peers = [], []
        for _ in range(3):
            clients.append(stack.enter_context(socket.create_connection(("10.0.0.2", 5001))))
            peers.append(stack.enter_context(server.accept()[0]))
            clients[-1].setblocking(False)
        offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.monotonic_ns()
        rates, delays, start, now, due = [0] * 3, [], time.monotonic_ns(), 0, 0
        while now < END:
            readable, writable, _ = select.select([*peers, arrive], clients, [], max(0, due - now) / NSEC)
            now = time.monotonic_ns() - start
            for client in writable:
                client.send(bytes(65536))
            for which, peer in enumerate(peers):
                if peer in readable:
                    rates[which] += len(peer.recv(65536)) * (now > BEGIN)
            if arrive in readable:
                data, messages, _, _ = arrive.recvmsg(100, 256)
                seconds, nanoseconds = struct.unpack("qq", messages[0][2][:16])
                if now > BEGIN:
                    delays.append(seconds * NSEC + nanoseconds - offset - struct.unpack("Q", data)[0])
            if now >= due:
                due += 20 * MS
                probe.send(struct.pack("Q", time.monotonic_ns()))
    lib.run("tc", "qdisc", "del", "dev", "eth0", "root")
    return TCP([rate * NSEC // (END - BEGIN) for rate in rates], delays)


def apart_at_last(attach):
    """Of four flows in 1024 queues two share one once in 170 runs: then again."""
    for _ in range(3):
        found = three_tcp_flows(attach)
        if jain(found.rates) > 0.95 and quantile(found.delays, 0.5) < 5 * MS:
            break
    return found


def tcp_is_as_with_fq_codel():
    with lib.far_peer("20ms"):
        wanted, got = (apart_at_last(attach) for attach in both())
    for name, each in (("native", wanted), ("ours", got)):
        print(f"# {name}: Jain's index {jain(each.rates):.6f}, bytes a second {each.rates}, {len(each.delays)} delays")
    packet = 1514 * 8 / 10_000      # ms
    for part in (0.5, 0.99):
        close(*(quantile(each.delays, part) / MS for each in (got, wanted)),
              max(quantile(wanted.delays, part) / 50 / MS, packet), f"{part}-quantile of a datagram's delay, ms")
    close(sum(got.rates), sum(wanted.rates), sum(wanted.rates) / 50, "bytes a second of all")
    lib.true(jain(got.rates) >= min(0.999, jain(wanted.rates)), f"Jain's index {jain(got.rates)}")


# --- safety ----------------------------------------------------------------------

def no_parameter_holds_a_packet():
    """The extreme ones, large packets, many flows and more than there is room for: what is not
    dropped leaves, and nobody is found stuck."""
    lowest = {"target": 0, "interval": "1us", "quantum": 256, "mtu": 0}
    for limit, parameters in ((10, lowest), (1, {"flows": 1}), (100, {"limit_bytes": 1}), (10000, {"flows": 1, **lowest}),
                              (10000, {**lowest, "ecn": 0}), (10000, {"quantum": "1mb", "mtu": "1mb", "ce_threshold": 1, **PATIENT}),
                              (10000, {"bypass": 1, "ce_threshold": "10s"})):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            for name in (device.a, device.b):
                lib.run("ip", "link", "set", name, "mtu", "9000")
            lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "1:", "tbf", "rate", "200mbit", "burst", "10000",
                    "limit", "100000000")
            ours(limit, "patience", "100ms", **parameters)(device.a, "parent", "1:1")
            for number in range(600):
                sender.send(number, (60, 1514, 9000)[number % 3], port=number % 200, tos=number % 4)
            sender.wait_freed()
            entry = device.qdisc()
            arrived = len(receiver.drain())
            lib.equal((entry["stuck"], entry["qlen"], entry["backlog"], arrived + entry["drops"]), (0, 0, 0, 600),
                      f"found stuck, queued, bytes, arrived and dropped, limit {limit} {parameters}")
            stats = entry["stats"]
            lib.equal(stats["drop_overlimit"] + stats["drop_codel"], entry["drops"], f"drops, limit {limit} {parameters}")


def a_change_forgets_no_packet():
    """What stands when new programs come leaves by turns, each flow in its order."""
    ports = apart(3)
    with lib.behind_the_gate(lambda device, parent: ours(**PATIENT)(device.a, "parent", parent)) as (device, sender, receiver):
        for number in range(300):
            sender.send(number, 1000, ports[number // 100])
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", "obj", OBJ,
                "set", "quantum=1000", "set", "target=10s")
        sender.set(SO_MARK, 1)
        sender.send(300, 1000, ports[2])
        numbers = lib.numbers(receiver.collect(301))
    for flow in range(3):
        own = [number for number in numbers if min(number // 100, 2) == flow]
        lib.equal(own, sorted(own), "order of a flow")
        lib.true(abs(sum(number in own for number in numbers[:150]) - 50) <= 1, f"share of flow {flow}")


def a_change_forgets_nobodys_bytes():
    """Three quarters of a queue are one flow's when new programs come. Another one fills it then,
    and pushes out what the first has too much."""
    flood, other = apart(2)
    with lib.behind_the_gate(lambda device, parent: ours(200, **PATIENT)(device.a, "parent", parent)) as (device, sender, receiver):
        for number in range(150):
            sender.send(number, 1000, flood)
        lib.run("tc", "qdisc", "change", "dev", device.a, "parent", "1:1", "bpf", "obj", OBJ, "set", "target=10s", "set", "interval=100s")
        for number in range(150, 250):
            sender.send(number, 1000, other)
        sender.set(SO_MARK, 1)
        sender.send(250, 1000, other)
        drops = statistics(device)["drops"]
        lib.true(drops >= 50, f"{drops} drops")
        numbers = lib.numbers(receiver.collect(251 - drops))
    lib.equal(sorted(set(range(150, 251)) - set(numbers)), [], "lost packets of the flow that has less")


def a_reset_forgets_all():
    """A flow that had debts and packets when the link went down begins as a new one."""
    ports = apart(2)
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        device.attach(lib.compiled("gate"), where=("root", "handle", "1:"))
        lib.run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "bpf")
        ours(**PATIENT)(device.a, "parent", "1:1")
        for number in range(100):
            sender.send(number, 1000, ports[number % 2])
        device.flap()
        with lib.Sender(device.a) as later:      # the other one is told that the link was down
            later.set(SO_MARK, 1)
            for number in range(100, 120):
                later.send(number, 1000, ports[number % 2])
        lib.equal(sorted(lib.numbers(receiver.collect(20))), list(range(100, 120)), "packets that came after the reset")


def gso_packets_are_cut():
    """Ten segments of 1000 bytes, if that is longer than split_gso."""
    for length, frames in ((0, 1), (20000, 1), (5000, 10)):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            ours(split_gso=length)(device.a, "root")
            lib.true(sender.send_gso(1000, 10), "refused")
            receiver.collect(frames)
            sender.wait_freed()
            lib.equal(receiver.drain(), [], f"more than {frames} frames, split_gso {length}")


lib.main(order_and_drops_are_fq_codels,
         a_thousand_flows_leave_as_fq_codels,
         a_full_queue_drops_from_the_fattest_flow,
         bytes_are_bounded,
         marks_what_waits_too_long_as_fq_codel,
         no_parameter_holds_a_packet,
         a_change_forgets_no_packet,
         a_change_forgets_nobodys_bytes,
         a_reset_forgets_all,
         gso_packets_are_cut,
         measured=[flows_are_short_and_fair_as_fq_codels,
                   a_packet_takes_longer_than_the_target,
                   marks_as_fq_codel,
                   of_one_queue_it_is_codel,
                   tcp_is_as_with_fq_codel])
