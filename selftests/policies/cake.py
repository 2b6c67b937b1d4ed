#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy cake beside the native one: its rate, with overhead and cells; hosts, tins and flows
that share it; what a thin flow waits for; slow links, ACKs, GSO packets. What is
expected is computed, and both do it.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import errno
import ipaddress
import struct
import time

import lib
from lib import MS, NSEC, POLICIES, SO_MARK

CAKE = f"{POLICIES}/cake.bpf.o"
PATIENT = "target=10s", "interval=100s"         # CoDel does nothing
RATE = 1_000_000                                # bytes a second: a packet of SIZE in a ms
SIZE = 1000
MTU = 1514
IPV4, IPV6, ALL = 0x0800, 0x86DD, 3
TX = 4


def settings(*sets):
    return [word for text in sets for word in ("set", text)]


def checksum_free(source, destination, protocol, payload, tos=0):
    """A packet on Ethernet, of the family that the addresses are of."""
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if len(packed) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), 0, 0, 64, protocol, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), protocol, 64)
    kind = IPV4 if len(packed) == 8 else IPV6
    return bytes.fromhex("020000000002" "020000000001") + struct.pack("!H", kind) + header + packed + payload


class Listener(lib.Receiver):
    """Takes packets of both families, whose number follows a header of UDP or is in that of TCP."""

    def __init__(self, dev):
        super().__init__(dev)
        self.sock.bind((dev, ALL))

    def take(self):
        data, messages, _, _ = self.sock.recvmsg(2048, 256)
        seconds, nanoseconds = struct.unpack("qq", messages[0][2][:16])
        self.packets += 1
        self.bytes += len(data)
        at = 34 if data[12:14] == b"\x08\x00" else 54
        protocol = data[23] if at == 34 else data[20]
        number = struct.unpack_from("!Q", data, at + 8)[0] if protocol == 17 else struct.unpack_from("!I", data, at + 8)[0]
        return lib.Arrival(number, len(data), seconds * NSEC + nanoseconds - self.offset, data[15])


class Traffic:
    """Numbers packets, and knows of each its length, when it was sent, and whose it is."""

    def __init__(self, sender):
        self.sender, self.size, self.sent, self.who = sender, [], [], []
        self.dev = sender.sock.getsockname()[0]

    def put(self, packet, who):
        self.sender.packets += 1
        self.sender.bytes += len(packet)
        self.size.append(len(packet))
        self.sent.append(time.monotonic_ns())
        self.who.append(who)
        try:
            self.sender.sock.sendto(packet, (self.dev, int.from_bytes(packet[12:14])))
        except OSError as error:        # of a drop its sender learns, or not
            lib.equal(error.errno, errno.ENOBUFS, "error")

    def udp(self, who, size=SIZE, port=1000, source="192.0.2.1", destination="198.51.100.1", tos=0):
        header = 42 if "." in source else 62
        payload = struct.pack("!HHHHQ", port, 9, size - header + 8, 0, len(self.size)).ljust(size - header + 8, b"\0")
        self.put(checksum_free(source, destination, 17, payload, tos), who)

    def ack(self, who, port=1000, flags=0x10, options=b""):
        """An ACK that says more than the one before: of as many bytes as its number"""
        tcp = struct.pack("!HHIIBBHHH", port, 80, 1, len(self.size), (20 + len(options)) << 2, flags, 1000, 0, 0)
        self.put(checksum_free("192.0.2.1", "198.51.100.1", 6, tcp + options), who)

    def of(self, arrivals, who):
        return [each for each in arrivals if self.who[each.number] == who]

    def delays(self, arrivals, who):
        return sorted((each.when - self.sent[each.number]) / MS for each in self.of(arrivals, who))


class Policy:
    """On a device. What its counters have from before is not counted."""

    def __init__(self, device, sender, receiver):
        self.device, self.traffic, self.receiver = device, Traffic(sender), receiver
        self.before = self.entry()

    def entry(self):
        (entry,) = [each for each in lib.qdiscs(self.device.a) if each["kind"] == "bpf" and "tins" in each["options"].get("set", ())]
        return entry

    def counters(self):
        entry = self.entry()
        since = {name: entry[name] - self.before[name] for name in ("packets", "bytes", "drops", "stuck")}
        for name, value in entry["stats"].items():
            old = self.before["stats"][name]
            since[name] = [new - each for new, each in zip(value, old)] if isinstance(value, list) else value - old
        return since | {"qlen": entry["qlen"], "backlog": entry["backlog"]}

    def change(self, *sets):
        lib.run("tc", "qdisc", "change", "dev", self.device.a, "root", "bpf", *settings(*sets))


class Native(Policy):
    """The kernel's cake, likewise"""

    def entry(self):
        (entry,) = [each for each in lib.qdiscs(self.device.a) if each["kind"] == "cake"]
        return entry

    def counters(self):
        return self.entry()


@contextlib.contextmanager
def native(words):
    with lib.link() as device, lib.Sender(device.a) as sender, Listener(device.b) as receiver:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "cake", *words.split())
        yield Native(device, sender, receiver)


KEPT = []                       # a device with the policy, and the parameters with which that comes


@contextlib.contextmanager
def policy(*sets, limit=10000):
    """With these parameters, and else as it comes. It is loaded once for all tests, unless one fails: that
    takes longer than they do."""
    if not KEPT:
        device = lib.Link()
        device.attach(CAKE)
        KEPT[:] = device, [f"{name}={value}".lower() for name, value in device.qdisc()["options"]["set"].items()]
    device, defaults = KEPT
    names = {text.split("=")[0] for text in sets}
    defaults = [text for text in defaults if text.split("=")[0] not in names]
    lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "limit", str(limit), *settings(*defaults, *sets))
    try:
        with lib.Sender(device.a) as sender, Listener(device.b) as receiver:
            yield Policy(device, sender, receiver)
    except BaseException:
        KEPT.clear()
        device.delete()
        raise


def both(rate, words, *sets):
    """The native one and ours, of which CoDel does nothing"""
    rate = f"{8 * rate}bit"
    return native(f"bandwidth {rate} rtt 1000s memlimit 32mb {words}"), policy(f"rate={rate}", *PATIENT, *sets)


def gone(on):
    """All that has arrived once nothing waits. To look is a command, which takes its time."""
    for _ in range(600):
        if not on.entry()["qlen"]:
            time.sleep(0.01)
            return on.receiver.drain()
        time.sleep(0.2)
    raise lib.Failure("packets still wait")


def oracle(on, arrivals):
    """Entered = sent + dropped + queued, in packets and bytes, and by the statistics of the tins, which are returned"""
    got = {each.number for each in arrivals}
    lib.equal(len(got), len(arrivals), "packets that arrived once")
    lost = [size for number, size in enumerate(on.traffic.size) if number not in got]
    now = on.counters()
    if isinstance(on, Native):
        lib.equal((now["packets"], now["drops"], now["qlen"]), (len(arrivals), len(lost), 0), "sent, dropped, queued")
        return now
    lib.equal([now[name] for name in ("packets", "bytes", "drops", "qlen", "backlog", "stuck")],
              [len(arrivals), sum(each.size for each in arrivals), len(lost), 0, 0, 0], "sent, dropped, queued, stuck")
    lib.equal(sum(map(sum, (now["codel_drops"], now["limit_drops"], now["ack_drops"]))), len(lost), "drops of the tins")
    lib.equal(sum(now["sent"]), len(arrivals), "packets sent by the tins")
    return now


def near(got, wanted, part, what):
    print(f"# {what}: {got:.6g}, wanted {wanted:.6g}, off by {100 * (got / wanted - 1):+.2f} %")
    lib.true(abs(got / wanted - 1) <= part, f"{what}: {got}, wanted {wanted}")


def shares(on, arrivals, wanted, part=0.03):
    """In the time in which all of these have packets, without its first tenth, in bytes."""
    last = min(max(index for index, each in enumerate(arrivals) if on.traffic.who[each.number] == who) for who in wanted)
    busy = arrivals[last // 10:last]
    got = collections.Counter()
    for each in busy:
        got[on.traffic.who[each.number]] += each.size
    lib.true(len(busy) > 150, f"{len(busy)} packets are too few")
    lib.equal(set(got), set(wanted), "who has sent")
    for who, weight in wanted.items():
        near(got[who] / got.total(), weight / sum(wanted.values()), part, f"share of {who}")


# --- the rate --------------------------------------------------------------------

def on_the_link(size, overhead=14, mpu=0, atm=0):
    """Bytes that a frame of this size has there"""
    bytes_ = max(size - 14 + overhead, mpu)
    if atm == 1:
        cells = 0
        while 48 * cells < bytes_:
            cells += 1
        return 53 * cells
    return bytes_ + len(range(0, bytes_, 64)) if atm == 2 else bytes_


def rate_with_overhead_and_cells():
    """Packets of all sizes, those around an ATM cell too"""
    for rate, words in ((RATE, {}), (RATE, {"overhead": 44, "atm": 1}), (250_000, {"overhead": 40, "mpu": 96, "atm": 1}),
                        (RATE, {"overhead": 22, "mpu": 64, "atm": 2}), (RATE, {"overhead": -20, "mpu": 256}), (2_500_000, {"overhead": 38})):
        native_words = " ".join([("noatm", "atm", "ptm")[words.get("atm", 0)] if words else "raw",
                                 *(f"{name} {value}" for name, value in words.items() if name != "atm")])
        for case in both(rate, native_words, *(f"{name}={value}" for name, value in words.items())):
            with case as on:
                for number in range(120):
                    on.traffic.udp(0, (60, 66, 67, 114, 115, 590, 1514, 1000)[number % 8])
                arrivals = gone(on)
                lib.equal(lib.numbers(arrivals), list(range(120)), "order")
                took = arrivals[-1].when - arrivals[20].when
                needs = sum(on_the_link(each.size, **words) for each in arrivals[20:-1]) * NSEC / rate
                near(took, needs, 0.005, f"ns at {rate} bytes a second, {type(on).__name__}, {words}")
                stats = oracle(on, arrivals)
                if not isinstance(on, Native):
                    lib.equal(stats["sent_bytes"][0], sum(on_the_link(each.size, **words) for each in arrivals), "bytes on the link")


def one_rate_for_all_tx_queues():
    """Also of those that have a packet now and then."""
    with lib.link("numtxqueues", str(TX)) as device, lib.Sender(device.a) as sender, Listener(device.b) as receiver:
        lib.run("tc", *lib.qdisc(device, "add", "obj", CAKE, *settings(f"rate={8 * RATE}bit", *PATIENT), kind="bpf_mq"))
        traffic = Traffic(sender)
        for number in range(500):
            traffic.udp(0, port=1000 + number % 64)
        time.sleep(1)
        arrivals = receiver.collect(500)
        near(arrivals[-1].when - arrivals[50].when, sum(each.size for each in arrivals[50:-1]) * NSEC / RATE, 0.01, "ns")
        each = lib.instances(device.a)
        lib.equal([sum(entry[what] for entry in each) for what in ("packets", "drops", "qlen", "stuck")], [500, 0, 0, 0],
                  "sent, dropped, queued, stuck")
        lib.true(sum(entry["packets"] > 0 for entry in each) > 1, "one queue was used")


# --- flows and hosts ---------------------------------------------------------------

def address(host, family):
    return f"192.0.2.{host}" if family == 4 else f"2001:db8::{host}:1"


def hosts_share_whatever_the_number_of_their_flows():
    """Eight flows of one beside one of another, by source, by destination, and by both: then each has
    a server of its own, for with one for all each flow would be one of nine."""
    for family in (4, 6):
        for isolate, wanted in ((0, 8), (1, 1), (2, 1), (3, 1)) if family == 4 else ((1, 1),):
            for case in both(RATE, ("flows", "dual-srchost", "dual-dsthost", "triple-isolate")[isolate], f"isolate={isolate}"):
                with case as on:
                    for step in range(240):
                        for who in ("many", "one") if step % 2 else ("many",):
                            ends = address(1 + (who == "one"), family), address(99 + (isolate == 3 and who == "one"), family)
                            source, destination = ends if isolate != 2 else ends[::-1]
                            on.traffic.udp(who, port=1000 + (step % 8 if who == "many" else 500), source=source, destination=destination)
                    arrivals = gone(on)
                    shares(on, arrivals, {"many": wanted, "one": 1}, 0.05 if isolate else 0.1)
                    oracle(on, arrivals)


def flows_that_send_little_do_not_count_for_their_host():
    """Twenty of them, beside one that sends all the time, and one of another host"""
    with policy(f"rate={8 * RATE}bit", "isolate=1", *PATIENT) as on:
        begin = time.monotonic_ns()
        for number in range(250):
            for who in (1, 2):
                on.traffic.udp(who, source=address(who, 4))
        for step in range(40):
            time.sleep(max(0, begin + 10 * MS * step - time.monotonic_ns()) / NSEC)
            on.traffic.udp("little", 100, 2000 + step % 20, address(1, 4))
        arrivals = gone(on)
        shares(on, [each for each in arrivals if on.traffic.who[each.number] != "little"], {1: 1, 2: 1})
        delays = on.traffic.delays(arrivals, "little")
        lib.true(delays[-1] < 3, f"a flow that sends little waits for {delays[-1]:.2f} ms")
        oracle(on, arrivals)


def flows_share_by_bytes():
    with policy(f"rate={8 * RATE}bit", *PATIENT) as on:
        for number in range(200):
            for who, size in (("long", 1500), ("short", 300)):
                for _ in range(1500 // size):
                    on.traffic.udp(who, size, port=size)
        arrivals = gone(on)
        shares(on, arrivals, {"long": 1, "short": 1})
        for who in ("long", "short"):
            numbers = lib.numbers(on.traffic.of(arrivals, who))
            lib.equal(numbers, sorted(numbers), "order of a flow")
        oracle(on, arrivals)


def a_full_queue_drops_from_the_fattest_flow():
    """By packets, or by bytes; and of that flow the oldest."""
    for limit, sets in ((200, ()), (10000, ("limit_bytes=200000",))):
        with policy("rate=8kbit", *sets, *PATIENT, limit=limit) as on:
            for number in range(600):
                on.traffic.udp("flood" if number % 6 else "other", port=1000 if number % 6 else 2000 + number % 5)
                if number % 100 == 99:
                    entry = on.entry()
                    lib.true(entry["backlog"] <= 200_000 and entry["qlen"] <= 200, f"{entry['backlog']} bytes wait")
            on.change("rate=1gbit")
            arrivals = gone(on)
            stats = oracle(on, arrivals)
            lib.equal(len(on.traffic.of(arrivals, "other")), 100, "packets of flows that are not the fattest")
            lib.true(300 < sum(stats["limit_drops"]) < 480, f"drops: {stats['limit_drops']}")
            lost = set(range(600)) - set(lib.numbers(arrivals))
            young = [number for number in range(max(lost) + 1, 600) if number % 6]
            lib.true(len(young) > 30, f"of the fattest flow the youngest {len(young)} are left")
            older = {number for number in range(max(lost)) if number % 6} - lost
            lib.true(len(older) < 5, f"older ones than those lost are left, and did not leave before: {older}")


# --- tins ----------------------------------------------------------------------------

NAMES = {"LE": 1, "CS1": 8, "TOS4": 4, "CS2": 16, "AF21": 18, "AF22": 20, "AF23": 22, "CS3": 24, "AF31": 26, "AF32": 28, "AF33": 30,
         "CS4": 32, "AF41": 34, "AF42": 36, "AF43": 38, "CS5": 40, "VA": 44, "EF": 46, "CS6": 48, "CS7": 56}
BULK, VOICE3, VOICE4 = "LE CS1", "TOS4 VA EF CS6 CS7", "CS4 CS5 VA EF CS6 CS7"
VIDEO4 = "TOS4 CS2 CS3 AF21 AF22 AF23 AF31 AF32 AF33 AF41 AF42 AF43"
MODES = {1: "besteffort", 3: "diffserv3", 4: "diffserv4"}       # of the native one
CODES = {1: {}, 2: {1: BULK}, 3: {1: BULK, 3: VOICE3}, 4: {1: BULK, 2: VIDEO4, 3: VOICE4}}


def each_code_has_its_tin():
    for tins, lists in CODES.items():
        tin = {NAMES[name]: number for number, names in lists.items() for name in names.split()}
        for case in (native(f"unlimited {MODES[tins]}"), policy(f"tins={tins}")) if tins in MODES else (policy(f"tins={tins}"),):
            with case as on:
                wanted = [0] * 4
                for code in range(64):
                    for ends in (("192.0.2.1", "198.51.100.1"), ("2001:db8::1", "2001:db8::2")):
                        on.traffic.udp(0, 100, source=ends[0], destination=ends[1], tos=code << 2 | 1)
                        wanted[tin.get(code, 0)] += 1
                now = oracle(on, gone(on))
                if isinstance(on, Native):      # in its order
                    wanted = [wanted[number] for number in ((0,), (1, 0, 3), (1, 0, 2, 3))[(1, 3, 4).index(tins)]]
                    lib.equal([each["sent_packets"] for each in now["tins"]], wanted, f"packets of {tins} tins, native")
                else:
                    lib.equal(now["sent"], wanted, f"packets of {tins} tins")


TOS = {"best effort": 0, "bulk": NAMES["CS1"] << 2, "video": NAMES["AF41"] << 2, "voice": NAMES["EF"] << 2}


def fill_tins(on, packets):
    for step in range(100):
        for who, count in packets.items():
            for _ in range(count * (step + 1) // 100 - count * step // 100):
                on.traffic.udp(who, port=1000, tos=TOS[who])


def tins_have_their_thresholds():
    """While all have packets. Above theirs, that one goes first that will be below it first: a packet
    of bulk takes 16 times its time, one of voice 4 times; so 12 to 14 of these go before."""
    for tins, packets, wanted in (
            (3, {"best effort": 700, "bulk": 62, "voice": 250}, {"best effort": 11, "bulk": 1, "voice": 4}),
            (3, {"bulk": 70, "voice": 900}, {"bulk": 1, "voice": 13}),
            (4, {"best effort": 200, "bulk": 62, "video": 500, "voice": 250}, {"best effort": 3, "bulk": 1, "video": 8, "voice": 4}),
            (1, {"best effort": 50, "bulk": 50}, {})):
        for case in both(RATE, MODES[tins], f"tins={tins}"):
            with case as on:
                fill_tins(on, packets)
                arrivals = gone(on)
                if tins == 1:           # one flow, then
                    lib.equal(lib.numbers(arrivals), list(range(100)), "order without tins")
                else:
                    shares(on, arrivals, wanted, 0.1 if packets.keys() == {"bulk", "voice"} else 0.05)
                oracle(on, arrivals)


def without_a_rate_tins_share_in_the_ratio_of_their_thresholds():
    def attach(device, parent):
        device.attach(CAKE, *settings("tins=4", *PATIENT), where=("parent", parent))
    with lib.behind_the_gate(attach) as (device, sender, _), Listener(device.b) as receiver:
        on = Policy(device, sender, receiver)
        fill_tins(on, {"best effort": 550, "bulk": 40, "video": 280, "voice": 140})
        sender.set(SO_MARK, 1)
        on.traffic.udp("gate", port=7)
        arrivals = [each for each in receiver.collect(1011) if on.traffic.who[each.number] != "gate"]
        lib.equal(device.below()["drops"], 0, "drops")
        shares(on, arrivals, {"best effort": 16, "bulk": 1, "video": 8, "voice": 4}, 0.1)


def a_voice_packet_waits_for_one_packet():
    with policy(f"rate={8 * RATE}bit", *PATIENT) as on:
        for number in range(400):
            on.traffic.udp("bulk", port=number, tos=TOS["best effort"])
        begin = time.monotonic_ns()
        for step in range(30):
            time.sleep(max(0, begin + 10 * MS * step - time.monotonic_ns()) / NSEC)
            on.traffic.udp("voice", 200, port=5000, tos=TOS["voice"])
        arrivals = gone(on)
        delays = on.traffic.delays(arrivals, "voice")
        print(f"# voice beside 400 flows waits {delays[15]:.2f} ms, at most {delays[-1]:.2f}")
        lib.true(delays[-1] < 1.5, f"a voice packet waited for {delays[-1]:.2f} ms")
        oracle(on, arrivals)


# --- CoDel ---------------------------------------------------------------------------

def beside(attach, read=False, seconds=2):
    """A flow that sends half as much again as it can, and one with 100 bytes each 20 ms. Arrivals and sent."""
    with lib.link() as device, lib.Sender(device.a) as sender, Listener(device.b) as receiver:
        attach(device.a)
        on = Policy(device, sender, receiver) if read else None
        traffic, begin = on.traffic if on else Traffic(sender), time.monotonic_ns()
        events = sorted([(when, "bulk") for when in range(0, seconds * NSEC, MTU * NSEC * 2 // 3 // RATE)] +
                        [(when, "thin") for when in range(0, seconds * NSEC, 20 * MS)])
        for when, who in events:
            time.sleep(max(0, begin + when - time.monotonic_ns()) / NSEC)
            traffic.udp(who, MTU if who == "bulk" else 100, port=1000 if who == "bulk" else 2000)
        lib.wait_until(lambda: sender.memory() == 0, "the queue is empty", 600)
        time.sleep(0.01)
        arrivals = receiver.drain()
        if on:
            oracle(on, arrivals)
        return traffic.delays(arrivals, "thin"), traffic.delays(arrivals, "bulk"), len(traffic.size) - len(arrivals)


def a_thin_flow_waits_as_with_the_native_one():
    def cake(device):
        lib.run("tc", "qdisc", "add", "dev", device, "root", "cake", "bandwidth", f"{8 * RATE}bit", "raw")

    def ours(device):
        lib.run("tc", "qdisc", "add", "dev", device, "root", "bpf", "obj", CAKE, *settings(f"rate={8 * RATE}bit"))

    wanted, got = beside(cake), beside(ours, True)
    for name, (thin, bulk, lost) in (("native", wanted), ("ours", got)):
        print(f"# {name}: thin flow p50 {thin[len(thin) // 2]:.2f} ms, p99 {thin[len(thin) * 99 // 100]:.2f} ms; "
              f"bulk p50 {bulk[len(bulk) // 2]:.1f} ms; {lost} lost")
    packet = MTU * 1000 / RATE
    for part in (50, 99):
        mine, theirs = (each[0][len(each[0]) * part // 100] for each in (got, wanted))
        lib.true(abs(mine - theirs) < packet / 4, f"{part} % of the thin flow's packets wait for {mine} ms, native {theirs} ms")
    lib.equal(len(got[0]), 100, "packets of the thin flow")
    lib.true(0.8 < got[2] / wanted[2] < 1.25, f"CoDel has dropped {got[2]}, the native one {wanted[2]}")


def standing(case, rate, packets, seconds, tos=0):
    """Drops and marks of a flow of which always so many packets wait"""
    with case as on:
        each = MTU * NSEC // rate
        begin = time.monotonic_ns()
        for number in range(packets + seconds * NSEC // each):
            time.sleep(max(0, begin + (number - packets) * each - time.monotonic_ns()) / NSEC)
            on.traffic.udp("bulk", MTU, tos=tos)
        arrivals = gone(on)
        oracle(on, arrivals)
        return len(on.traffic.size) - len(arrivals), sum(each.tos & 3 == 3 for each in arrivals)


def codel_leaves_a_slow_link_its_packets():
    """At 200 kbit/s one takes 60 ms, so its target is that of four. At 8 Mbit/s, where one takes 1.5
    ms, it is six ms."""
    for rate, few, many in ((25_000, 3, 7), (RATE, 3, 10)):
        seconds = 3 if rate < RATE else 1
        for kind in ("native", "ours"):
            def case():
                return native(f"bandwidth {8 * rate}bit raw") if kind == "native" else policy(f"rate={8 * rate}bit")
            lib.equal(standing(case(), rate, few, seconds), (0, 0), f"{kind}: drops and marks at {rate}, of {few} packets")
            drops, marks = standing(case(), rate, many, seconds)
            print(f"# {kind}: {drops} drops at {rate} bytes a second, of {many} packets")
            lib.true(drops > 0 and not marks, f"{kind}: drops {drops}, marks {marks} at {rate}, of {many} packets")
    drops, marks = standing(policy(f"rate={8 * RATE}bit"), RATE, 30, 1, tos=2)
    lib.true(marks > 3 and not drops, f"drops {drops}, marks {marks} of a flow that knows ECN")


def with_ingress_drops_have_used_the_link():
    """As many bytes as leave are dropped: less leaves, but two thirds of the rate."""
    got = {}
    for ingress in (0, 1):
        with policy(f"rate={8 * RATE}bit", f"ingress={ingress}", "target=1ms", "interval=2ms") as on:
            for number in range(700):
                on.traffic.udp(0)
            arrivals = gone(on)
            stats = oracle(on, arrivals)
            lib.true(stats["codel_drops"][0] > 50, f"drops: {stats['codel_drops'][0]}")
            got[ingress] = sum(each.size for each in arrivals[1:]) * NSEC / (arrivals[-1].when - arrivals[0].when)
    near(got[0], RATE, 0.01, "bytes a second")
    lib.true(2 / 3 * RATE * 0.99 < got[1] < 0.97 * RATE, f"bytes a second with ingress: {got[1]}")


# --- ACKs ----------------------------------------------------------------------------

STAMPS, SACK = bytes.fromhex("0101080a") + bytes(8), bytes.fromhex("0101050a") + bytes(8)


def acks_of_a_download():
    """250 a second beside an upload, at 200 kbit/s: more than their half carries. The newest one arrives
    soon, and the last one in any case."""
    seen = {}
    for ack_filter in ("native", 0, 1):
        theirs, mine = both(25_000, "raw flows ack-filter", f"ack_filter={int(ack_filter != 0)}", "isolate=0")
        with theirs if ack_filter == "native" else mine as on:
            begin = time.monotonic_ns()
            for step in range(700):
                time.sleep(max(0, begin + 4 * MS * step - time.monotonic_ns()) / NSEC)
                on.traffic.ack("ack", options=STAMPS)
                if step % 15 == 0:
                    on.traffic.udp("upload", MTU)
            arrivals = gone(on)
            now = oracle(on, arrivals)
            acks = on.traffic.of(arrivals, "ack")
            delays = on.traffic.delays(arrivals, "ack")
            if ack_filter != "native":
                lib.equal(now["ack_drops"][0], 700 - len(acks), "ACKs dropped")
            lib.equal(len(on.traffic.of(arrivals, "upload")), 47, "packets of the upload")
            lib.equal(acks[-1].number, max(number for number, who in enumerate(on.traffic.who) if who == "ack"), "the last ACK")
            seen[ack_filter] = delays
            gap = max(after.when - before.when for before, after in zip(acks, acks[1:])) / MS
            print(f"# ack_filter={ack_filter}: {len(acks)} of 700 ACKs, p50 {delays[len(delays) // 2]:.0f} ms, "
                  f"p99 {delays[len(delays) * 99 // 100]:.0f} ms; upload done {(on.traffic.of(arrivals, 'upload')[-1].when - begin) / MS:.0f} ms")
    lib.equal(len(seen[0]), 700, "ACKs without the filter")
    lib.true(len(seen[1]) <= len(seen["native"]) < 350, f"{len(seen[1])} ACKs with the filter, {len(seen['native'])} with the native one")
    lib.true(gap < 130, f"no ACK for {gap} ms: two packets of the upload take 121 ms")


def what_an_ack_says_is_not_lost():
    """Of SACK blocks, of ECN, of data and of the end of a connection; and each flow has its own."""
    with policy("rate=800bit", "ack_filter=1", *PATIENT) as on:
        on.traffic.udp("first", 100, port=9)
        for port, flags, options, stays in ((1, 0x10, STAMPS, 0), (1, 0x10, STAMPS, 1), (1, 0x10, SACK, 1), (1, 0x10, STAMPS, 1),
                                            (1, 0x50, STAMPS, 1), (1, 0x11, STAMPS, 1), (1, 0x10, b"", 0), (1, 0x10, b"", 1),
                                            (2, 0x10, STAMPS, 0), (2, 0x10, STAMPS, 1)):
            on.traffic.ack(stays, port, flags, options)
        on.change("rate=8mbit")
        arrivals = gone(on)
        lib.equal(sorted(lib.numbers(arrivals)), [number for number, who in enumerate(on.traffic.who) if who], "packets that are left")
        lib.equal(oracle(on, arrivals)["ack_drops"], [3, 0, 0, 0], "ACKs dropped")


# --- GSO packets -----------------------------------------------------------------------

def gso_packets_are_cut():
    """Segments leave at the rate, and another flow's packet between them; uncut the whole takes its time."""
    for split, segments in ((MTU, 40), (0, 1)):
        with policy(f"rate={8 * RATE}bit", f"split_gso={split}", "overhead=50", *PATIENT) as on:
            begin = time.monotonic_ns()
            lib.true(on.traffic.sender.send_gso(1000, 40), "the GSO packet is refused")
            on.traffic.udp("other", port=7)
            arrivals, now = gone(on), on.counters()
            lib.equal((now["cut"], now["sent"][0], now["drops"]), (split > 0, segments + 1, 0), "cut, sent, and dropped")
            lib.equal(now["sent_bytes"][0], 40 * (1000 + 28 + 50) + 986 + 50, "bytes on the link")
            lib.equal(len(arrivals), segments + 1, "packets")
            whole = arrivals[-1].when - begin
            if split:
                lib.true(arrivals.index(next(each for each in arrivals if each.size == SIZE)) < 4, "the other flow waits for all segments")
                near(arrivals[-1].when - arrivals[5].when, sum(each.size + 36 for each in arrivals[5:-1]) * NSEC / RATE, 0.01, "ns")
            else:
                lib.true(40 * 1078 * NSEC / RATE <= whole < 45 * MS, f"the packet behind came after {whole / MS:.2f} ms")


# --- changes -----------------------------------------------------------------------------

def other_programs_go_on_where_these_were():
    """With the same shares of hosts, and nothing is lost."""
    with policy("rate=8kbit", "isolate=1", *PATIENT) as on:
        for step in range(300):
            for who in (1, 2):
                on.traffic.udp(who, port=1000 + (step % 8 if who == 1 else 0), source=address(who, 4), tos=TOS["voice"] if step % 4 == 0 else 0)
        lib.run("tc", "qdisc", "change", "dev", on.device.a, "root", "bpf", "obj", CAKE,
                *settings(f"rate={8 * RATE}bit", "isolate=1", "tins=1", *PATIENT))
        on.traffic.udp(1, port=5000)
        arrivals = gone(on)
        lib.equal(len(arrivals), 601, "packets that arrived")
        shares(on, [each for each in arrivals if not each.tos], {1: 1, 2: 1}, 0.05)


def a_reset_leaves_nothing_behind():
    with policy("rate=8kbit", *PATIENT) as on:
        for number in range(100):
            on.traffic.udp(0, port=number)
        on.device.flap()
        drops = on.counters()["drops"]
        lib.true(98 <= drops <= 100, f"{drops} packets dropped by the reset")
        on.change(f"rate={8 * RATE}bit")
        on.receiver.drain()
        with lib.Sender(on.device.a) as sender:
            again = Policy(on.device, sender, on.receiver)
            for step in range(300):
                for who in (1, 2):
                    again.traffic.udp(who, port=who)
            arrivals = gone(again)
            lib.equal(len(arrivals), 600, "packets after the reset")
            shares(again, arrivals, {1: 1, 2: 1})


def what_is_out_of_range_is_refused():
    with policy() as on:
        for text in ("rate=2tbit", "overhead=-65", "overhead=257", "mpu=257", "atm=3", "tins=0", "tins=5", "isolate=4", "target=11s",
                     "interval=0", "limit_bytes=3gb", "split_gso=2mb", "ack_filter=2", "ingress=maybe"):
            lib.contains(lib.refused("tc", *lib.qdisc(on.device, "change", "set", text)), "cannot be")


def any_parameters_lose_nothing():
    for sets in (("rate=8", "overhead=-64"), ("rate=1tbit", "overhead=256", "atm=1"), ("target=0", "interval=1us"), ("tins=4", "limit_bytes=1"),
                 ("rate=10kbit", "ingress=1", "target=0", "interval=1us", "split_gso=1")):
        with policy(*sets) as on:
            for number in range(60):
                on.traffic.udp(0, port=number % 7, tos=number << 2)
            on.change("rate=0")
            oracle(on, gone(on))


lib.main(what_is_out_of_range_is_refused,
         each_code_has_its_tin,
         rate_with_overhead_and_cells,
         one_rate_for_all_tx_queues,
         flows_share_by_bytes,
         hosts_share_whatever_the_number_of_their_flows,
         flows_that_send_little_do_not_count_for_their_host,
         a_full_queue_drops_from_the_fattest_flow,
         tins_have_their_thresholds,
         without_a_rate_tins_share_in_the_ratio_of_their_thresholds,
         a_voice_packet_waits_for_one_packet,
         a_thin_flow_waits_as_with_the_native_one,
         codel_leaves_a_slow_link_its_packets,
         with_ingress_drops_have_used_the_link,
         acks_of_a_download,
         what_an_ack_says_is_not_lost,
         gso_packets_are_cut,
         other_programs_go_on_where_these_were,
         a_reset_leaves_nothing_behind,
         any_parameters_lose_nothing)
