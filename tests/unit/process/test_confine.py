"""A worker that has confined itself, as the kernel sees it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource
from relay_worker.process.confine import confine
confine()
(line,) = [line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")]
print(line.split()[1], resource.getrlimit(resource.RLIMIT_CORE), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_kernel_knows_what_was_given_up() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "(0,", "0)", "512", "512"]
