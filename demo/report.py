#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""report.py DIR SECONDS RATE...: compare the rates asked for, in Mbit/s, with the
arrivals that DIR/CASE.PROTOCOL hold of runs of some SECONDS, and draw them as
DIR/pacing.svg. Fails unless every rate is met within 2 %, and unpaced traffic is
three times faster than each."""

import itertools
import struct
import sys

TOLERANCE = 0.02
FACTOR = 3
SETTLE = 0.5            # s at the start that do not count: handshake, slow start
TAIL = 0.2              # s at the end that do not count: a connection is closed

ARRIVAL = struct.Struct("=QII")          # struct arrival of capture.c
IPPROTO = {"tcp": 6, "udp": 17}
COLOURS = ("#5b6470", "#0072b2", "#d55e00")     # unpaced, then the rates


def arrivals(folder, case, protocol):
    """(seconds since the first, bytes) of each frame. iperf3's control connection
    is among the TCP frames: some 20 small ones."""
    with open(f"{folder}/{case}.{protocol}", "rb") as file:
        frames = [(ns, length) for ns, length, number in ARRIVAL.iter_unpack(file.read())
                  if number == IPPROTO[protocol]]
    if not frames:
        sys.exit(f"{case}, {protocol}: no frame arrived")
    start = frames[0][0]
    return [((ns - start) / 1e9, length) for ns, length in frames]


def rate(frames, seconds):
    """Mbit/s: a line laid through the arrivals by least squares. A frame is due when
    the bytes before it have had their time; emulated CPUs are late now and then,
    so it is the time of each that is uncertain, not its bytes."""
    before = itertools.accumulate((length for _, length in frames), initial=0)
    points = [(when, size) for (when, _), size in zip(frames, before)
              if SETTLE <= when < seconds - TAIL]
    if len(points) < 10:
        sys.exit(f"only {len(points)} frames to measure a rate")
    time0 = sum(when for when, _ in points) / len(points)
    size0 = sum(size for _, size in points) / len(points)
    slope = (sum((when - time0) * (size - size0) for when, size in points) /
             sum((size - size0) ** 2 for _, size in points))
    return 8 / slope / 1e6


def table(runs, seconds, rates):
    """Print what was asked and measured; return what is wrong with it."""
    wrong = []
    print("\nrates in Mbit/s of frame bytes, time-stamped where they arrive on eth1")
    print(f"{'':8}{'asked':>10}{'measured':>10}{'error':>9}{'unpaced':>10}{'factor':>8}")
    for protocol in ("tcp", "udp"):
        unpaced = rate(runs["unpaced", protocol], seconds)
        for asked in rates:
            measured = rate(runs[str(asked), protocol], seconds)
            error = measured / asked - 1
            factor = unpaced / measured
            print(f"{protocol.upper():8}{asked:10.2f}{measured:10.2f}{error:+9.2%}{unpaced:10.1f}{factor:8.1f}")
            if abs(error) > TOLERANCE:
                wrong.append(f"{protocol} at {asked} Mbit/s: off by {error:+.2%}")
            if factor < FACTOR:
                wrong.append(f"{protocol} unpaced is only {factor:.1f} times {asked} Mbit/s")
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


def main():
    folder, seconds, *rates = sys.argv[1], *(int(argument) for argument in sys.argv[2:])
    cases = ["unpaced"] + [str(asked) for asked in rates]
    runs = {(case, protocol): arrivals(folder, case, protocol)
            for case in cases for protocol in ("tcp", "udp")}
    wrong = table(runs, seconds, rates)
    with open(f"{folder}/pacing.svg", "w", encoding="ascii") as file:
        file.write(drawing(runs, rates))
    print(f"\ndepartures with and without the qdisc: {folder}/pacing.svg")
    for what in wrong:
        print(f"FAILED: {what}")
    sys.exit(1 if wrong else 0)


main()
