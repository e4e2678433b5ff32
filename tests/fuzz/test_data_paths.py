"""The compiled data path gives what the Python gives, byte for byte; `make fuzz-native` tries ten million packets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from relay_worker import native
from tests.fuzz import data_paths

PACKETS = int(os.environ.get("RELAY_NATIVE_PACKETS", "20000"))
PARTS = 4

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())


@pytest.fixture(autouse=True)
def chosen() -> Iterator[None]:
    """Other tests of this process are on the path that is the default."""
    before = native.compiled()
    yield
    native.choose("compiled" if before else "python")


def agree(seed: int, packets: int) -> None:
    """Send so many packets, from streams from `seed` on, through both."""
    while packets > 0:
        packets -= data_paths.compare(seed)
        seed += 1


@pytest.mark.parametrize("part", range(PARTS))
def test_both_paths_agree(part: int) -> None:
    agree(part * 1_000_000, PACKETS // PARTS)


def test_state_is_compared_in_a_program_as_well() -> None:
    """By `python -m` the classes of `data_paths.py` are of `__main__`: of these no state was compared."""
    part: Any = type("Part", (), {"__module__": "__main__"})()
    part.number = 7
    assert data_paths.remembered([part], set()) == [{"number": 7}]


@pytest.mark.parametrize(
    "where", ["split_frames", "take_plain", "pass_fragments", "measure", "put", "take", "send", "release", "hear"]
)
def test_a_difference_is_found(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled function that is wrong in one way that a look at pictures would not show."""
    found = native._found
    assert found is not None
    monkeypatch.setattr(native, "_found", Wrong(found, where))
    with pytest.raises(data_paths.Difference):
        agree(0, 10_000)


class Wrong:
    """The compiled functions, one of which is wrong."""

    def __init__(self, right: native.Compiled, where: str) -> None:
        self._right, self._where = right, where

    def __getattr__(self, name: str) -> object:
        right = getattr(self._right, name)
        if name == "Wake" and self._where == "hear":
            return lambda *arguments: WrongEar(right(*arguments))
        if name == "Wake" and self._where == "send":
            return lambda *arguments: WrongSound(right(*arguments))
        if name == "Wake" and self._where == "release":
            return lambda *arguments: WrongRelease(right(*arguments))
        if name == "Wake" and self._where in ("put", "take"):
            return lambda *arguments: WrongWake(right, arguments if self._where == "take" else ())
        if name == "Slots":
            return lambda *arguments: WrongSlots(right(*arguments)) if self._where == "put" else right(*arguments)
        return getattr(self, f"_{name}") if name == self._where else right

    def _split_frames(self, buffer: bytes, position: int, packets: dict[int, list[bytes]]) -> int:
        stop = self._right.split_frames(buffer, position, packets)
        if packets[0] and packets[0][-1][-1:] == b"\x07":
            packets[0][-1] = packets[0][-1][:-1]
        return stop

    def _take_plain(self, *arguments: object) -> tuple[int, int]:
        index, size = self._right.take_plain(*arguments)
        return index, size + (size == 500 or size % 97 == 0)

    def _pass_fragments(self, payloads: list[tuple[bytes, bool]], index: int, most: int, ends: bool) -> tuple[int, int]:
        index, end = self._right.pass_fragments(payloads, index, most, ends)
        return index, min(end, 1)

    def _measure(self, payloads: list[tuple[object, bool]], most: int) -> int:
        size = self._right.measure(payloads, most)
        return size + (size > 1000)


class WrongWake:
    """Takes all but forgets that sound is left; without parts it takes nothing."""

    def __init__(self, right: Any, parts: tuple[Any, ...]) -> None:
        self._right = right(*parts) if parts else None

    def take(self, data: bytes, now: float) -> int:
        taken: int = self._right.take(data, now) if self._right is not None else native.NOT_PLAIN
        return native.DONE if taken == native.OTHERS_LEFT else taken

    def hear(self, *arguments: Any) -> int:
        return native.NOT_PLAIN

    def send(self, *sound: Any) -> int:
        return native.NOT_PLAIN

    release = send


class WrongEar:
    """Hears sound a little later than it was."""

    def __init__(self, right: native.Wake) -> None:
        self._right = right
        self.take, self.send, self.release = right.take, right.send, right.release

    def hear(self, data: bytes, now: float) -> tuple[bytes, float] | int:
        heard = self._right.hear(data, now)
        return (heard[0], heard[1] + 0.1) if isinstance(heard, tuple) else heard


class WrongSound:
    """Sends sound a little later than it was."""

    def __init__(self, right: native.Wake) -> None:
        self._right = right
        self.take, self.hear, self.release = right.take, right.hear, right.release

    def send(self, payloads: Any, media_time: float, step: float, now: float) -> int:
        return self._right.send(payloads, media_time + 1 / 48000, step, now)


class WrongRelease(WrongSound):
    """Sends what the pacer has let through a little later than it was."""

    def __init__(self, right: native.Wake) -> None:
        super().__init__(right)
        self.send, self.release = right.send, self._late  # type: ignore[method-assign]

    def _late(self, payloads: Any, media_time: float, step: float, now: float) -> int:
        return self._right.release(payloads, media_time + 1 / 48000, step, now)


class WrongSlots:
    """Slots that forget that transport-wide numbers, and others, wrap."""

    def __init__(self, right: native.Slots) -> None:
        self._right = right
        self.packet = right.packet

    def put(self, payloads: list[tuple[bytes, bool]], *numbers: int) -> tuple[int, int, int]:
        index, slot, payload_type, sequence, *rest = numbers
        return self._right.put(payloads, index, slot, payload_type, sequence or 1, *rest)  # type: ignore[call-arg]
