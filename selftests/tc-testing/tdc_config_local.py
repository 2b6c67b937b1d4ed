# SPDX-License-Identifier: GPL-2.0
"""What tdc's command lines stand for here: tdc_config.py reads this file."""

import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXTRA_NAMES = {
    "TC": f"{TOP}/build/tools/bin/tc",
    "IP": f"{TOP}/selftests/tc-testing/ip",
    "EBPFDIR": TOP,
    "TIMEOUT": 120,     # s; emulated CPUs are slow
}
