"""Objects that are not counted any more: on which interpreters, which objects, and that processes live with it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from relay_worker.process import immortal

_HERE = immortal.unsupported() == ""

_FORKED = """
import asyncio, collections, enum, json, os, sys
from relay_worker.process import immortal
async def wait(): await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(50)))
class Number(int): pass
class Flag(enum.IntFlag): A = 1
class Slotted: __slots__ = ("value",)
class Queue(collections.deque): pass
class Class:
    attribute = "a text of its own"
    def method(self): return 123456789
kept = {"list": [1.5], "instance": Class(), "slotted": Slotted(), "number": [Number(7)], "queue": Queue()}
kept["slotted"].value = "only there"
immortal.make_immortal()
counts = {name: sys.getrefcount(one) for name, one in {
    "dict": kept, "list": kept["list"], "float": kept["list"][0], "text": Class.attribute, "class": Class,
    "function": Class.method, "code": Class.method.__code__, "constant": Class.method.__code__.co_consts[1],
    "module": json, "instance": kept["instance"], "slotted": kept["slotted"], "only there": kept["slotted"].value,
    "number": kept["number"][0], "flag": Flag.A, "queue": kept["queue"],
}.items()}
codes = []
for _ in range(3):
    child = os.fork()
    if not child:  # works, collects, and ends as a process does
        import gc
        made = [Class() for _ in range(1000)]
        kept["list"].append(made.pop().method())
        asyncio.run(wait())
        gc.collect()
        sys.exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps([immortal.words(), counts, codes]))
"""


def forked(before: str = "") -> Any:
    """What a process says that made its objects immortal and forked."""
    ran = subprocess.run([sys.executable, "-c", before + _FORKED], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.skipif(not _HERE, reason=immortal.unsupported())
def test_what_is_known_becomes_immortal_and_processes_end_cleanly() -> None:
    words, counts, codes = forked()
    assert words == immortal.described("auto") == "immortal"
    queue = counts.pop("queue")
    assert set(counts.values()) == {0xFFFF_FFFF}, counts
    assert queue < 100, "of a class whose base is not known"
    assert codes == [0, 0, 0]


@pytest.mark.skipif(not _HERE, reason=immortal.unsupported())
def test_what_modules_of_c_keep_for_themselves_is_not_touched() -> None:
    assert forked("import asyncio; asyncio.run(asyncio.wait_for(asyncio.sleep(0.001), 1));")[2] == [0, 0, 0]


@pytest.mark.parametrize(
    ("what", "changed", "why"),
    [
        ("version_info", (3, 14, 0), "not on CPython 3.14"),
        ("byteorder", "big", "little-endian"),
        ("maxsize", 2**31 - 1, "of 64 bits"),
    ],
)
def test_other_interpreters_keep_their_counts(
    monkeypatch: pytest.MonkeyPatch, what: str, changed: object, why: str
) -> None:
    monkeypatch.setattr(immortal, "VERSIONS", (sys.version_info[:2],))
    assert immortal.unsupported() == ""
    if what == "version_info":
        monkeypatch.setattr(immortal, "VERSIONS", ((3, 12), (3, 13)))
        changed = type("Version", (tuple,), {"major": 3, "minor": 14})(changed)
    monkeypatch.setattr(sys, what, changed)
    assert why in immortal.unsupported()
    assert immortal.described("auto").startswith("counted (this was tested on ")


def test_an_interpreter_that_counts_otherwise_is_found_out_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(immortal, "VERSIONS", (sys.version_info[:2],))
    monkeypatch.setattr(immortal, "_IMMORTAL", 0x4000_0000)  # another version's
    monkeypatch.setattr(immortal, "_made", "")
    probe = ["counted"]
    before = sys.getrefcount(probe)
    immortal.make_immortal()
    assert immortal.words().startswith("this interpreter ")
    assert sys.getrefcount(probe) == before


def test_off_is_off() -> None:
    assert immortal.described("off") == "counted, as configured"
