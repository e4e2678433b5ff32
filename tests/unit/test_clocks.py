"""Who may read a clock: everything else gets `now`, or a `Clock`, from its caller.

A time that is passed in can be moved by a test, and two parts that are given the same one cannot disagree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests.fixtures.product_source import ROOT, files, nodes

READERS: Final[dict[str, str]] = {
    "relay_common/clock.py": "the clocks themselves",
    "relay_common/deadline.py": "a deadline for the event loop's own timers",
    "relay_supervisor/checks/local.py": "a check looks at a certificate or a file once, in a process of its own",
    "relay_supervisor/checks/remote.py": "compares this machine's clock with Google's",
    "relay_supervisor/commands/auth.py": "a command notes when access was granted",
    "relay_supervisor/commands/drain.py": "a command waits for the supervisor, for a limited time",
    "relay_supervisor/commands/status.py": "a command repaints the terminal until its next look at the status",
    "relay_supervisor/commands/stop.py": "the same as drain",
    "relay_supervisor/google/api.py": "the wall clock unless another is given, to compare with Google's",
    "relay_supervisor/google/oauth.py": "google-auth's expiry, made a duration",
    "relay_supervisor/otel.py": "the SDK's thread judges how old its reading of the metrics is",
    "relay_supervisor/state/database.py": "the writer's thread waits for a locked file, for a limited time",
    "relay_worker/rtsp/transport.py": "the time that is left of a connection's time-out, for the event loop's timers",
    "relay_worker/webrtc/arrival.py": "how long ago a datagram had come, by the clock that the kernel stamps it with",
    "relay_worker/webrtc/incoming.py": "when a datagram arrived: the edge where `now` begins",
    "relay_worker/webrtc/transport.py": "for how long a peer is silent, by the time of its last datagram",
}
"""Files that read one, and why; the simulators stand in for machines of their own and are left out."""

_READINGS: Final = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime"}


def readings(module: list[ast.AST]) -> Iterator[str]:
    """Uses of the system's clocks or an event loop's time."""
    for item in module:
        if not isinstance(item, ast.Attribute):
            continue
        base = ast.unparse(item.value)
        if (
            (base == "time" and item.attr in _READINGS)
            or (base in ("datetime.datetime", "datetime") and item.attr in ("now", "utcnow", "today"))
            or (item.attr == "time" and base.endswith(("loop", "get_running_loop()")))
        ):
            yield f"{base}.{item.attr}"
        assert base != "time" or item.attr in _READINGS | {
            *("sleep", "CLOCK_BOOTTIME", "gmtime", "localtime", "strftime"),
            "thread_time",  # CPU time that was used: no clock that two parts could disagree on
        }


def test_only_these_files_read_a_clock() -> None:
    found = {}
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if "/simulation/" not in name and (uses := sorted(set(readings(nodes(path))))):
            found[name] = uses
    assert {name: uses for name, uses in found.items() if name not in READERS} == {}, "take `now` or a `Clock` instead"
    assert READERS.keys() - found.keys() == set(), "listed without need"


def test_no_clock_is_imported_by_its_name() -> None:
    """`from time import monotonic` would hide a reading."""
    for path in files():
        for item in nodes(path):
            if isinstance(item, ast.ImportFrom):
                assert item.module not in ("time", "datetime"), path
