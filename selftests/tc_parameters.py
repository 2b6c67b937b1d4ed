#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""`set NAME=VALUE`: what is stored and shown, what is refused; with both tc."""

import json

import lib
from lib import POLICIES, PROGS, fails, qdisc, with_both, works

HOLD = f"{PROGS}/hold.bpf.o"


def options(tc, device):
    (entry,) = json.loads(works(*tc, "-j", "qdisc", "show", "dev", device.a, "root"))
    return entry["options"]


@with_both
def parameters(tc, device):
    obj = ("obj", f"{PROGS}/params.bpf.o")
    first = {"rate": 1000, "offset": -5, "small": 7, "on": True, "mode": 1, "label": "first",
             "delay": 5000000, "speed": 1000000, "level": 0, "twisted": 3}
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


@with_both
def ranges(tc, device):
    """What the policy declares holds at add and at change; the bounds belong to the range."""
    obj = ("obj", f"{PROGS}/params.bpf.o")
    words = [fails(1, 'parameter "delay" cannot be "999us": it is a number from 1ms to 10s',
                   *tc, *qdisc(device, "add", *obj, "set", "delay=999us"))]
    works(*tc, *qdisc(device, "add", *obj, "set", "delay=1ms"))
    lib.equal(options(tc, device)["set"]["delay"], 1000000, "at add")
    for setting, value in (("delay=10s", 10**10), ("delay=1000000", 10**6), ("speed=8kbit", 1000),
                           ("speed=1gbit", 125000000), ("level=-10", -10), ("level=20", 20)):
        works(*tc, *qdisc(device, "change", "set", setting))
        lib.equal(options(tc, device)["set"][setting.split("=")[0]], value, setting)
    for setting, of in (("delay=0", "1ms to 10s"), ("delay=999999", "1ms to 10s"),
                        ("delay=10.001s", "1ms to 10s"), ("delay=18446744073709551615", "1ms to 10s"),
                        ("speed=7000bit", "8kbit to 1gbit"), ("speed=1.1gbit", "8kbit to 1gbit"),
                        ("speed=-1", "8kbit to 1gbit"), ("level=-11", "-10 to 20"), ("level=21", "-10 to 20"),
                        ("twisted=3", "many to few")):
        words.append(fails(1, f"it is a number from {of}\n", *tc, *qdisc(device, "change", "set", setting)))
    lib.equal(options(tc, device)["set"]["delay"], 1000000, "after what was refused")
    words.append(fails(1, "  delay (a number from 1ms to 10s)\n",
                       *tc, *qdisc(device, "change", "set", "dela=5")))
    return words


@with_both
def ranges_of_the_policies(tc, device):
    """Each time, rate and limit has one, which the sums in the programs rely on."""
    for policy, names in (("edt", ("horizon", "delta")), ("rate", ("rate", "burst", "horizon")),
                          ("fq", ("horizon", "ce_threshold", "flow_limit")),
                          ("fifo", ("limit_bytes",)), ("prio", ("band_limit",))):
        works(*tc, *qdisc(device, "add", "obj", f"{POLICIES}/{policy}.bpf.o"))
        set_before = options(tc, device)["set"]
        for name in names:
            size = 4 if "limit" in name else 8
            fails(1, f'parameter "{name}" cannot be ',
                  *tc, *qdisc(device, "change", "set", f"{name}={2**(8 * size) - 1}"))
        for name, value in set_before.items():      # what it begins with is in its range
            works(*tc, *qdisc(device, "change", "set", f"{name}={str(value).lower()}"))
        lib.equal(options(tc, device)["set"], set_before, f"parameters of {policy}")
        works(*tc, "qdisc", "del", "dev", device.a, "root")


lib.main(parameters,
         parameters_that_are_wrong,
         ranges,
         ranges_of_the_policies)
