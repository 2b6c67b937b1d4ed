#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Pods that share a link: each has a rate by departure times, from the clsact program of edt, and a
weight. The policy fq with CoDel, beside the native fq and fq_codel: what each pod gets, and how long its
packets wait.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import collections
import contextlib
import select
import socket
import struct
import time

import lib
from lib import MS, NSEC, POLICIES

LINK = 50                       # Mbit/s, without a packet's FCS
MOST = 30                       # of a pod
WEIGHTS = {"a": 3, "b": 1}
FLOWS = 32                      # of each pod
BEGIN, END = 2 * NSEC, 5 * NSEC

Pod = collections.namedtuple("Pod", "rate jain times lost")


@contextlib.contextmanager
def pod(number, name):
    """A network namespace behind a veth, whose packets have a mark of their own here."""
    lib.run("ip", "netns", "add", name)
    lib.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    lib.run("ip", "addr", "add", f"10.1.{number}.1/24", "dev", f"to-{name}")
    lib.run("ip", "link", "set", f"to-{name}", "up")
    lib.run("ip", "-n", name, "addr", "add", f"10.1.{number}.2/24", "dev", "eth0")
    lib.run("ip", "-n", name, "link", "set", "eth0", "up")
    lib.run("ip", "-n", name, "route", "add", "default", "via", f"10.1.{number}.1")
    lib.run("ip", "netns", "exec", name, "ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    lib.run("tc", "qdisc", "add", "dev", f"to-{name}", "clsact")
    lib.run("tc", "filter", "add", "dev", f"to-{name}", "ingress", "matchall", "action", "skbedit", "mark", str(number))
    try:
        yield
    finally:
        lib.run("ip", "link", "del", f"to-{name}")
        lib.run("ip", "netns", "del", name)


def tcp_info(client):
    """Round trip in us, and segments sent again"""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return struct.unpack_from("I", info, 68)[0], struct.unpack_from("I", info, 100)[0]


def pods_share(*qdisc):
    """Of each pod, from BEGIN to END: its bytes a second, Jain's index of its flows, and their round trips."""
    lib.run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "tbf", "rate", f"{LINK}mbit", "burst", "15140",
            "limit", "100000000")
    lib.run("tc", "qdisc", "add", "dev", "eth0", "parent", "1:1", "handle", "2:", *qdisc)
    with contextlib.ExitStack() as stack:
        with lib.namespace("peer"):
            server = stack.enter_context(socket.create_server(("10.0.0.2", 5001), backlog=2 * FLOWS))
        pod_of, of_peer, got, times = {}, {}, collections.Counter(), collections.defaultdict(list)
        for name in WEIGHTS:
            with lib.namespace(name):
                for _ in range(FLOWS):
                    client = stack.enter_context(socket.create_connection(("10.0.0.2", 5001)))
                    peer = stack.enter_context(server.accept()[0])
                    client.setblocking(False)
                    pod_of[client], of_peer[peer] = name, client
        start, now, due = time.monotonic_ns(), 0, BEGIN
        poll = select.epoll()
        stack.callback(poll.close)
        sockets = {each.fileno(): each for each in (*pod_of, *of_peer)}
        for number, each in sockets.items():
            poll.register(number, select.EPOLLOUT if each in pod_of else select.EPOLLIN)
        while now < END:
            ready = poll.poll(0.05)
            now = time.monotonic_ns() - start
            for number, _ in ready:
                each = sockets[number]
                if each in pod_of:
                    each.send(bytes(65536))
                else:
                    got[of_peer[each]] += len(each.recv(65536)) * (now > BEGIN)
            if now >= due:
                due += 100 * MS
                for client, name in pod_of.items():
                    times[name].append(tcp_info(client)[0] * 1000)
        lost = collections.Counter()
        for client, name in pod_of.items():
            lost[name] += tcp_info(client)[1]
    lib.run("tc", "qdisc", "del", "dev", "eth0", "root")
    found = {}
    for name in WEIGHTS:
        shares = [got[client] for client, its in pod_of.items() if its == name]
        found[name] = Pod(sum(shares) * 8e3 / (END - BEGIN), sum(shares) ** 2 / len(shares) / sum(share ** 2 for share in shares),
                          sorted(times[name]), lost[name])
        each = found[name]
        print(f"# {qdisc[0]} pod {name}: {each.rate:.2f} Mbit/s, Jain's index {each.jain:.3f}, round trip {quantile(each, 0.5):.1f} ms, "
              f"of one in a hundred {quantile(each, 0.99):.1f} ms; {each.lost} segments sent again", flush=True)
    return found


def quantile(each, part):
    return each.times[int(len(each.times) * part)] / MS


def pods_get_their_rates_and_wait_for_little():
    with contextlib.ExitStack() as stack:
        stack.enter_context(lib.far_peer("20ms"))
        lib.sysctl("ipv4/ip_forward", 1)
        stack.callback(lib.sysctl, "ipv4/ip_forward", 0)
        for number, name in enumerate(WEIGHTS, 1):
            stack.enter_context(pod(number, name))
        lib.run("ip", "-n", "peer", "route", "add", "10.1.0.0/16", "via", "10.0.0.1")
        stack.callback(lib.run, "ip", "-n", "peer", "route", "del", "10.1.0.0/16")
        # Its table is the one of the classifier, by its pin
        stack.enter_context(lib.link()).attach(f"{POLICIES}/edt.bpf.o", "set", f"edt_rate[eth0]={MOST}mbit")
        lib.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
        stack.callback(lib.run, "tc", "qdisc", "del", "dev", "eth0", "clsact")
        lib.run("tc", "filter", "add", "dev", "eth0", "egress", "bpf", "da", "obj", f"{POLICIES}/edt.bpf.o", "sec", "tc")
        # Band 0: routing gives every packet the priority 0, which is band 1
        lib.run("tc", "filter", "add", "dev", "eth0", "egress", "prio", "50000", "protocol", "ip", "handle", "1", "fw", "action",
                "skbedit", "priority", "6")
        weights = [word for number, name in enumerate(WEIGHTS) for word in ("set", f"fq_weights[{number}]={WEIGHTS[name]}")]
        fq = pods_share("fq", "weights", *(str(weight << 16) for weight in (*WEIGHTS.values(), 1)))
        fq_codel = pods_share("fq_codel")
        ours = pods_share("bpf", "obj", f"{POLICIES}/fq.bpf.o", "limit", "10000", "set", "group_by=1", "set", "target=5ms",
                          "set", "since_arrival=1", *weights)
    # fq_codel knows of no time and no weight; the native fq lets packets wait for their times as they come
    lib.true(all(abs(each.rate - LINK / 2) < 2 for each in fq_codel.values()), "fq_codel does not share by flows")
    lib.true(all(quantile(each, 0.5) > 200 for each in fq.values()), "nothing waits in the native fq")
    for name, each in ours.items():
        lib.true(quantile(each, 0.5) < 1.2 * quantile(fq_codel[name], 0.5), f"round trip of pod {name}, beside fq_codel")
        lib.true(quantile(each, 0.99) < 1.5 * quantile(fq_codel[name], 0.99), f"longest round trips of pod {name}, beside fq_codel")
        lib.true(each.jain > 0.9, f"Jain's index of pod {name}")
    # Pod a has a right to 3/4 of the link, and no more than MOST; what CoDel drops has had its time
    lib.true(0.85 * MOST < ours["a"].rate < MOST, "pod a")
    lib.true(ours["a"].rate + ours["b"].rate > 0.93 * LINK, "the link is not full")


lib.main(measured=[pods_get_their_rates_and_wait_for_little])
