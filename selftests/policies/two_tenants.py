#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Two tenants over the four tx queues of a NIC that takes a packet of each in turn: one has a flow, the
other 64, by UDP and by TCP. With the policy tenants each has its share, with fq below mq each flow.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import contextlib
import itertools
import select
import socket
import struct
import time

import lib
from lib import MS, NSEC, POLICIES, SO_MARK, SO_RCVBUFFORCE, SO_SNDBUFFORCE

TX, FLOWS, PORT = 4, 64, 2000           # from which on are the ports of the many; the one has 1000
SIZE, LINK = 1000, 6_250_000            # of a packet; bytes a second that the NIC takes
WINDOW, SETTLED, SECONDS = 100 * MS, 300 * MS, 1.3
NEAR, FAR = "10.9.0.1", "10.9.0.2"
FQ = "fq", "limit", "20000", "flow_limit", "20000", "orphan_mask", "0xffffff"    # flows do not share a hash


@contextlib.contextmanager
def nic_with(attach):
    """Packets with the mark N go to its queue N - 1; the one's have a mark of their own."""
    made = lib.Tap(TX)
    try:
        attach(made.a)
        lib.to_queues(made.a, TX)
        yield made
    finally:
        made.delete()


def mq_and_fq(device):
    lib.run("tc", "-batch", "-", given=f"qdisc add dev {device} root handle 1: mq\n" + "".join(
        f"qdisc replace dev {device} parent 1:{queue} {' '.join(FQ)}\n" for queue in range(1, TX + 1)))


def tenants(device):
    """Of a link that is slower than the NIC, without CoDel: all have packets all the time; and GSO packets are cut, which
    are a burst of many packets else. Who has no mark that is in the table is of the many."""
    sets = ("rate=40mbit", "burst=1ms", "target=0", "split_gso=1514", "leaf_limit=20000", "tenant[2]=10mbit", "subscriber[0]=2",
            f"subscriber[{TX + 1}]=1")
    lib.run("tc", "qdisc", "add", "dev", device, "root", "bpf_mq", "obj", f"{POLICIES}/tenants.bpf.o", "limit", "20000",
            *(word for text in sets for word in ("set", text)))


def weigh(device, weight):
    """The one beside the other, whose weight is 1"""
    lib.run("tc", "qdisc", "change", "dev", device, "root", "bpf_mq", "set", f"tenant[1]={10 * weight}mbit")


def serve(nic, seconds, far=None):
    """What the NIC takes from its queues within a time: when, whether of the one, and bytes. What comes from the
    far end arrives meanwhile."""
    taken, queue, misses = [], 0, 0
    when = time.monotonic_ns()
    end = when + int(seconds * NSEC)
    while when < end:
        for frame in iter(far.take, None) if far else ():
            nic.put(frame)
        frame, queue = nic.take(queue), (queue + 1) % TX
        if frame:
            misses = 0
            taken.append((when, struct.unpack_from("!H", frame, 34)[0] < PORT, len(frame)))
            if far:
                far.put(frame)
            when += len(frame) * NSEC // LINK
            time.sleep(max(0, when - time.monotonic_ns()) / NSEC)
        elif misses < TX:
            misses += 1
        else:
            select.select([*nic.files, *(far.files if far else ())], [], [], max(0, end - when) / NSEC)
            when, misses = max(when, time.monotonic_ns()), 0
    return taken


def by_udp(nic, share):
    """All have packets from the beginning, and until the end if the one has this share."""
    with lib.Sender(nic.a) as sender:
        one = int(share * SECONDS * LINK / SIZE) + 100
        many = int((1 - share) * SECONDS * LINK / SIZE / FLOWS + 2) * FLOWS
        for number in range(max(one, many)):
            if number < many:
                sender.set(SO_MARK, 1 + number % TX)
                lib.true(sender.send(number, SIZE, port=PORT + number % FLOWS), "a packet was not taken")
            if number < one:
                sender.set(SO_MARK, TX + 1)
                lib.true(sender.send(number, SIZE, port=1000), "a packet was not taken")
        return serve(nic, SECONDS)


def by_tcp(nic, _):
    """All have more to send than the link takes in this time; the other end, which keeps what it gets, is in
    another namespace."""
    far = lib.Tap()
    with contextlib.ExitStack() as stack:
        stack.callback(far.delete)
        lib.run("ip", "link", "set", far.a, "netns", "peer")
        for name, own, other, words in ((nic.a, NEAR, FAR, ()), (far.a, FAR, NEAR, ("-n", "peer"))):
            lib.run("ip", *words, "addr", "replace", f"{own}/24", "dev", name)
            lib.run("ip", *words, "link", "set", name, "address", f"02:00:00:00:00:0{own[-1]}", "up")
            lib.run("ip", *words, "neigh", "replace", other, "lladdr", f"02:00:00:00:00:0{other[-1]}", "dev", name)
        with lib.namespace("peer"):
            server = stack.enter_context(socket.socket())
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            # on their way: more would take longer than senders wait before they send again
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 1 << 16)
            server.bind((FAR, 9))
            server.listen(FLOWS + 1)
        clients = []
        for flow in range(-1, FLOWS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 24)
            client.setsockopt(socket.SOL_SOCKET, SO_MARK, 1 + flow % TX if flow >= 0 else TX + 1)
            client.bind((NEAR, PORT + flow if flow >= 0 else 1000))
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))     # what is left goes
            client.connect_ex((FAR, 9))
            clients.append(client)
        serve(nic, 0.1, far)
        for client in clients:
            lib.true(client.send(bytes(6 << 20 if client is clients[0] else 1 << 18)) >= 1 << 18, "a socket took too little")
        return serve(nic, SECONDS, far)


def measured(nic, send, share):
    """Of what has left, the share of the one: in each WINDOW, and in all; and bytes a second"""
    taken = send(nic, share)
    while serve(nic, 0.1):
        pass
    begin, found = taken[0][0] + SETTLED, {}
    for when, of_the_one, size in taken:
        if when >= begin:
            each = found.setdefault((when - begin) // WINDOW, [0, 0])
            each[of_the_one] += size
    found.popitem()                     # the last one, which is shorter
    rate = sum(map(sum, found.values())) * NSEC / (len(found) * WINDOW)
    shares = [one / (many + one) for many, one in found.values()]
    return shares, sum(one for _, one in found.values()) / sum(map(sum, found.values())), rate


def each_has_its_share_in_any_window():
    """Off by 2 % of it at most"""
    with nic_with(tenants) as device:
        for weight, (name, send) in itertools.product((1, 3), SENDERS.items()):
            weigh(device.a, weight)
            wanted = weight / (weight + 1)
            shares, whole, rate = measured(device, send, wanted)
            worst = max(abs(share - wanted) for share in shares) / min(wanted, 1 - wanted)
            what = f"{name}, {weight}:1: the one has {whole:.2%}, off by {worst:.2%} of a share at most in {len(shares)} windows"
            print(f"# {what}; {rate:.0f} bytes a second")
            lib.true(worst <= 0.02, f"{what}: {shares}")
            lib.true(abs(rate / 5_000_000 - 1) < 0.01, f"{rate} bytes a second")


def fq_shares_by_flow():
    """Each queue has 16 flows of the many, and one the one's, too: 1:67, where all in one would have 1:64."""
    with nic_with(mq_and_fq) as device:
        for name, send in SENDERS.items():
            _, whole, rate = measured(device, send, 0.015)
            print(f"# mq and fq, {name}: 1:{1 / whole - 1:.1f}; {rate:.0f} bytes a second")
            lib.true(50 < 1 / whole - 1 < 80, f"{name}: 1:{1 / whole - 1:.1f}")


SENDERS = {"UDP": by_udp, "TCP": by_tcp}

if __name__ == "__main__":
    lib.main(each_has_its_share_in_any_window,
             fq_shares_by_flow)
