#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Which packets the functions take and look at, where they put them, and when what a
program remembers of its packets is stale."""

import contextlib
import errno
import os
import threading
import time

import lib
from lib import SO_MARK, compiled

ORDER = compiled("order")
ALLOCATED = compiled("order_allocated")
# As in order.bpf.c
WHAT = ["PUSH", "PUSH_FRONT", "DROP_KEY", "DROP_YOUNGEST", "DROP_FROM", "DROP_LAST", "PUT_BACK", "MOVE", "MARK", "LOOK", "WALK", "OPEN"]
ROUNDS = 300 if lib.DEBUG else 2000


def do(sender, what, key=0, number=0, size=100, **more):
    sender.set(SO_MARK, WHAT.index(what) << 8 | key)
    return sender.send(number, size, **more)


def push(sender, keys, what="PUSH"):
    """Packets 0, 1, ... with these keys; a packet's length tells its number, too."""
    for number, key in enumerate(keys):
        lib.true(do(sender, what, key, number, 100 + number), f"packet {number} dropped")


def remain(device, sender, receiver, numbers, key=0):
    """Let them all go: these arrive, in this order, and the books balance."""
    queued = device.qdisc()["qlen"]
    lib.equal(queued, len(numbers), "queued")
    do(sender, "OPEN", key)
    lib.equal(lib.numbers(receiver.collect(len(numbers))), numbers, "packets that left")
    stats = device.qdisc()
    lib.equal((stats["qlen"], stats["backlog"]), (0, 0), "queued in the end")
    sender.wait_freed()
    lib.equal(receiver.drain(), [], "packets more")


def the_front_of_a_key():
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [5, 5, 6])
        for number, (what, key) in enumerate((("PUSH_FRONT", 5), ("PUSH_FRONT", 5), ("PUSH_FRONT", 4), ("PUSH", 4),
                                              ("PUSH_FRONT", 6), ("PUSH", 6), ("PUSH_FRONT", 7), ("PUSH", 5)), 3):
            lib.true(do(sender, what, key, number), f"packet {number} dropped")
        remain(device, sender, receiver, [5, 6, 4, 3, 0, 1, 10, 7, 2, 8, 9])


def looking_does_not_change_the_order():
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [5, 6, 5, 6, 5, 4])
        for key in (4, 5, 6, 7) * 5:
            do(sender, "PUT_BACK", key)
        remain(device, sender, receiver, [5, 0, 2, 4, 1, 3])


def what_is_put_back_is_within_the_limit():
    """A limit that has been lowered is for packets that come, not for one that was taken to be looked at."""
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [5, 5, 6, 6, 7, 7])
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "limit", "4")
        lib.true(not do(sender, "PUSH", 5, 6), "stored beyond the limit")
        for key in (5, 6, 7) * 3:
            do(sender, "PUT_BACK", key)
        remain(device, sender, receiver, list(range(6)))


def a_packet_that_waits_is_looked_into_and_marked():
    """Its bytes are read and written, and so is the note on it; it stays where it was."""
    with lib.wire(ORDER) as (device, sender, receiver):
        for number, (key, tos) in enumerate(((5, 0xA8), (6, 0xA9), (6, 0xA8), (7, 0xAA))):
            lib.true(do(sender, "PUSH", key, number, tos=tos), "dropped")
        for key, expected in ((6, (0xA9, 1)), (6, (0xAB, 2)), (5, (0xA8, 1)), (7, (0xAA, 1)), (6, (0xAB, 3))):
            do(sender, "MARK", key)
            seen = lib.policy_stats(max(lib.maps_named("order_seen")))
            lib.equal((seen["tos"], seen["marks"]), expected, f"what is seen of the first packet of {key}")
        lib.equal((device.qdisc()["qlen"], device.qdisc()["backlog"]), (4, 400), "queued")
        do(sender, "OPEN")
        lib.equal([(arrival.number, arrival.tos) for arrival in receiver.collect(4)],
                  [(0, 0xA8), (1, 0xAB), (2, 0xA8), (3, 0xAB)], "what leaves")


def all_that_waits_is_looked_into():
    """On a walk; of a short packet as much as there is. One that has been taken shows nothing."""
    with lib.wire(ORDER) as (device, sender, receiver):
        sizes, toses = (100, 299, 300, 301, 1400), (4, 8, 16, 32, 64)
        for number, key in enumerate((5, 5, 6, 6, 6)):
            lib.true(do(sender, "PUSH", key, number, sizes[number], tos=toses[number]), "dropped")
        do(sender, "WALK")
        lib.equal(lib.policy_stats(max(lib.maps_named("order_walk"))),
                  {"packets": 5, "lengths": 100 + 299 + 3 * 300, "toses": sum(toses), "gone": -errno.ENOENT}, "what is seen")
        remain(device, sender, receiver, list(range(5)))


def another_key():
    """The oldest of a key moves behind those of the next one."""
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [5, 5, 5, 6, 6])
        for key in (5, 6, 6, 9):
            do(sender, "MOVE", key)
        remain(device, sender, receiver, [1, 2, 0, 3, 4])


def the_oldest_and_the_youngest_of_a_key():
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [5, 5, 5, 5, 6, 4, 4])
        do(sender, "DROP_YOUNGEST", 5)          # 3
        do(sender, "DROP_KEY", 5)               # 0
        do(sender, "DROP_YOUNGEST", 6)          # 4, the only one
        do(sender, "DROP_YOUNGEST", 7)
        do(sender, "DROP_KEY", 3)
        lib.true(do(sender, "PUSH", 5, 7), "packet 7 dropped")
        do(sender, "DROP_YOUNGEST", 4)          # 6
        lib.true(do(sender, "PUSH", 4, 8), "packet 8 dropped")
        lib.equal(device.qdisc()["drops"], 4 + 6, "drops, with those of the commands")
        remain(device, sender, receiver, [5, 8, 1, 2, 7])


def all_of_a_key_from_behind():
    """And it is a key as any other afterwards."""
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [5] * 10 + [4, 6])
        for _ in range(10):
            do(sender, "DROP_YOUNGEST", 5)
        for number in (12, 13):
            lib.true(do(sender, "PUSH", 5, number), "dropped")
        do(sender, "PUT_BACK", 5)
        lib.true(do(sender, "PUSH_FRONT", 5, 14), "dropped")
        for _ in range(2):                      # 13, 12
            do(sender, "DROP_YOUNGEST", 5)
        lib.true(do(sender, "PUSH", 5, 15), "dropped")
        remain(device, sender, receiver, [10, 14, 15, 11])


def the_first_from_a_key_on():
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [10, 20, 20, 30, 30])
        for key in (11, 20, 21, 31):            # 1, 2, 3, none
            do(sender, "DROP_FROM", key)
        remain(device, sender, receiver, [0, 4])


def the_last():
    """The youngest of the highest key."""
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [1, 9, 9, 5, 9, 9])
        for _ in range(3):                      # 5, 4, 2
            do(sender, "DROP_LAST")
        do(sender, "PUT_BACK", 9)
        lib.true(do(sender, "PUSH", 9, 6), "dropped")
        do(sender, "DROP_LAST")                 # 6
        do(sender, "DROP_LAST")                 # 1
        do(sender, "DROP_LAST")                 # 3
        remain(device, sender, receiver, [0])


def delivery_from_a_key_on():
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [10, 30, 20, 20, 40])
        remain(device, sender, receiver, [2, 3, 1, 4, 0], key=15)


def looking_without_taking():
    with lib.wire(ORDER) as (device, sender, receiver):
        def seen():
            look = lib.policy_stats(max(lib.maps_named("order_seen")))
            return {name: value for name, value in look.items() if name not in ("tos", "marks")}

        do(sender, "LOOK", 20)
        lib.equal(seen(), {"packets": 0, "bytes": 0, "first": 0, "first_len": 0, "last": 0, "last_len": 0,
                           "from": 20, "from_len": 0, "above": 20, "above_len": 0}, "in an empty map")
        push(sender, [20, 10, 20, 30, 30, 10])
        do(sender, "LOOK", 20)
        lib.equal(seen(), {"packets": 6, "bytes": 615, "first": 10, "first_len": 101, "last": 30, "last_len": 104,
                           "from": 20, "from_len": 100, "above": 30, "above_len": 103}, "at a key")
        do(sender, "DROP_KEY", 30)
        do(sender, "LOOK", 21)
        lib.equal(seen(), {"packets": 5, "bytes": 512, "first": 10, "first_len": 101, "last": 30, "last_len": 104,
                           "from": 30, "from_len": 104, "above": 30, "above_len": 104}, "between two keys")
        lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", "obj", ORDER, "flush")
        push(sender, [20, 10])
        do(sender, "LOOK", 15)
        lib.equal(seen(), {"packets": 2, "bytes": 201, "first": 10, "first_len": 101, "last": 20, "last_len": 100,
                           "from": 20, "from_len": 100, "above": 20, "above_len": 100}, "after a flush")
        remain(device, sender, receiver, [1, 0])


def generation(sender):
    """As the programs that were loaded last see it in enqueue."""
    do(sender, "LOOK")
    (entry,) = lib.bpftool("map", "dump", "id", str(max(lib.maps_named("order_run"))))
    return entry["formatted"]["value"]


def what_is_remembered_is_stale_after_some_commands_and_no_others():
    with lib.wire(ORDER) as (device, sender, _), contextlib.ExitStack() as stack:
        generations = [0]

        def tc(*options):
            lib.run("tc", "qdisc", "change", "dev", device.a, "root", "bpf", *options)

        def same(what):
            lib.equal(generation(sender), generations[-1], f"generation after {what}")

        def another(what):
            new = generation(sender)
            lib.true(new not in generations, f"after {what}: {new} again, after {generations}")
            generations.append(new)

        another("an attach")
        push(sender, [5, 5])
        same("two packets")
        tc("set", "wait=6s")
        same("a parameter")
        tc("limit", "500", "horizon", "20s")
        same("another limit")
        tc("obj", ORDER)
        another("other programs")
        lib.equal(device.qdisc()["qlen"], 2, "queued, in place")
        tc("obj", ORDER, "flush")
        another("a flush")
        push(sender, [5, 5])
        device.flap()
        sender = stack.enter_context(lib.Sender(device.a))      # the other has an error to tell
        another("a reset")
        lib.equal(device.qdisc()["qlen"], 0, "queued after a reset")


def no_two_qdiscs_have_the_same_generation():
    with lib.wire(ORDER) as (device, sender, _):
        generations = {0, generation(sender)}
        device.detach()
        device.attach(ORDER)
        generations.add(generation(sender))
        with lib.wire(ORDER) as (_, other, _):
            generations.add(generation(other))
        lib.equal(len(generations), 4, f"generations, of {generations}")


def a_walk_among_takes_from_behind_and_puts_in_front():
    """It comes to an end, in order, and shows each of the packets that stay and have a key of
    their own, once."""
    with lib.wire(ORDER) as (device, sender, receiver):
        push(sender, [1, 2, 3] + [5, 5, 5, 5] + [7, 8, 9])
        pkts = max(lib.maps_named("order_pkts"))
        done, dumps, errors = threading.Event(), [], []

        def walk():
            try:
                while not done.is_set():
                    dumps.append([entry["formatted"] for entry in lib.bpftool("map", "dump", "id", str(pkts))])
            except Exception as error:          # pylint: disable=broad-except
                errors.append(error)

        walker = threading.Thread(target=walk)
        walker.start()
        for number in range(ROUNDS):
            do(sender, "PUT_BACK", 5)
            do(sender, "DROP_YOUNGEST", 5)
            do(sender, "PUSH_FRONT" if number % 2 else "PUSH", 5, number)
            do(sender, "MOVE", 5)
            do(sender, "DROP_YOUNGEST", 6)
            do(sender, "PUSH", 5, number)
        # On a machine that is busy, until some walks have been made meanwhile
        end = time.monotonic() + lib.TIMEOUT
        while len(dumps) < 3 and walker.is_alive() and time.monotonic() < end:
            do(sender, "PUT_BACK", 5)
            do(sender, "DROP_YOUNGEST", 5)
            do(sender, "PUSH", 5)
        done.set()
        walker.join()
        lib.equal(errors, [], "dumps that failed")
        lib.true(len(dumps) >= 3, f"{len(dumps)} walks, too few to say anything")
        for dump in dumps:
            keys = [entry["key"] for entry in dump]
            lib.equal(keys, sorted(keys), "order of a walk")
            alone = [(entry["key"], entry["packet"]["len"]) for entry in dump if entry["key"] not in (5, 6)]
            lib.equal(alone, [(1, 100), (2, 101), (3, 102), (7, 107), (8, 108), (9, 109)], "packets that stay")
            lib.true(len(dump) <= 100, f"a walk of {len(dump)} packets")
        print(f"# {len(dumps)} walks")
        lib.equal(device.qdisc()["qlen"], 10, "queued")
        device.detach()
        sender.wait_freed()
        lib.equal(receiver.drain(), [], "packets that left")


@contextlib.contextmanager
def on_one_cpu():
    """The memory of what has left here is the next that is used here."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def walk_in_steps(map_id):
    """Yields a function that shows packets as (key, length): one, and behind it the walk stands
    on the next; or all that are left."""
    pin = f"/sys/fs/bpf/order_walk_{map_id}"
    lib.run("bpftool", "iter", "pin", compiled("walk"), pin, "map", "id", str(map_id))
    try:
        with open(pin, "rb", buffering=0) as file:
            def show(all_left):
                # A read for one byte runs the walk until there is one, and leaves the rest of the line.
                text = file.read(1)
                text += file.read(4096)
                while all_left and (more := file.read(4096)):
                    text += more
                return [tuple(map(int, line.split())) for line in text.decode().splitlines()]
            yield show
    finally:
        os.unlink(pin)


def goes_on_behind_the_front(obj):
    with lib.wire(obj) as (device, sender, receiver):
        push(sender, [1, 5])                                    # 100, 101
        lib.true(do(sender, "PUSH_FRONT", 5, size=102), "dropped")
        lib.true(do(sender, "PUSH", 7, size=103), "dropped")
        with walk_in_steps(max(lib.maps_named("order_pkts"))) as show:
            lib.equal(show(False), [(1, 100)], "the first packet of the walk")
            # It stands on what was put in front, whose memory two more packets have then.
            do(sender, "DROP_KEY", 5)
            for size in (104, 105):
                lib.true(do(sender, "PUSH", 9, size=size), "dropped")
            shown = show(True)
        # What shares its key with one that left may be left out; all else comes once.
        lib.equal([packet for packet in shown if packet != (5, 101)], [(5, 102), (7, 103)], "packets that stay")
        lib.equal(sorted(key for key, _ in shown), [key for key, _ in shown], "order of the walk")
        print(f"# of one key with what left: {shown.count((5, 101))}")
        lib.true(shown.count((5, 101)) <= 1, "a packet was shown twice")
        device.detach()
        sender.wait_freed()
        lib.equal(receiver.drain(), [], "packets that left")


def a_walk_goes_on_when_what_was_put_in_front_has_left():
    """It does not follow an element that is another packet's by now."""
    with on_one_cpu():
        for obj in (ORDER, ALLOCATED):
            goes_on_behind_the_front(obj)


lib.main(the_front_of_a_key,
         looking_does_not_change_the_order,
         what_is_put_back_is_within_the_limit,
         a_packet_that_waits_is_looked_into_and_marked,
         all_that_waits_is_looked_into,
         another_key,
         the_oldest_and_the_youngest_of_a_key,
         all_of_a_key_from_behind,
         the_first_from_a_key_on,
         the_last,
         delivery_from_a_key_on,
         looking_without_taking,
         what_is_remembered_is_stale_after_some_commands_and_no_others,
         no_two_qdiscs_have_the_same_generation,
         a_walk_among_takes_from_behind_and_puts_in_front,
         a_walk_goes_on_when_what_was_put_in_front_has_left)
