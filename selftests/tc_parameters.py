#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""`set NAME=VALUE`: what is stored and shown, what is refused; with both tc."""

import json

import lib
from lib import PROGS, fails, qdisc, with_both, works

HOLD = f"{PROGS}/hold.bpf.o"


def options(tc, device):
    (entry,) = json.loads(works(*tc, "-j", "qdisc", "show", "dev", device.a, "root"))
    return entry["options"]


@with_both
def parameters(tc, device):
    obj = ("obj", f"{PROGS}/params.bpf.o")
    first = {"rate": 1000, "offset": -5, "small": 7, "on": True, "mode": 1, "label": "first"}
    works(*tc, *qdisc(device, "add", *obj, "set", "rate=200mbit", "set", "label=second"))
    lib.equal(options(tc, device)["set"], {**first, "rate": 25000000, "label": "second"}, "at add")
    programs = options(tc, device)["enqueue"]["id"]
    for setting, value in (("rate=1.5ms", 1500000), ("rate=64kb", 65536), ("rate=0x10", 16),
                           ("rate=18446744073709551615", 2**64 - 1), ("offset=-2147483648", -2**31),
                           ("small=255", 255), ("on=off", False), ("mode=0", 0),
                           ("label=fifteen letters", "fifteen letters"), ("label=", "")):
        works(*tc, *qdisc(device, "change", "set", setting))
        lib.equal(options(tc, device)["set"][setting.split("=")[0]], value, setting)
    lib.equal(options(tc, device)["enqueue"]["id"], programs, "program that runs")
    shown = works(*tc, "qdisc", "show", "dev", device.a)
    lib.contains(shown, " set rate 18446744073709551615 offset -2147483648 ")
    works(*tc, *qdisc(device, "change", *obj, "set", "small=9"))
    lib.equal(options(tc, device)["set"], {**first, "small": 9}, "of a new object")


@with_both
def parameters_that_are_wrong(tc, device):
    works(*tc, *qdisc(device, "add", "obj", f"{PROGS}/params.bpf.o"))

    def change(words, *settings):
        arguments = [word for setting in settings for word in ("set", setting)]
        return fails(1, words, *tc, *qdisc(device, "change", *arguments))

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
              fails(1, '".data.param" is not there',
                    *tc, *qdisc(device, "change", "obj", HOLD, "set", "rate=5"))]
    lib.equal(options(tc, device)["set"], before, "nothing is set if one is wrong")
    works(*tc, *qdisc(device, "replace", "obj", HOLD))
    return [*words, fails(1, "the programs have none", *tc, *qdisc(device, "change", "set", "rate=5"))]


lib.main(parameters,
         parameters_that_are_wrong)
