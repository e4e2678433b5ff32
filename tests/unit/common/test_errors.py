"""What errors say."""

from __future__ import annotations

from relay_common.errors import UnknownCamera


def test_ids_are_named_up_to_twenty() -> None:
    assert str(UnknownCamera("x", ["b", "a"])) == "There is no camera with the id 'x'. There are: a, b"
    said = str(UnknownCamera("x", (f"cam{number:02d}" for number in range(22))))
    assert said.endswith("cam19 and 2 more: GET /api/cameras lists them")
