"""One camera through both data paths, for tests of what compiled code takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.native.test_pictures import Pair, closing


@pytest.fixture
def pair() -> Iterator[Pair]:
    yield from closing(Pair())


@pytest.fixture
def narrow() -> Iterator[Pair]:
    """One whose packets have room for 64 octets, of which those of a fragment are 62."""
    yield from closing(Pair(64))
