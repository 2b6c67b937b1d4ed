#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every error of the command line with its text and its exit status: 1 if the command
or the object is wrong, 2 if the kernel refuses the qdisc. Each test runs twice,
with our tc and with the distribution's and the plug-in. What is wrong with
arguments is in tc_arguments.py, with parameters in tc_parameters.py, with maps and
pins in tc_refused.py."""

import os
import struct
import subprocess
import tempfile

import lib
from lib import NOBODY, POLICIES, TOP, compiled, fails, qdisc, said, with_both, works

FIFO = f"{POLICIES}/fifo.bpf.o"
BUILD = f"{TOP}/build/selftests"
OBJECT = ("obj", FIFO)
FOLDER = "/sys/fs/bpf/test_tc_errors"


def pinned(enqueue, dequeue):
    return ("enqueue", "object-pinned", enqueue, "dequeue", "object-pinned", dequeue)


# Of BTF: words behind the three of each type, by its kind; or of each of its members
BTF_MORE = {1: 1, 3: 3, 14: 1, 17: 1}
BTF_MEMBERS = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
TYPEDEF, ARRAY, STRUCT = 8, 3, 4


def without_btf(obj, folder):
    """A copy whose sections of BTF have other names."""
    path = f"{folder}/{os.path.basename(obj)}"
    with open(obj, "rb") as file, open(path, "wb") as copy:
        copy.write(file.read().replace(b".BTF", b".btf"))
    return path


def with_loops(obj, folder):
    """A copy in which the typedef of_itself_t names itself, the array below the typedef of_arrays_t
    is its own element, and the structure of_structures is its own member, twice."""
    path = f"{folder}/{os.path.basename(obj)}"
    with open(obj, "rb") as file:
        data = bytearray(file.read())
    head = data.index(struct.pack("<HBBI", 0xeb9f, 1, 0, 24))
    types, length, strings = struct.unpack_from("<III", data, head + 8)
    at, end, found, number = head + 24 + types, head + 24 + types + length, {}, 0
    while at < end:
        number += 1
        name, info, below = struct.unpack_from("<III", data, at)
        kind, members = info >> 24 & 31, info & 0xffff
        name = data[head + 24 + strings + name:].split(b"\0", 1)[0].decode("ascii")
        found[number] = (kind, at)
        if (kind, name) == (TYPEDEF, "of_itself_t"):
            struct.pack_into("<I", data, at + 8, number)
        elif (kind, name) == (TYPEDEF, "of_arrays_t"):
            array = below
        elif (kind, name) == (STRUCT, "of_structures"):
            for member in range(members):
                struct.pack_into("<I", data, at + 12 + 12 * member + 4, number)
        at += 4 * (3 + BTF_MORE.get(kind, 0) + BTF_MEMBERS.get(kind, 0) * members)
    lib.equal(found[array][0], ARRAY, "kind of what is below of_arrays_t")
    struct.pack_into("<I", data, found[array][1] + 12, array)
    with open(path, "wb") as copy:
        copy.write(data)
    return path


def one_line(err):
    lib.equal(err.count("\n"), 1, f"lines of: {err}")
    return err


@with_both
def objects_that_are_none(tc, device):
    def add(words, *arguments):
        return one_line(fails(1, words, *tc, *qdisc(device, "add", *arguments)))

    return [add("nosuch.o: No such file or directory", "obj", "nosuch.o"),
            add("/etc/passwd: not an ELF object", "obj", "/etc/passwd"),
            add("/proc: not a regular file", "object-file", "/proc"),
            add("/sbin/tc: not for BPF", "obj", "/sbin/tc"),
            add('no enqueue program: section "qdisc/enqueue"', "obj", compiled("no_enqueue")),
            add('no dequeue program: section "qdisc/dequeue"', "obj", compiled("no_dequeue"))]


@with_both
def a_fifo_is_not_waited_for(tc, device):
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/fifo")
        one_line(fails(1, f"{folder}/fifo: not a regular file",
                       "timeout", str(lib.TIMEOUT), *tc, *qdisc(device, "add", "obj", f"{folder}/fifo")))


@with_both
def objects_without_btf(tc, device):
    """Compiled without -g. libbpf opens what has neither maps nor functions of the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        for obj, lines in ((FIFO, 2), (compiled("no_maps"), 2), (compiled("leak"), 1)):
            bare = without_btf(obj, folder)
            err = fails(1, f"{bare}: has no BTF, or is stripped; compile it with clang -g\n", *tc, *qdisc(device, "add", "obj", bare))
            lib.equal(err.count("\n"), lines, f"lines of: {err}")
            lib.equal(lib.instances(device.a), [], "qdiscs")


@with_both
def types_that_have_themselves(tc, device):
    """Of parameters and of the values of a map; the kernel refuses such BTF, and libbpf goes on
    without. What cannot be followed cannot be set; it is no hang and no crash."""
    with tempfile.TemporaryDirectory() as folder:
        looped = with_loops(compiled("loops"), folder)
        words = [fails(1, expected, "timeout", str(lib.TIMEOUT), *tc,
                       *qdisc(device, "add", "obj", looped, "set", f"{name}=1"))
                 for name, expected in (
                     ("of_itself", 'unknown parameter "of_itself"; there are\n  of_arrays ('),
                     ("of_arrays", 'parameter "of_arrays" cannot be "1": it is of a type that cannot be set\n'))]
        for kind in ("bpf", "bpf_mq"):
            works("timeout", str(lib.TIMEOUT), *tc, *qdisc(device, "replace", "obj", looped, "set", "plain=7", kind=kind))
            lib.equal(lib.instances(device.a, kind)[0]["options"]["obj"], "loops.bpf.o", "object")
    return words


@with_both
def two_enqueue_programs(tc, device):
    several = ("obj", compiled("several"))
    words = [fails(1, '2 enqueue programs; say with "enqueue NAME" which one',
                   *tc, *qdisc(device, "add", *several)),
             fails(1, 'is named "middle"', *tc, *qdisc(device, "add", *several, "enqueue", "middle"))]
    for text in words:
        lib.contains(text, "last_enqueue (section qdisc/enqueue/last)")
    return words


@with_both
def the_verifier_refuses(tc, device):
    err = fails(1, "refused the enqueue program 'leak_enqueue'",
                *tc, *qdisc(device, "add", "obj", compiled("leak")))
    lib.contains(err, "verifier log of program 'leak_enqueue'")
    lib.contains(err, "Unreleased reference")
    lib.true(err.rstrip("\n").splitlines()[-1].startswith("qdisc bpf: "), "last line says it")


@with_both
def the_kernel_refuses_the_btf(tc, device):
    """The verifier says no more than that the map holds no packets."""
    err = fails(1, "'pkts' is none", *tc, *qdisc(device, "add", "obj", compiled("static_struct")))
    lib.contains(err.rstrip("\n").splitlines()[-1],
                 "the kernel refused its BTF, without which no map holds packets: is a variable that is a structure static?")


@with_both
def a_kernel_without_it(tc, device):
    """To the command it looks as if the kernel did not know the program type, and
    nor the map type: oldkernel answers these two in the kernel's place."""
    words = []
    for programs_only in ((), ("-r",)):
        words.append(one_line(fails(1, "it has to be built with CONFIG_NET_SCH_EBPF",
                                    f"{BUILD}/oldkernel", *programs_only, *tc,
                                    *qdisc(device, "add", *OBJECT))))
    works(f"{BUILD}/oldkernel", *tc, "qdisc", "add", "dev", device.a, "root", "pfifo")
    return words


@with_both
def no_permission(tc, device):
    load = one_line(fails(1, "no permission to load it: CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed",
                          *NOBODY, *tc, *qdisc(device, "add", *OBJECT)))
    works(*tc, *qdisc(device, "add", "obj", compiled("params")))
    return [load,
            one_line(fails(1, "cannot set parameters: that needs CAP_SYS_ADMIN",
                           *NOBODY, *tc, *qdisc(device, "change", "set", "rate=5"))),
            fails(2, "Operation not permitted", *NOBODY, *tc, *qdisc(device, "change", "limit", "5"))]


@with_both
def pinned_things_that_are_wrong(tc, device):
    lib.run("bpftool", "prog", "loadall", FIFO, FOLDER, "pinmaps", FOLDER)
    lib.run("bpftool", "prog", "load", compiled("classifier"), f"{FOLDER}/classifier")
    try:
        def add(status, words, enqueue, dequeue):
            return one_line(fails(status, words, *tc,
                                  *qdisc(device, "add", *pinned(f"{FOLDER}/{enqueue}", f"{FOLDER}/{dequeue}"))))

        kernel = "Error: The file descriptor is none of a BPF program of type qdisc."
        return [add(1, "/nosuch: No such file or directory", "nosuch", "fifo_dequeue"),
                add(2, "Error: The program was loaded for the other direction.", "fifo_dequeue", "fifo_enqueue"),
                add(2, kernel, "fifo_pkts", "fifo_dequeue"),
                add(2, kernel, "classifier", "fifo_dequeue"),
                one_line(fails(1, "/etc/passwd: not in a bpffs", *tc,
                               *qdisc(device, "add", *pinned("/etc/passwd", "/etc/passwd"))))]
    finally:
        lib.run("rm", "-r", FOLDER)


@with_both
def no_such_device(tc, _):
    return [fails(1, 'Cannot find device "nosuch0"', *tc, "qdisc", "add", "dev", "nosuch0", "root", "bpf", *OBJECT),
            fails(1, 'no parameters to set on "nosuch0": No such device\n', *tc, "qdisc", "change", "dev", "nosuch0", "root", "bpf",
                  "set", "rate=5")]


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


def a_tc_with_another_struct_hears_so():
    status, out, err = said(f"{BUILD}/foreigntc", f"{TOP}/build/tools/tc/q_bpf.so")
    lib.equal((status, out), (0, "-1\n"), err)
    lib.contains(err, "this tc has another struct qdisc_util than the plug-in was built for")


lib.main(objects_that_are_none,
         a_fifo_is_not_waited_for,
         objects_without_btf,
         types_that_have_themselves,
         two_enqueue_programs,
         the_verifier_refuses,
         the_kernel_refuses_the_btf,
         a_kernel_without_it,
         no_permission,
         pinned_things_that_are_wrong,
         no_such_device,
         an_unknown_tc_hears_what_it_lacks,
         a_tc_with_another_struct_hears_so)
