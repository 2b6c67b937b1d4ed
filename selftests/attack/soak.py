#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Packets from four CPUs, and meanwhile whatever an administrator can do to a qdisc
and its device, in random order. In the end every packet has been received, unchanged,
or dropped by the kernel, once.

    make check TEST=soak                        20 s
    SOAK_SECONDS=600 make check TEST=soak       10 minutes
    SEED=7 SOAK_SECONDS=0 make check TEST=soak  one round, that of the seed 7

A round has its own seed; the one that failed is printed."""

import collections
import os
import random
import subprocess
import time

import lib
from lib import POLICIES, compiled

SECONDS = int(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SEED", "1"))
OPERATIONS = 30                 # in a round
TX = 4

FIFO, PRIO, ETS, EDT, FQ, FQ_CODEL, RATE, RED, NETEM, HTB, SRPT, TAPRIO, TENANTS, CAKE = (
    f"{POLICIES}/{name}.bpf.o" for name in ("fifo", "prio", "ets", "edt", "fq", "fq_codel", "rate", "red", "netem", "htb", "srpt", "taprio",
                                  "tenants", "cake"))
HOLD, RELEASE, CHOOSE, CHILDREN, CLASSES, QUEUES = map(
    compiled, ("hold", "release", "choose", "children", "classes", "queues"))
OBJECTS = {"bpf": (FIFO, PRIO, ETS, EDT, FQ, FQ_CODEL, RATE, RED, NETEM, HTB, SRPT, TAPRIO, TENANTS, CAKE, HOLD, RELEASE, CHOOSE, CHILDREN, CLASSES),
           "bpf_mq": (QUEUES, FIFO, PRIO, ETS, EDT, FQ, FQ_CODEL, RATE, RED, NETEM, HTB, SRPT, TAPRIO, TENANTS, CAKE, HOLD, RELEASE)}
# Parameters and values that may be set
SETTINGS = {FIFO: ("limit_bytes=20000", "limit_bytes=0", "head_drop=1", "head_drop=0", "bypass=1", "bypass=0"),
            PRIO: ("band_limit=10", "band_limit=1000", "skbprio=1", "skbprio=0", "bypass=1", "bypass=0"),
            ETS: ("strict=0", "strict=16", "quanta=256,256,256", "quanta[2]=1mb", "band_limit=10", "band_limit=1000"),
            EDT: ("horizon=1s", "delta=1ms", "drop_late=1", "drop_late=0"),
            FQ: ("quantum=1000", "flow_limit=5", "group_by=1", "group_by=0"),
            FQ_CODEL: ("quantum=1000", "target=0", "interval=1us", "flows=1", "limit_bytes=20000", "limit_bytes=0", "bypass=1", "bypass=0"),
            RATE: ("rate=10mbit", "rate=0", "burst=1ms", "target=1ms"),
            RED: ("min=1000", "max=2000", "max=90000", "max_p=500000", "ecn=1", "ecn=0", "harddrop=1", "adaptive=1", "adaptive=0",
                  "limit_bytes=20000", "limit_bytes=0"),
            NETEM: ("delay=2ms", "jitter=2ms", "loss=100000", "loss_model=1", "gap=3", "rate=100mbit", "slot_delay=1ms", "seed=1"),
            HTB: ("default_class=1", "default_class=0", "leaf_limit=10", "rate[1]=10mbit", "rate[2]=5mbit", "rate[2]=0", "ceiling[1]=20mbit",
                  "parent[1]=2", "parent[1]=0", "prio[1]=3", "quantum[1]=100"),
            SRPT: ("rank_by=0", "rank_by=1", "rank_by=2", "rank_by=3", "idle=1ms"),
            TAPRIO: ("gates=0x55,0xaa", "intervals=200us,300us", "intervals=0", "cycle=1ms", "cycle=0", "base=1", "rate=100mbit", "max_sdu[0]=500",
                     "class_limit=10", "class_limit=1000", "schedule=2", "schedule=3"),
            TENANTS: ("rate=10mbit", "rate=0", "burst=1ms", "leaf_limit=10", "leaf_by=1", "leaf_by=3", "target=0", "split_gso=1000",
                      "tenant[0]=1mbit,5mbit", "tenant[7]=10mbit", "subscriber[0]=7,1mbit,5mbit", "subscriber[3]=7,2mbit", "subscriber[0]="),
            CAKE: ("rate=20mbit", "rate=0", "atm=1", "tins=4", "tins=1", "isolate=0", "isolate=3", "target=0", "interval=1us", "split_gso=0",
                   "ack_filter=1", "ingress=1", "limit_bytes=20000", "limit_bytes=0")}
BELOW = (("pfifo", "limit", "20"), ("bpf", "obj", FIFO), ("bpf", "obj", FQ, "limit", "30"),
         ("tbf", "rate", "10mbit", "burst", "10000", "limit", "30000"))


class Traffic:
    """build/selftests/soak_traffic, which knows what became of each packet"""

    def __init__(self, device):
        self.process = subprocess.Popen([f"{lib.TOP}/build/selftests/soak_traffic", device.a, device.b],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)

    def tell(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def ask(self, command):
        self.tell(command)
        return self.process.stdout.readline().strip()


class Administrator:
    """Knows what there is, so that what it does must succeed."""

    def __init__(self, device, seed):
        self.random = random.Random(seed)
        self.device = device
        self.done = collections.Counter()
        self.kind = self.obj = None     # of the root
        self.classes = {}               # minor number: whether it has a qdisc of its own

    def root(self, what, *options, kind="bpf"):
        lib.run("tc", "qdisc", what, "dev", self.device.a, "root", "handle", "1:", kind, *options)

    def options(self, obj):
        """Of a new qdisc"""
        chosen = ["obj", obj]
        if self.random.random() < 0.3:
            chosen += ["limit", str(self.random.choice((1, 10, 100, 5000)))]
        if obj in SETTINGS and self.random.random() < 0.3:
            chosen += ["set", self.random.choice(SETTINGS[obj])]
        return chosen

    def add(self):
        if self.kind:
            return False
        self.kind = self.random.choice(("bpf", "bpf", "bpf", "bpf_mq"))
        self.obj = self.random.choice(OBJECTS[self.kind])
        self.root("add", *self.options(self.obj), kind=self.kind)
        return True

    def delete(self):
        if not self.kind:
            return False
        lib.run("tc", "qdisc", "del", "dev", self.device.a, "root")
        self.kind = self.obj = None
        self.classes = {}
        return True

    def replace(self):
        """By another kind, and by this one again"""
        if not self.kind:
            return False
        lib.run("tc", "qdisc", "replace", "dev", self.device.a, "root", "handle", "2:", "pfifo", "limit", "50")
        self.kind, self.obj, self.classes = "bpf", self.random.choice(OBJECTS["bpf"]), {}
        self.root("replace", *self.options(self.obj))
        return True

    def change_programs(self):
        """To the same, or to others that use the same map: nothing is in the way."""
        if not self.kind:
            return False
        same = {HOLD: RELEASE, RELEASE: HOLD}
        self.obj = same.get(self.obj, self.obj)
        self.root("change", "obj", self.obj, kind=self.kind)
        return True

    def change_policy(self):
        """To one with other maps: refused if packets are queued, unless with flush"""
        if not self.kind:
            return False
        obj = self.random.choice(OBJECTS[self.kind])
        flush = ["flush"] if self.random.random() < 0.5 else []
        status = subprocess.run(["tc", "qdisc", "change", "dev", self.device.a, "root", "handle", "1:", self.kind,
                                 "obj", obj, *flush], capture_output=True, text=True, check=False)
        if status.returncode == 0:
            self.obj = obj
            return True
        lib.true(not flush, f"a change with flush: {status.stderr}")
        lib.contains(status.stderr, "has packets")
        self.done["refused changes"] += 1
        return True

    def change_limit(self):
        if not self.kind:
            return False
        self.root("change", "limit", str(self.random.choice((1, 20, 300, 10000))), kind=self.kind)
        return True

    def set_parameter(self):
        if self.obj not in SETTINGS:
            return False
        self.root("change", "set", self.random.choice(SETTINGS[self.obj]), kind=self.kind)
        return True

    def add_class(self):
        free = [minor for minor in range(1, 5) if minor not in self.classes]
        if self.kind != "bpf" or not free:
            return False
        minor = self.random.choice(free)
        lib.run("tc", "class", "add", "dev", self.device.a, "parent", "1:", "classid", f"1:{minor}", "bpf")
        self.classes[minor] = False
        return True

    def add_below(self):
        """A qdisc of its own for a class, or another one"""
        if not self.classes:
            return False
        minor = self.random.choice(sorted(self.classes))
        lib.run("tc", "qdisc", "replace", "dev", self.device.a, "parent", f"1:{minor}",
                *self.random.choice(BELOW))
        self.classes[minor] = True
        return True

    def delete_below(self):
        own = [minor for minor, has in sorted(self.classes.items()) if has]
        if not own:
            return False
        minor = self.random.choice(own)
        lib.run("tc", "qdisc", "del", "dev", self.device.a, "parent", f"1:{minor}")
        self.classes[minor] = False
        return True

    def delete_class(self):
        if not self.classes:
            return False
        minor = self.random.choice(sorted(self.classes))
        lib.run("tc", "class", "del", "dev", self.device.a, "classid", f"1:{minor}")
        del self.classes[minor]
        return True

    def filter(self):
        """By mark to a class, for the policy that asks filters; and gone again"""
        if self.kind != "bpf":
            return False
        where = "dev", self.device.a, "parent", "1:"
        lib.run("tc", "filter", "replace", *where, "protocol", "all", "prio", "1", "handle", "3", "fw",
                "classid", f"1:{self.random.randrange(1, 5)}")
        lib.run("tc", "filter", "replace", *where, "protocol", "all", "prio", "1", "handle", "4", "fw",
                "action", self.random.choice(("drop", "pass", "trap")))
        lib.run("tc", "filter", "del", *where)
        return True

    def down_and_up(self):
        lib.run("ip", "link", "set", self.device.a, "down")
        lib.run("ip", "link", "set", self.device.a, "up")
        return True

    def queues(self):
        lib.run("ethtool", "-L", self.device.a, "tx", str(self.random.randrange(1, TX + 1)))
        return True

    def dump_maps(self):
        for entry in lib.bpftool("map", "list"):
            # It may be gone by now.
            if entry["type"] == "rbtree":
                subprocess.run(["bpftool", "map", "dump", "id", str(entry["id"])],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return True

    def show(self):
        lib.run("tc", "-s", "-j", "qdisc", "show", "dev", self.device.a)
        lib.run("tc", "-s", "class", "show", "dev", self.device.a)
        return True

    ALL = (add, add, delete, replace, change_programs, change_policy, change_policy, change_limit,
           set_parameter, add_class, add_class, add_below, delete_below, delete_class, filter, down_and_up,
           queues, dump_maps, show)

    def work(self):
        for _ in range(OPERATIONS):
            while True:
                operation = self.random.choice(self.ALL)
                if operation(self):
                    break
            self.done[operation.__name__] += 1
        # Nothing stays queued without a qdisc.
        self.delete()


def one_round(device, traffic, seed, totals):
    administrator = Administrator(device, seed)
    traffic.tell("go")
    try:
        administrator.work()
    finally:
        lib.equal(traffic.ask("stop"), "stopped", "the traffic ends")
    counts = traffic.ask("check")
    lib.true(counts.replace(" ", "").isdigit(), counts)
    sent, received, dropped = (int(count) for count in counts.split())
    lib.true(min(sent, received, dropped) > 100, f"little traffic: {counts}")
    totals.update(sent=sent, received=received, dropped=dropped)
    return administrator.done


def ordered_maps():
    return {(entry["id"], entry.get("name")) for entry in lib.bpftool("map", "list") if entry["type"] == "rbtree"}


def every_packet_is_received_or_dropped_once():
    end = time.monotonic() + SECONDS
    totals, done = collections.Counter(), collections.Counter()
    before = ordered_maps()
    with lib.link("numtxqueues", str(TX)) as device:
        seed = SEED
        with Traffic(device) as traffic:
            while True:
                try:
                    done.update(one_round(device, traffic, seed, totals))
                except lib.Failure:
                    print(f"# SEED={seed}")
                    raise
                seed += 1
                if time.monotonic() > end:
                    break
    print(f"# {seed - SEED} rounds: {totals['sent']} packets sent, {totals['received']} received, "
          f"{totals['dropped']} dropped")
    print("# " + ", ".join(f"{count} {name}" for name, count in sorted(done.items())))
    lib.wait_until(lambda: ordered_maps() <= before, f"no map is left: {ordered_maps() - before}")


lib.main(every_packet_is_received_or_dropped_once)
