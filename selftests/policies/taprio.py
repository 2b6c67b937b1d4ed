#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The policy taprio: no packet leaves but through an open gate, none is under way when its gate
closes, and no window is left unused; also where the schedule changes. What leaves is compared with
the schedule.

selftests/run gives this test a VM with --icount, whose time does not depend on the host."""

import bisect
import collections
import itertools
import random
import time

import lib
from lib import MS, NSEC, SO_PRIORITY

OBJ = f"{lib.POLICIES}/taprio.bpf.o"
US = MS // 1000
RATE = 2_000_000                # bytes a second: a byte takes 500 ns
LATE = 50 * US                  # by which a timer, and what it lets go, may be late: as the policy has it
SLIP = 5 * US                   # between the time that the program has read and the packet's own
NSDU = 14                       # bytes in front of the SDU

Schedule = collections.namedtuple("Schedule", "entries base", defaults=(0,))
Packet = collections.namedtuple("Packet", "begin end size")


def tx_time(size):
    return size * NSEC // RATE


def settings(*sets):
    return [word for text in sets for word in ("set", text)]


def terms(schedule, number):
    gates, intervals = zip(*schedule.entries)
    return (f"gates={','.join(map(str, gates))}", f"intervals={','.join(map(str, intervals))}",
            f"cycle={sum(intervals)}", f"base={schedule.base}", f"schedule={number}")


def policy(*sets, limit=10000):
    return lib.wire(OBJ, "limit", str(limit), *settings(f"rate={8 * RATE}bit", "class_limit=10000", *sets))


def change(device, *sets, words=()):
    lib.run("tc", *lib.qdisc(device, "change", *words, *settings(*sets)))


def windows(of_class, pieces, begin, end):
    """When the gate of a class is open, by schedules that each hold from a time on: those of `begin` to `end`."""
    found = []
    for (start, schedule), (stop, _) in zip(pieces, [*pieces[1:], (end, None)]):
        cycle = sum(interval for _, interval in schedule.entries)
        at = max(start, begin - 2 * cycle)
        at -= (at - schedule.base) % cycle
        for gates, interval in itertools.cycle(schedule.entries):
            if at >= stop:
                break
            opens, closes = max(at, start), min(at + interval, stop)
            at += interval
            if not gates >> of_class & 1 or closes <= opens:
                continue
            if found and found[-1][1] == opens and opens != start:
                found[-1][1] = closes
            else:
                found.append([opens, closes])
    return [each for each in found if each[1] > begin and each[0] < end]


def on_the_link(arrivals):
    """Each class's packets, by when the link begins and ends to send them. The number of a packet is class << 32 | number."""
    found, free = collections.defaultdict(list), 0
    for arrival in arrivals:
        begin = max(free, arrival.when)
        free = begin + tx_time(arrival.size)
        found[arrival.number >> 32].append(Packet(begin, free, arrival.size))
    return found


def in_tai(receiver, arrivals):
    """Times of the receiver's own clock, which is that of the wall"""
    ahead = round((time.clock_gettime_ns(time.CLOCK_TAI) - time.clock_gettime_ns(time.CLOCK_REALTIME)) / NSEC) * NSEC
    return [each._replace(when=each.when + receiver.offset + ahead) for each in arrivals]


def follow(arrivals, *pieces, spare=0):
    """Each packet comes through its gate and has left before that closes. As all wait, a window begins with a packet, one follows
    the other at once, and the next one would not have fitted in, but for so many times. Windows of classes do not overlap."""
    late, left, used = [0], [], 0
    for of_class, packets in on_the_link(arrivals).items():
        found = windows(of_class, pieces, packets[0].begin, packets[-1].end)
        begins = [begin for begin, _ in found]
        stamps = [each.when for each in arrivals if each.number >> 32 == of_class]
        outside = [when for when in stamps
                   if not (begins[0] <= when and when < found[bisect.bisect_right(begins, when) - 1][1])]
        lib.equal(outside, [], f"packets of class {of_class} that leave outside their gates")
        at = 0
        for begin, end in found:
            free = begin
            while at < len(packets) and packets[at].begin < end:
                late += [packets[at].begin - free] if at else []
                free = packets[at].end
                lib.true(free <= end + SLIP, f"class {of_class}: a packet ends {free - end} ns after its gate has closed")
                at += 1
            used += free > begin
            if at < len(packets) and free + tx_time(packets[at].size) + LATE <= end:
                left.append((of_class, end - free, tx_time(packets[at].size)))
        lib.equal(at, len(packets), f"packets of class {of_class} in its windows")
    print(f"# {used} windows, packets up to {max(late) / US:.1f} us later than they could")
    lib.true(len(left) <= spare, f"classes, what was left of their windows, and what the next packet would have taken, in ns: {left[:9]}")
    lib.true(sum(each > LATE for each in late) <= spare, f"ns after packets could have left: {sorted(late)[-9:]}")
    return used


def queue(sender, counts, sizes, seed=1):
    """Packets of some classes; all are taken."""
    rng = random.Random(seed)
    for of_class, count in counts.items():
        sender.set(SO_PRIORITY, of_class)
        for number in range(count):
            lib.true(sender.send(of_class << 32 | number, rng.randrange(*sizes[of_class])), f"class {of_class}: packet {number} refused")
    return sum(counts.values())


def in_order(arrivals):
    for of_class, group in itertools.groupby(sorted(arrivals, key=lambda each: each.number >> 32), lambda each: each.number >> 32):
        own = lib.numbers(group)
        lib.equal(own, sorted(own), f"order of class {of_class}")


# --- gates ------------------------------------------------------------------------

# The first window goes on from cycle to cycle; in 50 us of each nobody may send
ACROSS = Schedule(((1, 400 * US), (2, 300 * US), (0, 50 * US), (1, 250 * US)))
SIZES = {0: (600, 1100), 1: (300, 500)}


def no_packet_leaves_outside_its_gate_in_10000_cycles():
    cycles = used = 0
    for number in range(3):
        with policy("plug=true", *terms(ACROSS, 1)) as (device, sender, receiver):
            count = queue(sender, {0: 4700, 1: 4700}, SIZES, seed=number)
            change(device, "plug=false")
            arrivals = in_tai(receiver, receiver.collect(count))
            used += follow(arrivals, (0, ACROSS))
            in_order(arrivals)
            stats = lib.balance(device, sender, receiver)
            lib.equal(stats["stats"]["sent"], [4700, 4700, 0, 0, 0, 0, 0, 0], "sent of each class")
            cycles += (arrivals[-1].when - arrivals[0].when) // MS
    print(f"# {cycles} cycles, {used} windows")
    lib.true(cycles >= 10000, f"{cycles} cycles")


A = Schedule(((1, 500 * US), (2, 400 * US), (0, 100 * US)))
B = Schedule(((2, 310 * US), (1, 580 * US)))


def another_schedule_begins_at_its_base():
    """With new parameters, and with new programs, which go on with the old schedule until then."""
    for words in ((), ("obj", OBJ)):
        with policy("plug=true", *terms(A, 1)) as (device, sender, receiver):
            count = queue(sender, {0: 1200, 1: 1200}, {0: (300, 900), 1: (300, 500)})
            change(device, "plug=false")
            begin = time.clock_gettime_ns(time.CLOCK_TAI)
            new = B._replace(base=begin + 300 * MS + 123_457)
            more = (f"rate={8 * RATE}bit", "class_limit=10000") if words else ()
            change(device, *more, *terms(new, 2), words=words)
            lib.true(time.clock_gettime_ns(time.CLOCK_TAI) < new.base, "the command took too long")
            arrivals = in_tai(receiver, receiver.collect(count))
            lib.true(arrivals[0].when < new.base - 100 * MS and arrivals[-1].when > new.base + 100 * MS, "packets on one side alone")
            follow(arrivals, (0, A), (new.base, new), spare=4 if words else 0)      # while programs are exchanged
            in_order(arrivals)
            lib.balance(device, sender, receiver)


def a_base_that_has_passed_begins_at_a_cycle():
    with policy("plug=true", *terms(A, 1)) as (device, sender, receiver):
        count = queue(sender, {0: 1200, 1: 1200}, {0: (300, 900), 1: (300, 500)})
        change(device, "plug=false")
        begin = time.clock_gettime_ns(time.CLOCK_TAI)
        change(device, *terms(B, 2))
        end = time.clock_gettime_ns(time.CLOCK_TAI)
        arrivals = in_tai(receiver, receiver.collect(count))
        cycle = sum(interval for _, interval in B.entries)
        fits, said = [], ""
        for start in range(begin - begin % cycle, end + 2 * cycle, cycle):
            try:
                follow(arrivals, (0, A), (start, B))
                fits.append(start)
            except lib.Failure as failure:
                said = str(failure)
        lib.equal(len(fits), 1, f"beginnings of cycles at which the schedule may have changed, the last one: {said}")
        lib.balance(device, sender, receiver)


def without_a_number_nothing_changes():
    with policy("plug=true", *terms(A, 1)) as (device, sender, receiver):
        sender.set(SO_PRIORITY, 0)
        sender.send(1 << 31)                    # the programs have run
        change(device, *terms(B, 1))
        count = 1 + queue(sender, {0: 100, 1: 100}, {0: (300, 900), 1: (300, 500)})
        change(device, "plug=false")
        follow(in_tai(receiver, receiver.collect(count)), (0, A))


def before_the_first_base_all_gates_are_open():
    base = time.clock_gettime_ns(time.CLOCK_TAI) + 3600 * NSEC
    with policy(*terms(Schedule(((0, MS),), base), 1)) as (device, sender, receiver):
        receiver.collect(queue(sender, {0: 20, 7: 20}, {0: (100, 1000), 7: (100, 1000)}))
        lib.balance(device, sender, receiver)


def cycle_cuts_and_prolongs_the_list():
    for cycle, really in ((700 * US, ((1, 500 * US), (2, 200 * US))), (1300 * US, ((1, 500 * US), (2, 800 * US)))):
        with policy("plug=true", "gates=1,2", "intervals=500us,400us", f"cycle={cycle}ns") as (device, sender, receiver):
            count = queue(sender, {0: 200, 1: 200}, {0: (200, 900), 1: (150, 300)})
            change(device, "plug=false")
            follow(in_tai(receiver, receiver.collect(count)), (0, Schedule(really)))


# --- classes ----------------------------------------------------------------------

def the_highest_class_goes_first():
    """By priomap, where a class has its room, and `plug` holds all."""
    with policy("plug=true", "priomap=1,1,5", "class_limit=10") as (device, sender, receiver):
        taken = collections.Counter()
        for number in range(60):
            priority = number % 4               # of classes 1, 1, 5 and 3
            sender.set(SO_PRIORITY, priority)
            taken[priority] += sender.send(number)
        lib.equal([taken[priority] for priority in range(4)], [5, 5, 10, 10], "taken of each priority")
        time.sleep(0.1)
        lib.equal(receiver.drain(), [], "what leaves while it is held")
        change(device, "plug=false")
        of_class = [{0: 1, 1: 1, 2: 5, 3: 3}[each.number % 4] for each in receiver.collect(30)]
        lib.equal(of_class, [5] * 10 + [3] * 10 + [1] * 10, "classes, in the order in which they leave")
        stats = lib.balance(device, sender, receiver)["stats"]
        lib.equal((stats["limit_drops"], stats["sent"]), ([0, 20, 0, 5, 0, 5, 0, 0], [0, 10, 0, 10, 0, 10, 0, 0]), "dropped and sent")


# --- what is too long ----------------------------------------------------------------

def an_sdu_has_a_longest_length():
    with policy("max_sdu[1]=500") as (device, sender, receiver):
        for of_class, size, fits in ((1, 500 + NSDU, True), (1, 501 + NSDU, False), (0, 1500, True)):
            sender.set(SO_PRIORITY, of_class)
            lib.equal(sender.send(0, size), fits, f"class {of_class}, {size} bytes: taken")
        receiver.collect(2)
        lib.equal(lib.balance(device, sender, receiver)["stats"]["sdu_drops"], [0, 1, 0, 0, 0, 0, 0, 0], "dropped")


def what_fits_no_window_is_dropped():
    """Or none but for the time by which a timer may be late. When it comes, and when a schedule begins in which it fits none."""
    with policy(*terms(A, 1)) as (device, sender, receiver):
        for of_class, size, fits in ((0, 900, True), (0, 901, False), (1, 700, True), (1, 701, False), (2, 60, False)):
            sender.set(SO_PRIORITY, of_class)
            lib.wait_until(lambda: not device.qdisc()["qlen"], "the queue is empty")
            lib.equal(sender.send(0, size), fits, f"class {of_class}, {size} bytes: taken")
        receiver.collect(2)
        lib.equal(lib.balance(device, sender, receiver)["stats"]["window_drops"], [1, 1, 1, 0, 0, 0, 0, 0], "dropped")
    with policy("plug=true") as (device, sender, receiver):
        sender.set(SO_PRIORITY, 1)
        for number in range(20):
            lib.true(sender.send(number, 700 + number % 2), f"packet {number} refused")
        change(device, *terms(Schedule(((1, 500 * US), (2, 400 * US))), 2))
        time.sleep(0.01)                        # a cycle of it has begun
        change(device, "plug=false")
        receiver.collect(10)
        lib.wait_until(lambda: not device.qdisc()["qlen"], "the queue is empty")
        lib.equal(lib.balance(device, sender, receiver, dropped=(10, 7010))["stats"]["window_drops"][1], 10, "dropped")


def a_gso_packet_is_cut():
    """10 packets of 542 bytes; where one is too long for its class, all are"""
    for sets, arrive in ((("max_sdu[0]=528",), 10), (("max_sdu[0]=527",), 0), (("gates=1,0", "intervals=400us,600us"), 10)):
        with policy(*sets) as (device, sender, receiver):
            lib.equal(sender.send_gso(500, 10), arrive > 0, f"{sets}: taken")
            lib.equal([each.size for each in receiver.collect(arrive)], [542] * arrive, f"{sets}: what leaves")
            stats = device.qdisc()
            lib.equal((sum(stats["stats"]["sdu_drops"]), stats["drops"]), (10 - arrive, 10 - arrive), f"{sets}: dropped")


# --- whatever is set -------------------------------------------------------------

def what_is_out_of_range_is_refused():
    with policy() as (device, _, _):
        for text in ("gates[0]=256", "gates=-1", "gates[64]=1", "intervals[0]=2s", "intervals[0]=1mbit", "cycle=65s", "base=9000000001s",
                     "rate=0", "rate=2tbit", "priomap[0]=8", "priomap[16]=1", "max_sdu=65536", "max_sdu[8]=1", "class_limit=1000001",
                     "schedule=0", "plug=2"):
            lib.contains(lib.refused("tc", *lib.qdisc(device, "change", "set", text)), "cannot be")


def any_parameters_lose_nothing():
    """Nobody is stuck, nor is the machine; another schedule puts it right."""
    for sets in (("cycle=1ns",), ("gates=1,2,4", "intervals=1ns,1ns,1ns"), ("gates=255,1", "intervals=1ns,1ns"), ("intervals[0]=0",),
                 ("gates[0]=0",), ("gates=1,0", "intervals=1s,1s", "cycle=64s"), ("base=9000000000s",), ("rate=8kbit",), ("class_limit=0",),
                 ("gates=1,254", "intervals=1s,1s", "cycle=1ns", "base=1ns")):
        with policy(*sets) as (device, sender, receiver):
            for of_class in (0, 1, 7):
                sender.set(SO_PRIORITY, of_class)
                for number in range(5):
                    sender.send(number)
            time.sleep(0.01)
            change(device, f"rate={8 * RATE}bit", *terms(Schedule(((255, MS),)), 2))
            lib.wait_until(lambda: not device.qdisc()["qlen"], f"{sets}: the queue is empty")
            receiver.drain()
            stats = device.qdisc()
            lib.balance(device, sender, receiver, dropped=(stats["drops"], stats["drops"] * 100))
            counted = sum(sum(each) for each in stats["stats"].values())
            lib.equal((stats["stuck"], counted), (0, sender.packets), f"{sets}: times that it was stuck, packets in the statistics")


lib.main(no_packet_leaves_outside_its_gate_in_10000_cycles,
         another_schedule_begins_at_its_base,
         a_base_that_has_passed_begins_at_a_cycle,
         without_a_number_nothing_changes,
         before_the_first_base_all_gates_are_open,
         cycle_cuts_and_prolongs_the_list,
         the_highest_class_goes_first,
         an_sdu_has_a_longest_length,
         what_fits_no_window_is_dropped,
         a_gso_packet_is_cut,
         what_is_out_of_range_is_refused,
         any_parameters_lose_nothing)
