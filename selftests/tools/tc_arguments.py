#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Arguments of the command line that make no sense; see tc_errors.py."""

import lib
from lib import MS, POLICIES, compiled, fails, qdisc, with_both, works

OBJECT = ("obj", f"{POLICIES}/fifo.bpf.o")
HOLD = compiled("hold")


def pinned(enqueue, dequeue):
    return ("enqueue", "object-pinned", enqueue, "dequeue", "object-pinned", dequeue)


@with_both
def arguments_that_are_wrong(tc, device):
    def add(words, *arguments):
        return fails(1, words, *tc, *qdisc(device, "add", *arguments))

    return [add('"obj FILE" is missing'),
            add('what is "nonsense"?', *OBJECT, "nonsense"),
            add('"b[1]=2": each setting needs its own "set": set b[1]=2\n', *OBJECT, "set", "a=1", "b[1]=2"),
            *(add(f'"{word}={value}": say "{word} {value}", or, for a parameter, "set {word}={value}"\n',
                  f"{word}={value}")
              for word, value in (("obj", "edt.bpf.o"), ("object-file", "a=b.o"), ("enqueue", "a"), ("dequeue", "b"),
                                  ("limit", "100"), ("horizon", "1s"), ("patience", "1s"), ("set", "rate=5"), ("pin", "/a"))),
            add('"flush=1": say "flush", or, for a parameter, "set flush=1"\n', "flush=1"),
            add('"limits=1": each setting needs its own "set": set limits=1\n', *OBJECT, "limits=1"),
            add('"limit" needs a value', *OBJECT, "limit"),
            add('limit "many" is not a number', *OBJECT, "limit", "many"),
            add('"patience" needs a value', *OBJECT, "patience"),
            add('horizon "5" is not a time such as 5s or 200ms', *OBJECT, "horizon", "5"),
            *(add(f'limit "{limit}" is not a number of packets', *OBJECT, "limit", limit)
              for limit in ("-1", "-18446744073709551611", "4294967296", "1k", "5 ", "")),
            add('limit "0" is not a number of packets, 1 at least', *OBJECT, "limit", "0"),
            add('patience "25h" is not a time such as 5s or 200ms', *OBJECT, "patience", "25h"),
            add('patience "0s" is out of range: it is a time from 10ms to 86400s', *OBJECT, "patience", "0s"),
            add('horizon "9999us" is out of range', *OBJECT, "horizon", "9999us"),
            add('horizon "86401s" is out of range', *OBJECT, "horizon", "86401s"),
            add('"obj" needs a value', "obj"),
            add('"enqueue" needs a value', *OBJECT, "enqueue"),
            add('"section" needs a value', *OBJECT, "enqueue", "section"),
            add('"object-pinned" needs a value', *OBJECT, "enqueue", "object-pinned"),
            add('"set" needs a value', *OBJECT, "set"),
            add('"pin" needs a value', *OBJECT, "pin"),
            add('"obj" twice', *OBJECT, "obj", HOLD),
            add('"pin" twice', *OBJECT, "pin", "/a", "pin", "/b"),
            *(add(f'"{word}" twice\n', *OBJECT, word, first, word, second)
              for word, first, second in (("enqueue", "a", "b"), ("dequeue", "a", "b"), ("limit", "5", "6"),
                                          ("horizon", "1s", "2s"), ("patience", "1s", "1s"))),
            add('"dequeue" twice\n', "dequeue", "object-pinned", "/x", "dequeue", "a"),
            add("which object?", "enqueue", "fifo_enqueue"),
            add("not both", *OBJECT, "enqueue", "object-pinned", "/x"),
            add("for both", "enqueue", "object-pinned", "/x"),
            add('"pin" needs "obj FILE"', *pinned("/x", "/y"), "pin", "/z"),
            fails(1, "has no options", *tc, "class", "add", "dev", device.a, "parent", "1:",
                  "classid", "1:1", "bpf", "nonsense")]


@with_both
def numbers_are_decimal_or_behind_0x(tc, device):
    for given, limit in (("010", 10), ("0x10", 16), ("4294967295", 2**32 - 1)):
        works(*tc, *qdisc(device, "replace", *OBJECT, "limit", given, "horizon", ".5s"))
        (entry,) = lib.instances(device.a)
        lib.equal((entry["options"]["limit"], entry["options"]["horizon"]), (limit, 500 * MS), f"limit {given}")


@with_both
def help_is_no_success(tc, device):
    words = []
    for kind in ("bpf", "bpf_mq"):
        words.append(fails(1, "Usage: ... { bpf | bpf_mq }", *tc, *qdisc(device, "add", "help", kind=kind)))
        for word in ("obj", "enqueue", "dequeue", "object-pinned", "set", "limit", "horizon",
                     "patience", "flush", "pin", "verbose"):
            lib.contains(words[-1], word)
    return [*words, fails(1, "Usage: ... bpf\n", *tc, "class", "add", "dev", device.a, "parent", "1:",
                          "classid", "1:1", "bpf", "help")]


lib.main(arguments_that_are_wrong,
         numbers_are_decimal_or_behind_0x,
         help_is_no_success)
