#!/usr/bin/env bash
# uvloop 0.23.0 fires a timer up to 1.4 ms before its time, and below half a millisecond it is none.
# Seen 2026-11-29, Linux, Python 3.11.
#
# Guess: `loop.call_at` is as in asyncio, where a callback never runs before its time (by more than the clock's resolution)
# and what comes back is a TimerHandle, whose when() says it.
# Seen: the delay is rounded to whole milliseconds, and begins at the last whole one: timers of 1.4 ms fire after 0 to 1 ms,
# where the machine has nothing else to do. One of less than 0.5 ms is call_soon(): its Handle has no when(), so code that
# asks a pending timer for its time fails only where a deadline happened to be that near; when() of others is the rounded
# time. A pacer that sends what is due when it is woken, and then waits for the rest, finds nothing due and turns in circles.
#
# It takes python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0

cat >"$dir/seen.py" <<'PY'
import asyncio
import sys
import time
from collections.abc import Callable

import uvloop

TIMERS = 500
DELAYS = (0.0004, 0.0006, 0.0014, 0.0016)


async def run() -> tuple[list[float | None], int, float]:
    """What when() says of timers (seconds from their call, rounded to 0.1 ms), how many of 1.4 ms fire early, and the earliest."""
    loop = asyncio.get_running_loop()
    said: list[float | None] = []
    for delay in DELAYS:
        handle = loop.call_later(delay, lambda: None)
        said.append(round(handle.when() - loop.time(), 4) if hasattr(handle, "when") else None)
        handle.cancel()
    took = []
    for _ in range(TIMERS):
        fired = loop.create_future()
        began = time.perf_counter()
        loop.call_at(loop.time() + 0.0014, lambda: fired.set_result(time.perf_counter()))
        took.append(await fired - began)
    return said, sum(one < 0.00135 for one in took), min(took)


def seen(factory: Callable[[], asyncio.AbstractEventLoop]) -> tuple[list[float | None], int, float]:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run())


found = {"asyncio": seen(asyncio.new_event_loop), f"uvloop {uvloop.__version__}": seen(uvloop.new_event_loop)}
for name, (said, early, first) in found.items():
    asked = ", ".join(f"{delay * 1000:.1f}" for delay in DELAYS)
    told = ", ".join("a Handle without when()" if one is None else f"{one * 1000:.1f}" for one in said)
    print(f"{name}: call_later of {asked} ms: when() says {told} ms; of {TIMERS} timers of 1.4 ms {early} fire")
    print(f"    before 1.35 ms, the earliest after {first * 1000:.2f} ms")
ours, theirs = found.values()
exact = all(one is not None and abs(one - delay) < 0.0003 for one, delay in zip(ours[0], DELAYS))
same = exact and ours[1] == 0 and theirs[0] == [None, 0.001, 0.001, 0.002] and theirs[1] > 5 and theirs[2] < 0.001
sys.exit(0 if same else "changed: none early with asyncio, and many with uvloop, were expected")
PY
timeout 60 "$dir/venv/bin/python" "$dir/seen.py"
