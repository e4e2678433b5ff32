#!/usr/bin/env bash
# PyAV 18.1.0 silently ignores a codec option that the encoder does not know, and its libopus wrapper does not know
# "dtx". Seen 2026-11-28, Python 3.11, FFmpeg 8.1.2.
#
# Guess: an unknown option is refused, as FFmpeg's command line does ("Option not found"); and libopus has had DTX for
# years, so "dtx" is one of its options.
# Seen: open() succeeds and the option has no effect. A wrong *value* of a known option is refused. Options that were
# not accepted are still in `CodecContext.options` after open(), accepted ones are removed from it: that is the only
# sign, and the check to make. So with "dtx" three seconds of digital silence stay 150 packets of 3 bytes. (PyAV 19.0.2,
# which needs Python 3.12, accepts "dtx": the packets become 1 byte each.)
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


def silence(options: dict[str, str]) -> tuple[dict[str, str], list[int]]:
    """What is left of the options after open(), and the sizes of three seconds of encoded silence."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48000, "mono", "flt"
    encoder.options = options
    encoder.open()
    left, sizes = dict(encoder.options), []
    for number in range(150):
        frame = av.AudioFrame(format="flt", layout="mono", samples=960)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48000, number * 960, Fraction(1, 48000)
        sizes += [len(bytes(packet)) for packet in encoder.encode(frame)]
    return left, sizes


print("PyAV", av.__version__, "libavcodec", av.library_versions["libavcodec"])
known, _ = silence({"application": "lowdelay"})
dtx, sizes = silence({"dtx": "1"})
try:
    silence({"application": "nonsense"})
    refused = False
except ValueError:
    refused = True
print("left of application=lowdelay:", known)
print("left of dtx=1:", dtx, "packet sizes:", sorted(set(sizes)), "packets:", len(sizes))
print("application=nonsense refused:", refused)
same = known == {} and dtx == {"dtx": "1"} and set(sizes) == {3} and len(sizes) == 150 and refused
sys.exit(0 if same else "changed: a known option taken, dtx left over, 150 packets of 3 bytes, a bad value refused")
PY
