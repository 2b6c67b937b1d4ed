#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""`set NAME=VALUE` and `set NAME[KEY]=VALUE`: what is stored and shown, what is refused; with
both tc."""

import itertools
import json
import re
import subprocess

import lib
from lib import GLOBALS, POLICIES, compiled, fails, qdisc, with_both, works

HOLD = compiled("hold")
TABLES = ("obj", compiled("tables"))
# Shared by all devices, and so by all tests
SHARED = "tables_long_name_of_device"


def options(tc, device):
    (entry,) = json.loads(works(*tc, "-j", "qdisc", "show", "dev", device.a, "root"))
    return entry["options"]


def settings(*assignments):
    return [word for assignment in assignments for word in ("set", assignment)]


def another(device, *options):
    """A new qdisc of the tables, whatever was there."""
    return "qdisc", "replace", "dev", device.a, "root", "handle", "7:", "bpf", *TABLES, *options


@with_both
def parameters(tc, device):
    obj = ("obj", compiled("params"))
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
    lib.contains(shown, " set rate=18446744073709551615 set offset=-2147483648 ")
    status, _, err = lib.said(*tc, *qdisc(device, "change", *obj, "set", "small=9"))
    lib.equal(options(tc, device)["set"], {**first, "small": 9}, "of a new object")
    lib.equal((status, sorted(re.findall(r'parameter "(\w+)" begins anew', err)), len(err.splitlines())),
              (0, ["label", "mode", "offset", "on", "rate"], 5), f"what is said of it: {err}")
    lib.contains(err, 'parameter "rate" begins anew with 1000, as in the object; it was 18446744073709551615\n')
    works(*tc, *qdisc(device, "change", *obj, "set", "small=9"))
    return [err]


@with_both
def parameters_that_are_wrong(tc, device):
    works(*tc, *qdisc(device, "add", "obj", compiled("params")))

    def change(words, *assignments):
        return fails(1, words, *tc, *qdisc(device, "change", *settings(*assignments)))

    before = options(tc, device)["set"]
    words = [change("unsigned number of 64 bits", f"rate={value}")
             for value in ("x", "-1", "1.5", "", " 5", "5 ", "1e3", "18446744073709551616", "20mbits",
                           "-18446744073709551611", "ms", ".ms", ".5", "0x", "08x")]
    words += [change("unsigned number of 8 bits", "small=256"),
              change("signed number of 32 bits", "offset=2147483648"),
              change("true or false", "on=maybe"),
              change("15 characters at most", "label=sixteen  letters"),
              change("cannot be set", "pair=1"),
              change("NAME=VALUE or NAME[KEY]=VALUE is needed", "rate"),
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
    obj = ("obj", compiled("params"))
    words = [fails(1, 'parameter "delay" cannot be "999us": it is a time from 1ms to 10s',
                   *tc, *qdisc(device, "add", *obj, "set", "delay=999us"))]
    works(*tc, *qdisc(device, "add", *obj, "set", "delay=1ms"))
    lib.equal(options(tc, device)["set"]["delay"], 1000000, "at add")
    for setting, value in (("delay=10s", 10**10), ("delay=1000000", 10**6), ("speed=8kbit", 1000),
                           ("speed=1gbit", 125000000), ("speed=2kbps", 2000), ("delay=.5s", 5 * 10**8),
                           ("level=-10", -10), ("level=20", 20), ("level=010", 10), ("speed=0001000", 1000),
                           ("speed=0x3e8", 1000), ("delay=1000000", 10**6)):
        works(*tc, *qdisc(device, "change", "set", setting))
        lib.equal(options(tc, device)["set"][setting.split("=")[0]], value, setting)
    time, rate, level = "time from 1ms to 10s", "rate from 8kbit to 1gbit", "number from -10 to 20"
    for setting, of in (("delay=0", time), ("delay=999999", time), ("delay=10.001s", time),
                        ("delay=18446744073709551615", time), ("speed=7000bit", rate), ("speed=1.1gbit", rate),
                        ("speed=-1", rate), ("level=-11", level), ("level=21", level),
                        ("twisted=3", "number from many to few"),
                        # in a unit of something else
                        ("delay=5mb", time), ("delay=10mbit", time), ("speed=5ms", rate), ("speed=100m", rate)):
        words.append(fails(1, f"it is a {of}\n", *tc, *qdisc(device, "change", "set", setting)))
    lib.equal(options(tc, device)["set"]["delay"], 1000000, "after what was refused")
    words.append(fails(1, "  delay (a time from 1ms to 10s)\n",
                       *tc, *qdisc(device, "change", "set", "dela=5")))
    return words


@with_both
def ranges_of_the_policies(tc, device):
    """Each time, rate and limit has one, which the sums in the programs rely on."""
    for policy, names in (("edt", ("horizon", "delta")), ("rate", ("rate", "burst", "quantum", "target", "interval", "split_gso")),
                          ("fq", ("horizon", "ce_threshold", "flow_limit", "target", "interval")),
                          ("fq_codel", ("target", "interval", "ce_threshold", "limit_bytes")),
                          ("fifo", ("limit_bytes",)), ("prio", ("band_limit",)),
                          ("ets", ("strict", "quanta", "priomap", "band_limit")),
                          ("red", ("min", "max", "max_p", "weight_log", "packet_time", "limit_bytes", "capture")),
                          ("netem", ("delay", "jitter", "delay_corr", "delay_values", "loss", "loss_corr", "loss_model", "loss_chain", "duplicate",
                                     "duplicate_corr", "gap", "reorder", "reorder_corr", "rate", "overhead", "cell_size", "cell_overhead",
                                     "slot_delay", "slot_jitter", "slot_values", "slot_packets", "slot_bytes")),
                          ("htb", ("default_class", "leaf_limit")),
                          ("reorder", ("wait",)), ("srpt", ("rank_by", "idle")),
                          ("taprio", ("gates", "intervals", "cycle", "base", "rate", "priomap", "max_sdu", "class_limit")),
                          ("tenants", ("rate", "burst", "leaf_by", "leaf_limit", "quantum", "target", "interval", "split_gso")),
                          ("cake", ("rate", "overhead", "mpu", "atm", "tins", "isolate", "target", "interval", "limit_bytes", "split_gso"))):
        works(*tc, *qdisc(device, "add", "obj", f"{POLICIES}/{policy}.bpf.o"))
        set_before = options(tc, device)["set"]
        for name in names:
            size = 4 if "limit" in name else 8
            fails(1, f'parameter "{name}" cannot be ',
                  *tc, *qdisc(device, "change", "set", f"{name}={2**(8 * size) - 1}"))
        for name, value in set_before.items():      # what it begins with is in its range
            if not isinstance(value, dict):
                values = value if isinstance(value, list) else [value]
                works(*tc, *qdisc(device, "change", "set", f"{name}={','.join(map(str, values)).lower()}"))
        lib.equal(options(tc, device)["set"], set_before, f"parameters of {policy}")
        works(*tc, "qdisc", "del", "dev", device.a, "root")


def shown_after(tc, device, *assignments):
    works(*tc, *qdisc(device, "change", *settings(*assignments)))
    return options(tc, device)["set"]


@with_both
def arrays(tc, device):
    """A list sets the first elements, an index one; all are shown."""
    works(*tc, *qdisc(device, "add", *TABLES, *settings("rates=8kbit,16kbit,24kbit", "levels[2]=-7")))
    first = options(tc, device)["set"]
    lib.equal([first[name] for name in ("rates", "levels", "ports", "names", "number")],
              [[1000, 2000, 3000, 0], [0, 0, -7], [True, False], ["first", ""], 5], "at add")
    for assignment, value in (("rates=7", [7, 2000, 3000, 0]), ("rates[3]=8kbit", [7, 2000, 3000, 1000]),
                              ("rates=0,0,0,0", [0, 0, 0, 0]), ("levels=-128,127", [-128, 127, -7]),
                              ("ports[1]=on", [True, True]), ("ports=off,0", [False, False]),
                              ("names[1]=other", ["first", "other"]), ("names=a,b", ["a", "b"])):
        name = assignment.split("[")[0].split("=")[0]
        lib.equal(shown_after(tc, device, assignment)[name], value, assignment)
    lib.contains(works(*tc, "qdisc", "show", "dev", device.a),
                 "set rates=0,0,0,0 set ports=false,false set names=a,b set number=5 set levels=-128,127,-7 ")


@with_both
def what_is_shown_can_be_set(tc, device):
    """In the unit that the range is declared in, and whole; JSON has the numbers."""
    def shown(name):
        return re.search(rf" set {re.escape(name)}=(\S*) ", works(*tc, "qdisc", "show", "dev", device.a))[1]

    works(*tc, *qdisc(device, "add", "obj", compiled("params")))
    for name, value, text in (("delay", 10**10, "10s"), ("delay", 1500 * 10**6, "1500ms"), ("delay", 10**6 + 1, "1000001ns"),
                              ("speed", 1000, "8kbit"), ("speed", 1001, "8008bit"), ("speed", 125 * 10**6, "1gbit"),
                              ("rate", 10**9, "1000000000"), ("level", -10, "-10"), ("level", 0, "0")):
        works(*tc, *qdisc(device, "change", *settings(f"{name}={value}")))
        lib.equal((options(tc, device)["set"][name], shown(name)), (value, text), name)
        works(*tc, *qdisc(device, "change", *settings(f"{name}={20 if name == 'level' else 2000000}")))
        works(*tc, *qdisc(device, "change", *settings(f"{name}={text}")))
        lib.equal(options(tc, device)["set"][name], value, f"{name}={text}")
    works(*tc, *another(device, *settings("of_number[1]=2048", "of_number[2]=1000")))
    lib.equal([shown(name) for name in ("rates", "of_number[1]", "of_number[2]")], ["8kbit,16kbit,0,0", "2kb", "1000b"],
              "elements")


@with_both
def elements_that_begin_anew(tc, device):
    """An element that is set says nothing of the others: a line does, if they would be others."""
    def said_of(*assignments):
        works(*tc, *qdisc(device, "change", *settings("rates=7,8,9,0", "levels=1,2,3", "number=9")))
        status, _, err = lib.said(*tc, *qdisc(device, "change", *TABLES, *settings(*assignments)))
        lib.equal(status, 0, err)
        return err

    works(*tc, *qdisc(device, "add", *TABLES))
    number = 'qdisc bpf: parameter "number" begins anew with 5, as in the object; it was 9\n'
    rates, levels = (f'qdisc bpf: parameter "{name}" begins anew, as in the object\n' for name in ("rates", "levels"))
    words = [said_of(), said_of("rates[3]=1", "levels=4,5"), said_of("rates=1,2,3", "levels[2]=4", "number=7"),
             said_of("rates[2]=1", "rates=1,2", "levels=1,2,3", "number=7")]
    lib.equal(words, [rates + number + levels, rates + number + levels, levels, ""], "what is said")
    return words


@with_both
def devices_and_addresses(tc, device):
    works(*tc, *qdisc(device, "add", *TABLES, *settings(f"where={device.b}", "gateway=192.0.2.7")))
    got = options(tc, device)["set"]
    lib.equal((got["where"], got["gateway"]), (device.b, "192.0.2.7"), "at add")
    lib.equal(shown_after(tc, device, f"where={device.ifindex}")["where"], device.a, "by index")
    lib.equal(shown_after(tc, device, "where=99999")["where"], "99999", "of a device that is not there")


@with_both
def tables(tc, device):
    """With keys of each type: before the object is loaded, while it runs, and taken over by a
    new object, which keeps the elements."""
    values = {"of_number": {"7": -3}, "of_address": {"192.0.2.1": [1, 2, 0]}, "of_text": {"some key": "value"},
              "of_index": {"2": 30}, SHARED: {device.a: 2500000}, "of_nobody": None}

    def tables_of(entries):
        return {name: entries.get(name) for name in values}

    works(*tc, *qdisc(device, "add", *TABLES, *settings(
        "of_number[7]=-3", "of_address[192.0.2.1]=1,2", "of_index[2]=30", f"{SHARED}[{device.a}]=20mbit",
        "of_nobody[1]=1")))
    lib.equal(tables_of(options(tc, device)["set"]), {**values, "of_text": {}}, "at add")
    lib.equal(tables_of(shown_after(tc, device, "of_text[seven b]=value", "of_text[some]=other")),
              {**values, "of_text": {"seven b": "value", "some": "other"}}, "at change")
    text = works(*tc, "qdisc", "show", "dev", device.a)
    for part in ("of_number[7]=-3", "of_address[192.0.2.1]=1,2,0", "of_text[some]=other", "of_index[2]=30",
                 f"{SHARED}[{device.a}]=2500000"):
        lib.contains(text, f" set {part} ")
    programs = options(tc, device)["enqueue"]["id"]
    got = shown_after(tc, device, "of_number[0x10]=1k", "of_number[7]=", "of_number[8]=", "of_address[192.0.2.1]=9",
                      "of_index[7]=100", "of_index[2]=0")
    lib.equal([got[name] for name in ("of_number", "of_address", "of_index")],
              [{"16": 1024}, {"192.0.2.1": [9, 2, 0]}, {"7": 100}], "changed and removed")
    lib.equal(options(tc, device)["enqueue"]["id"], programs, "program that runs")
    works(*tc, *qdisc(device, "change", *TABLES, *settings("of_number[1]=1", "rates=5")))
    got = options(tc, device)["set"]
    lib.equal((got["of_number"], got["of_index"], got["rates"]), ({"1": 1, "16": 1024}, {"7": 100}, [5, 2000, 0, 0]),
              "of a new object")
    works(*tc, *qdisc(device, "change", *settings(f"{SHARED}[{device.ifindex}]=")))


@with_both
def tables_that_are_shared(tc, device):
    """A table that is pinned is set once for all who use it, and each sees it."""
    with lib.link() as other:
        works(*tc, *qdisc(device, "add", *TABLES))
        works(*tc, *qdisc(other, "add", *TABLES, *settings(f"{SHARED}[{device.a}]=1", f"{SHARED}[{other.a}]=2")))
        lib.equal(options(tc, device)["set"][SHARED], {device.a: 1, other.a: 2}, "set by another")
        lib.equal(shown_after(tc, device, f"{SHARED}[{device.a}]=", f"{SHARED}[{other.a}]=")[SHARED], {}, "removed")
        (entry,) = lib.bpftool("map", "dump", "pinned", f"{GLOBALS}/{SHARED}") or [None]
        lib.equal(entry, None, "what is left in the pin")


@with_both
def a_program_sees_what_is_set(tc, device):
    with lib.Sender(device.a) as sender:
        works(*tc, *qdisc(device, "add", *TABLES, *settings("of_index[0]=100")))
        lib.equal((sender.send(0, 101), sender.send(1, 100)), (False, True), "packets taken")
        works(*tc, *qdisc(device, "change", *settings("of_index[0]=70")))
        lib.equal((sender.send(2, 71), sender.send(3, 70)), (False, True), "packets taken")


@with_both
def nothing_is_set_beside_what_is_refused(tc, device):
    """Without an object settings are stored before the kernel is asked."""
    works(*tc, "qdisc", "add", "dev", device.a, "root", "handle", "7:", "bpf", *TABLES)
    before, change = options(tc, device), ("qdisc", "change", "dev", device.a, "root")
    words = [fails(1, expected, *tc, *command, "bpf", *option, "set", "number=9")
             for command, option, expected in (
                 (change, ("limit", "0"), 'limit "0" is not a number of packets'),
                 (change, ("horizon", "1ns"), 'horizon "1ns" is out of range'),
                 (change, ("patience", "86401s"), 'patience "86401s" is out of range'),
                 ((*change, "handle", "9:"), (), f'no parameters to set on "{device.a}": no such qdisc'),
                 (("qdisc", "replace", *change[2:], "handle", "9:"), (), "no such qdisc"))]
    lib.equal(options(tc, device), before, "what has not been changed")
    works(*tc, *change, "handle", "7:", "bpf", "limit", "1", "horizon", "10ms", "patience", "86400s", "set", "number=9")
    got = options(tc, device)
    lib.equal((got["limit"], got["horizon"], got["patience"], got["set"]["number"]), (1, 10**7, 86400 * 10**9, 9), "set")
    return words


@with_both
def one_instance_is_not_set(tc, device):
    """All instances of bpf_mq have the same parameters."""
    works(*tc, "qdisc", "add", "dev", device.a, "root", "handle", "7:", "bpf_mq", "obj", f"{POLICIES}/rate.bpf.o")
    before = options(tc, device)["set"]
    handle = lib.instances(device.a)[0]["handle"]
    words = [fails(1, 'the instances of bpf_mq are changed together, by "root bpf_mq"',
                   *tc, "qdisc", what, "dev", device.a, *which, "bpf", "set", "rate=1mbit")
             for what, which in (*itertools.product(("change", "replace"), (("parent", "7:1"), ("handle", handle))),
                                 ("change", ("root",)))]
    lib.equal(options(tc, device)["set"], before, "of all")
    works(*tc, *qdisc(device, "change", "set", "rate=1mbit", kind="bpf_mq"))
    lib.equal(options(tc, device)["set"], {**before, "rate": 125000}, "of all, by the root")
    return words


@with_both
def arrays_and_tables_that_are_wrong(tc, device):
    """A line says what is wrong, and nothing is set, of the settings before it neither."""
    of_number = "a size from -10 to 1mb"
    wrong = [("rates=1,2,3,4,5", "at most 4 of these, with commas between: a rate from 0 to 1gbit"),
             ("rates=1,,2", "at most 4 of these"), ("rates=", "at most 4 of these"),
             ("rates=1,2gbit", "at most 4 of these"), ("rates[1]=2gbit", 'parameter "rates[1]" cannot be "2gbit": '
                                                      "it is a rate from 0 to 1gbit"),
             ("rates[4]=1", 'key of "rates" cannot be "4": it is a number from 0 to 3'),
             ("rates[-1]=1", "a number from 0 to 3"), ("rates[]=1", "a number from 0 to 3"),
             ("rates[x]=1", "a number from 0 to 3"), ("rates[1=1", "NAME=VALUE or NAME[KEY]=VALUE is needed"),
             ("rates[1]", "NAME=VALUE or NAME[KEY]=VALUE is needed"),
             ("names[1]=sixsix", 'parameter "names[1]" cannot be "sixsix": it is a text of 5 characters at most'),
             ("number[0]=1", 'parameter "number" is not a table: number=VALUE is needed'),
             ("grid=1", "of a type that cannot be set"), ("grid[0]=1", "of a type that cannot be set"),
             ("some[0]=1", "of a type that cannot be set"), ("some=1", "of a type that cannot be set"),
             ("where=nosuch0", "it is the name or the index of a network device"),
             ("gateway=192.0.2", "it is an IPv4 address"),
             ("of_number=1", 'parameter "of_number" is a table: of_number[KEY]=VALUE is needed'),
             ("of_number[65536]=1", 'key of "of_number" cannot be "65536": it is an unsigned number of 16 bits'),
             ("of_number[x]=1", "an unsigned number of 16 bits"), ("of_number[1]=-11", of_number),
             ("of_number[1]=2mb", f'parameter "of_number[1]" cannot be "2mb": it is {of_number}'),
             ("of_address[localhost]=1", "an IPv4 address"), ("of_address[192.0.2.1]=1,2,3,4", "at most 3 of these"),
             ("of_text[eight by]=1", "it is a text of 7 characters at most"),
             ("of_index[8]=1", 'key of "of_index" cannot be "8": it is a number from 0 to 7'),
             ("of_index[0]=101", "a number from 0 to 100"), ("of_index[0]=", "a number from 0 to 100; elements of an array are not removed"),
             ("of_pairs[1]=1", "of a type that cannot be set"), ("by_pairs[1]=1", "of a type that cannot be set"),
             ("of_cpus[1]=1", "of a type that cannot be set"),
             (f"{SHARED}[nosuch0]=1", f'key of "{SHARED}" cannot be "nosuch0": it is the name or the index of a '
                                      "network device")]
    words = [fails(1, expected, *tc, *qdisc(device, "add", *TABLES, *settings("rates=5", "of_number[1]=1", assignment)))
             for assignment, expected in wrong]
    works(*tc, *qdisc(device, "add", *TABLES))
    before = options(tc, device)["set"]
    words += [fails(1, expected, *tc, *qdisc(device, "change", *settings("rates=5", "of_number[1]=1", assignment)))
              for assignment, expected in wrong]
    words += [fails(1, 'table "of_nobody": no program of the qdisc uses it',
                    *tc, *qdisc(device, "change", *settings("rates=5", "of_nobody[1]=1"))),
              fails(1, f"\n  of_number[KEY] ({of_number}; KEY is an unsigned number of 16 bits)\n",
                    *tc, *qdisc(device, "change", *settings("of_numbers[1]=1")))]
    for text in words[:-1]:
        lib.equal(text.count("\n"), 1, f"lines of: {text}")
    lib.equal(options(tc, device)["set"], before, "nothing is set if one is wrong")
    return words


@with_both
def a_table_that_is_full(tc, device):
    works(*tc, *qdisc(device, "add", *TABLES, *settings("of_number[1]=1", "of_number[2]=2")))
    before = options(tc, device)
    full = 'qdisc bpf: parameter "of_number[%d]": the table is full\n'
    words = [fails(1, full % number, *tc, *qdisc(device, "change", *obj, *settings("of_index[0]=7", *assignments)))
             for obj in ((), TABLES)
             for number, assignments in ((3, ("of_number[3]=3", "of_number[1]=")),
                                         (5, ("of_number[2]=9", "of_number[1]=", "of_number[4]=4", "of_number[5]=5")))]
    for text in words:
        lib.equal(text.count("\n"), 1, f"lines of: {text}")
    lib.equal(options(tc, device), before, "nothing is set, and no program changed, if a table is full")
    words.append(fails(1, full % 3, *tc, *another(device, *settings(
        "of_number[1]=1", "of_number[2]=2", "of_number[3]=3", f"{SHARED}[{device.a}]=1"))))
    lib.equal(options(tc, device), before, "of a new qdisc neither")
    lib.equal(shown_after(tc, device, "of_number[1]=", "of_number[3]=3")["of_number"], {"2": 2, "3": 3},
              "one in the place of another")
    return words


def maps_made_by(*commands):
    """By the numbers of one before and one after them, with those that bpftool makes itself."""
    def number():
        pin = "/sys/fs/bpf/test_number"
        lib.run("bpftool", "map", "create", pin, "type", "array", "key", "4", "value", "4", "entries", "1", "name", "number")
        try:
            return lib.bpftool("map", "show", "pinned", pin)["id"]
        finally:
            lib.run("rm", pin)

    first = number()
    for command in commands:
        works(*command)
    return number() - first


@with_both
def a_setting_costs_no_copy_of_the_table(tc, device):
    """Nor do several, whether they need more room or not."""
    works(*tc, *qdisc(device, "add", *TABLES, *settings("of_number[1]=1")))
    lib.equal(maps_made_by(*((*tc, *qdisc(device, "change", *settings(*assignments))) for assignments in (
        ("of_number[1]=7",), ("of_number[2]=7",), ("of_number[1]=8", "of_number[2]="),
        ("of_number[1]=", "of_number[3]=3", "of_number[4]=4"), ("of_number[3]=", "of_number[3]=5", "of_number[4]=6")))),
              maps_made_by(), "maps made by settings")
    lib.equal(options(tc, device)["set"]["of_number"], {"3": 5, "4": 6}, "what is set")


@with_both
def a_table_that_cannot_be_written(tc, device):
    """It is frozen: nothing else is set, and no program changed."""
    works(*tc, *qdisc(device, "add", *TABLES, *settings("of_number[1]=1")))
    before = options(tc, device)
    for name in ("of_number", "of_index"):
        (number,) = lib.maps_named(name) & set(before["enqueue"]["map_ids"])
        lib.run("bpftool", "map", "freeze", "id", str(number))
    words = [fails(1, f'parameter "{element}": Operation not permitted\n',
                   *tc, *qdisc(device, "change", *obj, *settings("number=9", f"{element}=7")))
             for obj in ((), TABLES) for element in ("of_number[1]", "of_number[2]", "of_index[0]")]
    lib.equal(options(tc, device), before, "what was not permitted")
    return words


@with_both
def tables_that_the_kernel_cannot_tell_apart(tc, device):
    """Of the two only table_b is used: to set table_a would have set that."""
    obj, folder = compiled("namesakes"), "/sys/fs/bpf/test_namesakes"

    def refused(name, *command):
        other = {"a": "b", "b": "a"}[name]
        return fails(1, f'qdisc bpf: table "namesakes_table_{name}": the kernel cannot tell it from the map '
                        f'"namesakes_table_{other}": of names it keeps 15 characters\n', *tc, *qdisc(device, *command))

    words = [fails(1, 'cannot tell it from the map "namesakes_table_', *tc, *qdisc(device, "add", "obj", obj))]
    lib.run("bpftool", "prog", "loadall", obj, folder)
    try:
        works(*tc, *qdisc(device, "add", "enqueue", "object-pinned", f"{folder}/namesakes_enqueue",
                          "dequeue", "object-pinned", f"{folder}/namesakes_dequeue"))
    finally:
        lib.run("rm", "-r", folder)
    words += [refused(name, "change", *settings(f"namesakes_table_{name}[1]=1")) for name in "ab"]
    (used,) = lib.maps_named("namesakes_table") & set(options(tc, device)["dequeue"]["map_ids"])
    lib.equal({entry["formatted"]["value"] for entry in lib.bpftool("map", "dump", "id", str(used))}, {0}, "values")
    return words


@with_both
def a_change_that_the_kernel_refuses(tc, device):
    """Tables that the qdisc has already, or that are pinned, are as they were."""
    assignments = settings("of_number[1]=7", "of_number[2]=7", "of_index[0]=7", f"{SHARED}[{device.a}]=7")
    works(*tc, *qdisc(device, "add", *TABLES, *settings("of_number[1]=1", f"{SHARED}[{device.b}]=2")))
    before = options(tc, device)
    words = [fails(2, f"qdisc bpf: dev {device.a} obj {TABLES[1]}: tables stay as they are: "
                      "the qdisc has not got the programs\n",
                   *tc, "qdisc", *command, "bpf", *TABLES, *assignments)
             for command in (("change", "dev", device.a, "root", "ingress_block", "7"),
                             ("add", "dev", device.a, "root"))]
    lib.equal(options(tc, device), before, "after a change that was refused")
    works(*tc, *qdisc(device, "change", *TABLES, *assignments))
    got = options(tc, device)["set"]
    lib.equal([got[name] for name in ("of_number", "of_index", SHARED)],
              [{"1": 7, "2": 7}, {"0": 7}, {device.a: 7, device.b: 2}], "after one that was not")
    works(*tc, *qdisc(device, "change", *settings(f"{SHARED}[{device.a}]=", f"{SHARED}[{device.b}]=")))
    return words


@with_both
def tables_in_a_batch(tc, device):
    """What follows sees what a command has set; what a program puts in meanwhile may leave no room."""
    works(*tc, *qdisc(device, "add", *TABLES, *settings("of_number[1]=1")))
    change = " ".join(qdisc(device, "change", *TABLES, *settings("of_number[2]=2", "of_index[0]=7")))
    show = f"qdisc show dev {device.a} root"
    done = subprocess.run((*tc, "-j", "-batch", "-"), input=f"{change}\n{show}\n", capture_output=True, text=True,
                          check=False)
    lib.equal((done.returncode, done.stderr), (0, ""), "a change and a look at it")
    (entry,) = json.loads(done.stdout)
    lib.equal((entry["options"]["set"]["of_number"], entry["options"]["set"]["of_index"]),
              ({"1": 1, "2": 2}, {"0": 7}), "what is shown")

    works(*tc, *qdisc(device, "change", *settings("of_number[2]=")))
    programs, words = options(tc, device)["enqueue"], []
    (number,) = lib.maps_named("of_number") & set(programs["map_ids"])
    for end in ("", f"{show}\n"):
        with subprocess.Popen((*tc, "-batch", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as batch:
            batch.stdin.write(f"{change}\n")
            batch.stdin.flush()
            # pylint: disable-next=cell-var-from-loop
            lib.wait_until(lambda: options(tc, device)["enqueue"]["id"] != programs["id"], "the kernel has the programs")
            programs = options(tc, device)["enqueue"]
            lib.run("bpftool", "map", "update", "id", str(number), "key", "9", "0", "value", "9", "0", "0", "0")
            words.append(batch.communicate(end)[1])
            lib.equal(batch.returncode, 1, f"status of a batch that has no room: {words[-1]}")
        lib.contains(words[-1], 'parameter "of_number[2]": the table is full\n')
        lib.contains(words[-1], f"dev {device.a} obj {TABLES[1]}: the qdisc has the programs, but this setting "
                     "of a table and those behind it")
        works(*tc, *qdisc(device, "change", *settings("of_number[9]=")))
    return words


@with_both
def a_command_of_a_batch_that_fails_late(tc, device):
    """Its settings could not be stored; those behind it are run nevertheless, and the status is 1."""
    works(*tc, *qdisc(device, "add", *TABLES))
    (number,) = lib.maps_named("of_number") & set(options(tc, device)["enqueue"]["map_ids"])
    programs = options(tc, device)["enqueue"]["id"]
    with subprocess.Popen((*tc, "-batch", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as batch:
        batch.stdin.write(" ".join(qdisc(device, "change", *TABLES, *settings("of_number[1]=1", "of_number[2]=2"))) + "\n")
        batch.stdin.flush()
        lib.wait_until(lambda: options(tc, device)["enqueue"]["id"] != programs, "the kernel has the programs")
        lib.run("bpftool", "map", "update", "id", str(number), "key", "9", "0", "value", "9", "0", "0", "0")
        err = batch.communicate(" ".join(qdisc(device, "change", "limit", "77", "set", "number=7")) + "\n")[1]
        lib.equal(batch.returncode, 1, f"status: {err}")
    lib.contains(err, 'parameter "of_number[2]": the table is full\n')
    lib.equal((options(tc, device)["limit"], options(tc, device)["set"]["number"]), (77, 7), "of the command behind it")
    return [err]


@with_both
def tables_of_the_policies(tc, device):
    works(*tc, *qdisc(device, "add", "obj", f"{POLICIES}/edt.bpf.o", *settings(f"edt_rate[{device.a}]=20mbit")))
    lib.equal(options(tc, device)["set"]["edt_rate"][device.a], 2500000, "rate of edt")
    words = [fails(1, "a rate from 0 to 10tbit",
                   *tc, *qdisc(device, "change", *settings(f"edt_rate[{device.a}]=11tbit")))]
    works(*tc, *qdisc(device, "change", *settings(f"edt_rate[{device.a}]=")))
    works(*tc, *qdisc(device, "replace", "obj", f"{POLICIES}/fq.bpf.o", *settings("fq_weights[7]=20", "horizon=10s")))
    lib.equal(options(tc, device)["set"]["fq_weights"], {"7": 20}, "weights of fq")
    return words


lib.main(parameters,
         parameters_that_are_wrong,
         ranges,
         ranges_of_the_policies,
         arrays,
         what_is_shown_can_be_set,
         elements_that_begin_anew,
         devices_and_addresses,
         tables,
         tables_that_are_shared,
         a_program_sees_what_is_set,
         nothing_is_set_beside_what_is_refused,
         one_instance_is_not_set,
         arrays_and_tables_that_are_wrong,
         a_table_that_is_full,
         a_setting_costs_no_copy_of_the_table,
         a_table_that_cannot_be_written,
         tables_that_the_kernel_cannot_tell_apart,
         a_change_that_the_kernel_refuses,
         tables_in_a_batch,
         a_command_of_a_batch_that_fails_late,
         tables_of_the_policies)
