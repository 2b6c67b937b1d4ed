#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""bpf_mq with an object whose programs name a map of packets: an instance for each tx queue,
with maps and variables of its own; parameters and what is declared as shared are one for all."""

import contextlib
import glob
import json
import os
import re
import time

import lib
from lib import POLICIES, SO_MARK, compiled

EACH = compiled("each")
CLASSES = compiled("class_drr")            # it keeps packets in classes alone
FIFO, RATE = f"{POLICIES}/fifo.bpf.o", f"{POLICIES}/rate.bpf.o"
HOLD, RELEASE = compiled("hold"), compiled("release")
QUEUES = compiled("queues")             # made for all queues
PINNED = compiled("shared")             # its map of packets is pinned
TX = 4
MANY = 16 if lib.DEBUG else 64
CHANGES = 12
PIN_DIR = "/sys/fs/bpf/test_each_queue"


def tc(what, device, *options):
    return "tc", "qdisc", what, "dev", device.a, "root", "handle", "1:", "bpf_mq", *options


class Queues:
    """The number of a packet says its tx queue, to which a filter on its mark sends it."""

    def __init__(self, device, sender, receiver, count):
        self.device, self.sender, self.receiver, self.count = device, sender, receiver, count
        lib.to_queues(device.a, count)

    def send(self, number):
        self.sender.set(SO_MARK, number % self.count + 1)
        return self.sender.send(number)

    def send_all(self, numbers):
        lib.true(all([self.send(number) for number in numbers]), "a packet was not taken")

    def arrive(self, numbers):
        """Exactly these, those of a queue in this order."""
        numbers = list(numbers)
        got = lib.numbers(self.receiver.collect(len(numbers)))
        for queue in range(self.count):
            lib.equal([number for number in got if number % self.count == queue],
                      [number for number in numbers if number % self.count == queue], f"packets of queue {queue}")

    def instances(self, count=None):
        found = lib.instances(self.device.a)
        lib.equal(len(found), count or self.count, "instances")
        return found

    def books(self, packets, drops=0, queued=0):
        """What each instance has sent, dropped and keeps."""
        lib.equal([[each[what] for each in self.instances()] for what in ("packets", "drops", "qlen")],
                  [packets, [drops] * self.count, [queued] * self.count], "sent, dropped and queued by each")

    def root(self):
        (found,) = lib.instances(self.device.a, "bpf_mq")
        return found


@contextlib.contextmanager
def device(*options, count=TX):
    with lib.link("numtxqueues", str(count)) as made, lib.Sender(made.a) as sender, lib.Receiver(made.b) as receiver:
        queues = Queues(made, sender, receiver, count)
        if options:
            lib.run(*tc("add", made, *options))
        yield queues


def programs(entry):
    return entry["options"]["enqueue"]["id"], entry["options"]["dequeue"]["id"]


def maps(entry, name):
    """Ids of the maps of this name that the programs of an instance use."""
    ids = {number for op in ("enqueue", "dequeue")
           for number in entry["options"][op].get("map_ids", ())}
    return ids & lib.maps_named(name)


def log():
    """What the kernel has said so far."""
    return lib.run("dmesg")


def every_policy_serves_every_queue():
    """One command, whatever the policy: what is sent in each queue arrives, in its order, and
    each instance has counted it."""
    policies = sorted(glob.glob(f"{POLICIES}/*.bpf.o"))
    lib.true(len(policies) >= 5, f"policies: {policies}")
    with device(count=2) as queues:         # for each of which the verifier takes its time
        for policy in policies:
            lib.run(*tc("add", queues.device, "obj", policy))
            before = queues.sender.bytes
            queues.send_all(range(100))
            queues.arrive(range(100))
            found = queues.instances()
            lib.equal([(each["packets"], each["drops"], each["qlen"]) for each in found], [(50, 0, 0)] * 2,
                      f"{policy}: sent, dropped and queued by each")
            lib.equal(sum(each["bytes"] for each in found), queues.sender.bytes - before, f"{policy}: bytes")
            lib.equal(queues.root()["packets"], 100, f"{policy}: sent in all")
            lib.run("tc", "qdisc", "del", "dev", queues.device.a, "root")
    for pin in glob.glob(f"{lib.GLOBALS}/edt_*"):
        os.unlink(pin)


def what_is_loaded_once_and_what_for_each():
    with device() as queues:
        for obj, own in (FIFO, TX), (EACH, TX), (CLASSES, TX), (QUEUES, 1), (RATE, TX):
            lib.run(*tc("add", queues.device, "obj", obj))
            found = queues.instances()
            lib.equal(len({programs(each) for each in found}), own, f"{obj}: pairs of programs")
            root = queues.root()
            lib.equal(programs(root), programs(found[0]), f"{obj}: programs of bpf_mq")
            lib.equal(root["options"].get("queues"), own if own > 1 else None, f"{obj}: queues with their own")
            if obj == EACH:
                for name, count in ("each_pkts", TX), ("each_own", TX), ("each_table", 1), ("each_shared", 1):
                    lib.equal(len(set.union(*[maps(each, name) for each in found])), count, f"maps {name}")
            listed = lib.bpftool("net", "list", "dev", queues.device.a)[0]["qdisc"]
            lib.equal(sorted(each["enqueue"]["id"] for each in listed),
                      sorted(programs(each)[0] for each in [root, *found]), f"{obj}: what bpftool lists")
            lib.run("tc", "qdisc", "del", "dev", queues.device.a, "root")


def state_is_own_or_shared_as_declared():
    with device("obj", EACH) as queues:
        for queue, count in enumerate((10, 20, 30, 40)):
            queues.send_all(number * TX + queue for number in range(count))
        queues.receiver.collect(100)
        queues.books([10, 20, 30, 40])
        stats = [each["stats"] for each in queues.instances()]
        for name, expected in (("own", [10, 20, 30, 40]), ("own_map", [10, 20, 30, 40]),
                               ("shared", [10, 30, 60, 100]), ("shared_map", [10, 30, 60, 100])):
            lib.equal([each[name] for each in stats], expected, name)
        top = json.loads(lib.run("qdisctop", "-j", "-n", "1", "-i", "0.01", queues.device.a))["qdiscs"]
        lib.equal([entry["kind"] for entry in top if "stats" in entry], ["bpf"] * TX, "whose numbers qdisctop shows")


def instances_do_not_share_packets():
    """What one has no room for is dropped, however empty the others are."""
    with device("obj", HOLD, "limit", "8") as queues:
        taken = [queues.send(4 * number) for number in range(10)]
        lib.equal(taken, [True] * 8 + [False] * 2, "taken in the first queue")
        queues.send_all((1, 2, 3))
        lib.equal([each["qlen"] for each in queues.instances()], [8, 1, 1, 1], "queued")
        lib.equal([each["drops"] for each in queues.instances()], [2, 0, 0, 0], "dropped")
        lib.equal(queues.root()["qlen"], 11, "queued in all")


def parameters_are_set_once_for_all():
    with device("obj", EACH, "set", "hold=true", "set", "each_table[2]=7") as queues:
        def settings():
            return [entry["options"]["set"] for entry in [queues.root(), *queues.instances()]]
        lib.equal(settings(), [{"hold": True, "each_table": {"2": 7}}] * (TX + 1), "set with the object")
        queues.send_all(range(40))
        queues.books([0] * TX, queued=10)
        lib.run(*tc("change", queues.device, "set", "hold=false", "set", "each_table[3]=1000"))
        lib.equal(settings(), [{"hold": False, "each_table": {"2": 7, "3": 1000}}] * (TX + 1), "set later")
        queues.arrive(number for number in range(40) if number % TX < 3)
        lib.equal([each["qlen"] for each in queues.instances()], [0, 0, 0, 10], "queued")
        lib.run(*tc("change", queues.device, "set", "each_table[3]=0"))
        queues.arrive(number for number in range(40) if number % TX == 3)
        lib.run(*tc("change", queues.device, "obj", EACH))
        lib.equal([each["options"]["set"]["each_table"] for each in queues.instances()], [{"2": 7}] * TX,
                  "a table, with a new object")


def a_change_keeps_what_is_queued():
    """Each new instance has the maps of the old one of its queue."""
    with device("obj", HOLD) as queues:
        queues.send_all(range(100))
        before = [maps(each, "hold_pkts") for each in queues.instances()]
        lib.run(*tc("change", queues.device, "obj", RELEASE))
        lib.equal([maps(each, "hold_pkts") for each in queues.instances()], before, "maps")
        queues.arrive(range(100))
        queues.books([25] * TX)


def a_change_under_traffic_loses_nothing():
    with device("obj", FIFO) as queues, \
         lib.traffic(queues.sender, queues.receiver, queues.send) as (sent, got):
        for number in range(CHANGES):
            options = ("obj", FIFO), ("limit", str(1000 + number)), ("obj", FIFO, "limit", "9000")
            lib.run(*tc("change", queues.device, *options[number % 3]))
    lib.true(len(sent) > 100, f"{len(sent)} packets were sent")
    lib.equal(sorted(got), sent, "packets")


def a_size_table_is_refused():
    """It would do nothing: packets are sized by the instance that takes them."""
    with lib.link("numtxqueues", str(TX)) as made:
        lib.contains(lib.refused("tc", "qdisc", "add", "dev", made.a, "stab", "overhead", "24", "root", "bpf_mq", "obj", EACH),
                     "bpf_mq has no size table")


def a_change_that_would_lose_packets_is_refused():
    """One queue is enough, and all stay as they are."""
    with device("obj", HOLD) as queues:
        queues.send_all((2, 6))
        before = [programs(each) for each in [queues.root(), *queues.instances()]]
        for obj in FIFO, QUEUES:
            lib.contains(lib.refused(*tc("change", queues.device, "obj", obj)), "hold_pkts")
            lib.equal([programs(each) for each in [queues.root(), *queues.instances()]], before, "programs")
            lib.equal([each["qlen"] for each in queues.instances()], [0, 0, 2, 0], "queued")
        lib.run(*tc("change", queues.device, "obj", FIFO, "flush"))
        lib.equal([each["drops"] for each in queues.instances()], [0, 0, 2, 0], "dropped")
        queues.send_all(range(40))
        queues.arrive(range(40))


def from_one_for_all_to_one_for_each_and_back():
    """State that was common does not stay common, but for what is declared as shared."""
    with device("obj", QUEUES) as queues:
        for obj, count in (EACH, TX), (RATE, TX), (EACH, TX), (QUEUES, 1):
            lib.run(*tc("change", queues.device, "obj", obj))
            queues.send_all(range(40))
            queues.arrive(range(40))
            found = queues.instances()
            lib.equal(len({programs(each) for each in found}), count, f"{obj}: pairs of programs")
            if obj == EACH:
                lib.equal(len(set.union(*[maps(each, "each_own") for each in found])), TX, "maps each_own")
        queues.books([40] * TX)


def what_a_queue_without_programs_does():
    """It is put in use later: it serves a FIFO, and says so, until all get programs."""
    with device() as queues:
        lib.run("ethtool", "-L", queues.device.a, "tx", "2")
        lib.run(*tc("add", queues.device, "obj", FIFO, "limit", "500"))
        lib.equal(queues.root()["options"]["queues"], 2, "queues with their own")
        queues.instances(2)
        before = log()
        lib.run("ethtool", "-L", queues.device.a, "tx", "3")
        lib.run("ethtool", "-L", queues.device.a, "tx", "4")
        words = log()[len(before):]
        lib.equal(words.count("tx queues from 2 on have no programs"), 1, f"times that the log says it: {words}")
        lib.contains(words, f"tc qdisc change dev {queues.device.a} root bpf_mq obj FILE")
        queues.send_all(range(400))
        queues.arrive(range(400))
        queues.books([100] * TX)
        found = queues.instances()
        lib.equal(["enqueue" in each["options"] for each in found], [True, True, False, False], "programs")
        lib.equal(len({each["handle"] for each in found} - {"0:"}), TX, "handles")
        lib.equal([each["options"]["limit"] for each in found], [500] * TX, "limits")
        shown = lib.run("tc", "-s", "qdisc", "show", "dev", queues.device.a)
        lib.equal(len(re.findall(r'NO PROGRAMS, .*"tc qdisc change dev DEV root bpf_mq obj FILE"', shown)), 2,
                  f"queues that say so: {shown}")
        lib.true("STUCK" not in shown, shown)
        lib.run(*tc("change", queues.device, "limit", "600"))
        lib.run(*tc("change", queues.device, "obj", FIFO))
        found = queues.instances()
        lib.equal(len({programs(each) for each in found}), TX, "pairs of programs")
        lib.equal([each["options"]["limit"] for each in found], [600] * TX, "limits")
        queues.send_all(range(40))
        queues.arrive(range(40))
        lib.true("NO PROGRAMS" not in lib.run("tc", "-s", "qdisc", "show", "dev", queues.device.a), "still without")


def programs_for_queues_that_had_none():
    """The others go on with what they have."""
    with device() as queues:
        lib.run("ethtool", "-L", queues.device.a, "tx", "2")
        lib.run(*tc("add", queues.device, "obj", HOLD, "limit", "10"))
        lib.run("ethtool", "-L", queues.device.a, "tx", str(TX))
        queues.send_all(range(8))
        queues.arrive((2, 3, 6, 7))
        lib.equal([each["qlen"] for each in queues.instances()], [2, 2, 0, 0], "queued")
        lib.run(*tc("change", queues.device, "obj", RELEASE))
        queues.arrive((0, 1, 4, 5))
        queues.books([2] * TX)


def queues_go_and_come_back():
    """What the instance of a queue has stays its, programs and all; fewer pairs, with the next
    object, and it has none."""
    with device("obj", FIFO) as queues:
        before = [programs(each) for each in queues.instances()]
        handles = [each["handle"] for each in queues.instances()]
        for count in 2, TX, 1, TX:
            lib.run("ethtool", "-L", queues.device.a, "tx", str(count))
            lib.equal([programs(each) for each in queues.instances(count)], before[:count], "programs")
        lib.equal([each["handle"] for each in queues.instances()], handles, "handles")
        queues.send_all(range(400))
        queues.arrive(range(400))
        lib.run("ethtool", "-L", queues.device.a, "tx", "1")
        lib.run(*tc("change", queues.device, "obj", FIFO))
        lib.equal(queues.root()["options"]["queues"], 1, "queues with their own")
        lib.true("enqueue" in queues.instances(1)[0]["options"], "the queue in use has no programs")
        lib.run("ethtool", "-L", queues.device.a, "tx", str(TX))
        lib.equal(["enqueue" in each["options"] for each in queues.instances()], [True] + [False] * 3, "programs")
        for count in 2, TX:             # with nothing to run, the instances begin anew
            lib.run("ethtool", "-L", queues.device.a, "tx", str(count))
        queues.send_all(range(400))
        queues.arrive(range(400))
        lib.equal(sum(each["drops"] for each in queues.instances()), 0, "drops")


def queues_change_under_traffic():
    """What leaves was taken, and no queue is silent afterwards."""
    with device() as queues:
        lib.run("ethtool", "-L", queues.device.a, "tx", "2")
        lib.run(*tc("add", queues.device, "obj", FIFO))
        with lib.traffic(queues.sender, queues.receiver, queues.send) as (sent, got):
            for count in (4, 3, 1, 4, 2, 4):
                lib.run("ethtool", "-L", queues.device.a, "tx", str(count))
                lib.run(*tc("change", queues.device, "obj", FIFO))
        lib.true(set(got) <= set(sent) and len(got) == len(set(got)), "a packet arrived that nobody sent, or twice")
        queues.send_all(range(400))
        queues.arrive(range(400))
        lib.equal([each["qlen"] for each in queues.instances()], [0] * TX, "queued")


def pins():
    try:
        with device("obj", EACH, "pin", PIN_DIR) as queues:
            lib.equal(sorted(os.listdir(PIN_DIR)), [f"tx-{queue}" for queue in range(TX)], "folders")
            for queue, each in enumerate(queues.instances()):
                folder = f"{PIN_DIR}/tx-{queue}"
                lib.equal(lib.bpftool("prog", "show", "pinned", f"{folder}/each_enqueue")["id"], programs(each)[0],
                          f"program pinned for queue {queue}")
                lib.equal({lib.bpftool("map", "show", "pinned", f"{folder}/each_pkts")["id"]},
                          maps(each, "each_pkts"), f"map pinned for queue {queue}")
    finally:
        lib.run("rm", "-rf", PIN_DIR)


def a_map_of_packets_is_for_one_queue():
    """What the object pins is one for all, and packets cannot be."""
    words = "Map 'shared_pkts' holds packets: each tx queue needs its own"
    with device() as queues:
        lib.contains(lib.refused(*tc("add", queues.device, "obj", PINNED)), words)
        lib.run(*tc("add", queues.device, "obj", QUEUES))
        lib.contains(lib.refused(*tc("change", queues.device, "obj", PINNED)), words)
        lib.equal(len({programs(each) for each in queues.instances()}), 1, "pairs of programs, as before")
        os.unlink(f"{lib.GLOBALS}/shared_pkts")
        lib.run("bpftool", "prog", "loadall", FIFO, PIN_DIR)
        try:
            pair = [word for op in ("enqueue", "dequeue") for word in (op, "object-pinned", f"{PIN_DIR}/fifo_{op}")]
            lib.contains(lib.refused(*tc("change", queues.device, *pair)), "Map 'fifo_pkts' holds packets")
            lib.run("ethtool", "-L", queues.device.a, "tx", "1")
            lib.run(*tc("change", queues.device, *pair))
            lib.equal(queues.root()["options"]["queues"], 1, "queues with their own")
        finally:
            lib.run("rm", "-rf", PIN_DIR)


def many_queues_are_no_dearer_than_a_command_for_each():
    """Three times would be too much."""
    def seconds(*commands):
        begin = time.monotonic()
        for command in commands:
            lib.run(*command)
        took = time.monotonic() - begin
        lib.equal(len(lib.instances(made.a)), MANY, "instances")
        return took

    with lib.link("numtxqueues", str(MANY)) as made:
        mq = ("tc", "qdisc", "add", "dev", made.a, "root", "handle", "1:", "mq")
        each = [("tc", "qdisc", "replace", "dev", made.a, "parent", f"1:{queue:x}", "bpf", "obj", FIFO)
                for queue in range(1, MANY + 1)]
        below_mq = seconds(mq, *each)
        lib.run("tc", "qdisc", "del", "dev", made.a, "root")
        added = seconds(tc("add", made, "obj", FIFO))
        changed = seconds(tc("change", made, "obj", FIFO))
        print(f"# {MANY} queues: mq and as many bpf {below_mq:.2f} s, bpf_mq {added:.2f} s, change {changed:.2f} s")
        lib.true(max(added, changed) < 3 * below_mq, "one command takes longer than three times those for each queue")


def the_end_frees_all():
    with device("obj", HOLD) as queues:
        queues.send_all(range(40))
        lib.run("tc", "qdisc", "del", "dev", queues.device.a, "root")
        queues.sender.wait_freed()
    lib.no_maps("hold_pkts")


lib.main(every_policy_serves_every_queue,
         what_is_loaded_once_and_what_for_each,
         state_is_own_or_shared_as_declared,
         instances_do_not_share_packets,
         parameters_are_set_once_for_all,
         a_change_keeps_what_is_queued,
         a_change_under_traffic_loses_nothing,
         a_size_table_is_refused,
         a_change_that_would_lose_packets_is_refused,
         from_one_for_all_to_one_for_each_and_back,
         what_a_queue_without_programs_does,
         programs_for_queues_that_had_none,
         queues_go_and_come_back,
         queues_change_under_traffic,
         pins,
         a_map_of_packets_is_for_one_queue,
         many_queues_are_no_dearer_than_a_command_for_each,
         the_end_frees_all)
