# SPDX-License-Identifier: GPL-2.0
"""What tdc's command lines stand for here: tdc_config.py reads this file."""

import os

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
EXTRA_NAMES = {
    "TC": f"{TOP}/build/tools/bin/tc",
    "IP": f"{HERE}/ip",
    "EBPFDIR": TOP,
    "TIMEOUT": 120,     # s; emulated CPUs are slow
}
