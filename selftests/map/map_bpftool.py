#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The distribution's bpftool, which has never heard of ordered maps, shows, dumps
and changes one; ours knows its name."""

import json
import os
import shutil

import lib

STOCK = "/usr/sbin/bpftool"
PINS = "/sys/fs/bpf/test_map"
OBJECT = lib.compiled("map_example")


def stock(*arguments):
    return json.loads(lib.run(STOCK, "-j", *arguments) or "null")


def number(value, size):
    return lib.map_bytes(value, size)


def loaded():
    lib.run("bpftool", "prog", "loadall", OBJECT, f"{PINS}/progs", "pinmaps", f"{PINS}/maps")
    return ("pinned", f"{PINS}/maps/events")


def with_events(test):
    """With the example's map, in which are three events."""
    def run():
        os.makedirs(PINS)
        try:
            events = loaded()
            for time, event in ((300, 1), (100, 2), (200, 3)):
                lib.run(STOCK, "map", "update", *events, "key", *number(time, 8),
                        "value", *number(event, 4))
            test(events)
        finally:
            shutil.rmtree(PINS)
    run.__name__ = test.__name__
    return run


@with_events
def stock_bpftool_shows_it(events):
    shown = stock("map", "show", *events)
    lib.equal((shown["bytes_key"], shown["bytes_value"], shown["max_entries"]), (8, 4, 1024),
              "sizes")
    lib.equal(lib.bpftool("map", "show", *events)["type"], "rbtree", "type by our bpftool")


@with_events
def stock_bpftool_dumps_it_in_order(events):
    dump = stock("map", "dump", *events)
    formatted = [entry.get("formatted", entry) for entry in dump]
    lib.equal([(entry["key"], entry["value"]) for entry in formatted],
              [(100, 2), (200, 3), (300, 1)], "elements")
    lib.equal([entry["formatted"] for entry in lib.bpftool("map", "dump", *events)], formatted, "by our bpftool")


@with_events
def stock_bpftool_changes_it(events):
    key = ("key", *number(200, 8))
    lib.equal(stock("map", "lookup", *events, *key)["formatted"]["value"], 3, "value")
    lib.run(STOCK, "map", "delete", *events, *key)
    lib.equal(len(stock("map", "dump", *events)), 2, "elements left")
    following = stock("map", "getnext", *events, "key", *number(100, 8))
    lib.equal(following["next_key"][:2], ["0x2c", "0x01"], "key after 100")


lib.main(stock_bpftool_shows_it,
         stock_bpftool_dumps_it_in_order,
         stock_bpftool_changes_it)
