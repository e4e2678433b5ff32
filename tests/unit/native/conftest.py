"""What several files of tests go through both data paths with."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from relay_worker import native
from relay_worker.media.inputs import AudioInput
from relay_worker.pipeline import Pipeline
from tests.unit.native.test_datagrams import Ends
from tests.unit.native.test_pictures import Pair, closing
from tests.unit.native.test_transcoding import Speaker

BY_PYTHON: Final = ((Pipeline, "_heard", "decode"), (AudioInput, "encode", "encode"), (Pipeline, "_encoded", "send"))
"""What the Python may be asked to do of a `speaker`'s sound: by which method, and its name there."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    yield from closing(Pair())


@pytest.fixture
def narrow() -> Iterator[Pair]:
    """One whose packets have room for 64 octets, of which those of a fragment are 62."""
    yield from closing(Pair(64))


@pytest.fixture
def ends() -> Iterator[Any]:
    before, made = native.compiled(), list[Ends]()

    def make(setting: native.Setting, family: socket.AddressFamily = socket.AF_INET) -> Ends:
        made.append(Ends(setting, family))
        return made[-1]

    yield make
    for each in made:
        each.close()
    native.choose("compiled" if before else "python")


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Speaker]:
    heard: list[int] = []
    asked: list[str] = []
    hear = Pipeline._hear

    def noted(self: Pipeline, *arguments: Any) -> int:
        heard.append(hear(self, *arguments))
        return heard[-1]

    def noting(method: Any, what: str) -> Callable[..., Any]:
        def wrapped(self: Any, *arguments: Any) -> Any:
            asked.append(what)
            return method(self, *arguments)

        return wrapped

    monkeypatch.setattr(Pipeline, "_hear", noted)
    for owner, name, what in BY_PYTHON:
        monkeypatch.setattr(owner, name, noting(getattr(owner, name), what))
    for pair in closing(Pair()):
        yield Speaker(pair, heard, asked)
