#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Without tc: what the kernel's description of netlink, Documentation/netlink/specs/tc.yaml, says of
the qdiscs is enough for tools/net/ynl to attach, change, show and remove them, as tc sees them."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import sys

import lib
import rst

LINUX = f"{lib.TOP}/build/linux"
sys.path.append(f"{LINUX}/tools/net/ynl")
# pylint: disable=wrong-import-position,import-error
from pyynl import Netlink, NlError, YnlFamily

FOLDER = "/sys/fs/bpf/test_ynl"
ROOT = 0xffffffff
HOLD = lib.compiled("hold")
FIFO = f"{lib.POLICIES}/fifo.bpf.o"
SYS_BPF, BPF_OBJ_GET = 321, 7
KERNEL = YnlFamily(f"{LINUX}/Documentation/netlink/specs/tc.yaml")      # checks it against the schema


def pinned(path):
    """A file descriptor of what is pinned here."""
    name = ctypes.create_string_buffer(path.encode())
    attr = struct.pack("QII", ctypes.addressof(name), 0, 0)
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_OBJ_GET, attr, len(attr))
    if fd < 0:
        raise OSError(ctypes.get_errno(), path)
    return fd


@contextlib.contextmanager
def programs(obj, copies=1):
    """An object, loaded so many times: options that name its programs."""
    options = {"enqueue": {"fd": []}, "dequeue": {"fd": []}}
    try:
        for _ in range(copies):
            lib.run("bpftool", "prog", "loadall", obj, FOLDER)
            for what, program in options.items():
                (name,) = (name for name in os.listdir(FOLDER) if name.endswith(f"_{what}"))
                program["fd"].append(pinned(f"{FOLDER}/{name}"))
            shutil.rmtree(FOLDER)
        yield options
    finally:
        for program in options.values():
            for fd in program["fd"]:
                os.close(fd)


def request(operation, device, kind, *flags, **options):
    KERNEL.do(operation, {"ifindex": device.ifindex, "parent": ROOT, "kind": kind, "options": options}, list(flags))


def attach(device, kind, **options):
    request("newqdisc", device, kind, Netlink.NLM_F_CREATE, Netlink.NLM_F_EXCL, **options)


def change(device, kind, **options):
    request("newqdisc", device, kind, **options)


def refused(words, attribute, operation, *arguments, **options):
    """With the kernel's words, and the attribute that they are about."""
    try:
        operation(*arguments, **options)
    except NlError as error:
        lib.contains(str(error), words)
        lib.equal(error.nl_msg.extack.get("bad-attr"), attribute, "attribute")
    else:
        raise lib.Failure(f"not refused: {words}")


def number(handle):
    """As ynl shows what tc shows as MAJOR:MINOR."""
    major, _, minor = handle.partition(":")
    return int(major or "0", 16) << 16 | int(minor or "0", 16)


def as_tc(shown):
    """What ynl shows of a qdisc, in tc's words."""
    options, stats = dict(shown["options"]), shown["stats2"]
    for what in {"enqueue", "dequeue"} & options.keys():
        options[what] = options[what] | {"tag": options[what]["tag"].hex()}
    if "object" in options:
        options["obj"] = options.pop("object")
    app = {name.replace("-", "_"): value for name, value in stats.get("app", {}).items()}
    lib.equal(shown.get("xstats", {}), stats.get("app", {}), "statistics, sent twice")
    return {"kind": shown["kind"], "handle": shown["handle"], "parent": shown["parent"], "options": options,
            "app": app | {"is_stuck": bool(app["is_stuck"])} if app else {}} | stats["basic"] | stats["queue"]


def from_tc(shown):
    """The same of what tc shows, but for what it asks others: the maps, and what is in them."""
    options = {name: value for name, value in shown["options"].items() if name not in ("set", "stats")}
    for what in {"enqueue", "dequeue"} & options.keys():
        options[what] = {name: value for name, value in options[what].items() if name != "map_ids"}
    app = {name: shown[name] for name in ("stored", "stolen", "stuck", "is_stuck") if name in shown}
    return {"kind": shown["kind"], "handle": number(shown["handle"]),
            "parent": ROOT if shown.get("root") else number(shown["parent"]), "options": options,
            "app": app | {"fifo": shown.get("fifo", 0)} if app else {},
            **{name: shown[name] for name in ("bytes", "packets", "qlen", "backlog", "drops", "requeues", "overlimits")}}


def dumped(device):
    """What ynl shows of the qdiscs of the device, by parent, which is what tc shows of them."""
    shown = [as_tc(each) for each in KERNEL.dump("getqdisc", {}) if each["ifindex"] == device.ifindex]
    lib.equal(shown, [from_tc(each) for each in lib.qdiscs(device.a)], "what ynl shows, against tc")
    return {each["parent"]: each for each in shown}


def root_of(device):
    return dumped(device)[ROOT]


def bpf_is_attached_changed_and_removed():
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        with programs(HOLD) as hold:
            attach(device, "bpf", **hold, limit=3, object="by hand")
        lib.equal([sender.send(count) for count in range(4)], [True] * 3 + [False], "taken")
        first = root_of(device)
        lib.equal((first["options"]["enqueue"]["name"], first["options"]["dequeue"]["name"], first["options"]["obj"]),
                  ("hold_enqueue", "hold_dequeue", "by hand"), "programs")
        lib.equal((first["qlen"], first["drops"], first["app"]["stored"]), (3, 1, 3), "queued, dropped, in maps")

        change(device, "bpf", limit=4, horizon=60 * lib.NSEC, patience=2 * lib.NSEC)
        lib.equal(sender.send(4), True, "taken after a change of the limit")
        second = root_of(device)
        lib.equal(second["options"], first["options"] | {"limit": 4, "horizon": 60 * lib.NSEC, "patience": 2 * lib.NSEC},
                  "options after it")

        with programs(FIFO) as fifo:
            refused("Map 'hold_pkts' has packets", None, change, device, "bpf", **fifo)
            lib.equal(root_of(device), second, "after a change that was refused")
            change(device, "bpf", **fifo, flags=["flush"])
        third = root_of(device)
        lib.equal((third["options"]["enqueue"]["name"], third["qlen"], third["drops"]), ("fifo_enqueue", 0, 5), "after it")
        sender.send(5)
        lib.equal(lib.numbers(receiver.collect(1)), [5], "packets that leave")
        lib.equal(root_of(device)["packets"], 1, "sent")

        request("delqdisc", device, "bpf")
        lib.equal(lib.instances(device.a), [], "qdiscs after it is removed")


def bpf_mq_is_attached_changed_and_removed():
    with lib.link("numtxqueues", "4") as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        with programs(HOLD, 4) as hold:
            attach(device, "bpf_mq", **hold)
        shown = dumped(device)
        root = shown.pop(ROOT)
        lib.equal((root["kind"], root["options"]["queues"]), ("bpf_mq", 4), "kind, queues with programs of their own")
        lib.equal(len({each["options"]["enqueue"]["id"] for each in shown.values()}), 4, "enqueue programs")
        sender.send(1)
        lib.equal(root_of(device)["qlen"], 1, "queued")

        with programs(FIFO, 4) as fifo:
            change(device, "bpf_mq", **fifo, limit=7, flags=["flush"])
        lib.equal({(each["options"]["enqueue"]["name"], each["options"]["limit"]) for each in dumped(device).values()},
                  {("fifo_enqueue", 7)}, "programs and limits")
        sender.send(2)
        lib.equal(lib.numbers(receiver.collect(1)), [2], "packets that leave")

        request("delqdisc", device, "bpf_mq")
        lib.equal(lib.instances(device.a, "bpf_mq"), [], "qdiscs after it is removed")


def misuse_is_said_with_its_attribute():
    with lib.link() as device, programs(HOLD) as hold:
        refused("needs an enqueue and a dequeue program", None, attach, device, "bpf", limit=3)
        refused("integer out of range", ".options(bpf).limit", attach, device, "bpf", **hold, limit=0)
        refused("A BPF program needs a file descriptor", ".options(bpf).enqueue", attach, device, "bpf", enqueue={}, dequeue={})
        twice = {what: {"fd": program["fd"] * 2} for what, program in hold.items()}
        refused("Several pairs of programs are for bpf_mq", None, attach, device, "bpf", **twice)
        lib.equal(lib.instances(device.a), [], "qdiscs")


def a_filter_of_the_kind_bpf_is_another():
    """Its options have the numbers of others."""
    with lib.link() as device:
        device.attach(FIFO)
        lib.run("tc", "qdisc", "add", "dev", device.a, "clsact")
        lib.run("tc", "filter", "add", "dev", device.a, "egress", "bpf", "da", "obj", lib.compiled("classifier"), "sec", "tc")
        shown = KERNEL.dump("gettfilter", {"ifindex": device.ifindex, "parent": 0xfffffff3})
        (options,) = (each["options"] for each in shown if "options" in each)
        (program,) = [each for each in lib.bpftool("prog", "list") if each["id"] == options["id"]]
        lib.equal((options["tag"].hex(), program["type"]), (program["tag"], "sched_cls"), "program of the filter")


def the_commands_of_the_document():
    text = rst.of_title("sch_bpf", "Netlink")
    commands = re.findall(r"^\t# (.*(?:\n\t .*)*)", text, re.M)
    lib.equal(len(commands), 3, "commands")
    with lib.link() as device, programs(FIFO) as fifo:
        given = {'"ifindex": 3': f'"ifindex": {device.ifindex}'}
        given |= {f'"{what}": {{"fd": [{fd}]}}': f'"{what}": {json.dumps(fifo[what])}'
                  for what, fd in (("enqueue", 4), ("dequeue", 5))}
        passed = [fd for program in fifo.values() for fd in program["fd"]]
        printed = []
        for command in commands:
            for example, ours in given.items():
                command = command.replace(example, ours)
            done = subprocess.run(command, shell=True, cwd=LINUX, pass_fds=passed, capture_output=True, text=True, check=False)
            lib.equal((done.returncode, done.stderr), (0, ""), f"{command}: {done.stdout}")
            printed.append(done.stdout)
        shown = root_of(device)["options"]
        lib.equal((shown["enqueue"]["name"], shown["limit"]), ("fifo_enqueue", 500), "program and limit")
        lib.contains(printed[-1], "'fifo_enqueue'")


lib.main(bpf_is_attached_changed_and_removed,
         bpf_mq_is_attached_changed_and_removed,
         misuse_is_said_with_its_attribute,
         a_filter_of_the_kind_bpf_is_another,
         the_commands_of_the_document)
