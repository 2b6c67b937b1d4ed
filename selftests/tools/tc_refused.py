#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Errors of maps that are taken over, and of pins; see tc_errors.py."""

import os

import lib
from lib import GLOBALS, POLICIES, compiled, fails, qdisc, said, with_both, works

OBJECT = ("obj", f"{POLICIES}/fifo.bpf.o")
HOLD = compiled("hold")


@with_both
def a_map_that_cannot_be_taken_over(tc, device):
    other = ("obj", compiled("hold_by_mark"))
    works(*tc, *qdisc(device, "add", "obj", HOLD))
    with lib.Sender(device.a) as sender:
        sender.send(1)
    err = fails(2, "is not taken over from the qdisc: another key type",
                *tc, *qdisc(device, "change", *other))
    lib.contains(err, "Map 'hold_pkts' has packets")
    status, _, again = said(*tc, *qdisc(device, "change", *other, "flush"))
    lib.equal(status, 0, again)
    return [err]


@with_both
def an_array_of_maps_that_cannot_be_taken_over(tc, device):
    """The array is the same; the maps in it have keys of the same size, with a sign."""
    works(*tc, *qdisc(device, "add", "obj", compiled("queues")))
    status, _, err = said(*tc, *qdisc(device, "change", "obj", compiled("queues_signed")))
    lib.equal(status, 0, err)
    lib.contains(err, "map 'queues': is not taken over from the qdisc: another inner map")
    again = works(*tc, *qdisc(device, "change", "obj", compiled("queues_signed")))
    lib.equal(again, "", "what is said of the same maps")
    return [err]


@with_both
def maps_that_the_kernel_cannot_tell_apart(tc, device):
    """Neither is taken over: the packets of one would be those of the other."""
    change = (*tc, *qdisc(device, "change", "obj", compiled("twin_names")))
    works(*tc, *qdisc(device, "add", "obj", compiled("twin_names")))
    status, _, err = said(*change)
    lib.equal(status, 0, err)
    for name in "ab":
        lib.contains(err, f"map 'twin_names_pkts_{name}': is not taken over from the qdisc: "
                          "another map has the same first 15 characters in its name")
    with lib.Sender(device.a) as sender:
        sender.send(1)
    lib.contains(fails(2, "is not taken over", *change), "Map 'twin_names_pkts' has packets")
    return [err]


@with_both
def a_pinned_map_of_another_type(tc, device):
    """Keys of the same size, but with a sign: libbpf alone would not see it."""
    works(*tc, *qdisc(device, "add", "obj", compiled("shared")))
    try:
        err = fails(1, "map 'shared_pkts': the pinned map has another key type",
                    *tc, *qdisc(device, "replace", "obj", compiled("shared_signed")))
        lib.contains(err, f"{GLOBALS}/shared_pkts")
        works(*tc, *qdisc(device, "replace", "obj", compiled("shared")))
    finally:
        os.unlink(f"{GLOBALS}/shared_pkts")
    works(*tc, *qdisc(device, "replace", "obj", compiled("shared_signed")))
    os.unlink(f"{GLOBALS}/shared_pkts")
    return [err]


@with_both
def pins_that_cannot_be(tc, device):
    def add(words, *arguments):
        err = fails(1, words, *tc, *qdisc(device, "add", *OBJECT, "pin", *arguments))
        lib.equal(err.count("\n"), 1, f"lines of: {err}")
        return err

    words = [add("pin /tmp/nosuch: not a folder in a bpffs, such as /sys/fs/bpf", "/tmp/nosuch"),
             add("/sys/fs/bpf/no/such: No such file or directory", "/sys/fs/bpf/no/such"),
             add("pin /etc/passwd: not a folder in a bpffs", "/etc/passwd")]
    lib.true(not os.path.exists("/tmp/nosuch"), "a folder is left")
    lib.equal(works(*tc, "qdisc", "show", "dev", device.a, "root").split()[:2], ["qdisc", "noqueue"], "qdisc")
    return words


@with_both
def another_qdisc_is_left_alone(tc, device):
    works(*tc, "qdisc", "add", "dev", device.a, "root", "handle", "1:", "pfifo")
    words = [fails(2, "Error: The bpf qdisc needs an enqueue and a dequeue program.",
                   *tc, *qdisc(device, "change", "limit", "5")),
             fails(1, "no such qdisc", *tc, *qdisc(device, "change", "set", "rate=5"))]
    lib.contains(works(*tc, "qdisc", "show", "dev", device.a), "qdisc pfifo 1: root")
    return words


@with_both
def a_folder_of_pins_is_not_left_empty(tc, device):
    """One that was there before stays."""
    made, own = (f"/sys/fs/bpf/{name}-{os.getpid()}" for name in ("made", "own"))
    os.mkdir(own)
    works(*tc, *qdisc(device, "add", *OBJECT))
    try:
        words = [fails(2, "Exclusivity flag on", *tc, *qdisc(device, "add", *OBJECT, "pin", folder)) for folder in (made, own)]
        words.append(fails(1, "No such file", *tc, *qdisc(device, "change", "obj", "/nosuch.o", "pin", made)))
        lib.equal([os.path.exists(folder) for folder in (made, own)], [False, True], "whether the folders are there")
    finally:
        os.rmdir(own)
    return words


lib.main(a_map_that_cannot_be_taken_over,
         an_array_of_maps_that_cannot_be_taken_over,
         maps_that_the_kernel_cannot_tell_apart,
         a_pinned_map_of_another_type,
         pins_that_cannot_be,
         another_qdisc_is_left_alone,
         a_folder_of_pins_is_not_left_empty)
