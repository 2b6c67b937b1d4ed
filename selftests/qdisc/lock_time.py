#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The root lock is held for as long with many packets as with few, when all of them go at
once, but for a step for each map that they are in. Times are guest instructions: the machine
does one a nanosecond (see run). On a slow kernel they say nothing, and are not looked at.
LOCK_TIME_PACKETS="1000 1000000" takes other numbers, up to a million; --mem 3G holds that."""

import contextlib
import os

import lib
from lib import compiled

MANY = compiled("many")
SPREAD = compiled("spread")             # over this many maps
MAPS = 1024
EACH_MAP = 1300                 # ns
DEV = f"lock-{os.getpid()}"
PINS = f"/sys/fs/bpf/{DEV}"
COUNTS = [int(count) for count in
          os.environ.get("LOCK_TIME_PACKETS", "1000 10000" if lib.DEBUG else "1000 100000").split()]
TICKS = 50_000                  # ns of interrupts, that come with luck only
RESET, CHANGE, DEQUEUE, RESCUE = range(4)       # as in lock_time.bpf.c


def tc(what, *options, where=("root",)):
    lib.run("tc", "qdisc", what, "dev", DEV, *where, *options)


def queued():
    (entry,) = lib.instances(DEV)
    return entry["qlen"]


def fill(send, count, where=("root",)):
    """One more is not queued: pktgen waits until its last packet has gone."""
    tc("add", "bpf", "obj", MANY, "limit", str(count), "horizon", "3600s", "patience", "10ms",
       "set", f"packets={count}", where=where)
    send(count + 1)
    lib.equal(queued(), count, "queued")


@contextlib.contextmanager
def longest():
    """Yields a function that says how long a function of the qdisc has taken at most."""
    lib.run("bpftool", "prog", "loadall", compiled("lock_time"), PINS, "autoattach")
    try:
        map_id = max(lib.maps_named("lock_longest"))
        yield lambda which: lib.bpftool("map", "dump", "id", str(map_id))[which]["formatted"]["value"]
    finally:
        for name in os.listdir(PINS):
            os.unlink(f"{PINS}/{name}")
        os.rmdir(PINS)


def down(time):
    lib.run("ip", "link", "set", DEV, "down")
    lib.equal(queued(), 0, "queued")
    took = time(RESET)
    lib.run("ip", "link", "set", DEV, "up")
    tc("del")
    return took


def delete(time):
    tc("del")
    return time(RESET)


def flush(time):
    tc("change", "bpf", "obj", MANY, "flush")
    lib.equal(queued(), 0, "queued")
    took = time(CHANGE)
    tc("del")
    return took


def get_stuck(time):
    """All packets leave then."""
    tc("change", "bpf", "set", "silent=1")
    lib.wait_until(lambda: not queued(), "all have left", 600)
    (entry,) = lib.instances(DEV)
    lib.equal(entry["stuck"], 1, "found stuck")
    took = time(DEQUEUE)
    tc("del")
    return took


def as_long_for_many(act, *slow):
    """Below another qdisc, if there is one that sends next to nothing."""
    times = []
    with lib.pktgen(DEV) as send:
        for count in COUNTS:
            if slow:
                tc("add", "handle", "1:", *slow)
            fill(send, count, ("parent", "1:1") if slow else ("root",))
            with longest() as time:
                times.append(act(time))
    print(f"# {COUNTS} packets: {times} ns")
    lib.true(min(times) > 0, "no call was seen")
    if not lib.DEBUG:
        lib.true(max(times) < 2 * times[0] + TICKS, f"{COUNTS} packets take {times} ns")


def change_when_stuck(time):
    """What has not left is taken out of the map."""
    below = "parent", "1:1"
    tc("change", "bpf", "set", "silent=1", where=below)
    lib.wait_until(lambda: lib.instances(DEV)[0]["stuck"], "the policy is stuck", 60)
    (before,) = lib.instances(DEV)
    lib.true(before["stored"] > 0.8 * before["qlen"], f"in the map: {before['stored']}")
    tc("change", "bpf", "obj", MANY, where=below)
    (after,) = lib.instances(DEV)
    lib.equal((after["stored"], after["fifo"] >= 0.9 * before["stored"]), (0, True), "in the map, in the FIFO")
    took = time(RESCUE)
    tc("del")
    return took


def reset():
    as_long_for_many(down)


def removal():
    as_long_for_many(delete)


def removal_from_many_maps():
    """Here it is a step for each map."""
    times = []
    with lib.pktgen(DEV) as send:
        for maps in 1, MAPS:
            tc("add", "bpf", "obj", SPREAD, "limit", str(MAPS), "horizon", "3600s", "set", f"maps={maps}")
            send(MAPS + 1)
            lib.equal(queued(), MAPS, "queued")
            with longest() as time:
                times.append(delete(time))
    each = (times[1] - times[0]) / (MAPS - 1)
    print(f"# {MAPS} packets in 1 and {MAPS} maps: {times} ns, {each:.0f} ns a map")
    lib.true(min(times) > 0, "no call was seen")
    if not lib.DEBUG:
        lib.true(each < EACH_MAP, f"a map takes {each:.0f} ns")


def change_with_flush():
    as_long_for_many(flush)


def a_policy_that_is_stuck():
    as_long_for_many(get_stuck)


def a_change_of_a_policy_that_is_stuck():
    as_long_for_many(change_when_stuck, "tbf", "rate", "8kbit", "burst", "2k", "limit", "1")


lib.main(reset, removal, removal_from_many_maps, change_with_flush, a_policy_that_is_stuck, a_change_of_a_policy_that_is_stuck)
