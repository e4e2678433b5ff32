#!/usr/bin/env bash
# FFmpeg decodes *mono* AAC as stereo, from the first frame, as soon as its configuration says SBR. Seen 2026-11-28
# with PyAV 18.1.0 (FFmpeg 8.1.2), Python 3.11.
#
# Guess: channelConfiguration 1 decodes to one channel, and an SBR configuration only doubles the rate; stereo comes
# when parametric stereo (HE-AAC v2) is found in the stream.
# Seen: with SBR signalled and parametric stereo not ruled out, the first frame already has two channels, though no
# frame of this stream holds parametric stereo or even SBR data (an SBR decoder then only upsamples). Only a
# configuration that goes on to say "no parametric stereo" gives mono. FFmpeg's own AAC encoder guards itself: its
# extradata are not the two octets 1408 of AAC-LC but 140856e500, the SBR extension that says "absent". Code that sizes
# buffers or an encoder by the SDP's channel count is wrong by a factor of two for such a camera.
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
for number in range(4):
    frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate, frame.pts, frame.time_base = 16000, number * 1024, Fraction(1, 16000)
    units += [bytes(packet) for packet in encoder.encode(frame)]


def config(*fields: tuple[int, int]) -> bytes:
    """An AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1) of (value, bits) fields, padded to octets."""
    text = "".join(format(value, f"0{bits}b") for value, bits in fields)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


# Object type, rate index, channels, then frame length, core coder and extension flags: LC, 16 kHz, mono.
lc = ((2, 5), (8, 4), (1, 4), (0, 3))
sbr = (*lc, (0x2B7, 11), (5, 5), (1, 1), (5, 4))  # sync word, SBR, present, 32 kHz
no_ps = (*sbr, (0x548, 11), (0, 1))  # sync word, parametric stereo absent
seen = {}
print("PyAV", av.__version__, "libavcodec", av.library_versions["libavcodec"])
for name, extradata in [
    ("LC", config(*lc)),
    ("SBR, explicit hierarchical", config((5, 5), (8, 4), (1, 4), (5, 4), (2, 5), (0, 3))),
    ("SBR, backward compatible", config(*sbr)),
    ("SBR, parametric stereo absent", config(*no_ps)),
    ("as FFmpeg's encoder writes it", encoder.extradata),
]:
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = extradata
    first = next(frame for unit in units for frame in decoder.decode(av.Packet(unit)))
    seen[name] = (extradata.hex(), first.sample_rate, first.layout.name)
    print(f"{name:30} {seen[name]}")
expected = [
    ("1408", 16000, "mono"),
    ("2c0a8800", 32000, "stereo"),
    ("140856e5a8", 32000, "stereo"),
    ("140856e5ad4800", 32000, "mono"),
    ("140856e500", 16000, "mono"),
]
sys.exit(0 if list(seen.values()) == expected else f"changed: expected {expected}")
PY
