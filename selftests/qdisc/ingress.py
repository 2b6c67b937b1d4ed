#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A qdisc for what arrives, below clsact, set up by the commands of sch_bpf.rst: filters and taps
have seen a packet before it is queued, once; the protocols get it when the policy lets it go, as it came."""

import collections
import concurrent.futures
import contextlib
import json
import math
import os
import re
import select
import socket
import struct
import time

import lib
import rst
from lib import MS, NSEC, POLICIES, compiled

RATE, CAKE = (f"{POLICIES}/{name}.bpf.o" for name in ("rate", "cake"))
HOLD, RELEASE, STUCK, COUNTER = (compiled(name) for name in ("hold", "release", "stuck", "ingress"))
SIZE, EACH = 1000, 10 * MS              # at 100,000 bytes a second
BELOW = ("parent", "ffff:fff2")
ETH_P_ALL, ETH_P_8021Q, ETH_P_802_EX1 = 3, 0x8100, 0x88B5
PACKET_ORIGDEV, PACKET_OTHERHOST = 9, 3
PIN = f"/sys/fs/bpf/ingress-{os.getpid()}"
HERE, FAR = "192.0.2.2", "192.0.2.1"
MSS, FRAME = 1448, 1514                 # of TCP with time stamps
VIRTIO_NET_HDR_GSO_TCPV4 = 1
SAY_NOTHING = 1                         # the mark by which stuck.bpf.c keeps a packet for good


class Arriving(lib.Link):
    """What is sent to a arrives at b, whose qdisc for it is shown as this link's."""

    def qdisc(self):
        (found,) = [each for each in lib.qdiscs(self.b) if each.get("parent") == BELOW[1]]
        return found

    def change(self, *options):
        lib.run("tc", "qdisc", "change", "dev", self.b, *BELOW, "bpf", *options)

    def wait(self, *expected):
        """Packets arrive a moment after they were sent."""
        def now():
            return tuple(self.qdisc()[what] for what in ("packets", "drops", "qlen"))
        lib.wait_until(lambda: now() == expected, f"sent, dropped and queued are {expected}")


def commands(device, qdisc):
    """Those of the document, for this device and qdisc."""
    found = re.findall(r"^\t# (.*)$", rst.of_title("sch_bpf", "What arrives"), re.M)
    lib.equal(len(found), 2, "commands in the document")
    for command in found:
        lib.contains(command, "dev eth0")
        yield command.replace("eth0", device).replace("bpf obj rate.bpf.o set rate=20mbit", qdisc).split()


@contextlib.contextmanager
def arriving(obj, *options):
    with contextlib.ExitStack() as stack:
        device = Arriving()
        stack.callback(lambda: os.path.exists(f"/sys/class/net/{device.a}") and device.delete())
        for command in commands(device.b, " ".join(("bpf obj", obj, *options))):
            lib.run(*command)
        yield (device, stack.enter_context(lib.Sender(device.a)), stack.enter_context(lib.Receiver(device.b)))


def packets(count):
    return list(range(count))


def the_rate_is_kept():
    """The protocols get each packet at its time, stamped with that at which it arrived."""
    with arriving(RATE, "set", "rate=800kbit", "set", "target=0") as (device, sender, receiver):
        start = time.monotonic_ns()
        for number in range(40):
            sender.send(number, SIZE)
        sent = time.monotonic_ns()
        for number in range(40):
            (arrival,) = receiver.collect(1)
            now = time.monotonic_ns()
            lib.equal(arrival.number, number, "number")
            due = (number - 1) * EACH - 5 * MS          # the policy's burst
            lib.true(start + due <= now <= sent + max(0, due) + lib.LATE,
                     f"packet {number} came {(now - start - due) / MS:.3f} ms after its time")
            lib.true(start - MS <= arrival.when <= sent + lib.LATE, "the stamp is that of its arrival")
        lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")


@contextlib.contextmanager
def from_afar():
    """A device whose other end is in another namespace, which sends neither ARP nor IPv6."""
    device = Arriving()
    try:
        macs = {}
        for end, address in ((device.a, FAR), (device.b, HERE)):
            with open(f"/sys/class/net/{end}/address", encoding="ascii") as file:
                macs[address] = file.read().strip()
        lib.run("ip", "link", "set", device.a, "netns", "peer")
        lib.run("ip", "netns", "exec", "peer", "sysctl", "-qw", f"net.ipv6.conf.{device.a}.disable_ipv6=1")
        lib.run("ip", "-n", "peer", "link", "set", device.a, "up")
        for where, end, here, there in ((("-n", "peer"), device.a, FAR, HERE), ((), device.b, HERE, FAR)):
            lib.run("ip", *where, "addr", "add", f"{here}/24", "dev", end)
            lib.run("ip", *where, "neigh", "replace", there, "lladdr", macs[there], "dev", end)
        yield device
    finally:
        lib.run("ip", "link", "del", device.b)


@contextlib.contextmanager
def downloads(count=1, size=1 << 26):
    """TCP connections, by each of which so many bytes come from the peer, if it is not closed before. Nobody
    needs to read."""
    def send(client):
        with contextlib.suppress(ConnectionError):
            client.sendall(bytes(size))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 26)
        server.bind((HERE, 0))
        server.listen()
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(count))
        taken = []
        for _ in range(count):
            with lib.namespace("peer"):
                client = stack.enter_context(socket.socket())
            client.connect(server.getsockname())
            taken.append(stack.enter_context(server.accept()[0]))
            pool.submit(send, client)
        yield taken


def a_tcp_download_keeps_to_the_rate():
    """Packets of many segments count with each of these, and their headers."""
    size, rate = 600_000, 8_000_000
    with from_afar() as device:
        for command in commands(device.b, f"bpf obj {RATE} set rate={rate}bit"):
            lib.run(*command)
        with downloads(size=size) as (taken,):
            got = first = len(taken.recv(1 << 20))          # how long it takes to begin is not of the rate
            start = time.monotonic_ns()
            while got < size:
                got += len(taken.recv(1 << 20))
            seconds = (time.monotonic_ns() - start) / NSEC
        stats = device.qdisc()
        least = size + size // MSS * 66
        most = least * 1.05 + 2000 if not lib.DEBUG else 2 * least      # slow, TCP sends more than once
        lib.true(least <= stats["bytes"] <= most, f"bytes, of {least}: {stats}")
        lib.true(stats["packets"] >= size // MSS, f"packets: {stats}")
        got = (stats["bytes"] - first) * 8 / seconds
        last = 8 * (1 << 16) / seconds          # a packet that nothing waits for any more
        lib.true((0 if lib.DEBUG else 0.9 * rate) <= got <= 1.05 * rate + last, f"bits a second: {got:.0f}")


def of_the_wire(frame):
    """Of a frame that GRO may have merged: bytes of data, and packets and bytes there"""
    headers = 34 + 4 * (frame[46] >> 4)
    data = len(frame) - headers
    segments = max(1, math.ceil(data / MSS))
    return data, segments, len(frame) + (segments - 1) * headers


def merged_packets_count_with_their_segments():
    """Those that GRO has made: what is counted, held to the rate and given to the protocols is what was on
    the wire, also if the policy cuts them again."""
    size, rate = 3_000_000, 100_000_000
    for obj, settings in ((RATE, "set target=0"), (CAKE, "set target=10s")):
        with from_afar() as device, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
            lib.run("ip", "netns", "exec", "peer", "ethtool", "-K", device.a, "tso", "off")     # with it veth passes GRO by
            lib.run("ethtool", "-K", device.b, "gro", "on")
            lib.run("tc", "-n", "peer", "qdisc", "add", "dev", device.a, "root", "pfifo", "limit", "10000")
            lib.write(f"/sys/class/net/{device.b}/gro_flush_timeout", 500_000)
            for command in commands(device.b, f"bpf obj {obj} set rate={rate}bit {settings}"):
                lib.run(*command)
            tap.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 28)
            tap.bind((device.b, lib.ETH_P_IP))
            tap.settimeout(lib.TIMEOUT)
            came, left = [], size

            def take():
                frame = tap.recv(1 << 17)
                came.append((time.monotonic_ns(), *of_the_wire(frame)))
                return came[-1][1]
            with downloads(size=size) as (taken,):
                while left > 0:
                    left -= take()
                lib.equal(taken.recv(size, socket.MSG_WAITALL), bytes(size), "what was downloaded")
                count = len(came)

                def all_are_there():
                    """TCP may send its last segment again: what is on its way when the wire is read comes later."""
                    (sent,) = json.loads(lib.run("tc", "-n", "peer", "-s", "-j", "qdisc", "show", "dev", device.a))
                    while select.select([tap], [], [], 0)[0]:
                        take()
                    _, _, segments, wire = zip(*came)
                    given = {"packets": sum(segments), "bytes": sum(wire)}
                    stats = device.qdisc()
                    return all(sent[what] == stats[what] == given[what] for what in given)
                lib.wait_until(all_are_there, "as many are counted and given to the protocols as were on the wire")
                stats = device.qdisc()
            _, _, segments, wire = zip(*came)
            lib.equal([stats[what] for what in ("drops", "backlog")], [0, 0], "dropped and queued")
            if obj == CAKE:
                lib.true(max(segments) == 1 and stats["stats"]["cut"] > 20, f"of {max(segments)} segments: {stats}")
            else:
                lib.true(len(came) < sum(segments) / 2, f"{sum(segments)} packets came as {len(came)}")
            first, last = count // 4, count - 1         # packets wait from the first of these to the last
            kept = sum(wire[first:last]) * 8 * NSEC / (came[last][0] - came[first][0])
            print(f"# {sum(segments)} packets came as {len(came)}, at {kept:.0f} bits a second, {100 * (kept / rate - 1):+.3f} %")
            lib.true(abs(kept / rate - 1) < 0.005, f"bits a second: {kept:.0f}")


# --- a link of 20 ms with a deep queue, before which this end is to keep its rate --------

LINK, SHAPED = 10_000_000, 9_000_000    # bits a second
CONNECTIONS = 4
BEGIN, END, PAUSE = 2 * NSEC, 6 * NSEC, 10 * MS
Path = collections.namedtuple("Path", "rate delays")


def at_ingress(qdisc):
    @contextlib.contextmanager
    def attached(device):
        def received():
            (shown,) = json.loads(lib.run("ip", "-s", "-j", "link", "show", "dev", device.b))
            return shown["stats64"]["rx"]["packets"]
        before = received()
        for command in commands(device.b, qdisc):
            lib.run(*command)
        yield

        def exact():
            stats = device.qdisc()
            return stats["qlen"] == 0 and stats["packets"] + stats["drops"] == received() - before
        lib.wait_until(exact, "each packet that came is sent or dropped")
    return attached


def by_ifb(*qdiscs):
    @contextlib.contextmanager
    def attached(device):
        ifb = f"i{device.b}"
        lib.run("ip", "link", "add", ifb, "type", "ifb")
        try:
            lib.run("ip", "link", "set", ifb, "up")
            for qdisc in qdiscs:
                lib.run("tc", "qdisc", "add", "dev", ifb, *qdisc.split())
            lib.run("tc", "qdisc", "add", "dev", device.b, "clsact")
            lib.run("tc", "filter", "add", "dev", device.b, "ingress", "matchall",
                    "action", "mirred", "egress", "redirect", "dev", ifb)
            yield
        finally:
            lib.run("ip", "link", "del", ifb)
    return attached


def echo(number):
    """A request of ICMP that says when it was made."""
    words = struct.pack("!BBHHHQ", 8, 0, 0, 1, number, time.monotonic_ns())
    check = ~(sum(struct.unpack("!8H", words)) % 0xffff) & 0xffff
    return words[:2] + struct.pack("!H", check) + words[4:]


def along(shape):
    """Downloads through the link, and a ping each 10 ms beside them, of those from BEGIN to END: bits of frames
    a second, and in ms how long replies took. One that is lost takes for ever."""
    delays = {}
    with from_afar() as device:
        lib.run("ip", "-n", "peer", "link", "set", device.a, "gso_max_segs", "1")
        lib.run("tc", "-n", "peer", "qdisc", "add", "dev", device.a, "root", "netem",
                "rate", f"{LINK}bit", "delay", "20ms", "limit", "150")
        with shape(device), downloads(count=CONNECTIONS) as taken, \
             socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.connect((FAR, 0))
            start = time.monotonic_ns()

            def had():
                infos = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 200) for each in taken]
                return time.monotonic_ns(), sum(struct.unpack_from("Q", info, 128)[0] for info in infos)   # tcpi_bytes_received

            def replies(until):
                while select.select([sock], [], [], max(0, start + until - time.monotonic_ns()) / NSEC)[0]:
                    number, when = struct.unpack_from("!HQ", sock.recv(100), 26)
                    delays[number] = (time.monotonic_ns() - when) / MS
            for number in range(END // PAUSE):
                if number == BEGIN // PAUSE:
                    begin, before = had()
                sock.send(echo(number))
                replies((number + 1) * PAUSE)
            end, after = had()
            replies(END + NSEC // 2)
    return Path((after - before) / MSS * FRAME * 8 * NSEC / (end - begin),
                sorted(delays.get(number, math.inf) for number in range(BEGIN // PAUSE, END // PAUSE)))


def a_shaped_download_leaves_others_alone():
    """As it does by an ifb, with native qdiscs, the queue is here, and short: a ping beside it waits for a packet or two."""
    def path(name, shape, times=2):
        """One in some hundred times the ping and a download share a place among the flows: then again."""
        for _ in range(times):
            found = along(shape)
            p50, p99 = (found.delays[int(len(found.delays) * part)] for part in (0.5, 0.99))
            print(f"# {name}: {found.rate / 1e6:.3f} Mbit/s, {100 * (found.rate / SHAPED - 1):+.2f} %, ping {p50:.2f} ms, p99 {p99:.2f}")
            if p99 < 2 * p50:
                break
        return found.rate, p99
    natives = [path(name, by_ifb(*qdiscs)) for name, *qdiscs in (
        ("ifb with tbf and fq_codel", f"root handle 1: tbf rate {SHAPED}bit burst 3100 limit 10000000", "parent 1:1 fq_codel"),
        ("ifb with cake", f"root cake bandwidth {SHAPED}bit besteffort"))]
    ours = [path(name, at_ingress(f"bpf obj {POLICIES}/{name}.bpf.o set rate={SHAPED}bit {more}")) for name, more in (
        ("rate", ""), ("cake", "set tins=1"))]
    _, unshaped = path("not shaped", lambda device: contextlib.nullcontext(), 1)
    longest = min(p99 for _, p99 in natives) + 2 * FRAME * 8 * 1000 / SHAPED        # the time of two packets
    lib.true(unshaped > 3 * longest, f"the link has no deep queue, p99 {unshaped:.2f} ms")
    for rate, p99 in ours:
        lib.true(abs(rate / SHAPED - 1) < 0.02, f"bits a second: {rate:.0f}")
        lib.true(p99 <= longest, f"p99 is {p99:.2f} ms, more than {longest:.2f}")


def what_is_held_is_not_there_yet():
    """Tap, filter and tcx program have seen it; a change lets it go, and they do not see it again."""
    lib.run("bpftool", "prog", "load", COUNTER, PIN, "type", "tcx/ingress")
    try:
        with arriving(HOLD) as (device, sender, receiver), \
             socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
            lib.run("tc", "filter", "add", "dev", device.b, "ingress", "matchall", "action", "ok")
            lib.run("bpftool", "net", "attach", "tcx_ingress", "pinned", PIN, "dev", device.b)
            tap.bind((device.b, ETH_P_ALL))

            def seen():
                (shown,) = json.loads(lib.run("tc", "-s", "-j", "filter", "show", "dev", device.b, "ingress"))[1:]
                (entry,) = lib.bpftool("map", "dump", "name", "ingress_seen")
                tap.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        taps.append(tap.recv(2048))
                return (len(taps), entry["formatted"]["value"],
                        shown["options"]["actions"][0]["stats"]["packets"])
            taps = []
            for number in range(50):
                sender.send(number, 100 + number)
            device.wait(0, 0, 50)
            lib.equal(seen(), (50, 50, 50), "packets that tap, tcx program and filter have seen")
            lib.equal(receiver.drain(), [], "packets that arrived")
            device.change("obj", RELEASE)
            lib.equal([(arrival.number, arrival.size) for arrival in receiver.collect(50)],
                      [(number, 100 + number) for number in range(50)], "packets and their sizes")
            lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, "queued")
            lib.equal(seen(), (50, 50, 50), "packets that tap, tcx program and filter have seen")
            lib.equal(taps[0], lib.frame(0, 100, 1000, 0), "what the tap has seen")
    finally:
        os.unlink(PIN)


def what_is_for_a_vlan_gets_there():
    """From a queue at the device below, and from one of the VLAN's; what is for none is not for this host."""
    for where, waits in (("below", 2), ("at", 1)):
        with lib.link() as device, contextlib.ExitStack() as stack:
            vlan = f"{device.b}v"
            lib.run("ip", "link", "add", "link", device.b, "name", vlan, "type", "vlan", "id", "5")
            lib.run("ip", "link", "set", vlan, "up")
            held = device.b if where == "below" else vlan
            for command in commands(held, f"bpf obj {HOLD}"):
                lib.run(*command)

            def bound(dev):
                made = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
                made.setsockopt(lib.SOL_PACKET, PACKET_ORIGDEV, 1)
                made.bind((dev, ETH_P_802_EX1))
                made.settimeout(lib.TIMEOUT)
                return made

            def queued():
                return sum(each["qlen"] for each in lib.qdiscs(held) if each.get("parent") == BELOW[1])
            sender, inside, outside = (bound(dev) for dev in (device.a, vlan, device.b))
            for vid in (5, 6):
                sender.send(bytes.fromhex("020000000002020000000001") + struct.pack("!HHH", ETH_P_8021Q, vid, ETH_P_802_EX1) +
                            (b"VLAN %d" % vid).ljust(80, b"\0"))
            lib.wait_until(lambda: queued() == waits, f"{waits} packets wait")
            lib.run("tc", "qdisc", "change", "dev", held, *BELOW, "bpf", "obj", RELEASE)
            data, came = inside.recvfrom(2048)
            lib.equal((data[14:20], came[0]), (b"VLAN 5", device.b), "what came, and where first")
            kinds = {}
            for _ in range(2):
                data, came = outside.recvfrom(2048)
                kinds[data[14:20]] = came[2]
            lib.equal(kinds[b"VLAN 6"], PACKET_OTHERHOST, "whom it is for")


def what_finds_no_room_is_dropped():
    """The tracepoints, and qdisctop with them, know of which qdisc."""
    with arriving(HOLD, "limit", "5") as (device, sender, receiver), \
         lib.traced(*(f"qdisc/qdisc_{what}" for what in ("enqueue", "dequeue", "drop"))) as lines:
        for number in range(8):
            sender.send(number)
        device.wait(0, 3, 5)
        device.change("obj", RELEASE)
        lib.equal(lib.numbers(receiver.collect(5)), packets(5), "packets")
        lib.balance(device, sender, receiver, dropped=(3, 300))
        traces = [line for line in lines() if "parent=0xFFFFFFF2" in line]
        lib.equal([sum(what in line for line in traces) for what in (" enqueue ", " dequeue ", "OVERLIMIT")], [5, 5, 3],
                  "packets that were traced")


def a_gso_packet_that_says_nonsense_counts_as_one():
    """Nobody can tell into how many it would be cut: its TCP header is shorter than one can be."""
    device = lib.Tap(offloads=True)
    try:
        for command in commands(device.a, f"bpf obj {HOLD}"):
            lib.run(*command)
        ethernet = b"\xff" * 6 + b"\x02" * 6 + struct.pack("!H", lib.ETH_P_IP)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 3040, 0, 0, 64, socket.IPPROTO_TCP, 0,
                         socket.inet_aton(FAR), socket.inet_aton(HERE))
        tcp = struct.pack("!HHIIHHHH", 1, 2, 0, 0, 0, 0, 0, 0)         # a data offset of 0
        frame = ethernet + ip + tcp + bytes(3000)
        device.put(struct.pack("=BBHHHH", 0, VIRTIO_NET_HDR_GSO_TCPV4, 54, 1000, 0, 0) + frame)

        def counted():
            (found,) = [each for each in lib.qdiscs(device.a) if each.get("parent") == BELOW[1]]
            return [found[what] for what in ("packets", "bytes", "drops", "qlen")]
        lib.equal(counted(), [0, 0, 0, 1], "sent, dropped and queued")
        lib.run("tc", "qdisc", "change", "dev", device.a, *BELOW, "bpf", "obj", RELEASE)
        lib.wait_until(lambda: counted()[3] == 0, "it leaves")
        lib.equal(counted(), [1, len(frame), 0, 0], "sent, dropped and queued")
    finally:
        device.delete()


def a_flood_is_counted():
    """Of packets that pktgen has references on."""
    count, name = 20_000, f"flood-{os.getpid()}"
    with lib.pktgen(name, "xmit_mode netif_receive", "burst 2") as send:
        for command in commands(name, f"bpf obj {HOLD} limit 100"):
            lib.run(*command)
        send(count)

        def counted():
            (found,) = [each for each in lib.qdiscs(name) if each.get("parent") == BELOW[1]]
            return [found[what] for what in ("packets", "drops", "qlen")]
        lib.equal(counted(), [0, count - 100, 100], "sent, dropped and queued")
        lib.run("tc", "qdisc", "change", "dev", name, *BELOW, "bpf", "obj", RELEASE, "limit", "1000")
        lib.wait_until(lambda: counted() == [100, count - 100, 0], "the others leave")
        send(count)
        lib.wait_until(lambda: counted()[2] == 0, "all leave")
        sent, drops, _ = counted()
        lib.equal(sent + drops, 2 * count, "sent and dropped")


def a_change_loses_none():
    """Nor does another root, for which the device is deactivated."""
    with arriving(RELEASE) as (device, sender, receiver):
        sender.set(lib.SO_SNDBUFFORCE, 1 << 18)         # some hundred packets, until they are received

        def send(number):
            try:
                return sender.send(number)
            except BlockingIOError:
                return False
        with lib.traffic(sender, receiver, send) as (sent, got):
            for turn in range(8):
                device.change("obj", (HOLD, RELEASE)[turn % 2])
                if turn % 4 == 2:
                    lib.run("tc", "qdisc", "replace", "dev", device.b, "root", ("pfifo", "bfifo")[turn // 4])
                elif turn % 2:
                    seen = len(got)
                    lib.wait_until(lambda seen=seen: len(got) > seen + 20, "packets between two changes")
        lib.equal(sorted(got), sorted(sent), "packets")
        stats = device.qdisc()
        lib.equal([stats[what] for what in ("drops", "qlen")], [0, 0], "dropped and queued")
        lib.true(0 < stats["packets"] <= len(sent), "more than was sent")   # or passed by, while deactivated


def a_stuck_policy_is_replaced():
    with arriving(STUCK, "patience", "100ms") as (device, sender, receiver):
        sender.set(lib.SO_MARK, SAY_NOTHING)
        for number in range(10):
            sender.send(number)
        lib.equal(sorted(lib.numbers(receiver.collect(10, 30))), packets(10), "packets")
        lib.equal(device.qdisc()["stuck"], 1, "stuck")


def gone(leave):
    """What waits is freed, whatever goes."""
    with arriving(HOLD) as (device, sender, receiver):
        for number in range(20):
            sender.send(number)
        device.wait(0, 0, 20)
        lib.true(sender.memory() > 0, "packets wait")
        leave(device)
        sender.wait_freed()
        lib.true(not set(lib.numbers(receiver.drain())) & set(range(20)), "a packet arrived")


def a_qdisc_ends_with_packets():
    """And what comes then goes on at once."""
    def end(*where):
        def leave(device):
            lib.run("tc", "qdisc", "del", "dev", device.b, *where)
            with lib.Receiver(device.b) as receiver, lib.Sender(device.a) as sender:
                sender.send(99)
                lib.equal(lib.numbers(receiver.collect(1)), [99], "packets without a qdisc")
        return leave
    gone(end(*BELOW))
    gone(end("clsact"))


def a_device_goes_down_with_packets():
    def leave(device):
        lib.run("ip", "link", "set", device.b, "down")
        stats = device.qdisc()
        lib.equal((stats["drops"], stats["qlen"], stats["backlog"]), (20, 0, 0), "dropped and queued")
        lib.run("ip", "link", "set", device.b, "up")
        lib.wait_until(device.is_up, "the device is up")
        with lib.Receiver(device.b) as receiver, lib.Sender(device.a) as sender:
            device.change("obj", RELEASE)
            sender.send(99)
            lib.equal(lib.numbers(receiver.collect(1)), [99], "packets after it was down")
    gone(leave)


def a_device_is_deleted_with_packets():
    gone(lambda device: device.delete())


def a_namespace_ends_with_packets():
    name = f"ingress-{os.getpid()}"
    with lib.link() as device, lib.Sender(device.a) as sender:
        lib.run("ip", "netns", "add", name)
        try:
            lib.run("ip", "link", "set", device.b, "netns", name)
            lib.run("ip", "-n", name, "link", "set", device.b, "up")
            for command in commands(device.b, f"bpf obj {HOLD}"):
                lib.run("tc", "-n", name, *command[1:])
            lib.wait_until(device.is_up, "the device is up")
            sender.send(1)

            def queued():
                shown = json.loads(lib.run("tc", "-n", name, "-s", "-j", "qdisc", "show", "dev", device.b))
                return sum(each["qlen"] for each in shown if each.get("parent") == BELOW[1])
            lib.wait_until(queued, "a packet waits")
        finally:
            lib.run("ip", "netns", "del", name)
        lib.wait_until(lambda: not os.path.exists(f"/sys/class/net/{device.a}"), "the namespace is gone")
        sender.wait_freed()


def policies_work_as_they_are():
    """Also one that reads time stamps: that of the arrival has passed. A packet of ten segments counts as
    ten; cake cuts it."""
    sizes = [100 + 60 * number for number in range(20)]
    for policy in ("cake", "edt", "fq", "fq_codel", "prio", "rate", "red", "tenants"):
        with arriving(f"{POLICIES}/{policy}.bpf.o") as (device, sender, receiver):
            for number, size in enumerate(sizes):
                sender.send(number, size, port=1000 + number % 3)
            lib.equal(lib.numbers(receiver.collect(20)), packets(20), f"packets of {policy}")
            lib.equal(lib.balance(device, sender, receiver)["qlen"], 0, f"queued by {policy}")
            lib.true(sender.send_gso(1000, 10), "refused")
            sender.wait_freed()
            lib.equal(lib.numbers(receiver.drain()), packets(10 if policy == "cake" else 1), f"what {policy} made of segments")
            stats = device.qdisc()
            lib.equal([stats[what] for what in ("packets", "bytes", "drops", "qlen", "backlog", "stuck")],
                      [30, sum(sizes) + 10 * (lib.HEADERS + 1000), 0, 0, 0, 0], f"counted by {policy}")


def policies_keep_their_books_when_they_drop():
    """Because they are full, and CoDel: those that keep to a rate, and the others behind a tbf. What came is sent or
    dropped, and each drop is freed."""
    count, tbf = 200, "tbf rate 8mbit burst 3000 limit 1000000"
    for policy, above, *settings in (
            ("cake", None, "rate=8mbit", "interval=10ms"), ("rate", None, "rate=8mbit", "interval=10ms"),
            ("tenants", None, "rate=8mbit", "interval=10ms"), ("fq", tbf, "target=5ms", "interval=10ms"),
            ("fq_codel", tbf, "interval=10ms"), ("red", tbf)):
        with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
            qdisc = " ".join((f"bpf obj {POLICIES}/{policy}.bpf.o limit 50", *(f"set {each}" for each in settings)))
            parent = "5:1" if above else BELOW[1]
            for command in commands(device.b, f"handle 5: {above}" if above else qdisc):
                lib.run(*command)
            if above:
                lib.run("tc", "qdisc", "add", "dev", device.b, "parent", parent, *qdisc.split())
            for number in range(count):
                sender.send(number, SIZE, port=1000 + number % 3)
            sender.wait_freed()
            arrivals = receiver.drain()
            (stats,) = [each for each in lib.qdiscs(device.b) if each.get("parent") == parent]
            lib.equal([stats[what] for what in ("packets", "bytes", "drops", "qlen", "backlog", "stuck")],
                      [len(arrivals), SIZE * len(arrivals), count - len(arrivals), 0, 0, 0], f"counted by {policy}")
            codel = str([value for name, value in stats["stats"].items() if "codel" in name and "drop" in name])
            print(f"# {policy}: of {count} packets {len(arrivals)} arrived, CoDel has dropped {codel}")
            lib.true(len(arrivals) < count / 2, f"{policy} has dropped {stats['drops']}")
            lib.true(policy == "red" or re.search("[1-9]", codel), f"CoDel has dropped none in {policy}: {stats}")
            for flow in range(3):
                own = [number for number in lib.numbers(arrivals) if number % 3 == flow]
                lib.equal(own, sorted(set(own)), f"order of a flow in {policy}")


def what_cannot_be_is_said():
    with lib.link("numtxqueues", "4") as device:
        def add(*words):
            return ("tc", "qdisc", "add", "dev", device.a, *words)
        bpf = ("bpf", "obj", HOLD)
        lib.contains(lib.refused(*add(*BELOW, *bpf)), "Failed to find specified qdisc")
        lib.run(*add("ingress"))
        lib.contains(lib.refused(*add(*BELOW, *bpf)), "Cannot add children to ingress qdisc, clsact takes one")
        lib.run("tc", "qdisc", "del", "dev", device.a, "ingress")
        lib.run(*add("clsact"))
        lib.contains(lib.refused(*add("parent", "ffff:fff3", *bpf)),
                     "Only at ingress has clsact a queue, at egress it is the root")
        lib.contains(lib.refused(*add(*BELOW, "bpf_mq", "obj", HOLD)), "bpf_mq is the root of a device with several tx queues")
        lib.contains(lib.refused(*add(*BELOW, "etf", "clockid", "CLOCK_TAI", "delta", "100", "offload")),
                     "What arrives is not offloaded")
        lib.contains(lib.refused("tc", "qdisc", "del", "dev", device.a, *BELOW), "Cannot find specified qdisc")
        lib.run(*add(*BELOW, *bpf))
        lib.contains(lib.refused(*add(*BELOW, *bpf)), "Exclusivity flag on, cannot modify")
        lib.contains(lib.refused(*add("clsact")), "Exclusivity flag on, cannot modify")
        lib.run("tc", "qdisc", "replace", "dev", device.a, *BELOW, "fq_codel")
        lib.run("tc", "qdisc", "replace", "dev", device.a, *BELOW, *bpf)
        (shown,) = lib.bpftool("net", "show", "dev", device.a)
        lib.contains(json.dumps(shown), "hold_dequeue")


lib.main(the_rate_is_kept,
         a_tcp_download_keeps_to_the_rate,
         what_is_held_is_not_there_yet,
         what_is_for_a_vlan_gets_there,
         what_finds_no_room_is_dropped,
         a_gso_packet_that_says_nonsense_counts_as_one,
         a_flood_is_counted,
         a_change_loses_none,
         a_stuck_policy_is_replaced,
         a_qdisc_ends_with_packets,
         a_device_goes_down_with_packets,
         a_device_is_deleted_with_packets,
         a_namespace_ends_with_packets,
         policies_work_as_they_are,
         what_cannot_be_is_said,
         measured=[merged_packets_count_with_their_segments,
                   policies_keep_their_books_when_they_drop,
                   a_shaped_download_leaves_others_alone])
