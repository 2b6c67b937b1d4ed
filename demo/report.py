#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""report.py DIR RATE...: compare the rates asked for, in Mbit/s, with the frames that
DIR/CASE.PROTOCOL hold as they arrived and DIR/CASE.PROTOCOL.queued as they came to the qdisc,
and draw the arrivals as DIR/pacing.svg.

What is judged is what a pacing qdisc answers for: it never sends more than the rate, and it
sends the rate as long as its sender keeps the queue full. What the sender does in between is
the sender's. Fails unless both hold within 1 %, and unpaced traffic is three times faster."""

import itertools
import struct
import sys

TOLERANCE = 0.01
FACTOR = 3
CATCH_UP = 0.02         # s that edt lets a late sender make up for
ENOUGH = 0.5            # s with a full queue, to say anything of its rate

FRAME = struct.Struct("=QIIII")         # struct frame of capture.c
IPPROTO = {"tcp": 6, "udp": 17}
COLOURS = ("#5b6470", "#0072b2", "#d55e00")     # unpaced, then the rates


def frames(path, protocol):
    """(ns, bytes of the frame, bytes of its payload) of each frame of the largest flow.
    The other is iperf3's control connection."""
    flows = {}
    with open(path, "rb") as file:
        for ns, length, payload, port, number in FRAME.iter_unpack(file.read()):
            if number == IPPROTO[protocol] and payload:
                flows.setdefault(port, []).append((ns, length, payload))
    if not flows:
        sys.exit(f"{path}: no frame")
    return max(flows.values(), key=lambda flow: sum(payload for _, _, payload in flow))


def packets(queued, arrived):
    """(ns it was queued, ns it had left, bytes of its frames) of each packet. A GSO packet is
    queued as one and leaves as many frames."""
    result, left = [], iter(arrived)
    for came, _, payload in queued:
        size, gone = 0, came
        while payload > 0:
            gone, length, part = next(left, (came, 0, 0))
            if not length:
                return result           # the rest was in the queue when the run ended
            size += length
            payload -= part
        if payload or gone < came:
            sys.exit("what arrived is not what was queued")
        result.append((came, gone, size))
    return result


class Measure:
    """What the packets of a run say of the rate asked for, in bytes a second. The sender
    keeps the queue full as long as each packet comes before the one in front of it has had
    its time. After a pause edt makes up for CATCH_UP of it, so what it lets go at once then
    says nothing of the rate."""

    def __init__(self, run, asked):
        largest = max(size for _, _, size in run)
        busy = spent = level = self.excess = 0
        self.burst = asked * CATCH_UP + 2 * largest
        pass_by = self.burst
        for (_, gone, size), (came, after, more) in itertools.pairwise(run):
            if came > gone + size / asked * 1e9:
                pass_by = self.burst
            elif pass_by > 0:
                pass_by -= size
            else:
                busy += after - gone
                spent += size
            level = max(0, level - (after - gone) / 1e9 * asked * (1 + TOLERANCE)) + more
            self.excess = max(self.excess, level)
        self.busy = busy / 1e9
        self.full = busy / (run[-1][1] - run[0][1])
        self.rate = spent * 1e9 / busy if busy else 0

    def wrong(self, asked):
        """Words for it, or None"""
        if self.excess > self.burst:
            return f"more than asked for: {self.excess:.0f} bytes at once, of {self.burst:.0f} that may be"
        if self.busy < ENOUGH:
            return f"the sender kept the queue full for {self.busy:.1f} s only: nothing can be said of the rate"
        if abs(self.rate / asked - 1) > TOLERANCE:
            return f"{'more' if self.rate > asked else 'less'} than asked for while the queue was full"
        return None


def mean_rate(arrived):
    """Mbit/s from the first to the last frame"""
    seconds = (arrived[-1][0] - arrived[0][0]) / 1e9
    return sum(length for _, length, _ in arrived[:-1]) * 8 / 1e6 / seconds


def table(folder, runs, rates):
    """Print what was asked and measured; return what is wrong with it."""
    wrong = []
    print("Mbit/s of frame bytes, by the time at which each frame arrives on eth1")
    print(f"{'':8}{'asked':>8}{'measured':>10}{'error':>9}{'queue full':>12}{'unpaced':>10}{'factor':>8}")
    for protocol in ("tcp", "udp"):
        unpaced = mean_rate(runs["unpaced", protocol])
        for asked in rates:
            name = f"{asked}.{protocol}"
            run = packets(frames(f"{folder}/{name}.queued", protocol), runs[str(asked), protocol])
            measure = Measure(run, asked * 1e6 / 8)
            measured = measure.rate * 8 / 1e6
            factor = unpaced / measured if measured else 0
            print(f"{protocol.upper():8}{asked:8.2f}{measured:10.2f}{measured / asked - 1:+9.2%}"
                  f"{measure.full:12.1%}{unpaced:10.1f}{factor:8.1f}")
            what = measure.wrong(asked * 1e6 / 8)
            if what:
                wrong.append(f"{protocol.upper()} at {asked} Mbit/s: {what}")
            if factor < FACTOR:
                wrong.append(f"{protocol.upper()} unpaced is only {factor:.1f} times {asked} Mbit/s")
    return wrong


class Panel:
    """A box of the drawing with its axes; data coordinates in, SVG out."""

    def __init__(self, left, top, width, height, xmax, ymax):
        self.box = left, top, width, height
        self.max = xmax, ymax
        self.parts = []

    def at(self, x, y):
        left, top, width, height = self.box
        return left + width * x / self.max[0], top + height * (1 - y / self.max[1])

    def text(self, x, y, what, anchor="middle", colour="#222", size=12):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
                          f'font-size="{size}" fill="{colour}">{what}</text>')

    def line(self, points, colour, width=1.5, more=""):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                          f'stroke-width="{width}" {more}/>')

    def frame(self, title, xlabel, xticks):
        left, top, width, height = self.box
        self.parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" '
                          f'fill="none" stroke="#999"/>')
        self.text(left, top - 10, title, "start", size=14)
        self.text(left + width / 2, top + height + 36, xlabel)
        for tick in xticks:
            x, y = self.at(tick, 0)
            self.line(((x, y), (x, y + 4)), "#999", 1)
            self.text(x, y + 18, f"{tick:g}")


def cumulated(frames, until, points=400):
    """Megabytes that have arrived, as steps of until / points seconds."""
    total, result, i = 0, [(0, 0)], 0
    for step in range(1, points + 1):
        now = until * step / points
        while i < len(frames) and frames[i][0] <= now:
            total += frames[i][1]
            i += 1
        result.append((now, total / 1e6))
    return result


def draw_volume(panel, runs, protocol, cases, rates):
    """Volume over time; what each rate allows as a dashed line."""
    seconds, ymax = panel.max
    panel.frame(f"{protocol.upper()}: megabytes arrived", "seconds", range(int(seconds) + 1))
    for value in range(0, int(ymax) + 1, 5):
        x, y = panel.at(0, value)
        panel.line(((x - 4, y), (x, y)), "#999", 1)
        panel.text(x - 8, y + 4, str(value), "end")
    for case, colour in zip(cases, COLOURS):
        curve = [point for point in cumulated(runs[case, protocol], seconds) if point[1] <= ymax]
        panel.line([panel.at(*point) for point in curve], colour, 2)
    for asked in rates:
        end = min(seconds, ymax * 8 / asked)
        panel.line((panel.at(0, 0), panel.at(end, asked * end / 8)), "#000", 1, 'stroke-dasharray="2 5"')


def draw_frames(panel, runs, protocol, cases):
    """One mark a frame, in a short piece of each run."""
    xmax = panel.max[0]
    panel.frame(f"{protocol.upper()}: single frames", "milliseconds", range(0, int(xmax) + 1, 10))
    for row, (case, colour) in enumerate(zip(cases, COLOURS)):
        y0, y1 = len(cases) - row - 0.15, len(cases) - row - 0.85
        for when, _ in runs[case, protocol]:
            ms = (when - 1) * 1000
            if 0 <= ms <= xmax:
                panel.line((panel.at(ms, y0), panel.at(ms, y1)), colour, 0.8)


def legend(cases):
    """What the colours mean."""
    panel = Panel(0, 0, 1, 1, 1, 1)
    for i, (case, colour) in enumerate(zip(cases, COLOURS)):
        name = "without the qdisc" if case == "unpaced" else f"edt, {case} Mbit/s"
        x = 70 + 190 * i
        panel.line(((x, 50), (x + 28, 50)), colour, 3)
        panel.text(x + 36, 54, name, "start")
    panel.line(((640, 50), (668, 50)), "#000", 1, 'stroke-dasharray="2 5"')
    panel.text(676, 54, "what the rate allows", "start")
    panel.text(70, 28, "Frames that arrive on eth1, with and without edt on eth0", "start", size=17)
    return panel


def drawing(runs, rates):
    """The whole SVG as text."""
    cases = ["unpaced"] + [str(asked) for asked in rates]
    ymax = 5 * (int(max(rates) * 2.5 / 8 / 5) + 1)
    panels = [legend(cases)]
    for left, protocol in ((70, "tcp"), (520, "udp")):
        volume = Panel(left, 105, 390, 270, 2.5, ymax)
        draw_volume(volume, runs, protocol, cases, rates)
        single = Panel(left, 460, 390, 110, 60, len(cases))
        draw_frames(single, runs, protocol, cases)
        panels += [volume, single]
    body = "\n".join(part for panel in panels for part in panel.parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 620" width="950" height="620" '
            f'font-family="sans-serif">\n<rect width="950" height="620" fill="#fff"/>\n{body}\n</svg>\n')


def since_first(arrived):
    """(seconds since the first, bytes) of each frame"""
    return [((ns - arrived[0][0]) / 1e9, length) for ns, length, _ in arrived]


def main():
    folder, *rates = sys.argv[1], *(int(argument) for argument in sys.argv[2:])
    cases = ["unpaced"] + [str(asked) for asked in rates]
    runs = {(case, protocol): frames(f"{folder}/{case}.{protocol}", protocol)
            for case in cases for protocol in ("tcp", "udp")}
    wrong = table(folder, runs, rates)
    with open(f"{folder}/pacing.svg", "w", encoding="ascii") as file:
        file.write(drawing({run: since_first(arrived) for run, arrived in runs.items()}, rates))
    for what in wrong:
        print(f"FAILED: {what}")
    sys.exit(1 if wrong else 0)


main()
