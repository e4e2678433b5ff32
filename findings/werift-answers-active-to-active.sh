#!/usr/bin/env bash
# werift 0.25.2 answers an offer of a=setup:active with a=setup:active, so that both ends are DTLS clients and wait for
# each other; FFmpeg 9.0.2 with -whip_flags dtls_active makes such an offer. Seen 2026-11-29, Linux.
#
# Guess: what is offered as active is answered as passive (RFC 8842 section 5.3, RFC 4145 section 4.1); a WHIP client that can
# only be the DTLS client may offer it (RFC 9725 section 4.4).
# Seen: werift looks at the a=setup of an answer only, never of an offer, and answers active whatever is offered. ICE
# succeeds, two ClientHellos cross, and nothing else comes: the server stays "connecting" and FFmpeg gives up at its
# time-out. Without the flag FFmpeg offers passive, and its packets arrive. Not found in the project's issues; aiortc
# (pull request 1090) and Janus (pull request 3020) had the like.
#
# It takes node's npm, and python3 with its venv module.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
npm install --silent --no-audit --no-fund --prefix "$dir" werift@0.25.2
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
ffmpeg=$("$dir/venv/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
"$ffmpeg" -version | head -1

cat >"$dir/server.mjs" <<'JS'
// A WHIP server: for each offer it prints the roles, and at its end (DELETE, or a GET) whether media came.
import { createServer } from "node:http";
import { RTCPeerConnection, useH264 } from "werift";

let pc, packets, roles;
const role = (sdp) => sdp.match(/a=setup:(\w+)/)[1];
const server = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  let answer = "";
  if (request.method === "POST") {
    pc = new RTCPeerConnection({
      codecs: { video: [useH264()] },
      iceServers: [],
      iceAdditionalHostAddresses: ["127.0.0.1"],
      iceUseIpv6: false,
    });
    packets = 0;
    pc.onTrack.subscribe((track) => track.onReceiveRtp.subscribe(() => packets++));
    await pc.setRemoteDescription({ type: "offer", sdp: body });
    await pc.setLocalDescription(await pc.createAnswer());
    answer = pc.localDescription.sdp;
    roles = `${role(body)} is answered with ${role(answer)}`;
  } else if (request.method === "GET") {
    answer = `${roles}; ${packets > 0 ? "media arrives" : "no packet arrives"}\n`;
    pc.close();
  }
  // FFmpeg reads no answer that comes in chunks.
  response.writeHead(request.method === "POST" ? 201 : 200, {
    "Content-Type": "application/sdp",
    Location: "/session",
    "Content-Length": Buffer.byteLength(answer),
  });
  response.end(answer);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
JS
node "$dir/server.mjs" >"$dir/port" 2>"$dir/log" &
until [ -s "$dir/port" ]; do sleep 0.1; done
url="http://127.0.0.1:$(cat "$dir/port")/"

# What comes of two seconds of video, with the options of the muxer that are given.
published() {
    timeout 60 "$ffmpeg" -nostdin -loglevel error -re -f lavfi -i testsrc=size=320x180:rate=15 -t 2 -c:v libx264 \
        -profile:v baseline -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 15 -f whip "$@" "$url" >/dev/null 2>&1 || true
    python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")' "$url"
}

passive=$(published)
active=$(published -whip_flags dtls_active)
printf 'werift %s\n  by default: %s\n  -whip_flags dtls_active: %s\n' \
    "$(node -p "require('$dir/node_modules/werift/package.json').version")" "$passive" "$active"
[ "$passive" = "passive is answered with active; media arrives" ] &&
    [ "$active" = "active is answered with active; no packet arrives" ] ||
    { echo "changed: media by default, and two active ends otherwise, were expected"; exit 1; }
