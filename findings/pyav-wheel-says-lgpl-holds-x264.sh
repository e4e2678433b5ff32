#!/usr/bin/env bash
# PyAV 18.1.0's wheel for Linux calls its FFmpeg "LGPL version 3 or later", and brings libx264 and libx265, which encode.
# Seen 2026-11-28, Python 3.11, libavcodec 62.28.102.
#
# Guess: an FFmpeg that says LGPL has no x264. Its configure script refuses --enable-libx264 without --enable-gpl, and
# what was configured with that says GPL.
# Seen: the configuration that the library reports has --enable-libx264, --enable-libx265 and --enable-version3, and no
# --enable-gpl. Who judges an image by `avcodec_license()`, or by PyAV's own licence (BSD), misses two libraries whose
# authors offer them under the GPL.
#
# It takes python3 of 3.11 or later on x86-64 or aarch64 Linux.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: av==18.1.0

timeout 60 "$dir/venv/bin/python" - <<'PY'
import sys
from fractions import Fraction
from pathlib import Path

import av
from av import _core


def encodes(name: str) -> bool:
    """Whether the wheel's encoder of that name makes anything of a grey picture."""
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 192, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    frame = av.VideoFrame(320, 192, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    frame.pts = 0
    return sum(packet.size for packet in [*encoder.encode(frame), *encoder.encode(None)]) > 0


meta = _core.library_meta["libavcodec"]
words = meta["configuration"].split()
files = sorted(path.name for path in Path(av.__file__).parent.parent.glob("av.libs/libx26*"))
made = {name: encodes(name) for name in ("libx264", "libx265")}
print("PyAV", av.__version__, "libavcodec", av.library_versions["libavcodec"])
print("licence that it reports:", meta["license"])
print("configured with:", [word for word in words if "gpl" in word or "x26" in word or "version3" in word])
print("in the wheel:", files, "encoding:", made)
same = meta["license"].startswith("LGPL") and "--enable-gpl" not in words and len(files) == 2 and all(made.values())
sys.exit(0 if same else "changed: an FFmpeg that says LGPL, without --enable-gpl, with libx264 and libx265 that encode")
PY
