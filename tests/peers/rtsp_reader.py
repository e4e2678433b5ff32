"""ffprobe and FFmpeg as readers of RTSP, as Frigate runs them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.peers.packages import program


async def probe(url: str) -> dict[str, dict[str, Any]]:
    """The streams at `url` by kind, in ffprobe's words."""
    shown = ("-v", "error", "-of", "json", "-show_streams")
    process = await asyncio.create_subprocess_exec(
        *(program("ffprobe"), *shown, "-rtsp_transport", "tcp", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return {stream["codec_type"]: stream for stream in json.loads(out)["streams"]}


class Decoded(NamedTuple):
    """What came of reading for a while."""

    pictures: int
    sound: float
    """Seconds."""
    complaints: list[str]
    """What FFmpeg had to say, its progress aside."""


_RATE: Final = 8000
_PROGRESS: Final = re.compile(r"^\w+=")


async def decode(url: str, seconds: float, recording: Path) -> Decoded:
    """Decode picture and sound for so many seconds of media, and record them as they are, as Frigate does."""
    length = ("-t", f"{seconds:g}")
    process = await asyncio.create_subprocess_exec(
        *(program("ffmpeg"), "-nostdin", "-v", "error", "-progress", "pipe:2", "-rtsp_transport", "tcp", "-i", url),
        # In the stream's own time base: pictures that a new viewer is given at once lie closer together than 1/30 s.
        *(*length, "-map", "0:v", "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-f", "null", "-"),
        *(*length, "-map", "0:a", "-ac", "1", "-ar", str(_RATE), "-f", "s16le", "pipe:1"),
        *(*length, "-map", "0", "-c", "copy", str(recording)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    sound, said = await asyncio.wait_for(process.communicate(), seconds + 60)
    lines = said.decode().splitlines()
    assert process.returncode == 0, lines
    pictures = [line.partition("=")[2] for line in lines if line.startswith("frame=")]
    complaints = [line for line in lines if not _PROGRESS.match(line)]
    return Decoded(int(pictures[-1]), len(sound) / 2 / _RATE, complaints)
