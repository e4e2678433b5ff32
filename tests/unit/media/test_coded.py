"""What is decoded has FFmpeg's padding behind it."""

from __future__ import annotations

import re
from pathlib import Path

import av
import pytest
from av.audio.codeccontext import AudioCodecContext

import relay_worker
from relay_common.simulation.camera.media import AudioSpec, audio_clip
from relay_worker.media.coded import coded

CLIP = audio_clip(AudioSpec(rate=16000))


def test_what_lies_behind_is_not_heard() -> None:
    heard = set()
    for behind in (0x00, 0xFF, 0xAA):
        decoder = av.CodecContext.create("aac", "r")
        assert isinstance(decoder, AudioCodecContext)
        decoder.extradata = CLIP.config
        for number, unit in enumerate(CLIP.units[:4]):
            data = unit.data[:2] if number == 2 else unit.data
            packet = coded(memoryview(data + bytes((behind,)) * 64)[: len(data)])
            if number == 2:
                with pytest.raises(av.error.InvalidDataError):
                    decoder.decode(packet)
                continue
            (frame,) = decoder.decode(packet)
        heard.add(bytes(frame.planes[0]))
    assert len(heard) == 1


def test_nothing_is_decoded_without() -> None:
    root = Path(relay_worker.__file__).parent
    sources = {path.relative_to(root): path.read_text() for path in root.rglob("*.py")}
    assert not [path for path, source in sources.items() if re.search(r"decode\(\s*(av\.)?Packet\(", source)]
    assert sum(source.count("decode(coded(") for source in sources.values()) == 5
