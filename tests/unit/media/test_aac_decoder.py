"""Decoders that are opened before a fork: each is used once, sounds like any other, and costs a fork less."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media import aac_decoder
from relay_worker.media.coded import coded
from relay_worker.media.opus import OpusTranscoder

CLIP = audio_clip(AudioSpec(rate=16000, channels=1))


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aac_decoder, "_opened", {})


def sound(config: bytes) -> list[bytes]:
    decoder = aac_decoder.aac_decoder(config)
    return [bytes(frame.planes[0]) for unit in CLIP.units[:8] for frame in decoder.decode(coded(unit.data))]


@pytest.mark.parametrize("config", aac_decoder.USUAL, ids=bytes.hex)
def test_one_opened_in_advance_is_used_once_and_sounds_the_same(config: bytes) -> None:
    fresh = sound(config)
    assert len(fresh) == 8
    aac_decoder.open_in_advance()
    opened = aac_decoder._opened[config]
    assert sound(config) == fresh
    assert opened not in aac_decoder._opened.values(), "it has heard something"
    assert sound(config) == fresh


def test_each_configuration_has_its_own() -> None:
    aac_decoder.open_in_advance()
    assert aac_decoder.aac_decoder(bytes.fromhex("1190")) not in aac_decoder._opened.values()
    assert len(aac_decoder._opened) == len(aac_decoder.USUAL)


def test_what_cameras_send_is_decoded_by_what_was_opened() -> None:
    aac_decoder.open_in_advance()
    assert CLIP.config in aac_decoder.USUAL
    transcoder = OpusTranscoder("aac", CLIP.config)
    assert transcoder.transcode(CLIP.units[0].data, 1.0, 1.0)
    assert CLIP.config not in aac_decoder._opened


_FORKED = """
import json, os, sys
from relay_worker.media import aac_decoder
from relay_worker.media.coded import coded

config, unit = map(bytes.fromhex, sys.argv[1:])

def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

def cost():
    reading, writing = os.pipe()
    if not (child := os.fork()):
        before = private()
        decoder = aac_decoder.aac_decoder(config)
        frames = [bytes(frame.planes[0]).hex() for _ in range(4) for frame in decoder.decode(coded(unit))]
        os.write(writing, json.dumps([private() - before, frames]).encode())
        os._exit(0)
    os.close(writing)
    said = json.loads(os.fdopen(reading).read())
    os.waitpid(child, 0)
    return said

aac_decoder.aac_decoder(config).decode(coded(unit))
own = cost()
aac_decoder.open_in_advance()
print(json.dumps([own, cost(), cost()]))
"""


def test_forks_pay_for_what_they_write_of_it_and_hear_nothing_of_each_other() -> None:
    arguments = [sys.executable, "-c", _FORKED, CLIP.config.hex(), CLIP.units[0].data.hex()]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    said: list[Any] = json.loads(ran.stdout)
    (own, heard), *inherited = said
    for cost, frames in inherited:
        assert cost < own - 400, f"kB of {own} with a decoder of its own"
        assert frames == heard
