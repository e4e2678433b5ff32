#!/usr/bin/env bash
# An empty packet ends an audio decoder of PyAV 18.1.0 (FFmpeg 8.1.2) permanently. Seen 2026-11-28, Python 3.11.
#
# Guess: a packet without a byte is an empty frame, which decodes to nothing or raises, and the next packet decodes.
# Seen: the empty packet itself raises nothing and returns no frame; it is taken as the end of the stream, so each
# packet after it raises EOFError. The error thus names a packet that is fine. Only flush_buffers() brings the decoder
# back. Such packets occur in practice: an RFC 3640 access unit header may state a size of 0.
#
# It takes python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0

timeout 60 "$dir/venv/bin/python" - <<'PY'
import sys
from fractions import Fraction

import av

encoder = av.CodecContext.create("aac", "w")
encoder.sample_rate, encoder.layout, encoder.format = 16000, "mono", "fltp"
units: list[bytes] = []
for number in range(6):
    frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate, frame.pts, frame.time_base = 16000, number * 1024, Fraction(1, 16000)
    units += [bytes(packet) for packet in encoder.encode(frame)]

decoder = av.CodecContext.create("aac", "r")
decoder.extradata = encoder.extradata


def decode(data: bytes) -> str:
    try:
        return f"{len(decoder.decode(av.Packet(data)))} frame"
    except EOFError:
        return "EOFError"


seen = [decode(units[0]), decode(units[1]), decode(b""), decode(units[2]), decode(units[3])]
decoder.flush_buffers()
seen.append(decode(units[4]))
print("PyAV", av.__version__, "libavcodec", av.library_versions["libavcodec"])
print("unit, unit, empty, unit, unit, (flush_buffers) unit:", ", ".join(seen))
expected = ["1 frame", "1 frame", "0 frame", "EOFError", "EOFError", "1 frame"]
sys.exit(0 if seen == expected else f"changed: expected {expected}")
PY
