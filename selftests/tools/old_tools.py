#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The distribution's tools, which have never heard of any of this: what they cannot
do they say in a sentence, and what they show is right as far as it goes."""

import json
import re

import lib
from lib import POLICIES, fails, works

FIFO = f"{POLICIES}/fifo.bpf.o"
TC = ("env", "-u", "TC_LIB_DIR", "/sbin/tc")
BPFTOOL = "/usr/sbin/bpftool"


def tc_without_the_plug_in_cannot_add_it():
    with lib.link() as device:
        for kind in ("bpf", "bpf_mq"):
            fails(1, f'Unknown qdisc "{kind}", hence option "obj" is unparsable',
                  *TC, *lib.qdisc(device, "add", "obj", FIFO, kind=kind))
            fails(2, "qdisc needs an enqueue and a dequeue program", *TC, *lib.qdisc(device, "add", kind=kind))


def tc_without_the_plug_in_shows_that_it_is_there():
    """It says what it does not know also in the middle of JSON, of whatever kind."""
    unknown = r"\[Unknown qdisc, optlen=\d+\] "
    with lib.link() as device, lib.Sender(device.a) as sender:
        device.attach(lib.compiled("hold"), where=("root", "handle", "8:"))
        sender.send(1)
        out = works(*TC, "-s", "qdisc", "show", "dev", device.a)
        lib.true(re.match(rf"qdisc bpf 8: root refcnt \d+ {unknown}\n Sent 0 bytes 0 pkt .*\n backlog 100b 1p ", out),
                 out)
        out = works(*TC, "-s", "-j", "qdisc", "show", "dev", device.a)
        (entry,) = json.loads(re.sub(unknown, "", out))
        lib.equal((entry["kind"], entry["options"], entry["qlen"]), ("bpf", {}, 1), "JSON")
        works(*TC, "qdisc", "del", "dev", device.a, "root")


def tc_does_not_take_a_policy_for_a_classifier():
    with lib.link() as device:
        works(*TC, "qdisc", "add", "dev", device.a, "clsact")
        err = fails(1, "Unable to load program", *TC, "filter", "add", "dev", device.a, "egress", "bpf", "obj", FIFO,
                    "sec", "qdisc/enqueue")
        lib.contains(err, "invalid bpf_context access")
        lib.equal(works(*TC, "filter", "show", "dev", device.a, "egress"), "", "filters")


def libbpf_says_what_it_does_not_know():
    lib.contains(lib.refused(BPFTOOL, "prog", "loadall", FIFO, "/sys/fs/bpf/test_old"),
                 "failed to guess program type from ELF section 'qdisc/")


def bpftool_shows_numbers_of_types():
    with lib.link() as device:
        device.attach(FIFO)
        for what, name, kind in (("prog", "fifo_enqueue", "qdisc"), ("map", "fifo_pkts", "rbtree")):
            (ours,) = [entry for entry in lib.bpftool(what, "list") if entry.get("name") == name]
            lib.equal(ours["type"], kind, "type by our bpftool")
            theirs = json.loads(works(BPFTOOL, "-j", what, "show", "id", str(ours["id"])))
            lib.equal((theirs["name"], type(theirs["type"])), (name, int), "by the distribution's")
            lib.true(re.match(rf"{ours['id']}: type {theirs['type']}  name {name}  ",
                              works(BPFTOOL, what, "show", "id", str(ours["id"]))), "plain form")


lib.main(tc_without_the_plug_in_cannot_add_it,
         tc_without_the_plug_in_shows_that_it_is_there,
         tc_does_not_take_a_policy_for_a_classifier,
         libbpf_says_what_it_does_not_know,
         bpftool_shows_numbers_of_types)
