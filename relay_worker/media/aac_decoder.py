"""Decoders of AAC, and some that a process opens before it forks others.

FFmpeg's takes 0.8 MB, whatever it decodes, and writes to a third of it. One that was opened before the fork costs a
process only what it writes.
"""

from __future__ import annotations

from typing import Final

import av
import av.codec.context
from av.audio.codeccontext import AudioCodecContext

from relay_worker import native

USUAL: Final = (bytes.fromhex("1408"), bytes.fromhex("140856e500"))
"""AudioSpecificConfig (ISO 14496-3) of what most cameras send: AAC-LC, 16 kHz, mono; the second says that there is no
more to it (no SBR).
"""
_opened: dict[bytes, AudioCodecContext] = {}


def open_in_advance() -> None:
    """Open a decoder for each of `USUAL`, for the first that asks: here, and in each fork of this process."""
    for config in USUAL:
        _opened[config] = _decoder(config)
        _opened[config].open()


def aac_decoder(config: bytes) -> AudioCodecContext:
    """A decoder that has decoded nothing yet, for this AudioSpecificConfig; nobody else has it.

    Whether the configuration can be decoded turns out when it first decodes (`av.error.FFmpegError`).
    """
    return _opened.pop(config, None) or _decoder(config)


def direct_decoder(decoder: AudioCodecContext) -> object | None:
    """By what compiled code asks this decoder, which has decoded something; None where it asks PyAV."""
    compiled = native.compiled()
    file = av.codec.context.__file__
    return None if compiled is None or file is None else compiled.find_decoder(file, decoder)


def _decoder(config: bytes) -> AudioCodecContext:
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.extradata = config
    return decoder
