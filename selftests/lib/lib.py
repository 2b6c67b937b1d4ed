# SPDX-License-Identifier: GPL-2.0
"""What the tests share: TAP, devices, packets, and books that must balance.

    sender -> a [qdisc bpf] === veth === b -> receiver

Both ends are in one namespace and have no address: frames go in and come out
through packet sockets, so nobody but the test sends or takes any.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import errno
import fcntl
import glob
import itertools
import json
import mmap
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POLICIES = f"{TOP}/policies"
GLOBALS = "/sys/fs/bpf/tc/globals"
DEBUG = os.environ.get("SELFTESTS_DEBUG") == "1"
TIMEOUT = 60 if DEBUG else 20           # s, for what should happen at once
TEST_SECONDS = int(os.environ.get("TEST_SECONDS", "0"))   # for a test; 0: without a limit

NSEC = 1_000_000_000
MS = NSEC // 1000
# Emulated CPUs are late, never early: by how much depends on the host but where instructions are counted
LATE = 100 * MS if os.environ.get("SELFTESTS_ICOUNT") == "1" else 2 * NSEC
ETH_P_IP = 0x0800
HEADERS = 14 + 20 + 8

SO_PRIORITY, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 12, 32, 33
SO_TIMESTAMPNS, SO_MARK, SO_MAX_PACING_RATE, SO_TXTIME = 35, 36, 47, 61
SIOCOUTQ = 0x5411
SOL_PACKET, PACKET_VNET_HDR = 263, 15


# --- TAP ---------------------------------------------------------------------

class Failure(Exception):
    """An expectation that was not met."""


def equal(got, expected, what):
    if got != expected:
        raise Failure(f"{what}: {got!r}, expected {expected!r}")


def true(condition, what):
    if not condition:
        raise Failure(what)


def contains(text, part):
    true(part in text, f"{part!r} is not in: {text}")


def main(*tests, measured=()):
    """Run the tests, whose names and number are the plan. Those that measure times or memory are left
    out on a kernel that finds faults: it has others."""
    if not DEBUG:
        tests = (*tests, *measured)

    def too_long(*_):
        raise Failure(f"not done within {TEST_SECONDS} s")
    signal.signal(signal.SIGALRM, too_long)
    failed = 0
    print(f"1..{len(tests)}", flush=True)
    for number, test in enumerate(tests, 1):
        name = test.__name__.replace("_", " ")
        try:
            signal.alarm(TEST_SECONDS)
            test()
            signal.alarm(0)
            print(f"ok {number} {name}", flush=True)
        except Exception as error:      # pylint: disable=broad-except
            signal.alarm(0)
            failed += 1
            print(f"not ok {number} {name}")
            text = str(error) if isinstance(error, Failure) else traceback.format_exc()
            where = traceback.extract_tb(error.__traceback__)
            lines = [f"{os.path.basename(step.filename)}:{step.lineno}" for step in where]
            print(f"# {' '.join(lines)}", *text.splitlines(), sep="\n# ", flush=True)
    sys.exit(1 if failed else 0)


def wait_until(condition, what, timeout=TIMEOUT):
    """Until the condition holds, which is asked for again and again: to ask may itself take
    long, so the last time begins when the time is over."""
    end, over = time.monotonic() + timeout, False
    while not condition():
        if over:
            raise Failure(f"{what}: not within {timeout} s")
        time.sleep(0.002)
        over = time.monotonic() > end


# --- programs and commands -----------------------------------------------------

def compiled(name):
    """The object of a program of the tests, in whatever room it is: no two have one name."""
    found = glob.glob(f"{TOP}/selftests/*/{name}.bpf.c")
    equal(len(found), 1, f"programs that are called {name}")
    return found[0][:-1] + "o"


# Before a command: whom nothing is allowed, but that the repository can be read wherever it is
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
          "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def run(*command, given=None):
    """Standard output of a command that must succeed, with this for its input."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def refused(*command):
    """What a command says that must fail."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    true(done.returncode > 0, f"{' '.join(command)}: status {done.returncode}, expected a failure")
    return done.stdout + done.stderr


def bpftool(*arguments):
    return json.loads(run("bpftool", "-j", *arguments) or "null")


def map_bytes(value, size):
    """A number as bpftool takes it."""
    return [str(byte) for byte in value.to_bytes(size, "little")]


def maps_named(name):
    return {entry["id"] for entry in bpftool("map", "list") if entry.get("name") == name}


def no_maps(name):
    """The kernel lets go of a program's maps after a while."""
    wait_until(lambda: not maps_named(name), f"the maps {name} are gone")


def policy_stats(map_id):
    """The only element of a policy's statistics map."""
    (entry,) = bpftool("map", "dump", "id", str(map_id))
    return entry["formatted"]["value"]


def ring_records(map_id):
    """What stands in a ring buffer that nobody has read, one after the other."""
    page, size = mmap.PAGESIZE, bpftool("map", "show", "id", str(map_id))["max_entries"]
    get, records, at = struct.pack("III", map_id, 0, 0), [], page
    fd = ctypes.CDLL(None).syscall(321, 14, get, len(get))      # bpf(BPF_MAP_GET_FD_BY_ID)
    with mmap.mmap(fd, page + size, prot=mmap.PROT_READ, offset=page) as ring:
        os.close(fd)
        (end,) = struct.unpack_from("Q", ring)
        while at < page + end:
            (length,) = struct.unpack_from("I", ring, at)
            records.append(ring[at + 8:at + 8 + length])
            at += 8 + (length + 7) // 8 * 8
    return records


# --- devices and the qdisc ---------------------------------------------------

class Link:
    """A pair of devices, a and b, with names of their own: another test, if it was
    killed, has left its devices behind."""
    numbers = itertools.count()

    def __init__(self, *options):
        number = next(self.numbers)
        self.a, self.b = (f"{end}{number}-{os.getpid()}" for end in "ab")
        run("ip", "link", "add", self.a, *options, "type", "veth", "peer", "name", self.b)
        for dev in (self.a, self.b):
            run("ip", "link", "set", dev, "up")
        # One CPU takes what arrives, whichever CPU has sent it: else the order is lost
        with open(f"/sys/class/net/{self.b}/queues/rx-0/rps_cpus", "w", encoding="ascii") as file:
            file.write("1")
        with open(f"/sys/class/net/{self.a}/ifindex", encoding="ascii") as file:
            self.ifindex = int(file.read())

    def attach(self, obj, *options, where=("root",)):
        run("tc", "qdisc", "add", "dev", self.a, *where, "bpf", "obj", obj, *options)

    def qdisc(self):
        """Configuration and statistics of the bpf qdisc."""
        found = instances(self.a)
        equal(len(found), 1, "bpf qdiscs on the device")
        return found[0]

    def below(self, parent="1:1"):
        """Configuration and statistics of the qdisc of a class, of any kind."""
        (found,) = [entry for entry in qdiscs(self.a) if entry.get("parent") == parent]
        return found

    def is_up(self):
        with open(f"/sys/class/net/{self.a}/operstate", encoding="ascii") as file:
            return file.read() == "up\n"

    def flap(self):
        """Down and up again, which resets its qdiscs. A socket from before has an error to tell."""
        for state in ("down", "up"):
            run("ip", "link", "set", self.a, state)
        wait_until(self.is_up, "the device is up")

    def detach(self):
        run("tc", "qdisc", "del", "dev", self.a, "root")

    def delete(self):
        run("ip", "link", "del", self.a)


TUNSETIFF = 0x400454CA
IFF_TAP, IFF_BACKPRESSURE, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x80, 0x100, 0x1000, 0x4000
RING = 8                        # packets that a queue of a tap takes before it is stopped


class Tap(Link):                # pylint: disable=super-init-not-called
    """A device whose driver stops a tx queue while nobody reads it; and the reader. With a number of queues its
    driver has several; with `offloads` each packet has a struct virtio_net_hdr before it."""

    def __init__(self, queues=0, offloads=False):
        self.a = f"a{next(self.numbers)}-{os.getpid()}"
        flags = IFF_TAP | IFF_BACKPRESSURE | IFF_NO_PI | (IFF_MULTI_QUEUE if queues else 0) | (IFF_VNET_HDR if offloads else 0)
        self.files = [os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK) for _ in range(queues or 1)]
        for file in self.files:
            fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", self.a.encode(), flags))
        run("ip", "link", "set", self.a, "txqueuelen", str(RING), "up")
        self.packets = self.bytes = 0

    def take(self, queue=0):
        """The next packet of a queue, or None"""
        try:
            data = os.read(self.files[queue], 2048)
        except BlockingIOError:
            return None
        self.packets += 1
        self.bytes += len(data)
        return data

    def put(self, data):
        """A packet that comes in"""
        os.write(self.files[0], data)

    def drain(self):
        """Numbers of the packets that are there by now."""
        return [struct.unpack_from("!Q", data, HEADERS)[0] for data in iter(self.take, None)]

    def delete(self):
        for file in self.files:
            os.close(file)


def qdiscs(dev):
    """What `tc -s qdisc show` says of each qdisc of the device."""
    return json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", dev))


def instances(dev, kind="bpf"):
    """Of those of one kind, in the order of their queues."""
    return sorted((each for each in qdiscs(dev) if each["kind"] == kind),
                  key=lambda each: int(each.get("parent", ":0").split(":")[1], 16))


def to_queues(dev, count):
    """Packets with the mark 1 to the first of so many tx queues, and so on."""
    run("tc", "-batch", "-", given=f"qdisc add dev {dev} clsact\n" + "".join(
        f"filter add dev {dev} egress protocol ip handle {queue + 1} fw action skbedit queue_mapping {queue}\n"
        for queue in range(count)))


@contextlib.contextmanager
def link(*options):
    """A Link that is gone afterwards, whatever happens."""
    made = Link(*options)
    try:
        yield made
    finally:
        if os.path.exists(f"/sys/class/net/{made.a}"):
            made.delete()


@contextlib.contextmanager
def wire(obj, *options):
    """A link with a policy on it, its sender and its receiver."""
    with link() as made, Sender(made.a) as sender, Receiver(made.b) as receiver:
        made.attach(obj, *options)
        yield made, sender, receiver


@contextlib.contextmanager
def namespace(name):
    """Sockets that are made here are in a network namespace."""
    def enter(path):
        with open(path, encoding="ascii") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), path)
    with open("/proc/thread-self/ns/net", encoding="ascii") as home:
        enter(f"/run/netns/{name}")
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{home.fileno()}")


def quiet_wire():
    """Nothing of its own from eth0 to eth1: no ARP, which would be padded on the
    way, and no IPv6."""
    run("ip", "neigh", "replace", "10.0.0.2", "lladdr", "52:54:00:00:00:02", "dev", "eth0")
    run("ip", "-n", "peer", "neigh", "replace", "10.0.0.1", "lladdr", "52:54:00:00:00:01", "dev", "eth1")
    sysctl("ipv6/conf/eth0/disable_ipv6", 1)


# --- both tc: ours, and the distribution's with the plug-in --------------------

OURS = ("tc",)
PLUGIN = ("env", f"TC_LIB_DIR={TOP}/build/tools/tc", "/sbin/tc")


def said(*command):
    """Status, output and errors of a command."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def works(*command):
    """Output of a command that must succeed and complain of nothing."""
    status, out, err = said(*command)
    equal((status, err), (0, ""), " ".join(command))
    return out


def fails(status, words, *command):
    """What a command says that must fail with this status and these words."""
    got, out, err = said(*command)
    equal((got, out), (status, ""), f"{' '.join(command)}: {err}")
    contains(err, words)
    return err


def _same(text):
    """Without what differs between two runs."""
    return re.sub(r'(\bid(": |":| ))\d+|\b[0-9a-f]+:( |")|0x[0-9a-f]+', r"\1N", text)


def with_both(test):
    """Run a test with each tc, on a device of its own with four tx queues; what it
    returns, the words of that tc, must be the same."""
    def both():
        words = []
        for tc in (OURS, PLUGIN):
            with link("numtxqueues", "4") as device:
                words.append([_same(text).replace(device.a, "DEV") for text in test(tc, device) or ()])
        for ours, plugin in zip(*words, strict=True):
            equal(plugin, ours, "what the plug-in says")

    both.__name__ = test.__name__
    return both


def qdisc(device, what, *options, kind="bpf"):
    return "qdisc", what, "dev", device.a, "root", kind, *options


def write(path, *lines):
    """One after the other, as files of the kernel want it."""
    for words in lines:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{words}\n")


@contextlib.contextmanager
def pktgen(dev, *words):
    """A dummy device, and a function that sends so many packets of 60 bytes to it, through its
    qdisc: until the last one has left."""
    folder = "/proc/net/pktgen"

    def send(count):
        write(f"{folder}/{dev}", f"count {count}")
        write(f"{folder}/pgctrl", "start")
        # Which does not wait for a thread that has not begun after an eighth of a second.
        wait_until(lambda: " usec, " in pathlib.Path(folder, dev).read_text(encoding="ascii"), f"pktgen sends {count} packets", 10 * TIMEOUT)

    run("ip", "link", "add", dev, "type", "dummy")
    try:
        run("ip", "link", "set", dev, "up")
        write(f"{folder}/kpktgend_0", f"add_device {dev}")
        write(f"{folder}/{dev}", "pkt_size 60", "delay 0", "xmit_mode queue_xmit", "dst_mac 02:00:00:00:00:02", *words)
        yield send
    finally:
        write(f"{folder}/kpktgend_0", "rem_device_all")
        run("ip", "link", "del", dev)


def man_page_examples(path):
    """The commands between .EX and .EE."""
    with open(path, encoding="ascii") as file:
        page = file.read()
    lines = []
    for example in re.findall(r"^\.EX\n(.*?)^\.EE\n", page, re.M | re.S):
        for line in example.replace(r"\-", "-").replace(r"\e", "\\").replace(r"\(aq", "'").splitlines():
            lines.append(line[2:] if line.startswith(("# ", "> ")) else line)
    return lines


# --- packets -----------------------------------------------------------------

def frame(number, size, port, tos):
    return udp_frame(struct.pack("!Q", number).ljust(size - HEADERS, b"\0"), port, tos)


def udp_frame(payload, port, tos):
    """A UDP packet on Ethernet; the receiver wants no check sums."""
    udp = struct.pack("!HHHH", port, 9, 8 + len(payload), 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 28 + len(payload), 0, 0, 64, 17, 0,
                     bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
    return bytes.fromhex("020000000002" "020000000001" "0800") + ip + udp + payload


class Sender:
    """Puts frames through a device's qdisc, and keeps the books: what was sent,
    and what the qdisc refused (a packet socket learns of it at once)."""

    def __init__(self, dev, clock=time.CLOCK_MONOTONIC):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.bind((dev, ETH_P_IP))
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 28)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TXTIME,
                             struct.pack("iI", clock, 0))
        self.packets = self.bytes = 0
        self.refused_packets = self.refused_bytes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def set(self, option, value):
        self.sock.setsockopt(socket.SOL_SOCKET, option, value)

    def send(self, number, size=100, port=1000, when=0, tos=0):
        """Whether the qdisc took it."""
        self.packets += 1
        self.bytes += size
        stamp = [(socket.SOL_SOCKET, SO_TXTIME, struct.pack("Q", when))] if when else []
        try:
            self.sock.sendmsg([frame(number, size, port, tos)], stamp)
            return True
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.refused_packets += 1
            self.refused_bytes += size
            return False

    def send_gso(self, size, segments, tos=0):
        """A packet to be cut into segments of this size, without their headers, whose numbers
        are 0, 1 and so on; it is not in the books. Whether the qdisc took it."""
        payload = b"".join(struct.pack("!Q", number).ljust(size, b"\0") for number in range(segments))
        self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        try:
            # struct virtio_net_hdr: VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4
            self.sock.send(struct.pack("<BBHHHH", 1, 5, HEADERS, size, 34, 6) +
                           udp_frame(payload, 1000, tos))
            return True
        except OSError as error:
            equal(error.errno, errno.ENOBUFS, "error")
            return False
        finally:
            self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 0)

    def memory(self):
        """Bytes of memory of packets on their way: 0 when each has been freed."""
        return struct.unpack("i", fcntl.ioctl(self.sock, SIOCOUTQ, b"\0" * 4))[0]

    def wait_freed(self):
        wait_until(lambda: self.memory() == 0, "all packets freed")


Arrival = collections.namedtuple("Arrival", "number size when tos")


class Receiver:
    """Takes frames where they arrive. Times are CLOCK_MONOTONIC in ns."""

    def __init__(self, dev):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 28)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock.bind((dev, ETH_P_IP))
        # The less happens between the two readings, the larger it is.
        self.offset = max(time.time_ns() - time.monotonic_ns() for _ in range(10))
        self.packets = self.bytes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def take(self):
        data, messages, _, _ = self.sock.recvmsg(2048, 256)
        seconds, nanoseconds = struct.unpack("qq", messages[0][2][:16])
        self.packets += 1
        self.bytes += len(data)
        number = struct.unpack_from("!Q", data, HEADERS)[0]
        return Arrival(number, len(data), seconds * NSEC + nanoseconds - self.offset, data[15])

    def collect(self, count, timeout=TIMEOUT):
        """The next frames; fewer is a failure."""
        arrivals = []
        end = time.monotonic() + timeout
        while len(arrivals) < count:
            self.sock.settimeout(max(end - time.monotonic(), 0.001))
            try:
                arrivals.append(self.take())
            except TimeoutError:
                raise Failure(f"{len(arrivals)} frames arrived within {timeout} s, "
                              f"expected {count}") from None
        return arrivals

    def drain(self):
        """What has arrived by now."""
        arrivals = []
        self.sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    arrivals.append(self.take())
                except OSError as error:        # the device's end, said once
                    if error.errno != errno.ENETDOWN:
                        raise
        return arrivals


class Peer(Receiver):
    """The other end of the NIC, in another namespace."""

    def __init__(self):
        run("ip", "-n", "peer", "link", "set", "eth1", "promisc", "on")
        with namespace("peer"):
            super().__init__("eth1")


@contextlib.contextmanager
def nic(*qdisc):
    """The driver's NIC with this at its root, 1:."""
    quiet_wire()
    run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", *qdisc)
    try:
        with Sender("eth0") as sender, Peer() as receiver:
            yield sender, receiver
    finally:
        run("tc", "qdisc", "del", "dev", "eth0", "root")


@contextlib.contextmanager
def far_peer(delay):
    """The driver's NIC, whose peer answers so much later. It cuts packets itself: QEMU 7 would make IP fragments of them."""
    quiet_wire()
    run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    run("tc", "-n", "peer", "qdisc", "add", "dev", "eth1", "root", "netem", "delay", delay, "limit", "100000")
    try:
        yield
    finally:
        run("tc", "-n", "peer", "qdisc", "del", "dev", "eth1", "root")


@contextlib.contextmanager
def traffic(sender, receiver, send):
    """Frames without a pause meanwhile: send(number) puts one in, and says whether it was taken.
    The numbers of those that were taken, and of those that have arrived: at the end, all that have
    been freed, and a packet is nobody's for a moment before the receiver has it. One thread sends
    and receives: beside another that sends, no receiver sees the end of what has arrived."""
    stop = threading.Event()
    sent, got = [], []

    def flood():
        number = 0
        while not stop.is_set():
            if send(number):
                sent.append(number)
            got.extend(numbers(receiver.drain()))
            number += 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(flood)
        try:
            yield sent, got
        finally:
            stop.set()
            thread.result()
    sender.wait_freed()
    got.extend(numbers(receiver.drain()))


@contextlib.contextmanager
def behind_the_gate(attach, *options, clock=time.CLOCK_MONOTONIC):
    """A qdisc that gets packets but cannot let them go until one with the mark 1 comes:
    attach(device, parent) puts it there. Times of the packets are of the clock."""
    with link(*options) as device, Sender(device.a, clock) as sender, Receiver(device.b) as receiver:
        device.attach(compiled("gate"), where=("root", "handle", "1:"))
        run("tc", "class", "add", "dev", device.a, "parent", "1:", "classid", "1:1", "bpf")
        attach(device, "1:1")
        yield device, sender, receiver


def numbers(arrivals):
    return [arrival.number for arrival in arrivals]


def balance(device, sender, receiver, stolen=(0, 0), cloned=(0, 0), dropped=None):
    """generated + cloned = received + dropped + stolen + queued, in packets and
    bytes. `dropped` (packets, bytes) is for drops the sender does not learn of."""
    receiver.drain()
    stats = device.qdisc()
    lost = dropped or (sender.refused_packets, sender.refused_bytes)
    equal(stats["drops"], lost[0], "drops in the qdisc's statistics")
    equal((stats["packets"], stats["bytes"]), (receiver.packets, receiver.bytes),
          "sent by the qdisc, against received")
    equal((receiver.packets + lost[0] + stolen[0] + stats["qlen"],
           receiver.bytes + lost[1] + stolen[1] + stats["backlog"]),
          (sender.packets + cloned[0], sender.bytes + cloned[1]),
          "received + dropped + stolen + queued, against generated + cloned")
    return stats


# --- the kernel's memory -----------------------------------------------------

def slab_objects(cache="skbuff_head_cache"):
    """Objects in use, without what CPUs keep for later as far as it can be had."""
    with open(f"/sys/kernel/slab/{cache}/shrink", "w", encoding="ascii") as file:
        file.write("1")
    with open("/proc/slabinfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(cache + " "):
                return int(line.split()[1])
    raise Failure(f"no cache {cache} in /proc/slabinfo")


# --- tracepoints -------------------------------------------------------------

TRACING = "/sys/kernel/tracing"


def tracing(file, text):
    with open(f"{TRACING}/{file}", "w", encoding="ascii") as opened:
        opened.write(text)


@contextlib.contextmanager
def traced(*events):
    """Yields a function that returns the lines so far of these tracepoints, given as
    group/name, optionally with a filter: group/name:FILTER."""
    tracing("trace", "")
    names = []
    try:
        for event in events:
            name, _, condition = event.partition(":")
            names.append(name)
            tracing(f"events/{name}/filter", condition or "0")
            tracing(f"events/{name}/enable", "1")

        def lines():
            with open(f"{TRACING}/trace", encoding="ascii") as file:
                return [line.rstrip() for line in file if not line.startswith("#")]
        yield lines
    finally:
        for name in names:
            tracing(f"events/{name}/enable", "0")
            tracing(f"events/{name}/filter", "0")


def sysctl(path, value):
    with open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
        file.write(str(value))


@contextlib.contextmanager
def program_statistics():
    """The kernel counts the runs of BPF programs."""
    path = "/proc/sys/kernel/bpf_stats_enabled"
    with open(path, "w", encoding="ascii") as file:
        file.write("1")
    try:
        yield
    finally:
        with open(path, "w", encoding="ascii") as file:
            file.write("0")


# Nobody but the tests may send: no router solicitations, no neighbour discovery.
sysctl("ipv6/conf/default/disable_ipv6", 1)
# A queue that is let go at once must not overflow behind veth.
sysctl("core/netdev_max_backlog", 20000)
