#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The command line: programs by name and pinned, pins, flush, tx queues. The tests
run twice, with our tc and with the distribution's and the plug-in: both must do
and say the same. Errors are in tc_errors.py and tc_refused.py, what is shown in
tc_output.py, parameters in tc_parameters.py."""

import contextlib
import json
import os
import re
import shutil

import lib
from lib import POLICIES, compiled, fails, qdisc, said, with_both, works

FIFO = f"{POLICIES}/fifo.bpf.o"
TABLES = ("obj", compiled("tables"))
FOLDER = "/sys/fs/bpf/test_tc"


def options(tc, device):
    (entry,) = json.loads(works(*tc, "-j", "qdisc", "show", "dev", device.a, "root"))
    return entry["options"]


@with_both
def verbose_shows_the_log(tc, device):
    status, _, err = said(*tc, *qdisc(device, "add", "obj", FIFO, "verbose"))
    lib.equal(status, 0, "status")
    for name in ("fifo_enqueue", "fifo_dequeue"):
        lib.contains(err, f"verifier log of program '{name}'")


@with_both
def programs_by_name(tc, device):
    obj = ("obj", compiled("several"))
    for name in (("last_enqueue",), ("section", "qdisc/enqueue/last")):
        works(*tc, *qdisc(device, "replace", *obj, "enqueue", *name, "dequeue", "any_dequeue"))
        shown = options(tc, device)
        lib.equal((shown["enqueue"]["name"], shown["dequeue"]["name"]),
                  ("last_enqueue", "any_dequeue"), "programs")


@with_both
def a_device_by_its_index(tc, device):
    """As tc takes it: the qdisc is the same, with what its tables have."""
    works(*tc, *qdisc(device, "add", *TABLES, "set", "of_number[1]=1"))
    by_index = ("dev", f"if{device.ifindex}", "root", "bpf")
    works(*tc, "qdisc", "change", *by_index, *TABLES)
    works(*tc, "qdisc", "change", *by_index, "set", "number=7")
    shown = options(tc, device)["set"]
    lib.equal((shown["of_number"], shown["number"]), ({"1": 1}, 7), "parameters")


@with_both
def an_installed_policy_by_its_name(tc, device):
    """A file of this name comes first, and a path is never a name."""
    library = "/usr/local/lib"
    lib.run("mount", "-t", "tmpfs", "policies", library)
    try:
        os.mkdir(f"{library}/sch-bpf")
        shutil.copy(FIFO, f"{library}/sch-bpf/first.bpf.o")
        with contextlib.chdir(f"{library}/sch-bpf"):
            works(*tc, *qdisc(device, "add", "obj", "first"))
            lib.equal(options(tc, device)["obj"], "first.bpf.o", "object")
            words = [fails(1, f"{name}: No such file or directory", *tc, *qdisc(device, "replace", "obj", name))
                     for name in ("second", "./first")]
            os.mkdir("first")           # a folder of the name hides nothing
            works(*tc, *qdisc(device, "replace", "obj", "first"))
            os.rmdir("first")
            with open("first", "w", encoding="ascii"):
                words.append(fails(1, "first: not an ELF object", *tc, *qdisc(device, "replace", "obj", "first")))
        return words
    finally:
        lib.run("umount", library)


@with_both
def pinned_programs(tc, device):
    lib.run("bpftool", "prog", "loadall", FIFO, FOLDER)
    try:
        pins = [f"{FOLDER}/fifo_{op}" for op in ("enqueue", "dequeue")]
        works(*tc, *qdisc(device, "add", "enqueue", "object-pinned", pins[0],
                          "dequeue", "object-pinned", pins[1]))
        shown = options(tc, device)
        lib.equal((shown["enqueue"]["name"], "obj" in shown), ("fifo_enqueue", False), "options")
        lib.equal(shown["enqueue"]["id"], lib.bpftool("prog", "show", "pinned", pins[0])["id"], "program")
    finally:
        shutil.rmtree(FOLDER)


def pinned_ids():
    """Programs and maps in the folder."""
    return {path.removeprefix(f"{FOLDER}/"): entry["id"] for what in ("prog", "map")
            for entry in lib.bpftool("-f", what, "list") for path in entry.get("pinned", ())
            if path.startswith(f"{FOLDER}/")}


@with_both
def programs_and_maps_are_pinned(tc, device):
    obj = ("obj", compiled("params"), "pin", FOLDER)
    try:
        works(*tc, *qdisc(device, "add", *obj))
        first, shown = pinned_ids(), options(tc, device)
        lib.equal(sorted(first), ["_data_param", "params_dequeue", "params_enqueue", "params_pkts"], "pins")
        lib.equal((first["params_enqueue"], first["params_dequeue"]),
                  (shown["enqueue"]["id"], shown["dequeue"]["id"]), "programs")

        status, _, err = said(*tc, *qdisc(device, "add", *obj))
        lib.equal((status, pinned_ids()), (2, first), f"what was refused is not pinned: {err}")

        works(*tc, *qdisc(device, "change", *obj))
        second, shown = pinned_ids(), options(tc, device)
        lib.equal(second["params_enqueue"], shown["enqueue"]["id"], "program after a change")
        lib.equal(second["params_pkts"], first["params_pkts"], "map that was taken over")
        lib.true(second["_data_param"] != first["_data_param"], "parameters that are not")
    finally:
        shutil.rmtree(FOLDER)


def pins_in_a_batch():
    """Pinned when the command is done, before the next one of the batch."""
    for tc in (lib.OURS, lib.PLUGIN):
        with lib.link() as first, lib.link() as second:
            batch = "/tmp/test_batch"
            with open(batch, "w", encoding="ascii") as file:
                print(f"qdisc add dev {first.a} root bpf obj {FIFO} pin {FOLDER}", file=file)
                print(f"qdisc add dev {second.a} root bpf enqueue object-pinned {FOLDER}/fifo_enqueue "
                      f"dequeue object-pinned {FOLDER}/fifo_dequeue", file=file)
            works(*tc, "-batch", batch)
            try:
                lib.equal(options(tc, first)["enqueue"]["id"], options(tc, second)["enqueue"]["id"], "program")
            finally:
                shutil.rmtree(FOLDER)


@with_both
def flush_drops_what_is_queued(tc, device):
    works(*tc, *qdisc(device, "add", "obj", compiled("hold")))
    with lib.Sender(device.a) as sender:
        for number in range(3):
            lib.true(sender.send(number), "dropped")
        works(*tc, *qdisc(device, "change", "limit", "50"))
        lib.equal(device.qdisc()["qlen"], 3, "queued after a change without it")
        works(*tc, *qdisc(device, "change", "flush"))
        stats = device.qdisc()
        lib.equal((stats["qlen"], stats["backlog"], stats["drops"]), (0, 0, 3), "queued, bytes, dropped")
        sender.wait_freed()


@with_both
def arrays_of_maps_are_filled(tc, device):
    works(*tc, *qdisc(device, "add", "obj", compiled("queues")))
    with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        sender.send(1)
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that leave")


@with_both
def classes(tc, device):
    works(*tc, "qdisc", "add", "dev", device.a, "root", "handle", "1:", "bpf", "obj", compiled("classes"))
    for minor in (1, 2):
        works(*tc, "class", "add", "dev", device.a, "parent", "1:", "classid", f"1:{minor}", "bpf")
    works(*tc, "qdisc", "add", "dev", device.a, "parent", "1:2", "handle", "20:", "pfifo")
    words = [works(*tc, "class", "show", "dev", device.a)]
    works(*tc, "class", "del", "dev", device.a, "classid", "1:1")
    words.append(works(*tc, "class", "show", "dev", device.a))
    lib.equal([text.count("class bpf 1:") for text in words], [2, 1], "classes before and after")
    return words


@with_both
def a_class_is_changed(tc, device):
    """It has no options: its qdisc stays, with its packets. A rate estimator can be added."""
    def klass(what, classid, *options):
        return (*tc, "class", what, "dev", device.a, "parent", "1:", "classid", classid, *options, "bpf")

    def shown():
        return works(*tc, "-s", "class", "show", "dev", device.a)

    works(*tc, "qdisc", "add", "dev", device.a, "root", "handle", "1:", "bpf", "obj", compiled("classes"))
    works(*klass("add", "1:1"))
    works(*tc, "qdisc", "add", "dev", device.a, "parent", "1:1", "handle", "10:", "tbf",
          "rate", "80bit", "burst", "1000", "limit", "100000")
    works(*tc, "filter", "add", "dev", device.a, "parent", "1:", "matchall", "classid", "1:1")
    with lib.Sender(device.a) as sender:
        for number in range(5):
            sender.send(number, 900)
        words = [shown()]
        lib.contains(words[0], "leaf 10:")
        lib.contains(words[0], "backlog 3600b 4p")
        for what in ("change", "replace"):
            works(*klass(what, "1:1"))
            lib.equal(shown(), words[0], f"after a {what}")
        works(*klass("change", "1:1", "est", "1sec", "4sec"))
        words.append(shown())
        lib.contains(words[-1], "rate ")
        lib.contains(words[-1], "backlog 3600b 4p")
    return [words[0],
            fails(2, "No such file", *klass("change", "1:7")),
            fails(2, "Invalid argument", *klass("change", "2:1")),
            fails(1, "has no options", *klass("change", "1:1"), "rate", "1mbit"),
            fails(2, "File exists", *klass("add", "1:1"))]


@with_both
def one_for_each_tx_queue(tc, device):
    works(*tc, *qdisc(device, "add", "obj", compiled("queues"), kind="bpf_mq"))
    (outer,) = lib.maps_named("queues")
    lib.equal(len(lib.bpftool("map", "dump", "id", str(outer))), 4, "inner maps")
    with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        sender.send(1)
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that leave")
    works(*tc, *qdisc(device, "change", "obj", compiled("queues"), kind="bpf_mq"))
    lib.equal(lib.maps_named("queues"), {outer}, "array of maps after a change")


@with_both
def an_object_loaded_for_each_tx_queue(tc, device):
    others = lib.maps_named("hold_pkts")
    works(*tc, *qdisc(device, "add", "obj", compiled("hold"), kind="bpf_mq"))
    before = lib.maps_named("hold_pkts") - others
    lib.equal(len(before), 4, "maps of packets")
    with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        sender.send(1)
        works(*tc, *qdisc(device, "change", "obj", compiled("release"), kind="bpf_mq"))
        lib.equal(lib.maps_named("hold_pkts") - others, before, "maps after a change")
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that leave")
    lib.run("ethtool", "-L", device.a, "tx", "3")
    works(*tc, *qdisc(device, "change", "obj", compiled("release"), kind="bpf_mq"))
    lib.run("ethtool", "-L", device.a, "tx", "4")
    return re.findall(r"NO PROGRAMS.*", works(*tc, "-s", "qdisc", "show", "dev", device.a))


@with_both
def pins_in_a_network_namespace(tc, device):
    """Its /sys, and the bpffs in it, is of one command: that is said. Elsewhere pins stay."""
    bpffs, objects, words = "/run/test_bpffs", ("obj", compiled("shared")), []
    lib.run("ip", "netns", "add", "pins")
    lib.run("ip", "link", "set", device.a, "netns", "pins")
    os.mkdir(bpffs)
    lib.run("mount", "-t", "bpf", "bpf", bpffs)
    try:
        for inside in ((*tc, "-n", "pins"), ("ip", "netns", "exec", "pins", *tc)):
            for edt in ("obj", f"{POLICIES}/edt.bpf.o"), ("obj", FIFO, "pin", "/sys/fs/bpf/gone"):
                status, out, err = said(*inside, *qdisc(device, "replace", *edt))
                lib.equal((status, out), (0, ""), f"status and output, beside {err}")
                lib.contains(err, "qdisc bpf: warning: /sys/fs/bpf is not that of the system")
                lib.contains(err, "export TC_BPF_MNT=/run/bpf\n")
                lib.equal(err.count("warning"), 1, "warnings")
                words.append(err)
            lib.true(not os.path.exists("/sys/fs/bpf/gone"), "a pin is where it cannot be")
            words.append(fails(1, "warning: /sys/fs/bpf is not", *inside, *qdisc(
                device, "replace", "enqueue", "object-pinned", "/sys/fs/bpf/a",
                "dequeue", "object-pinned", "/sys/fs/bpf/b")))
            works(*inside, *qdisc(device, "replace", "obj", FIFO))      # pins nothing
            works("env", f"TC_BPF_MNT={bpffs}", *inside, *qdisc(device, "replace", *objects))
            lib.equal({lib.bpftool("map", "show", "pinned", f"{bpffs}/tc/globals/shared_pkts")["id"]},
                      lib.maps_named("shared_pkts"), "the map that is pinned")
    finally:
        lib.run("umount", bpffs)
        os.rmdir(bpffs)
        lib.run("ip", "netns", "del", "pins")
    return words


lib.main(verbose_shows_the_log,
         programs_by_name,
         a_device_by_its_index,
         an_installed_policy_by_its_name,
         pinned_programs,
         programs_and_maps_are_pinned,
         pins_in_a_batch,
         flush_drops_what_is_queued,
         arrays_of_maps_are_filled,
         classes,
         a_class_is_changed,
         one_for_each_tx_queue,
         an_object_loaded_for_each_tx_queue,
         pins_in_a_network_namespace)
