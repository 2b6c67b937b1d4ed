#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What tc shows, in every form: byte for byte the same from ours and from the
distribution's with the plug-in, and JSON where it was asked for. The man page's
examples."""

import contextlib
import functools
import itertools
import json
import os
import re
import shutil

import lib
from lib import NOBODY, OURS, PLUGIN, POLICIES, TOP, compiled, said, works

FIFO = f"{POLICIES}/fifo.bpf.o"
FORMS = [flags for count in range(4) for flags in itertools.combinations(("-s", "-d", "-p"), count)]
PINS = "/sys/fs/bpf/test_tc_output"


def with_packets_in_it(device, stack):
    device.attach(compiled("hold"), "limit", "77", where=("root", "handle", "1:"))
    sender = stack.enter_context(lib.Sender(device.a))
    for number in range(3):
        sender.send(number)


def of_a_policy_that_is_stuck(device, stack):
    device.attach(compiled("stuck"), "patience", "100ms", where=("root", "handle", "2:"))
    sender = stack.enter_context(lib.Sender(device.a))
    sender.set(lib.SO_MARK, 1)
    sender.send(1)
    lib.wait_until(lambda: device.qdisc()["is_stuck"], "found stuck", 30)
    sender.wait_freed()


def of_pinned_programs(device, stack):
    lib.run("bpftool", "prog", "loadall", FIFO, PINS)
    stack.callback(shutil.rmtree, PINS)
    lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "3:", "bpf",
            "enqueue", "object-pinned", f"{PINS}/fifo_enqueue", "dequeue", "object-pinned", f"{PINS}/fifo_dequeue")


def with_parameters(device, _):
    device.attach(compiled("params"), where=("root", "handle", "4:"))


def of_each_tx_queue(device, _):
    lib.run("tc", "qdisc", "add", "dev", device.a, "root", "handle", "5:", "bpf_mq", "obj",
            compiled("queues"))


def with_classes(device, _):
    device.attach(compiled("classes"), where=("root", "handle", "6:"))
    for minor in (1, 2):
        lib.run("tc", "class", "add", "dev", device.a, "parent", "6:", "classid", f"6:{minor}", "bpf")
    lib.run("tc", "qdisc", "add", "dev", device.a, "parent", "6:2", "handle", "60:", "pfifo")


STATES = (with_packets_in_it, of_a_policy_that_is_stuck, of_pinned_programs, with_parameters, of_each_tx_queue,
          with_classes)


def say(tc, flags, what, devices):
    """What one tc says of all devices in one form. A policy that is asked again and again counts overlimits."""
    with open("/tmp/test_tc_output", "w", encoding="ascii") as file:
        file.writelines(f"{what} show dev {device.a}\n" for device in devices)
    return re.sub(r'\b(overlimits"?[: ] ?)\d+', r"\g<1>0", works(*tc, *flags, "-batch", "/tmp/test_tc_output"))


def both_say(flags, what, devices):
    ours = say(OURS, flags, what, devices)
    lib.equal(say(PLUGIN, flags, what, devices), ours, f"what the plug-in says of {what}, with {flags}")
    return ours


def parsed(text):
    """The JSON of each line of a batch, by state."""
    decoder, found = json.JSONDecoder(), {}
    for state in STATES:
        found[state], end = decoder.raw_decode(text)
        text = text[end:].lstrip()
    lib.equal(text, "", "rest of the JSON")
    return found


@functools.cache
def shown():
    """In each form, what is shown of all states: flags, text, JSON by state, text and JSON of the
    classes. The distribution's tc 6.1 shows no classes as JSON, of whatever kind."""
    forms = []
    with contextlib.ExitStack() as stack:
        devices = [stack.enter_context(lib.link("numtxqueues", "4")) for _ in STATES]
        for device, state in zip(devices, STATES):
            state(device, stack)
        for flags in FORMS:
            forms.append((flags, both_say(flags, "qdisc", devices), parsed(both_say(("-j", *flags), "qdisc", devices)),
                          both_say(flags, "class", devices), parsed(say(OURS, ("-j", *flags), "class", devices))))
        forms.append([say((*NOBODY, *tc), flags, "qdisc", devices) for tc in (OURS, PLUGIN) for flags in ((), ("-j",))])
    return forms


def packets():
    program = r"hold_%s id \d+ tag [0-9a-f]{16} "
    pattern = (r"qdisc bpf 1: root refcnt \d+ limit 77p horizon 10s patience 5s obj hold\.bpf\.o "
               rf"enqueue {program % 'enqueue'}map_ids \d+ dequeue {program % 'dequeue'}\n")
    for flags, text, entries, _, _ in shown()[:-1]:
        (entry,) = entries[with_packets_in_it]
        lib.true(re.match(pattern, text), f"form: {text}")
        options = entry["options"]
        lib.equal((entry["kind"], entry["handle"], options["limit"], options["obj"]),
                  ("bpf", "1:", 77, "hold.bpf.o"), "options")
        lib.equal(len(options["enqueue"].pop("map_ids")), 1, "maps of the program that uses one")
        for op in ("enqueue", "dequeue"):
            lib.equal((sorted(options[op]), options[op]["name"]), (["id", "name", "tag"], f"hold_{op}"), op)
        lib.equal("\n  stored 3p stolen 0p stuck 0\n" in text, "-s" in flags, f"numbers, with {flags}: {text}")
        numbers = {name: entry.get(name) for name in ("qlen", "backlog", "stored", "stolen", "stuck", "is_stuck")}
        lib.equal(numbers, {"qlen": 3, "backlog": 300, "stored": 3, "stolen": 0, "stuck": 0, "is_stuck": False}
                  if "-s" in flags else dict.fromkeys(numbers), f"numbers, with {flags}")


def a_warning_of_a_policy_that_is_stuck():
    for flags, text, entries, _, _ in shown()[:-1]:
        (entry,) = entries[of_a_policy_that_is_stuck]
        lib.equal("\n  stored 0p stolen 0p stuck 1 fifo 0p POLICY STUCK, served in order of arrival\n" in text,
                  "-s" in flags, f"warning, with {flags}: {text}")
        lib.equal((entry.get("is_stuck"), entry.get("fifo")), (True, 0) if "-s" in flags else (None, None),
                  f"JSON, with {flags}")


def pinned_programs_without_an_object():
    for _, text, entries, _, _ in shown()[:-1]:
        (entry,) = entries[of_pinned_programs]
        pattern = r"^qdisc bpf 3: root refcnt \d+ limit \d+p horizon 10s patience 5s enqueue fifo_enqueue id "
        lib.true(re.search(pattern, text, re.M), text)
        lib.true("obj" not in entry["options"], "an object's name")


def parameters():
    values = {"rate": 1000, "offset": -5, "small": 7, "on": True, "mode": 1, "label": "first",
              "delay": 5000000, "speed": 1000000, "level": 0, "twisted": 3}
    for _, text, entries, _, _ in shown()[:-1]:
        lib.contains(text, "set rate=1000 set offset=-5 set small=7 set on=true set mode=1 set label=first ")
        (entry,) = entries[with_parameters]
        lib.equal(entry["options"]["set"], values, "parameters")


def all_but_parameters_to_those_who_may_not_see_maps():
    for text in shown()[-1]:
        lib.contains(text, "params_enqueue")
        lib.true("offset" not in text, f"parameters in: {text}")
        lib.true(text[0] == "q" or "set" not in parsed(text)[with_parameters][0]["options"], "parameters")


def each_tx_queue():
    for _, text, entries, classes, listed in shown()[:-1]:
        lib.equal(len(re.findall(r"^qdisc bpf \S+ parent 5:[1-4] .* dequeue queues_dequeue ", text, re.M)), 4,
                  f"instances in: {text}")
        lib.contains(text, "\nqdisc bpf_mq 5: root ")
        lib.equal(sorted((entry["kind"], entry.get("parent")) for entry in entries[of_each_tx_queue]),
                  [("bpf", f"5:{queue}") for queue in range(1, 5)] + [("bpf_mq", None)], "qdiscs")
        lib.equal(classes.count("class bpf_mq 5:"), 4, "tx queues")
        lib.equal([entry["class"] for entry in listed[of_each_tx_queue]], ["bpf_mq"] * 4, "tx queues")


def classes_and_their_qdiscs():
    for _, _, entries, classes, listed in shown()[:-1]:
        lib.true(re.search(r"^class bpf 6:1 .*^class bpf 6:2 .*leaf 60:", classes, re.M | re.S), f"form: {classes}")
        lib.equal([(entry["class"], entry["handle"]) for entry in listed[with_classes]],
                  [("bpf", "6:1"), ("bpf", "6:2")], "classes")
        lib.equal(sorted(entry["kind"] for entry in entries[with_classes]), ["bpf", "pfifo"], "qdiscs")


def the_examples_of_the_man_page_work():
    """One after the other, on eth0, with the objects that they name."""
    lines = lib.man_page_examples(f"{TOP}/iproute2-patches/tc-bpf-qdisc.8")
    lib.true(len(lines) > 15, f"examples: {lines}")
    folder = "/tmp/test_man"
    os.mkdir(folder)
    for name, source in (("edt", f"{POLICIES}/edt.bpf.o"), ("fq", f"{POLICIES}/fq.bpf.o"), ("edt2", f"{POLICIES}/edt.bpf.o"),
                         ("mine", FIFO), ("rate", f"{POLICIES}/rate.bpf.o"), ("several", compiled("several")),
                         ("classes", compiled("classes"))):
        shutil.copy(source, f"{folder}/{name}.bpf.o")
    script = "\n".join([f"cd {folder}", "set -ex", *lines, "tc qdisc del dev lo root", "tc qdisc del dev eth0 root"])
    try:
        status, out, err = said("bash", "-c", script)
        lib.equal(status, 0, f"status of the examples:\n{out}{err[-2000:]}")
        lib.contains(out, "qdisc bpf ")
    finally:
        shutil.rmtree("/sys/fs/bpf/eth0", ignore_errors=True)
        lib.run("umount", "/run/bpf")


lib.main(packets,
         a_warning_of_a_policy_that_is_stuck,
         pinned_programs_without_an_object,
         parameters,
         all_but_parameters_to_those_who_may_not_see_maps,
         each_tx_queue,
         classes_and_their_qdiscs,
         the_examples_of_the_man_page_work)
