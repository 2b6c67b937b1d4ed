#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The command line: every error with its text and its exit status, programs by name,
parameters, output. Each test runs twice, with our tc and with the distribution's
and the plug-in: both must do and say the same."""

import json
import re
import subprocess

import lib
from lib import POLICIES, PROGS, TOP

FIFO = f"{POLICIES}/fifo.bpf.o"
OURS = ("tc",)
PLUGIN = ("env", f"TC_LIB_DIR={TOP}/build/tools/tc", "/sbin/tc")


def said(tc, *arguments):
    """Status, output and errors of a command, without what differs between two runs."""
    done = subprocess.run([*tc, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def same(text):
    return re.sub(r'(\bid(": |":| ))\d+|\b[0-9a-f]+:( |")|0x[0-9a-f]+', r"\1N", text)


def with_both(test):
    """Run a test with each tc, on a device of its own; what it says must be the same."""
    def both():
        words = []
        for tc in (OURS, PLUGIN):
            with lib.link() as device:
                words.append([same(text).replace(device.a, "DEV") for text in test(tc, device) or ()])
        for ours, plugin in zip(*words, strict=True):
            lib.equal(plugin, ours, "what the plug-in says")

    both.__name__ = test.__name__
    return both


def qdisc(device, what, *options, kind="bpf"):
    return "qdisc", what, "dev", device.a, "root", kind, *options


def works(tc, *arguments):
    status, out, err = said(tc, *arguments)
    lib.equal((status, err), (0, ""), " ".join(arguments))
    return out


def fails(tc, status, words, *arguments):
    got, out, err = said(tc, *arguments)
    lib.equal((got, out), (status, ""), f"{' '.join(arguments)}: {err}")
    lib.contains(err, words)
    return err


def options(tc, device):
    (entry,) = json.loads(works(tc, "-j", "qdisc", "show", "dev", device.a, "root"))
    return entry["options"]


@with_both
def objects_that_are_none(tc, device):
    def add(words, *arguments):
        err = fails(tc, 1, words, *qdisc(device, "add", *arguments))
        lib.equal(err.count("\n"), 1, f"lines of: {err}")
        return err

    return [add("nosuch.o: No such file or directory", "obj", "nosuch.o"),
            add("/etc/passwd: not an ELF object", "obj", "/etc/passwd"),
            add("/proc: not a regular file", "object-file", "/proc"),
            add("/sbin/tc: not for BPF", "obj", "/sbin/tc"),
            add('no enqueue program: section "qdisc/enqueue"', "obj", f"{PROGS}/no_enqueue.bpf.o"),
            add('no dequeue program: section "qdisc/dequeue"', "obj", f"{PROGS}/no_dequeue.bpf.o")]


@with_both
def arguments_that_are_wrong(tc, device):
    def add(words, *arguments):
        return fails(tc, 1, words, *qdisc(device, "add", *arguments))

    return [add('"obj FILE" is missing'),
            add('what is "nonsense"?', "obj", FIFO, "nonsense"),
            add('"limit" needs a value', "obj", FIFO, "limit"),
            add('limit "many" is not a number', "obj", FIFO, "limit", "many"),
            add('"obj" needs a value', "obj"),
            add("two objects", "obj", FIFO, "obj", FIFO),
            add("which object?", "enqueue", "fifo_enqueue"),
            add("not both", "obj", FIFO, "enqueue", "object-pinned", "/x"),
            add("for both", "enqueue", "object-pinned", "/x"),
            add("/nosuch", "enqueue", "object-pinned", "/nosuch", "dequeue", "object-pinned", "/nosuch"),
            add("Usage: ...", "help"),
            fails(tc, 1, "has no options", "class", "add", "dev", device.a, "parent", "1:",
                  "classid", "1:1", "bpf", "nonsense")]


@with_both
def the_verifier_refuses(tc, device):
    err = fails(tc, 1, "refused the enqueue program 'leak_enqueue'",
                *qdisc(device, "add", "obj", f"{PROGS}/leak.bpf.o"))
    lib.contains(err, "verifier log of program 'leak_enqueue'")
    lib.contains(err, "still owned")
    lib.equal(err.rstrip("\n").splitlines()[-1].startswith("qdisc bpf: "), True, "last line says it")


@with_both
def verbose_shows_the_log(tc, device):
    status, _, err = said(tc, *qdisc(device, "add", "obj", FIFO, "verbose"))
    lib.equal(status, 0, "status")
    for name in ("fifo_enqueue", "fifo_dequeue"):
        lib.contains(err, f"verifier log of program '{name}'")


@with_both
def programs_by_name(tc, device):
    obj = ("obj", f"{PROGS}/several.bpf.o")
    words = [fails(tc, 1, '2 enqueue programs; say with "enqueue NAME" which one',
                   *qdisc(device, "add", *obj)),
             fails(tc, 1, 'is named "middle"', *qdisc(device, "add", *obj, "enqueue", "middle"))]
    for text in words:
        lib.contains(text, "last_enqueue (section qdisc/enqueue/last)")
    for name in (("last_enqueue",), ("section", "qdisc/enqueue/last")):
        works(tc, *qdisc(device, "replace", *obj, "enqueue", *name, "dequeue", "any_dequeue"))
        shown = options(tc, device)
        lib.equal((shown["enqueue"]["name"], shown["dequeue"]["name"]),
                  ("last_enqueue", "any_dequeue"), "programs")
    return words


@with_both
def pinned_programs(tc, device):
    folder = "/sys/fs/bpf/test_tc"
    lib.run("bpftool", "prog", "loadall", FIFO, folder)
    try:
        pins = [f"{folder}/fifo_{op}" for op in ("enqueue", "dequeue")]
        works(tc, *qdisc(device, "add", "enqueue", "object-pinned", pins[0],
                         "dequeue", "object-pinned", pins[1]))
        shown = options(tc, device)
        lib.equal((shown["enqueue"]["name"], "obj" in shown), ("fifo_enqueue", False), "options")
        return [fails(tc, 2, "", *qdisc(device, "change", "enqueue", "object-pinned", pins[1],
                                        "dequeue", "object-pinned", pins[0]))]
    finally:
        lib.run("rm", "-r", folder)


@with_both
def output(tc, device):
    works(tc, *qdisc(device, "add", "obj", FIFO, "limit", "77"))
    forms = [works(tc, *flags, "qdisc", "show", "dev", device.a)
             for flags in ((), ("-d",), ("-s",), ("-j",), ("-s", "-j"), ("-s", "-d", "-j", "-p"))]
    pattern = (r"qdisc bpf [0-9a-f]+: root refcnt \d+ limit 77p "
               r"horizon 10s patience 5s obj fifo\.bpf\.o enqueue fifo_enqueue id \d+ "
               r"tag [0-9a-f]{16} dequeue fifo_dequeue id \d+ tag [0-9a-f]{16} ")
    lib.true(re.match(pattern, forms[0]), f"plain form: {forms[0]}")
    lib.contains(forms[2], "stored 0p stolen 0p stuck 0")
    for form in forms[3:]:
        (entry,) = json.loads(form)
        lib.equal(entry["options"]["limit"], 77, "limit")
        lib.equal(sorted(entry["options"]["enqueue"]), ["id", "name", "tag"], "an object for a program")
    lib.equal(json.loads(forms[5])[0]["is_stuck"], False, "stuck")
    return forms


@with_both
def parameters(tc, device):
    obj = ("obj", f"{PROGS}/params.bpf.o")
    first = {"rate": 1000, "offset": -5, "small": 7, "on": True, "mode": 1, "label": "first"}
    works(tc, *qdisc(device, "add", *obj, "set", "rate=200mbit", "set", "label=second"))
    lib.equal(options(tc, device)["set"], {**first, "rate": 25000000, "label": "second"}, "at add")
    programs = options(tc, device)["enqueue"]["id"]
    for setting, value in (("rate=1.5ms", 1500000), ("rate=64kb", 65536), ("rate=0x10", 16),
                           ("rate=18446744073709551615", 2**64 - 1), ("offset=-2147483648", -2**31),
                           ("small=255", 255), ("on=off", False), ("mode=0", 0),
                           ("label=fifteen letters", "fifteen letters"), ("label=", "")):
        works(tc, *qdisc(device, "change", "set", setting))
        lib.equal(options(tc, device)["set"][setting.split("=")[0]], value, setting)
    lib.equal(options(tc, device)["enqueue"]["id"], programs, "program that runs")
    shown = works(tc, "qdisc", "show", "dev", device.a)
    lib.contains(shown, " set rate 18446744073709551615 offset -2147483648 ")
    works(tc, *qdisc(device, "change", *obj, "set", "small=9"))
    lib.equal(options(tc, device)["set"], {**first, "small": 9}, "of a new object")


@with_both
def parameters_that_are_wrong(tc, device):
    works(tc, *qdisc(device, "add", "obj", f"{PROGS}/params.bpf.o"))

    def change(words, *settings):
        arguments = [word for setting in settings for word in ("set", setting)]
        return fails(tc, 1, words, *qdisc(device, "change", *arguments))

    before = options(tc, device)["set"]
    words = [change("unsigned number of 64 bits", f"rate={value}")
             for value in ("x", "-1", "1.5", "", " 5", "5 ", "1e3", "18446744073709551616", "20mbits")]
    words += [change("unsigned number of 8 bits", "small=256"),
              change("signed number of 32 bits", "offset=2147483648"),
              change("true or false", "on=maybe"),
              change("15 characters at most", "label=sixteen  letters"),
              change("cannot be set", "pair=1"),
              change("NAME=VALUE is needed", "rate"),
              change('unknown parameter "rat"; there are\n  rate (', "rat=5"),
              change("cannot be", "rate=5", "small=256"),
              fails(tc, 1, '".data.param" is not there',
                    *qdisc(device, "change", "obj", f"{PROGS}/hold.bpf.o", "set", "rate=5"))]
    lib.equal(options(tc, device)["set"], before, "nothing is set if one is wrong")
    works(tc, *qdisc(device, "replace", "obj", f"{PROGS}/hold.bpf.o"))
    return [*words, fails(tc, 1, "the programs have none", *qdisc(device, "change", "set", "rate=5"))]


@with_both
def a_map_that_cannot_be_taken_over(tc, device):
    other = ("obj", f"{PROGS}/hold_by_mark.bpf.o")
    works(tc, *qdisc(device, "add", "obj", f"{PROGS}/hold.bpf.o"))
    with lib.Sender(device.a) as sender:
        sender.send(1)
    err = fails(tc, 2, "is not taken over from the qdisc: another key type",
                *qdisc(device, "change", *other))
    lib.contains(err, "Map 'hold_pkts' holds packets")
    status, _, again = said(tc, *qdisc(device, "change", *other, "flush"))
    lib.equal(status, 0, again)
    return [err]


@with_both
def arrays_of_maps_are_filled(tc, device):
    works(tc, *qdisc(device, "add", "obj", f"{PROGS}/queues.bpf.o"))
    with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        sender.send(1)
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that leave")


def one_for_each_tx_queue():
    for tc in (OURS, PLUGIN):
        with lib.link("numtxqueues", "4") as device:
            works(tc, *qdisc(device, "add", "obj", f"{PROGS}/queues.bpf.o", kind="bpf_mq"))
            listed = json.loads(works(tc, "-j", "qdisc", "show", "dev", device.a))
            lib.equal(sorted(entry["kind"] for entry in listed), ["bpf"] * 4 + ["bpf_mq"], "qdiscs")
            (outer,) = lib.maps_named("queues")
            elements = lib.bpftool("map", "dump", "id", str(outer))
            lib.equal(len(elements), 4, "inner maps")
            with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
                sender.send(1)
                lib.equal(lib.numbers(receiver.collect(1)), [1], "packets that leave")
            works(tc, *qdisc(device, "change", "obj", f"{PROGS}/queues.bpf.o", kind="bpf_mq"))
            lib.equal(lib.maps_named("queues"), {outer}, "array of maps after a change")


@with_both
def another_qdisc_is_left_alone(tc, device):
    works(tc, "qdisc", "add", "dev", device.a, "root", "handle", "1:", "pfifo")
    return [fails(tc, 2, "", *qdisc(device, "change", "limit", "5")),
            fails(tc, 1, "no such qdisc", *qdisc(device, "change", "set", "rate=5"))]


def an_unknown_tc_hears_what_it_lacks():
    """A program that is no tc at all loads the plug-in."""
    code = ("import ctypes; plugin = ctypes.CDLL(%r); "
            "util = (ctypes.c_void_p * 8).in_dll(plugin, 'bpf_qdisc_util'); "
            "parse = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5, use_errno=True); "
            "print(ctypes.cast(util[2], parse)(ctypes.addressof(util), None, None, None, None))"
            % f"{TOP}/build/tools/tc/q_bpf.so")
    done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=False)
    lib.equal((done.returncode, done.stdout), (0, "-1\n"), done.stderr)
    lib.contains(done.stderr, "this tc has no addattr_l() for its plug-ins")


lib.main(objects_that_are_none,
         arguments_that_are_wrong,
         the_verifier_refuses,
         verbose_shows_the_log,
         programs_by_name,
         pinned_programs,
         output,
         parameters,
         parameters_that_are_wrong,
         a_map_that_cannot_be_taken_over,
         arrays_of_maps_are_filled,
         one_for_each_tx_queue,
         another_qdisc_is_left_alone,
         an_unknown_tc_hears_what_it_lacks)
