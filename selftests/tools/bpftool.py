#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What bpftool knows: names of types, which of them this kernel has, and the
programs of the qdiscs. How it dumps maps is in map_bpftool.py and map_packets.py."""

import json
import os

import lib
from lib import POLICIES, compiled, works

FIFO = f"{POLICIES}/fifo.bpf.o"
PIN = "/sys/fs/bpf/test_bpftool"


def names_of_types():
    with lib.link() as device:
        device.attach(FIFO)
        for what, name, kind in (("prog", "fifo_enqueue", "qdisc"), ("prog", "fifo_dequeue", "qdisc"),
                                 ("map", "fifo_pkts", "rbtree")):
            (entry,) = [entry for entry in lib.bpftool(what, "list") if entry.get("name") == name]
            lib.equal(entry["type"], kind, f"type of {name}")
            lib.contains(works("bpftool", what, "show", "id", str(entry["id"])), f": {kind}  name {name}  ")


def a_map_is_created():
    works("bpftool", "map", "create", PIN, "type", "rbtree", "key", "8", "value", "4", "entries", "16",
          "name", "made")
    try:
        works("bpftool", "map", "update", "pinned", PIN, "key", *lib.map_bytes(5, 8), "value", *lib.map_bytes(6, 4))
        lib.contains(works("bpftool", "map", "dump", "pinned", PIN),
                     "key: 05 00 00 00 00 00 00 00  value: 06 00 00 00\nFound 1 element\n")
    finally:
        os.unlink(PIN)


def a_program_is_loaded_as_what_it_is_not_named():
    works("bpftool", "prog", "load", compiled("no_dequeue"), PIN, "type", "qdisc/enqueue")
    try:
        lib.equal(lib.bpftool("prog", "show", "pinned", PIN)["type"], "qdisc", "type")
    finally:
        os.unlink(PIN)


def what_this_kernel_has():
    found = lib.bpftool("feature", "probe", "kernel")
    lib.true(found["program_types"]["have_qdisc_prog_type"], "program type")
    lib.true(found["map_types"]["have_rbtree_map_type"], "map type")
    # probed, not known by heart
    lib.true(not found["program_types"]["have_lirc_mode2_prog_type"], "a type that this kernel was built without")


def what_it_was_built_with():
    lib.true("qdisc" in lib.bpftool("feature", "list_builtins", "prog_types"), "program type")
    lib.true("rbtree" in lib.bpftool("feature", "list_builtins", "map_types"), "map type")


def of(device):
    """What it lists of a device, and the plain form."""
    (shown,) = lib.bpftool("net", "show", "dev", device.a)
    return shown["qdisc"], works("bpftool", "net", "show", "dev", device.a)


def ids():
    return {entry["name"]: {"name": entry["name"], "id": entry["id"]} for entry in lib.bpftool("prog", "list")
            if entry.get("name", "").startswith("fifo_")}


def net_lists_a_qdisc():
    with lib.link() as device, lib.link() as other:
        lib.equal(of(device)[0], [], "qdiscs before")
        device.attach(FIFO, where=("root", "handle", "8:"))
        listed, plain = of(device)
        programs = ids()
        lib.equal(listed, [{"devname": device.a, "ifindex": device.ifindex, "kind": "bpf", "parent": "root",
                            "handle": "8:", "enqueue": programs["fifo_enqueue"],
                            "dequeue": programs["fifo_dequeue"]}], "qdiscs")
        lib.contains(plain, f"qdisc:\n{device.a}({device.ifindex}) bpf parent root handle 8: "
                     f"enqueue fifo_enqueue id {programs['fifo_enqueue']['id']} "
                     f"dequeue fifo_dequeue id {programs['fifo_dequeue']['id']}\n")
        lib.equal(of(other)[0], [], "qdiscs of another device")
        (everything,) = lib.bpftool("net")
        lib.equal([entry["devname"] for entry in everything["qdisc"]], [device.a], "qdiscs of all devices")


def net_lists_each_tx_queue():
    with lib.link("numtxqueues", "4") as device:
        lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "5:", "bpf_mq", "obj",
                lib.compiled("queues"))
        listed, plain = of(device)
        lib.equal(sorted((entry["kind"], entry["parent"]) for entry in listed),
                  [("bpf", f"5:{queue}") for queue in range(1, 5)] + [("bpf_mq", "root")], "qdiscs")
        lib.equal(plain.count("dequeue queues_dequeue id "), 5, "lines")


def help_names_them():
    for what, words in (("map", "rbtree"), ("prog", "qdisc/enqueue | qdisc/dequeue"), ("net", "qdisc")):
        lib.contains(lib.said("bpftool", what, "help")[2], words)


lib.main(names_of_types,
         a_map_is_created,
         a_program_is_loaded_as_what_it_is_not_named,
         what_this_kernel_has,
         what_it_was_built_with,
         net_lists_a_qdisc,
         net_lists_each_tx_queue,
         help_names_them)
