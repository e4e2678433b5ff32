#!/usr/bin/env bash
# FFmpeg's own Opus decoder plays what follows a pause sent as DTX up to 16 dB too loud. Seen 2026-11-29 with FFmpeg 9.0.2
# (static build of imageio-ffmpeg 0.8.1).
#
# Guess: a packet of one octet, a TOC without a frame, is a frame that was not sent (RFC 6716 sections 2.1.9 and 3.2.1): it is
# concealed, and what comes after it is decoded as by libopus. RFC 7845 section 4.1 wants pauses stored like that, and libopus
# writes them so with DTX on.
# Seen: in the pause FFmpeg's decoder is nearly silent where libopus makes comfort noise. The first 20 ms after it come out up
# to 16 dB louder than by libopus, and the voice stays 8 to 10 dB too loud until it is softer itself, 160 ms here. No error, no
# warning, and the same number of samples. The same sound coded without DTX is decoded alike by both, to 0.2 dB. Likely: an
# empty frame is decoded as if there were one, and leaves a gain behind from which the next may fall by steps only.
# "opus" is the decoder that FFmpeg takes by default, and PyAV's CodecContext.create("opus"); "libopus" has to be asked for.
#
# It takes python3 of 3.11 or later and x86-64 Linux.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1

timeout 120 "$dir/venv/bin/python" - "$dir" <<'PY'
import math
import os
import random
import struct
import subprocess
import sys
import wave

import imageio_ffmpeg

ffmpeg, folder = imageio_ffmpeg.get_ffmpeg_exe(), sys.argv[1]
RATE, FRAME = 48000, 960


def voice() -> bytes:
    """Six seconds of 16-bit mono: 1.5 s of a buzz of about 120 Hz in syllables, 1.5 s of faint noise, and so on."""
    grain, phase, found = random.Random(1), 0.0, []
    for index in range(6 * RATE):
        at = index / RATE
        value = grain.gauss(0, 8)
        if at // 1.5 % 2 == 0:
            phase += (120 + 30 * math.sin(at * 5)) / RATE
            tone = sum(math.sin(2 * math.pi * phase * harmonic) / harmonic for harmonic in range(1, 12))
            value += tone * 1500 * (1 + math.sin(8 * math.pi * at))
        found.append(int(value))
    return struct.pack(f"<{len(found)}h", *found)


def run(*arguments: str) -> bytes:
    command = [ffmpeg, "-nostdin", "-loglevel", "warning", "-y", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert not done.stderr, done.stderr
    return done.stdout


def loudness(decoder: str) -> list[float]:
    """The root mean square of each 20 ms."""
    raw = run("-c:a", decoder, "-i", f"{folder}/coded.ogg", "-f", "s16le", "-")
    samples = struct.unpack(f"<{len(raw) // 2}h", raw)
    frames = [samples[at : at + FRAME] for at in range(0, len(samples) - FRAME + 1, FRAME)]
    return [math.sqrt(sum(sample * sample for sample in frame) / FRAME) for frame in frames]


with wave.open(f"{folder}/voice.wav", "wb") as file:
    file.setparams((1, 2, RATE, 0, "NONE", ""))
    file.writeframes(voice())
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())
worst, wrong = {}, {}
for dtx in ("0", "1"):
    coder = ["-c:a", "libopus", "-application", "voip", "-b:a", "24k", "-dtx", dtx]
    run("-ch_layout", "mono", "-i", f"{folder}/voice.wav", *coder, f"{folder}/coded.ogg")
    own, reference = loudness("opus"), loudness("libopus")
    assert len(own) == len(reference)
    # where there is voice
    apart = {index: 20 * math.log10(one / other) for index, (one, other) in enumerate(zip(own, reference)) if other > 200}
    worst[dtx] = max(apart.values(), key=abs)
    wrong[dtx] = [(index * FRAME / RATE, round(decibels, 1)) for index, decibels in apart.items() if abs(decibels) > 3]
    size = os.path.getsize(f"{folder}/coded.ogg")
    print(f"DTX {dtx}: {size} octets; opus against libopus where there is voice: {worst[dtx]:+.1f} dB at most, apart by 3 dB:")
    print("   ", ", ".join(f"{at:.2f} s {decibels:+.1f} dB" for at, decibels in wrong[dtx]) or "nowhere")
same = abs(worst["0"]) < 1 and worst["1"] > 10 and len(wrong["1"]) >= 5 and all(2.9 < at < 3.4 for at, _ in wrong["1"])
sys.exit(0 if same else "changed: more than 10 dB too loud after the pause with DTX, and alike without, was expected")
PY
