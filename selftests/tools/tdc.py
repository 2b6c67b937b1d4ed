#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The kernel's own tdc runs tc-testing/bpf.json; what it prints is TAP."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TDC = f"{os.path.dirname(os.path.dirname(HERE))}/build/linux/tools/testing/selftests/tc-testing"
RESULTS = "/tmp/bpf.tap"

# It deletes all network namespaces that it finds: let it find none of ours.
APART = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs netns /run/netns && exec "$@"', "sh")

done = subprocess.run([*APART, "python3", "-B", "tdc.py", "--outfile", RESULTS,
                       "--file", f"{HERE}/tc-testing/bpf.json"],
                      cwd=TDC, env=dict(os.environ, PYTHONPATH=f"{HERE}/tc-testing"),
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
if os.path.exists(RESULTS):
    with open(RESULTS, encoding="utf-8") as file:
        print(file.read(), end="")
if done.returncode or not os.path.exists(RESULTS):
    print(*(f"# {line}" for line in done.stdout.splitlines()), sep="\n")
sys.exit(done.returncode)
