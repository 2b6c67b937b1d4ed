#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Who has no right to it can neither load the programs nor attach them, also as
root of a user namespace of his own. The same commands work for root: what is
refused is the user."""

import lib
from lib import NOBODY, POLICIES

FIFO = f"{POLICIES}/fifo.bpf.o"
NEEDED = ("bpf", "perfmon", "net_admin")
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


def with_capabilities(*names):
    wanted = ",".join(f"+{name}" for name in ("dac_read_search", *names))
    return "setpriv", "--reuid", "65534", "--clear-groups", f"--inh-caps={wanted}", f"--ambient-caps={wanted}"


def all_three_capabilities_are_needed():
    for kind in "bpf", "bpf_mq":
        with lib.link("numtxqueues", "4") as device:
            for missing in NEEDED:
                others = [name for name in NEEDED if name != missing]
                lib.contains(lib.refused(*with_capabilities(*others), *attach(device.a, kind)), "permi")
            lib.run(*with_capabilities(*NEEDED), *attach(device.a, kind))


def to_change_the_policy_takes_one_more():
    """Its maps are found by their IDs. What is no policy's needs no more than before."""
    with lib.link() as device:
        lib.run(*with_capabilities(*NEEDED), *attach(device.a))
        programs = device.qdisc()["options"]["enqueue"]["id"]
        change = ("tc", *lib.qdisc(device, "change"))
        for arguments, words in ((("obj", FIFO), "cannot take over the maps of the qdisc: that needs CAP_SYS_ADMIN"),
                                 (("set", "limit_bytes=9000"), "cannot set parameters: that needs CAP_SYS_ADMIN")):
            lib.fails(1, f"qdisc bpf: {words}\n", *with_capabilities(*NEEDED), *change, *arguments)
        lib.equal(device.qdisc()["options"]["enqueue"]["id"], programs, "program that runs")
        lib.works(*with_capabilities(*NEEDED), *change, "limit", "5")
        for arguments in (("obj", FIFO), ("set", "limit_bytes=9000")):
            lib.works(*with_capabilities(*NEEDED, "sys_admin"), *change, *arguments)
        shown = device.qdisc()["options"]
        lib.equal((shown["limit"], shown["set"]["limit_bytes"]), (5, 9000), "what is changed")
        lib.true(shown["enqueue"]["id"] != programs, "the programs are others")


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
         to_change_the_policy_takes_one_more,
         root_of_a_user_namespace_cannot_attach)
