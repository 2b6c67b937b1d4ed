#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Who has no right to it can neither load the programs nor attach them, also as
root of a user namespace of his own. The same commands work for root: what is
refused is the user."""

import lib
from lib import NOBODY, POLICIES

FIFO = f"{POLICIES}/fifo.bpf.o"
OWN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")


def attach(dev, kind="bpf"):
    return ("tc", "qdisc", "add", "dev", dev, "root", kind, "obj", FIFO)


def root_can():
    with lib.link() as device:
        lib.run(*attach(device.a))


def a_user_cannot_attach():
    with lib.link() as device:
        lib.contains(lib.refused(*NOBODY, *attach(device.a)), "no permission")
        lib.no_maps("fifo_pkts")
        lib.run(*attach(device.a))


def a_user_cannot_load():
    command = ("bpftool", "prog", "loadall", FIFO, "/sys/fs/bpf/test_fifo")
    lib.contains(lib.refused(*NOBODY, *command), "EPERM")
    lib.run(*command)
    lib.run("rm", "-r", "/sys/fs/bpf/test_fifo")


def all_three_capabilities_are_needed():
    def with_capabilities(*names):
        wanted = ",".join(f"+{name}" for name in ("dac_read_search", *names))
        return ("setpriv", "--reuid", "65534", "--clear-groups", f"--inh-caps={wanted}",
                f"--ambient-caps={wanted}", *attach(device.a, kind))

    needed = ("bpf", "perfmon", "net_admin")
    for kind in "bpf", "bpf_mq":
        with lib.link("numtxqueues", "4") as device:
            for missing in needed:
                others = [name for name in needed if name != missing]
                lib.contains(lib.refused(*with_capabilities(*others)), "permi")
            lib.run(*with_capabilities(*needed))


def root_of_a_user_namespace_cannot_attach():
    inside = " && ".join(["ip link add a0 type veth peer name b0", "ip link set a0 up", "%s"])
    works = inside % "tc qdisc add dev a0 root pfifo"
    lib.run(*OWN_NAMESPACE, "sh", "-c", works)
    words = lib.refused(*OWN_NAMESPACE, "sh", "-c", inside % " ".join(attach("a0")))
    lib.contains(words, "no permission")


lib.main(root_can,
         a_user_cannot_attach,
         a_user_cannot_load,
         all_three_capabilities_are_needed,
         root_of_a_user_namespace_cannot_attach)
