"""WebRTC cameras: the compiled data path gives what the Python gives; `make fuzz-native` tries more of them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from relay_worker import native
from tests.fuzz import data_paths, datagram_paths
from tests.fuzz.test_data_paths import WrongEar, WrongWake, chosen

__all__ = ["chosen"]
PACKETS = int(os.environ.get("RELAY_NATIVE_PACKETS", "20000")) // 2
PARTS = 4

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())


def agree(seed: int, packets: int) -> None:
    while packets > 0:
        packets -= datagram_paths.compare(seed)
        seed += 1


@pytest.mark.parametrize("part", range(PARTS))
def test_both_paths_agree(part: int) -> None:
    agree(part * 1_000_000, PACKETS // PARTS)


def test_most_wakes_of_an_even_camera_are_taken_whole() -> None:
    before, wakes = datagram_paths.whole, 0
    for seed in range(200):
        came = datagram_paths.DatagramStream(seed)
        stream = came.stream
        if stream.wide and stream.even and not (stream._rate or stream.limited) and len(stream.extensions) == 1:
            datagram_paths.compare(seed)
            wakes += len(came.wakes)
    assert wakes > 200
    assert datagram_paths.whole - before > wakes / 2


@pytest.mark.parametrize("wrong", ["take", "hear"])
def test_a_difference_is_found(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = native._found

    class Wrong:
        def __getattr__(self, name: str) -> object:
            right = getattr(found, name)
            if name != "Wake":
                return right
            return lambda *parts: WrongWake(right, parts) if wrong == "take" else DeafEar(right(*parts))

    monkeypatch.setattr(native, "_found", Wrong())
    with pytest.raises(data_paths.Difference):
        agree(1, 10_000)


class DeafEar(WrongEar):
    """Says of sound that it was sent, now and then, which it was not."""

    _heard = 0

    def hear(self, data: bytes, now: float) -> tuple[bytes, float] | int:
        self._heard += 1
        return native.DONE if self._heard % 7 == 0 else self._right.hear(data, now)
