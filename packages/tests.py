#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""tests.py {install | boot}: in a minimal Debian that systemd has booted, install the packages
of /check/deb; and, after another boot, what they do then. packages/check calls it."""

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import lib

CONFIGURATION = "/etc/sch-bpf"
PACKAGES = ("iproute2-bpf-qdisc", "sch-bpf", "sch-bpf-boot", "sch-bpf-cni", "sch-bpf-tools", "sch-bpf-exporter")
METRICS = "/var/lib/prometheus/node-exporter/sch-bpf.prom"
FILES = ("/usr/lib/sch-bpf/fq.bpf.o", "/usr/share/doc/sch-bpf/README.md", "/etc/sch-bpf")
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y")


def configure(dev, *lines):
    with open(f"{CONFIGURATION}/{dev}.conf", "w", encoding="ascii") as file:
        file.write("".join(f"{line}\n" for line in lines))


def unit(dev):
    return lib.run("systemd-escape", "--template=sch-bpf@.service", "--", dev).strip()


def state(dev):
    """active, inactive or failed"""
    return lib.run("systemctl", "show", "--value", "-p", "ActiveState", unit(dev)).strip()


def is_active(dev):
    return state(dev) == "active"


def root(dev):
    """Kind and options of the qdisc of a device."""
    for each in json.loads(lib.run("tc", "-j", "qdisc", "show", "dev", dev)):
        if each.get("root"):
            return each["kind"], each.get("options", {})
    return "none", {}       # it has not been up


def is_attached(dev, kind="bpf"):
    """The unit has done its work, and the device has the qdisc."""
    lib.wait_until(lambda: state(dev) in ("active", "failed"), f"{unit(dev)} has been started", 60)
    lib.true(is_active(dev), f"{unit(dev)}: {state(dev)}\n{journal(dev)}")
    lib.equal(root(dev)[0], kind, f"qdisc of {dev}")


def journal(dev):
    return lib.run("journalctl", "-o", "cat", "-b", "-u", unit(dev))


def watched():
    """What the watch has said."""
    return lib.run("journalctl", "-o", "cat", "-b", "-u", "sch-bpf-watch")


def installed(*packages):
    """Status of each as dpkg knows it: installed, config-files, or nothing."""
    known = [lib.said("dpkg-query", "-W", "-f", "${db:Status-Status}", package)[1] for package in packages]
    return ["" if each == "not-installed" else each for each in known]


@contextlib.contextmanager
def configured(*lines, options=()):
    """A link, made when its file is there, so that udev starts its unit."""
    name = f"a{next(lib.Link.numbers) + 1}-{os.getpid()}"      # that of the next one
    configure(name, *lines)
    try:
        with lib.link(*options) as device:
            lib.equal(device.a, name, "name of the device")
            yield device
    finally:
        os.unlink(f"{CONFIGURATION}/{name}.conf")


@contextlib.contextmanager
def under_traffic(device):
    """Frames through the device without a pause; each arrives."""
    with lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        with lib.traffic(sender, receiver, lambda number: sender.send(number, 60 + number % 300)) as (sent, got):
            yield
        got.extend(lib.numbers(receiver.collect(len(sent) - len(got))))
        print(f"# {len(sent)} packets")
        lib.true(len(sent) > 100, "there was traffic")
        lib.equal(sorted(got), sent, "packets received")
        lib.equal(sender.packets, len(sent), "packets that the qdisc took")
        if root(device.a)[0] == "bpf":
            lib.equal(got, sent, "order")
            lib.balance(device, sender, receiver)


# --- the first boot ----------------------------------------------------------

def apt_installs_them():
    lib.equal(installed(*PACKAGES), [""] * len(PACKAGES), "before")
    print(f"# {lib.run(*APT, 'install', *glob.glob('/check/deb/*.deb')).strip()[-300:]!r}")
    lib.equal(installed(*PACKAGES), ["installed"] * len(PACKAGES), "after")
    lib.equal([name for name in FILES if not os.path.exists(name)], [], "files that sch-bpf(8) names and that are not there")


def without_a_file_nothing_is_attached():
    lib.run("ip", "link", "set", "eth0", "up")
    lib.equal(root("eth0")[0], "mq", "qdisc of eth0")
    lib.equal(lib.run("systemctl", "list-units", "--all", "--no-legend", "sch-bpf@*"), "", "units")


def policies():
    """By name, those of the package."""
    names = sorted(path.removesuffix(".bpf.o") for path in os.listdir("/usr/lib/sch-bpf"))
    lib.true(len(names) > 4, f"policies installed: {names}")
    return names


def tc_finds_a_policy_by_its_name():
    with lib.link() as device:
        for policy in policies():
            lib.works("tc", *lib.qdisc(device, "add", "obj", policy))
            lib.equal(root(device.a)[1]["obj"], f"{policy}.bpf.o", "object")
            device.detach()
        lib.fails(1, "nosuch: No such file or directory", "tc", *lib.qdisc(device, "replace", "obj", "nosuch"))


def ones_own_policy_comes_first():
    """Made by the makefile of libbpf-qdisc-dev."""
    os.makedirs("/usr/local/lib/sch-bpf", exist_ok=True)
    os.symlink("/check/mine.bpf.o", "/usr/local/lib/sch-bpf/fifo.bpf.o")
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        lib.works("tc", *lib.qdisc(device, "add", "obj", "fifo"))
        options = root(device.a)[1]
        lib.equal(options["enqueue"]["name"], "mine_enqueue", "program")
        for number in range(10):
            sender.send(number)
        lib.equal(lib.numbers(receiver.collect(10)), list(range(10)), "packets received")
        lib.balance(device, sender, receiver)
    os.unlink("/usr/local/lib/sch-bpf/fifo.bpf.o")


def completed(line):
    """What bash completes a line with, as a login shell has it."""
    script = """
        . /usr/share/bash-completion/bash_completion
        compopt() { :; }
        COMP_LINE=$1 COMP_POINT=${#1}
        read -ra COMP_WORDS <<<"$1"
        [[ $1 != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        # "_tc_bpf" of `complete -F _tc_bpf tc`
        completion=$(complete -p tc) completion=${completion#*-F }
        "${completion% *}" tc "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    return sorted(lib.run("bash", "-O", "extglob", "-c", script, "bash", line).split())


def bash_completes_policies_and_parameters():
    lib.equal(completed("tc qdisc add dev lo root bpf obj ra"), ["rate"], "policies")
    lib.equal(completed("tc qdisc add dev lo root bpf_mq obj "),
              sorted([*policies(), *os.listdir(".")]),
              "policies, and files here")
    lib.equal(completed("tc qdisc add dev lo root bpf obj fq li"), ["limit"], "parameters")
    lib.equal(completed("tc qdisc add dev lo root bp"), ["bpf", "bpf_mq"], "kinds")
    lib.equal(completed("tc qdisc add dev lo root pf"), ["pfifo", "pfifo_fast", "pfifo_head_drop"], "other kinds")


def tools_run():
    lib.contains(lib.run("bpftool-sch-bpf", "version"), "bpftool v")
    with lib.link() as device:
        device.attach("fq")
        lib.contains(lib.run("bpftool-sch-bpf", "map", "list"), "rbtree")
        lib.contains(lib.run("qdisctop", "-j", "-n", "1", device.a), device.a)


def a_file_is_written_for_the_next_boot():
    configure("eth0", "# as in sch-bpf.conf(5)", "policy = fq", "  set quantum=9000  ", "", "limit = 5000")
    configure("eth1", "policy = nosuch")


# --- the second boot ---------------------------------------------------------

def attached_at_boot():
    is_attached("eth0", "bpf_mq")
    instances = lib.instances("eth0")
    lib.equal(len(instances), 4, "instances of four tx queues")
    for each in instances:
        lib.equal((each["options"]["obj"], each["options"]["limit"]), ("fq.bpf.o", 5000), "options")
    lib.contains(lib.run("tc", "qdisc", "show", "dev", "eth0"), " set quantum=9000b ")
    with open("/sys/class/net/eth0/operstate", encoding="ascii") as file:
        lib.equal(file.read(), "down\n", "the device's state, which nothing had to wait for")


def a_boot_goes_on_where_a_policy_is_wrong():
    lib.wait_until(lambda: state("eth1") == "failed", "the unit of eth1 has failed")
    lib.contains(journal("eth1"), "sch-bpf: /etc/sch-bpf/eth1.conf:1: qdisc bpf: nosuch: No such file or directory")
    lib.equal(root("eth1")[0], "none", "qdisc of eth1")
    os.unlink(f"{CONFIGURATION}/eth1.conf")


def a_nic_is_unplugged_and_plugged_in():
    """Its slot on the PCI bus, without a word to the drivers of others."""
    slot = os.path.realpath("/sys/class/net/eth0/device")
    for _ in range(2):
        with open(f"{slot}/remove", "w", encoding="ascii") as file:
            file.write("1")
        lib.wait_until(lambda: state("eth0") == "inactive", "the unit goes with the device")
        with open("/sys/bus/pci/rescan", "w", encoding="ascii") as file:
            file.write("1")
        lib.wait_until(lambda: os.path.exists("/sys/class/net/eth0"), "eth0 is there again")
        is_attached("eth0", "bpf_mq")
        lib.equal(len(lib.instances("eth0")), 4, "instances")
    lib.run("ip", "link", "set", "eth0", "up")
    lib.equal((root("eth0")[0], len(lib.instances("eth0"))), ("bpf_mq", 4), "qdisc of eth0 when it is up")


def a_virtual_device_is_made():
    """Its name has a hyphen, and one tx queue."""
    with configured("policy=fifo", "kind = bpf") as device:
        lib.contains(unit(device.a), "\\x2d")
        is_attached(device.a)


def a_device_gets_a_name():
    """Also one that a command would take for an option, or systemd for a variable."""
    for name in ("lan0", "-lan0", "a$HOME"):
        configure(name, "policy = fifo")
        with lib.link() as device:
            lib.run("ip", "link", "set", device.a, "down")
            lib.run("ip", "link", "set", device.a, "name", name)
            try:
                is_attached(name)
                lib.run("tc", "qdisc", "replace", "dev", name, "root", "pfifo")
                # pylint: disable-next=cell-var-from-loop
                lib.wait_until(lambda: root(name)[0] == "bpf", "it is put back under this name")
            finally:
                lib.run("ip", "link", "set", "dev", name, "name", device.a)
            # pylint: disable-next=cell-var-from-loop
            lib.wait_until(lambda: state(name) == "inactive", "the unit goes with the name")
            lib.true("no device" not in journal(name), f"nothing is complained of:\n{journal(name)}")
            lib.equal(root(device.a)[0], "bpf", "qdisc of the device that had the name")
            lib.works("sch-bpf", "remove", name)
            lib.works("sch-bpf", "remove", device.a)
            lib.true(root(device.a)[0] != "bpf", "no policy after remove")
        os.unlink(f"{CONFIGURATION}/{name}.conf")


def the_loopback_device_is_refused():
    """At once: systemd has no unit of it that ours could wait for."""
    before = root("lo")
    configure("lo", "policy = fifo")
    begun = time.monotonic()
    lib.refused("systemctl", "start", unit("lo"))
    lib.contains(journal("lo"), "sch-bpf: the loopback device gets no policy from a file: use tc")
    lib.true(time.monotonic() < begun + 60, "it is refused before systemd gives up on the device")
    lib.equal((state("lo"), root("lo")), ("failed", before), "unit and qdisc")
    os.unlink(f"{CONFIGURATION}/lo.conf")
    lib.run("systemctl", "reset-failed", unit("lo"))


def programs(dev, what="id"):
    return [each["options"]["enqueue"][what] for each in lib.instances(dev)]


def starting_it_again_changes_nothing():
    with configured("policy = fq", "set quantum = 5000") as device:
        is_attached(device.a)
        before = root(device.a)[1]["set"], programs(device.a)
        lib.run("systemctl", "start", unit(device.a))
        lib.equal((root(device.a)[1]["set"], programs(device.a)), before, "parameters and programs")


def reloading_the_same_file():
    """The same programs are loaded anew, with the file's parameters. What it no longer says of a table
    stays, and restart takes it away."""
    def weight():
        return root(device.a)[1]["set"].get("fq_weights", {}).get("3", 0)
    with configured("policy = fq", "set quantum = 5000", "set fq_weights[3] = 7") as device:
        is_attached(device.a)
        before = root(device.a)[1]["set"], programs(device.a, "tag")
        ids = programs(device.a)
        lib.run("systemctl", "reload", unit(device.a))
        lib.equal((root(device.a)[1]["set"], programs(device.a, "tag")), before, "parameters and programs")
        lib.true(programs(device.a) != ids, "the programs have been loaded anew")
        lib.equal(weight(), 7, "weight")
        configure(device.a, "policy = fq")
        lib.run("systemctl", "reload", unit(device.a))
        lib.equal((root(device.a)[1]["set"]["quantum"], weight()), (3028, 7), "quantum and weight without a line in the file")
        lib.run("systemctl", "restart", unit(device.a))
        lib.equal(weight(), 0, "weight after restart")


def without_a_line_it_is_the_kernels_default():
    with configured("policy = fq", "limit = 7", "horizon = 1s", "patience = 1s") as device, lib.link() as other:
        is_attached(device.a)
        configure(device.a, "policy = fq")
        lib.run("systemctl", "reload", unit(device.a))
        other.attach("fq")
        for name in ("limit", "horizon", "patience"):
            lib.equal(root(device.a)[1][name], root(other.a)[1][name], name)


def reload_under_traffic():
    """In place: each packet arrives, in order, and the books are exact."""
    with configured("policy = fq") as device:
        is_attached(device.a)
        with under_traffic(device):
            for quantum in (3000, 4000, 5000):
                configure(device.a, "policy = fq", f"set quantum = {quantum}", f"limit = {quantum}")
                lib.run("systemctl", "reload", unit(device.a))
                kind, options = root(device.a)
                lib.equal((kind, options["set"]["quantum"], options["limit"]), ("bpf", quantum, quantum), "after reload")
        configure(device.a, "policy = fq")
        lib.run("systemctl", "reload", unit(device.a))
        options = root(device.a)[1]
        lib.equal((options["set"]["quantum"], options["limit"]), (3028, 10000), "what the file no longer sets")


def another_policy_while_packets_wait():
    """reload is refused, for it would lose them; restart is what it names, and drops them."""
    with configured("policy = edt", "set horizon = 3600s") as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        is_attached(device.a)
        sender.send(0, when=time.monotonic_ns() + 1000 * lib.NSEC)
        configure(device.a, "policy = fifo")
        lib.refused("systemctl", "reload", unit(device.a))
        lib.contains(journal(device.a), f'sch-bpf: "systemctl restart {unit(device.a)}" drops them, and attaches the policy\n'
                                        f"sch-bpf: the qdisc of {device.a} is bpf with edt.bpf.o")
        lib.equal((is_active(device.a), device.qdisc()["qlen"]), (True, 1), "the unit goes on, and the packet waits")
        lib.run("systemctl", "restart", unit(device.a))
        is_attached(device.a)
        lib.equal(root(device.a)[1]["obj"], "fifo.bpf.o", "object")
        sender.send(1)
        lib.equal(lib.numbers(receiver.collect(1)), [1], "packets received")
        # with nothing that waits, another one comes by reload
        configure(device.a, "policy = prio")
        lib.run("systemctl", "reload", unit(device.a))
        lib.equal(root(device.a)[1]["obj"], "prio.bpf.o", "object after reload")


def reload_of_all_queues_under_traffic():
    """rate, whose programs find the map of their queue, and fq, which is loaded for each queue."""
    for policy in ("rate", "fq"):
        with configured(f"policy = {policy}", options=("numtxqueues", "4", "numrxqueues", "4")) as device:
            is_attached(device.a, "bpf_mq")
            with under_traffic(device):
                for limit in (3000, 4000):
                    configure(device.a, f"policy = {policy}", f"limit = {limit}")
                    lib.run("systemctl", "reload", unit(device.a))
            lib.equal({each["options"]["limit"] for each in lib.instances(device.a)}, {4000}, "limits")


# --- when somebody else replaces it ------------------------------------------

def replace(device, *qdisc):
    lib.run("tc", "qdisc", "replace", "dev", device.a, "root", *qdisc)


def says(words):
    try:
        lib.wait_until(lambda: words in watched(), "the watch says it")
    finally:
        lib.contains(watched(), words)


def has(device, kind, obj=None):
    lib.wait_until(lambda: (root(device.a)[0], root(device.a)[1].get("obj")) == (kind, obj), f"{device.a} has {kind} {obj}")


def what_is_replaced_is_put_back():
    """Another kind, none, another policy. A parameter that is set is no replacement."""
    with configured("policy = fq", "set quantum = 5000") as device:
        is_attached(device.a)
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "quantum=6000")
        replace(device, "pfifo")
        has(device, "bpf", "fq.bpf.o")
        says(f"sch-bpf: the qdisc of {device.a} was bpf with fq.bpf.o, and is pfifo: another program has replaced it; attaching it again")
        lib.equal(root(device.a)[1]["set"]["quantum"], 5000, "quantum")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "set", "quantum=7000")
        device.detach()
        has(device, "bpf", "fq.bpf.o")
        replace(device, "bpf", "obj", "fifo")
        has(device, "bpf", "fq.bpf.o")
        lib.equal(watched().count(f" {device.a} was "), 3, "repairs")
        lib.true(is_active(device.a), "the unit goes on")


def what_cannot_be_put_back():
    """The file has become wrong meanwhile: that is said, and counts as a repair."""
    with configured("policy = fq") as device:
        is_attached(device.a)
        configure(device.a, "police = fq")
        for times, kind in enumerate(("bfifo", "pfifo", "bfifo"), 1):
            replace(device, kind)
            # pylint: disable-next=cell-var-from-loop
            lib.wait_until(lambda: watched().count(f"{device.a}.conf:1: unknown") == times, "the watch says it")
        says(f"the qdisc of {device.a} was bpf with fq.bpf.o, and is bfifo; it is left so\n")
        replace(device, "pfifo")
        says(f"the qdisc of {device.a} was bpf with fq.bpf.o, and is pfifo, after 3 repairs in ")
        lib.equal(watched().count(f"{device.a}.conf:1: unknown"), 3, "times that the file was read")


def the_watch_can_be_switched_off():
    with configured("policy = fq", "repair = no") as device:
        is_attached(device.a)
        replace(device, "pfifo")
        says(f"sch-bpf: the qdisc of {device.a} was bpf with fq.bpf.o, and is pfifo; it is left so, as /etc/sch-bpf/{device.a}.conf says")
        lib.equal(root(device.a)[0], "pfifo", "qdisc")
        lib.run("systemctl", "reload", unit(device.a))
        is_attached(device.a)


def a_fight_has_an_end():
    """Three repairs, then the other is left alone; reload begins anew."""
    with configured("policy = fq") as device:
        is_attached(device.a)
        for _ in range(3):
            replace(device, "pfifo")
            has(device, "bpf", "fq.bpf.o")
        replace(device, "pfifo")
        says(f"the qdisc of {device.a} was bpf with fq.bpf.o, and is pfifo, after 3 repairs in ")
        for kind in ("bfifo", "pfifo"):
            replace(device, kind)
        # what comes after has been looked at when this has been put back
        with configured("policy = fq") as other:
            is_attached(other.a)
            replace(other, "pfifo")
            has(other, "bpf", "fq.bpf.o")
        lib.equal((root(device.a)[0], watched().count(f" {device.a} was ")), ("pfifo", 4), "qdisc, and times that it was said")
        lib.run("systemctl", "reload", unit(device.a))
        is_attached(device.a)
        replace(device, "pfifo")
        has(device, "bpf", "fq.bpf.o")


def what_is_stopped_stays_so():
    """Nor is put back what was refused."""
    with configured("policy = fq") as device, configured("policy = fq") as other:
        is_attached(device.a)
        is_attached(other.a)
        kind = root(other.a)[0]
        lib.run("systemctl", "stop", unit(device.a))
        configure(device.a, "policy = nosuch")
        lib.refused("systemctl", "start", unit(device.a))
        replace(other, "pfifo")
        has(other, "bpf", "fq.bpf.o")
        lib.true(root(device.a)[0] != kind, "nothing is attached")
        lib.true(f" {device.a} was " not in watched(), "nothing is said of it")


def watch(command):
    lib.run("systemctl", command, "sch-bpf-watch")


def the_watch_runs_while_a_policy_is_attached():
    for command, wanted in (("stop", "inactive"), ("start", "active")):
        lib.run("systemctl", command, unit("eth0"))
        # pylint: disable-next=cell-var-from-loop
        lib.wait_until(lambda: lib.said("systemctl", "is-active", "sch-bpf-watch")[1].strip() == wanted, f"after {command}: {wanted}")
    lib.true("Cannot find device" not in watched(), f"nothing is said of devices that have gone:\n{watched()}")


def what_was_replaced_before_the_watch_began():
    """Also of a device whose name begins with a dot, to which udev attaches nothing."""
    with configured("policy = fq") as device, lib.link() as other:
        is_attached(device.a)
        given, other.a = other.a, f".{os.getpid()}"
        configure(other.a, "policy = fq")
        lib.run("ip", "link", "set", given, "down")
        lib.run("ip", "link", "set", given, "name", other.a)
        lib.run("udevadm", "settle")
        lib.true(unit(other.a) not in lib.run("systemctl", "list-units", "--all", "--no-legend", "sch-bpf@*"), "it has no unit")
        lib.run("sch-bpf", "apply", other.a)
        lib.contains(metrics(), f'sch_bpf_attached{{device="{other.a}"}} 1\n')
        watch("stop")
        for each in (device, other):
            replace(each, "pfifo")
        watch("start")
        for each in (device, other):
            has(each, "bpf", "fq.bpf.o")
        os.unlink(f"{CONFIGURATION}/{other.a}.conf")


def lost_messages():
    """So many changes that the kernel cannot tell them all while the watch stands still."""
    with configured("policy = fq") as device, lib.link() as other:
        is_attached(device.a)
        pid = int(lib.run("systemctl", "show", "--value", "-p", "MainPID", "sch-bpf-watch"))

        def lost():
            """Drops of its netlink socket, whose port is its process id."""
            with open("/proc/net/netlink", encoding="ascii") as file:
                (drops,) = [line.split()[8] for line in file if line.split()[2] == str(pid)]
            return int(drops)
        os.kill(pid, signal.SIGSTOP)
        try:
            change = f"qdisc replace dev {other.a} root pfifo limit 10\n" * 100
            while not lost():
                lib.run("tc", "-batch", "-", given=change)
            replace(device, "pfifo")
        finally:
            os.kill(pid, signal.SIGCONT)
        has(device, "bpf", "fq.bpf.o")


# --- metrics -----------------------------------------------------------------

def metrics():
    """Those of now, as the timer's service writes them."""
    lib.run("sch-bpf", "metrics", METRICS)
    with open(METRICS, encoding="ascii") as file:
        return file.read()


def the_timer_writes_metrics():
    for _ in range(2):
        lib.wait_until(lambda: os.path.exists(METRICS), "they are written", 60)
        with open(METRICS, encoding="ascii") as file:
            found = file.read()
        lib.contains(found, 'sch_bpf_attached{device="eth0"} 1\n')
        # the unit, which may do little else, may read what a policy counts
        lib.contains(found, '\nqdisc_bpf_policy_stat{device="eth0"')
        lib.equal(os.stat(METRICS).st_mode & 0o777, 0o644, "mode of the file")
        os.unlink(METRICS)
    lib.wait_until(lambda: set(os.listdir(os.path.dirname(METRICS))) <= {os.path.basename(METRICS)}, "no other file is left")


def promtool_finds_no_fault():
    with configured("policy = fq") as device:
        is_attached(device.a)
        lib.run("/check/promtool", "check", "metrics", given=metrics())
    lib.refused("sh", "-c", "echo sch_bpf_things 1 | /check/promtool check metrics")


def the_dashboard_asks_for_what_is_there():
    """Each name, and with each of its labels."""
    with open("/usr/share/doc/sch-bpf-exporter/grafana.json", encoding="ascii") as file:
        asked = [target["expr"] for panel in json.load(file)["panels"] for target in panel["targets"]]
    with configured("policy = fq") as device:
        is_attached(device.a)
        found = metrics()
    wanted = [match for expr in asked for match in re.findall(r"((?:qdisc|sch_bpf)_\w+)\{(.*?)\}", expr)]
    lib.true(len(wanted) >= 7, f"metrics asked for: {wanted}")
    for name, labels in wanted:
        line = next((line for line in found.splitlines() if line.startswith(f"{name}{{")), "")
        # who scrapes adds the instance
        missing = [label for label in re.findall(r"(\w+)=", labels) if label != "instance" and f'{label}="' not in line]
        lib.equal((bool(line), missing), (True, []), f"{name}: there, and labels that are not")


def metrics_say_whether_it_is_attached():
    """As the file says now: the policy, and the kind if it is there."""
    with configured("policy = fq", "repair = no") as device:
        is_attached(device.a)

        def attached(dev=device.a):
            lines = metrics().splitlines()
            return [number for number in (0, 1) if f'sch_bpf_attached{{device="{dev}"}} {number}' in lines]
        lib.equal(attached(), [1], "attached")
        lib.equal(attached("eth0"), [1], "eth0, all queues")
        for lines in (("policy = fifo",), ("policy = fq", "kind = bpf_mq"), ("policy = /check/other.bpf.o",), ("police = fq",)):
            configure(device.a, *lines)
            lib.equal(attached(), [0], f"attached, with {lines}")
        configure(device.a, "policy = /usr/lib/sch-bpf/fq.bpf.o", "kind = bpf", "repair = no")
        lib.equal(attached(), [1], "attached, by its path")
        replace(device, "pfifo")
        lib.equal(attached(), [0], "attached after it was replaced")
        configure("nosuch0", "policy = fq")
        lib.equal(attached("nosuch0"), [0], "a device that is not there")
        os.unlink(f"{CONFIGURATION}/nosuch0.conf")
        odd = 'b"\\\N{LATIN SMALL LETTER E WITH ACUTE}'
        configure(odd, "policy = fq")
        lib.equal(attached(r'b\"\\\\xc3\\xa9'), [0], "a name as qdisctop writes it")
        os.unlink(f"{CONFIGURATION}/{odd}.conf")


# --- loaders in other languages ------------------------------------------------

def in_the_kernel():
    """Programs of qdiscs, and maps that are not another program's: systemd has some, which come and go, and each
    bpftool sees the one of its own iterator, whose program has gone just before."""
    loaded, maps = (json.loads(lib.run("bpftool-sch-bpf", "-j", kind, "list")) for kind in ("prog", "map"))
    others = {number for each in loaded if each["type"] != "qdisc" for number in each.get("map_ids", ())}
    return ({("prog", each["id"]) for each in loaded if each["type"] == "qdisc"} |
            {("map", each["id"]) for each in maps if each["id"] not in others and each.get("name") != "pid_iter.rodata"})


def in_use(dev):
    """Those of the qdisc, if there is one."""
    found = set()
    for each in lib.instances(dev):
        for program in (each["options"]["enqueue"], each["options"]["dequeue"]):
            found |= {("prog", program["id"])} | {("map", number) for number in program["map_ids"]}
    return found


@contextlib.contextmanager
def loading(language, device, policy, until):
    """A loader that has said this word."""
    with subprocess.Popen((f"/check/loader-{language}", device.a, f"/usr/lib/sch-bpf/{policy}.bpf.o"), text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process.stdout.readline() != f"{until}\n":
            lib.true(process.poll() is None, f"the loader says {until}")
        try:
            yield process
        finally:
            process.kill()


def loads(language):
    before = in_the_kernel()
    with lib.link() as device, lib.Sender(device.a) as sender, lib.Receiver(device.b) as receiver:
        with loading(language, device, "fq", "attached") as loader:
            lib.equal((root(device.a)[0], root(device.a)[1]["obj"]), ("bpf", "fq.bpf.o"), "qdisc")
            sender.send(0)
            lib.equal(lib.numbers(receiver.collect(1)), [0], "packets received")
            loader.stdin.write("\n")
            loader.stdin.flush()
            lib.equal(loader.stdout.readline(), "1 packets 100 bytes 0 drops 0 queued\n", "statistics")
        handle, ids = device.qdisc()["handle"], programs(device.a)
        # in place: it has counted on
        with loading(language, device, "fq", "attached"):
            lib.equal((device.qdisc()["handle"], device.qdisc()["packets"]), (handle, 1), "qdisc after a change")
            lib.true(programs(device.a) != ids, "the programs have been loaded anew")
        for device_or_not, policy in ((device.a, "nosuch"), ("nosuch0", "fq")):
            lib.contains(lib.refused(f"/check/loader-{language}", device_or_not, f"/usr/lib/sch-bpf/{policy}.bpf.o"), "loader: ")
        # killed wherever it is, it leaves nothing but what the qdisc has
        for until in ("loaded", "attached"):
            for policy in ("fq", "prio"):
                with loading(language, device, policy, until):
                    pass
                try:
                    lib.wait_until(lambda: in_the_kernel() - before == in_use(device.a), "it is gone")
                finally:
                    lib.equal(in_the_kernel() - before, in_use(device.a), f"what is left of {policy}, killed when {until}")
        device.detach()
        lib.wait_until(lambda: in_the_kernel() <= before, "nothing is left")


def a_loader_in_go():
    loads("go")


def a_loader_in_rust():
    loads("rust")


# --- a node of Kubernetes ------------------------------------------------------

POD = "10.77.1.2"
OUTSIDE = "10.77.2.2"
RATE = {"bandwidth": {"egressRate": 20_000_000, "egressBurst": 1000},
        "io.kubernetes.cri.pod-annotations": {"sch-bpf/egress-weight": "2"}}
TERMS = [3, 250_000, 2_500_000]


def network(device, **more):
    return {"cniVersion": "1.1.0", "name": "pods", "type": "sch-bpf", "device": device, "tenant": 3, **more}


def added(device, address=POD, runtime=RATE):       # pylint: disable=dangerous-default-value
    """What the plug-in is told of a pod that has this address."""
    result = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod"}],
              "ips": [{"address": f"{address}/24", "interface": 0}], "dns": {}}
    return network(device, prevResult=result, runtimeConfig=runtime)


def cni(command, config, status=0, **environment):
    """As a runtime calls it; its answer."""
    environment = {"CNI_CONTAINERID": "one", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": "eth0", "CNI_PATH": "/usr/lib/cni",
                   "CNI_COMMAND": command, **environment}
    done = subprocess.run("/usr/lib/cni/sch-bpf", input=config if isinstance(config, str) else json.dumps(config), text=True,
                          capture_output=True, check=False, env={"PATH": os.environ["PATH"], **environment})
    lib.equal((done.returncode, done.stderr), (status, ""), f"{command}: {done.stdout}")
    return json.loads(done.stdout or "null")


def subscribers(device):
    """Of the first instance that shows them"""
    (table, *_) = [each["options"]["set"].get("subscriber", {}) for each in lib.qdiscs(device.a) if "set" in each.get("options", {})]
    return table


@contextlib.contextmanager
def pod(device):
    """A namespace, whose packets to OUTSIDE leave through the device; a function that sends some, and
    says how many of these the policy took for nobody's."""
    for name in (device.a, device.b):
        lib.sysctl(f"ipv6/conf/{name}/disable_ipv6", 1)
    lib.sysctl("ipv4/ip_forward", 1)
    lib.run("ip", "netns", "add", "pod")
    try:
        lib.run("ip", "link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", "pod")
        for command in ("address add 10.77.1.1/24 dev pod0", "link set pod0 up", f"address add 10.77.2.1/24 dev {device.a}",
                        f"-n pod address add {POD}/24 dev eth0", "-n pod link set eth0 up", "-n pod route add default via 10.77.1.1"):
            lib.run("ip", *command.split())
        lib.run("ip", "neigh", "replace", OUTSIDE, "lladdr", "02:00:00:00:00:02", "dev", device.a)
        with lib.namespace("pod"):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            def send():
                def counted():
                    found = lib.instances(device.a)
                    return [sum(each["packets"] for each in found), sum(each["stats"]["unknown"] for each in found)]
                before = counted()
                for _ in range(5):
                    sock.sendto(bytes(100), (OUTSIDE, 9))
                lib.wait_until(lambda: counted()[0] == before[0] + 5, "they have left")
                return counted()[1] - before[1]
            yield send
    finally:
        lib.said("ip", "link", "del", "pod0")       # what is in a namespace goes some time after it
        lib.run("ip", "netns", "del", "pod")


def a_pod_gets_its_rate():
    for options in ((), ("numtxqueues", "4", "numrxqueues", "4")):
        with configured("policy = tenants", "set leaf_by = 3", options=options) as device, pod(device) as send:
            is_attached(device.a, "bpf_mq" if options else "bpf")
            lib.equal(send(), 5, "packets of nobody, before")
            config = added(device.a)
            lib.equal(cni("ADD", config), config["prevResult"], "result, which is that of the plug-in before")
            lib.equal(subscribers(device), {"1": TERMS}, "subscribers")
            lib.equal(send(), 0, "packets of nobody")
            cni("CHECK", config)
            # another one, without annotations; and the first one again
            cni("ADD", added(device.a, "10.77.1.3", {}), CNI_CONTAINERID="two")
            cni("ADD", config)
            lib.equal(subscribers(device), {"1": TERMS, "2": [3, 125_000, 0]}, "subscribers")
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", root(device.a)[0], "set", "subscriber[1]=3,1mbit,1mbit")
            lib.contains(cni("CHECK", config, 1)["msg"], "subscriber 1 of")
            # what is valid is put back, what is not goes
            valid = network(device.a, **{"cni.dev/valid-attachments": [{"containerID": "one", "ifname": "eth0"}]})
            cni("GC", valid)
            cni("CHECK", config)
            lib.equal(subscribers(device), {"1": TERMS}, "subscribers")
            lib.run("systemctl", "restart", unit(device.a))
            lib.equal((subscribers(device), send()), ({}, 5), "subscribers, and packets of nobody, of a policy attached anew")
            lib.contains(cni("CHECK", config, 1)["msg"], "subscriber 1 of")
            cni("GC", valid)
            lib.equal((subscribers(device), send()), ({"1": TERMS}, 0), "subscribers, and packets of nobody")
            # its address is given to another one before it is deleted
            cni("ADD", config, CNI_CONTAINERID="three")
            lib.contains(cni("CHECK", config, 1)["msg"], "another pod has an address")
            for _ in range(2):
                cni("DEL", network(device.a))
            lib.equal((subscribers(device), send()), ({"2": TERMS}, 0), "subscribers, and packets of nobody")
            cni("DEL", network(device.a), CNI_CONTAINERID="three")
            lib.equal((subscribers(device), send()), ({}, 5), "subscribers, and packets of nobody")


def what_a_runtime_does_wrong():
    """Each has its code and its words, and nothing is kept of it."""
    lib.equal(cni("VERSION", "{}")["supportedVersions"][-1], "1.1.0", "version")
    with configured("policy = tenants", "set leaf_by = 3") as device, configured("policy = fq") as other, configured("policy = tenants") as third:
        for each in (device, other, third):
            is_attached(each.a)
        good = added(device.a)
        cni("STATUS", network(device.a))
        for config, environment, code, words in (
                ("{", {}, 6, "standard input"),
                ("[]", {}, 6, "standard input"),
                ({**good, "cniVersion": "0.2.0"}, {}, 1, "cniVersion is '0.2.0'; there are 0.3.0"),
                (good, {"CNI_COMMAND": "ADDS"}, 4, "CNI_COMMAND is 'ADDS'; there are ADD"),
                (good, {"CNI_CONTAINERID": ""}, 4, "CNI_CONTAINERID is missing"),
                ({**good, "device": "../x"}, {}, 7, "device is '../x'"),
                ({**good, "tenant": "many"}, {}, 7, "tenant is 'many'"),
                ({**good, "prevResult": {}}, {}, 7, "prevResult has no addresses: chain"),
                (added(device.a, runtime={"bandwidth": {"egressRate": -1}}), {}, 7, "egressRate is -1"),
                (added(device.a, runtime={"io.kubernetes.cri.pod-annotations": {"sch-bpf/egress-weight": "0"}}), {}, 7,
                 "sch-bpf/egress-weight is '0': a number from 1 to 1000"),
                (added("nosuch0"), {}, 100, "nosuch0"),
                (added(other.a), {}, 50, f"{other.a} has the qdisc bpf, not the policy tenants"),
                (added(third.a), {}, 50, f"the policy of {third.a} does not tell pods by their address: set leaf_by=3")):
            answer = cni("ADD", config, 1, **environment)
            lib.equal(answer["code"], code, f"code: {answer}")
            lib.contains(answer["msg"], f"sch-bpf: {words}" if code != 100 else words)
        lib.equal(subscribers(device), {}, "subscribers")
        lib.equal(cni("STATUS", network(other.a), 1)["code"], 50, "code")
        cni("DEL", network(other.a))
        lib.contains(cni("CHECK", good, 1)["msg"], "no such attachment")


def a_node_is_set_up_twice():
    """The second time changes nothing."""
    os.makedirs("/etc/cni/net.d", exist_ok=True)
    path = "/etc/cni/net.d/10-pods.conflist"
    with lib.link() as device:
        lib.contains(lib.refused("/usr/share/sch-bpf-cni/node", device.a), "the network of the pods comes first")
        with open(path, "w", encoding="ascii") as file:
            file.write('{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0"}]}')
        found = []
        for _ in range(2):
            lib.run("/usr/share/sch-bpf-cni/node", device.a, "1gbit")
            is_attached(device.a)
            with open(path, encoding="ascii") as file:
                found.append((file.read(), os.stat(path).st_mtime_ns, programs(device.a)))
        lib.equal(found[0], found[1], "the second time")
        plugins = json.loads(found[0][0])["plugins"]
        lib.equal([plugin["type"] for plugin in plugins], ["bridge", "sch-bpf"], "plug-ins")
        lib.equal(subprocess.run("/opt/cni/bin/sch-bpf", input=json.dumps({**plugins[1], "cniVersion": "1.1.0", "name": "pods"}), text=True,
                                 env={**os.environ, "CNI_COMMAND": "STATUS"}, check=False).returncode, 0, "status")
        os.unlink(f"{CONFIGURATION}/{device.a}.conf")


# --- a kernel that is booted once ------------------------------------------------

NEXT = "7.9.9-sch-bpf-server"
GRUB = """
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="%s"
fi
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-0123' {
	linux	/boot/vmlinuz-7.9.9-sch-bpf-server
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-0123' {
	menuentry 'Debian GNU/Linux, with Linux 7.9.9-sch-bpf-server' --class debian $menuentry_id_option 'gnulinux-7.9.9-sch-bpf-server-advanced-0123' {
		linux	/boot/vmlinuz-7.9.9-sch-bpf-server
	}
	menuentry 'Debian GNU/Linux, with Linux %s' --class debian $menuentry_id_option 'gnulinux-%s-advanced-0123' {
		linux	/boot/vmlinuz-1
	}
}
"""


def a_kernel_is_booted_once():
    """What GRUB would be told; it is not here."""
    release = os.uname().release
    hook = "/etc/kernel/postinst.d/zzz-sch-bpf-boot", NEXT, f"/boot/vmlinuz-{NEXT}"

    def says(default="${saved_entry}"):
        with open("/boot/grub/grub.cfg", "w", encoding="ascii") as file:
            file.write(GRUB % (default, release, release))
    lib.run(*hook)      # without GRUB it is installed all the same
    lib.contains(lib.refused("sch-bpf-boot", "once", NEXT), "does GRUB boot this machine?")
    os.makedirs("/boot/grub", exist_ok=True)
    says("0")
    lib.run("grub-editenv", "/boot/grub/grubenv", "create")
    lib.contains(lib.refused("sch-bpf-boot", "once", NEXT), "GRUB_DEFAULT is to be saved")
    says()
    lib.run("/etc/kernel/postinst.d/zzz-sch-bpf-boot", "7.9.8-amd64", "/boot/vmlinuz-7.9.8-amd64")
    lib.equal(lib.run("sch-bpf-boot", "show"), "", "what is booted after another kernel was installed")
    lib.run(*hook)
    lib.equal(sorted(lib.run("sch-bpf-boot", "show").splitlines()), [
        f"once: gnulinux-advanced-0123>gnulinux-{NEXT}-advanced-0123",
        f"then: gnulinux-advanced-0123>gnulinux-{release}-advanced-0123"], "what is booted")
    for version, words in (("7.9", "has no entry of the kernel 7.9"), (release, "runs")):
        lib.contains(lib.refused("sch-bpf-boot", "once", version), words)
    lib.run("sch-bpf-boot", "keep")
    lib.equal(lib.run("sch-bpf-boot", "show"), f"then: gnulinux-advanced-0123>gnulinux-{release}-advanced-0123\n", "what is booted then")
    lib.equal(lib.said("sch-bpf-boot", "twice")[0], 2, "status of a wrong command line")
    shutil.rmtree("/boot/grub")


# --- a fleet -------------------------------------------------------------------

def play(status, devices, packages=""):
    """Run the role over ssh; how many tasks have changed something, or what it says if it fails. Ansible
    takes 127.0.0.1 for the machine that it runs on."""
    with open("/root/play.yml", "w", encoding="ascii") as file:
        json.dump([{"hosts": "all", "gather_facts": False, "roles": ["sch_bpf"],
                    "vars": {"sch_bpf_packages": packages, "sch_bpf_devices": devices}}], file)
    done = subprocess.run(
        ("ansible-playbook", "-i", "127.0.0.2,", "-u", "root", "/root/play.yml"), capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/root", "ANSIBLE_ROLES_PATH": "/check/ansible/roles",
             "ANSIBLE_PIPELINING": "1", "ANSIBLE_HOST_KEY_CHECKING": "0", "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
             "ANSIBLE_SSH_CONTROL_PATH_DIR": "/run/ansible", "ANSIBLE_NOCOWS": "1"})
    lib.equal(done.returncode, status, done.stdout + done.stderr)
    return done.stdout if status else int(re.search(r" changed=(\d+) ", done.stdout)[1])


def a_role_is_run_twice():
    """On a machine without the packages; the second run changes nothing."""
    os.makedirs("/root/.ssh", 0o700, exist_ok=True)
    lib.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    shutil.copy("/root/.ssh/id_ed25519.pub", "/root/.ssh/authorized_keys")
    lib.run("systemctl", "start", "ssh")
    with lib.link() as device:
        wanted = {device.a: {"policy": "fq", "set quantum": 9000}}
        lib.true(play(0, wanted, "/check/deb") > 0, "the first run changes something")
        lib.equal(installed(*PACKAGES), ["installed"] * len(PACKAGES), "packages")
        is_attached(device.a)
        before = programs(device.a)
        lib.equal(root(device.a)[1]["set"]["quantum"], 9000, "quantum")
        lib.equal(play(0, wanted, "/check/deb"), 0, "tasks of the second run that have changed something")
        lib.equal(programs(device.a), before, "programs")
        wanted[device.a]["set quantum"] = 5000
        lib.equal((play(0, wanted), root(device.a)[1]["set"]["quantum"]), (2, 5000), "tasks that have changed something, and quantum")
        replace(device, "pfifo")
        has(device, "bpf", "fq.bpf.o")
        lib.run("systemctl", "stop", "sch-bpf-watch")
        replace(device, "pfifo")
        lib.contains(play(2, wanted), f"{device.a} has []; journalctl")
        lib.run("systemctl", "stop", unit(device.a))
        os.unlink(f"{CONFIGURATION}/{device.a}.conf")


# Lines of a file, and what is said of them
WRONG = (
    (("policy = fq", "quantum 9000"), '%s:2: "quantum 9000" is not NAME = VALUE'),
    (("policy = fq", r"C:\temp\new"), r'%s:2: "C:\temp\new" is not NAME = VALUE'),
    (("# first", "", "police = fq"), '%s:3: unknown "police"; there are policy, kind, '),
    (("set quantum = 9000",), '%s: "policy = NAME" is missing'),
    (("policy =",), "%s:1: policy has no value"),
    (("policy = fq", "policy = edt"), "%s:2: policy for the second time"),
    (("policy = ../fq",), "%s:1: policy ../fq: the name of a policy, or a path that begins with /"),
    (("policy = fq", "kind = mq"), "%s:2: kind mq: there are bpf and bpf_mq"),
    (("policy = fq", "limit = many"), "%s:2: "),
    (("policy = fq", "repair = perhaps"), "%s:2: repair perhaps: yes or no"),
    (("policy = fq", "horizon = 1s", "set quantums = 9000"), '%s:3: qdisc bpf: unknown parameter "quantums"; there are'),
    (("policy = fq", "set quantum = 0"), '%s:2: qdisc bpf: parameter "quantum" cannot be "0": it is'),
    (("policy = fq", "limit = 2000000", "set flow_limit = 2000000"), '%s:3: qdisc bpf: parameter "flow_limit" cannot be "2000000"'),
    (("policy = nosuch",), "%s:1: qdisc bpf: nosuch: No such file or directory"),
    (("kind = bpf", "policy = /etc/passwd"), "%s:2: qdisc bpf: /etc/passwd: not an ELF object"),
    (("policy = /check/bad.bpf.o",), "%s"),
)


def errors_name_file_and_line():
    """The device keeps its qdisc, whichever it is; reload fails, and the unit goes on."""
    with configured("policy = fifo") as device, lib.link() as other:
        is_attached(device.a)
        before = programs(device.a)
        for dev in (device.a, other.a):
            kind = root(dev)[0]
            for lines, words in WRONG:
                configure(dev, *lines)
                words = f"sch-bpf: {words % f'{CONFIGURATION}/{dev}.conf'}"
                said = lib.refused("sch-bpf", "apply", dev)
                lib.contains(said, words)
                lib.equal(root(dev)[0], kind, f"qdisc after {lines}")
        lib.refused("systemctl", "reload", unit(device.a))
        lib.true(is_active(device.a), "the unit goes on")
        lib.equal(programs(device.a), before, "programs")
        os.unlink(f"{CONFIGURATION}/{other.a}.conf")


def a_wrong_command_line():
    """Each is answered with the right ones, also where sch-bpf was not found in the path."""
    for arguments in ((), ("apply",), ("aply", "lo"), ("check", "lo", "eth0")):
        status, _, words = lib.said("env", "-C", "/usr/sbin", "sh", "sch-bpf", *arguments)
        lib.equal(status, 2, f"status with {arguments}")
        lib.contains(words, "sch-bpf apply DEV\tattach")
        lib.true("/run/" not in words, "no more is said than is to be typed")
    for command in ("apply", "remove", "repair"):
        for name in ("", "..", "../sch-bpf/eth0"):
            lib.contains(lib.refused("sch-bpf", command, name), "sch-bpf: ")
    lib.true(os.path.getsize("/run/sch-bpf/eth0") > 0, "what was attached to eth0 is still known")


def a_policy_that_does_not_load():
    """The verifier's words are in the journal, the unit has failed; a better file, and it starts."""
    with lib.link() as device:
        kind = root(device.a)[0]
        configure(device.a, "policy = /check/bad.bpf.o")
        lib.refused("systemctl", "start", unit(device.a))
        lib.equal((state(device.a), root(device.a)[0]), ("failed", kind), "unit and qdisc")
        lib.contains(journal(device.a), "Unreleased reference")
        lib.contains(journal(device.a), f"sch-bpf: the qdisc of {device.a} is {kind}")
        configure(device.a, "policy = fifo")
        lib.run("systemctl", "start", unit(device.a))
        is_attached(device.a)
        lib.run("systemctl", "stop", unit(device.a))
        lib.equal(root(device.a)[0], kind, "qdisc after stop")
        os.unlink(f"{CONFIGURATION}/{device.a}.conf")


def what_tc_has_done_before_it_failed():
    """As when a table cannot be set after the change: it is said which qdisc there is, not which there was."""
    os.mkdir("/run/late")
    with open("/run/late/tc", "w", encoding="ascii") as file:
        file.write('#!/bin/sh\n/sbin/tc "$@" || exit\n[ "$2" != replace ] || { echo too late; exit 1; }\n')
    os.chmod("/run/late/tc", 0o755)
    for options, kind in (((), "bpf"), (("numtxqueues", "4", "numrxqueues", "4"), "bpf_mq")):
        with lib.link(*options) as device:
            configure(device.a, "policy = fifo")
            said = lib.refused("env", "PATH=/run/late:/usr/sbin:/usr/bin:/sbin:/bin", "sch-bpf", "apply", device.a)
            lib.contains(said, f"too late\nsch-bpf: the qdisc of {device.a} is {kind} with fifo.bpf.o\n")
            os.unlink(f"{CONFIGURATION}/{device.a}.conf")


def a_kernel_without_the_qdisc():
    """Its types, which the script asks, are not there: skipped, and no failure."""
    folder = "/run/systemd/system/sch-bpf@.service.d"
    os.makedirs(folder)
    with open(f"{folder}/old.conf", "w", encoding="ascii") as file:
        file.write("[Service]\nBindReadOnlyPaths=/dev/null:/sys/kernel/btf/vmlinux\n")
    lib.run("systemctl", "daemon-reload")
    try:
        with lib.link() as device:
            kind = root(device.a)[0]
            configure(device.a, "policy = fifo")
            lib.run("systemctl", "start", unit(device.a))
            lib.equal((state(device.a), root(device.a)[0]), ("inactive", kind), "unit and qdisc")
            lib.contains(journal(device.a), f"has no qdisc bpf; {device.a} keeps its qdisc, {kind}")
            os.unlink(f"{CONFIGURATION}/{device.a}.conf")
    finally:
        shutil.rmtree(folder)
        lib.run("systemctl", "daemon-reload")


def upgrade_under_traffic():
    """What is attached is changed in place; files of the administrator stay as they are."""
    with configured("policy = fq", "set quantum = 7000") as device:
        is_attached(device.a)
        before = root(device.a)[1]
        with under_traffic(device):
            lib.run(*APT, "install", *glob.glob("/check/deb-next/*.deb"))
        after = root(device.a)[1]
        lib.true(is_active(device.a), "the unit goes on")
        lib.true(after["enqueue"]["id"] != before["enqueue"]["id"], "programs have been loaded anew")
        lib.equal(after["set"]["quantum"], 7000, "quantum")
        with open(f"{CONFIGURATION}/{device.a}.conf", encoding="ascii") as file:
            lib.equal(file.read(), "policy = fq\nset quantum = 7000\n", "the file")
    lib.contains(lib.run("dpkg-query", "-W", "sch-bpf"), "next")


def downgrade_under_traffic():
    with configured("policy = fq") as device:
        is_attached(device.a)
        with under_traffic(device):
            lib.run(*APT, "--allow-downgrades", "install", *glob.glob("/check/deb/*.deb"))
        lib.true(is_active(device.a), "the unit goes on")
    lib.true("next" not in lib.run("dpkg-query", "-W", "sch-bpf"), "the version is the lower one")


def remove_gives_devices_their_default():
    with lib.link() as device:
        kind = root(device.a)[0]
        configure(device.a, "policy = fq")
        lib.run("systemctl", "start", unit(device.a))
        is_attached(device.a)
        lib.run(*APT, "remove", *PACKAGES)
        lib.equal((root(device.a)[0], root("eth0")[0]), (kind, "mq"), "qdiscs")
        lib.true(os.path.exists(f"{CONFIGURATION}/{device.a}.conf"), "the file stays")
        lib.equal(lib.run("systemctl", "list-units", "--all", "--no-legend", "sch-bpf@*"), "", "units")
        lib.equal(glob.glob("/usr/lib/*/tc/q_bpf*"), [], "plug-ins")


def installed_again_it_takes_up_the_files():
    """Those of devices that are there, without a boot."""
    lib.run(*APT, "install", *glob.glob("/check/deb/*.deb"))
    is_attached("eth0", "bpf_mq")


def purge_leaves_the_administrators_files():
    subprocess.run([*APT, "purge", *PACKAGES], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lib.equal(installed(*PACKAGES), [""] * len(PACKAGES), "packages")
    lib.true(os.path.exists(f"{CONFIGURATION}/eth0.conf"), "the file of eth0")
    left = [path for path in ("/etc/bash_completion.d/tc-bpf.bash", "/usr/lib/sch-bpf", "/usr/sbin/sch-bpf") if os.path.exists(path)]
    lib.equal(left, [], "what is left")
    lib.true(not os.path.exists(METRICS), "no metrics that nobody writes anew")


if sys.argv[1] == "install":
    lib.main(apt_installs_them, without_a_file_nothing_is_attached, tc_finds_a_policy_by_its_name, ones_own_policy_comes_first,
             bash_completes_policies_and_parameters, tools_run, a_file_is_written_for_the_next_boot)
else:
    lib.main(attached_at_boot, a_boot_goes_on_where_a_policy_is_wrong, a_nic_is_unplugged_and_plugged_in,
             a_virtual_device_is_made, a_device_gets_a_name, the_loopback_device_is_refused, starting_it_again_changes_nothing,
             reloading_the_same_file, without_a_line_it_is_the_kernels_default, reload_under_traffic,
             another_policy_while_packets_wait, reload_of_all_queues_under_traffic, what_is_replaced_is_put_back,
             the_watch_can_be_switched_off, a_fight_has_an_end, what_is_stopped_stays_so,
             what_cannot_be_put_back, the_watch_runs_while_a_policy_is_attached, what_was_replaced_before_the_watch_began,
             lost_messages, the_timer_writes_metrics, promtool_finds_no_fault, the_dashboard_asks_for_what_is_there,
             metrics_say_whether_it_is_attached, errors_name_file_and_line,
             a_wrong_command_line, a_policy_that_does_not_load, what_tc_has_done_before_it_failed, a_kernel_without_the_qdisc,
             a_loader_in_go, a_loader_in_rust, a_pod_gets_its_rate, what_a_runtime_does_wrong, a_node_is_set_up_twice,
             a_kernel_is_booted_once,
             upgrade_under_traffic, downgrade_under_traffic, remove_gives_devices_their_default,
             installed_again_it_takes_up_the_files, purge_leaves_the_administrators_files, a_role_is_run_twice)
