"""Where payloads lie that are kept for repairs: `blocks.c`."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.publish.history import SentHistory, SentRun
from tests.unit.native.test_wake import Camera

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

BLOCK: Final = 64 * 1024
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def compiled() -> Iterator[native.Compiled]:
    native.choose("compiled")
    module = native.compiled()
    assert module is not None
    yield module
    native.choose("python")


def run(packets: Any, sequence: int = 7) -> SentRun:
    return SentRun(1.5, sequence, 90_000, 960, packets, sum(len(payload) for payload, _ in packets), 3)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


@pytest.mark.parametrize("packets", [[(b"first", False), (b"", False), (bytes(1400), True)], [(b"alone", True)], []])
def test_a_run_says_the_same_when_it_is_kept(compiled: native.Compiled, packets: list[tuple[bytes, bool]]) -> None:
    given = run(packets)
    kept = compiled.kept(given)
    assert type(kept) is not SentRun
    assert {name: getattr(kept, name) for name in SentRun.__struct_fields__ if name != "packets"} == {
        name: getattr(given, name) for name in SentRun.__struct_fields__ if name != "packets"
    }
    assert list(kept.packets) == given.packets


NOT_PLAIN: Final[dict[str, Any]] = {
    "a view": [(b"first", False), (memoryview(b"second"), True)],
    "packets that are no list": ((b"first", False),),
    "a marker that is none": [(b"first", 1)],
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_stays_as_it_is(compiled: native.Compiled, name: str) -> None:
    given = run(NOT_PLAIN[name])
    assert compiled.kept(given) is given


def test_what_is_no_run_is_an_error(compiled: native.Compiled) -> None:
    for given, error in ((object(), AttributeError), (SentRun("now", 0, 0, 0, [], 0, 0), TypeError)):  # type: ignore[arg-type]
        with pytest.raises(error):
            compiled.kept(given)
    with pytest.raises(TypeError):
        compiled.kept(SentRun(0.0, "7", 0, 0, [(b"first", True)], 5, 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_runs_as_large_as_a_block_and_larger(compiled: native.Compiled, size: int) -> None:
    random.seed(size)
    given = [run([(random.randbytes(size - 10), False), (random.randbytes(10), True)]) for _ in range(4)]
    kept = [compiled.kept(one) for one in given]
    assert [list(one) for one in kept] == [one.packets for one in given]


def test_blocks_are_filled_to_their_ends(compiled: native.Compiled) -> None:
    """And nothing is written over what is still kept, in whatever order it is let go."""
    random.seed(1)
    held: dict[int, tuple[Any, SentRun]] = {}
    for number in range(600):
        parts = random.choice(([BLOCK // 2], [BLOCK // 4, 1, 2], [1200] * 20, [BLOCK - 1], [1], [100_000]))
        given = run([(random.randbytes(size), False) for size in parts], number)
        held[number] = compiled.kept(given), given
        if len(held) > 12:
            held.pop(random.choice(list(held)))
        for kept, same in held.values():
            assert kept.packets[len(kept) - 1] == same.packets[-1]
    assert all(list(kept) == same.packets for kept, same in held.values())


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer holds back what is freed")
def test_what_goes_to_several_is_kept_once_and_given_back(compiled: native.Compiled) -> None:
    gc.collect()
    before = resident()
    histories = [SentHistory(max_bytes=1 << 30) for _ in range(3)]
    for number in range(200):
        packets = [(random.randbytes(1200), index == 39) for index in range(40)]
        for history in histories:
            history.append(run(list(packets), number * 40))
    size = 200 * 40 * 1200
    assert size <= resident() - before < 1.6 * size
    assert all(list(one) == list(same) for one, same in zip(*(history._runs for history in histories[:2]), strict=True))
    del histories, history
    assert resident() - before < 0.3 * size


def test_what_was_read_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its payloads are, so that the next wake is read into the same memory."""
    camera = Camera()
    read: list[bytes] = []
    receive = camera.way.receive
    monkeypatch.setattr(camera.way, "receive", lambda data, now: (read.append(data), receive(data, now)))
    assert camera.wake(camera.slices(1, 3)) == 1
    history = camera.way.connections[0].track.history
    assert history is not None
    assert [payload for payload, _ in history._runs[-1].packets] == camera.slices(1, 3)
    references = sys.getrefcount(read[0])
    assert references == 2, "by the list, and for being asked"
    camera.way.close()
    native.choose("python")
