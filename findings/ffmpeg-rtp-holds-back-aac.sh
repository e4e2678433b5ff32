#!/usr/bin/env bash
# FFmpeg's RTP muxer puts 640 ms of quiet AAC into one packet by default. Seen 2026-11-28 with FFmpeg 9.0.2 (static
# build of imageio-ffmpeg 0.8.1).
#
# Guess: a muxer for real-time transport sends an access unit as it comes, one a packet, as cameras do; or two.
# Seen: RFC 3640 packets are filled until the next unit does not fit (10 units of 64 ms at 16 kbit/s and 16 kHz),
# because the command line's default of -muxdelay, 0.7 s, is what the muxer takes for the time that it may hold units
# back. With "-muxdelay 0" each unit is a packet. A receiver that paces or fills gaps by the arrival of packets must
# expect jumps of 10240 ticks; a single lost packet is 640 ms of sound.
#
# It takes python3 of 3.11 or later and x86-64 Linux.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1

timeout 120 "$dir/venv/bin/python" - <<'PY'
import socket
import struct
import subprocess
import sys

import imageio_ffmpeg

ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()


def units_per_packet(*options: str) -> tuple[list[int], set[int]]:
    """The number of access units in each packet of three seconds of sound, and the steps between packets in ticks."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sound = ["-f", "lavfi", "-i", "sine=sample_rate=16000:duration=3", "-ac", "1", "-c:a", "aac", "-b:a", "16k"]
    url = f"rtp://127.0.0.1:{receiver.getsockname()[1]}"
    command = [ffmpeg, "-v", "error", *sound, *options, "-f", "rtp", url]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    receiver.setblocking(False)
    counts, times = [], []
    try:
        while True:
            packet = receiver.recv(2048)
            counts.append(struct.unpack(">H", packet[12:14])[0] // 16)  # AU-headers-length; 16 bits each
            times.append(struct.unpack(">I", packet[4:8])[0])
    except BlockingIOError:
        receiver.close()
    return counts, {(b - a) % 2**32 for a, b in zip(times, times[1:])}


print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())
default, steps = units_per_packet()
print("default: units per packet", default, "steps in ticks", sorted(steps))
at_once, at_once_steps = units_per_packet("-muxdelay", "0")
print("-muxdelay 0: units per packet", sorted(set(at_once)), "packets", len(at_once), "steps", sorted(at_once_steps))
same = max(default) == 10 and 10240 in steps and set(at_once) == {1} and at_once_steps == {1024}
sys.exit(0 if same else "changed: ten units a packet by default and one with -muxdelay 0 were expected")
PY
