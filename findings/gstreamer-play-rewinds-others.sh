#!/usr/bin/env bash
# GStreamer 1.22.0's RTSP server, with a live source that clients share: one client's PLAY with "Range: npt=0.000-", as
# FFmpeg and others send it, sets the RTP timestamps of all other clients back to the beginning. Seen 2026-11-29, Debian 12.
#
# Guess: a range belongs to the session that asks for it (RFC 2326 section 10.5), and what is live, "a=range:npt=now-" in
# the description, cannot be positioned; so whoever is watching already does not notice.
# Seen: the server seeks the shared pipeline to 0. Every client's timestamps jump back, by as long as the source has been
# running since the last such PLAY, and packets are missing, while SSRC and sequence numbers go on and no RTSP message
# tells. The answer says "Range: npt=now-" all the same. A PLAY without Range, or with "npt=now-", disturbs nobody.
# Found in no issue.
#
# It takes Debian 12 on x86-64 with its own python3 and apt-get, and libglib2.0-0, libdw1 and libunwind8.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
base=1.22.0-3+deb12u7
(cd "$dir" && apt-get -o APT::Sandbox::User= -qq download python3-gi=3.42.2-3+b1 libgirepository-1.0-1=1.74.0-3 \
    gir1.2-glib-2.0=1.74.0-3 liborc-0.4-0=1:0.4.33-2 libgstreamer1.0-0=1.22.0-2+deb12u1 gir1.2-gstreamer-1.0=1.22.0-2+deb12u1 \
    libgstreamer-plugins-base1.0-0=$base gir1.2-gst-plugins-base-1.0=$base gstreamer1.0-plugins-base=$base \
    gstreamer1.0-plugins-good=1.22.0-5+deb12u4 libgstrtspserver-1.0-0=1.22.0-2 gir1.2-gst-rtsp-server-1.0=1.22.0-2)
for package in "$dir"/*.deb; do dpkg-deb --extract "$package" "$dir/root"; done
libraries=$dir/root/usr/lib/x86_64-linux-gnu
mkdir "$dir/plugins"
for plugin in coreelements audiotestsrc audioconvert audioresample mulaw rtp rtpmanager udp tcp app; do
    ln -s "$libraries/gstreamer-1.0/libgst$plugin.so" "$dir/plugins/"
done
export LD_LIBRARY_PATH=$libraries GI_TYPELIB_PATH=$libraries/girepository-1.0 PYTHONPATH=$dir/root/usr/lib/python3/dist-packages
export GST_PLUGIN_SYSTEM_PATH=$dir/plugins GST_REGISTRY=$dir/registry GST_REGISTRY_FORK=no

cat >"$dir/server.py" <<'PY'
"""One live source of sound, shared by all who play it; prints GStreamer's version and the port."""
import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(
    "( audiotestsrc is-live=true ! audioconvert ! audioresample ! audio/x-raw,rate=8000,channels=1 ! mulawenc "
    "! rtppcmupay name=pay0 )"
)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(Gst.version_string(), server.get_bound_port(), flush=True)
GLib.MainLoop().run()
PY
/usr/bin/python3 "$dir/server.py" >"$dir/port" &
until [ -s "$dir/port" ]; do sleep 0.1; done

cat >"$dir/seen.py" <<'PY'
import socket
import struct
import sys
import time

*version, port = sys.argv[1].split()
base = f"rtsp://127.0.0.1:{port}/live"
APART = 2.0  # seconds between the first client's PLAY and the second's
RATE = 8000


class Client:
    """Plays over the RTSP connection itself, and keeps number, timestamp and SSRC of each packet."""

    def __init__(self, *range_header: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
        self.stream = self.sock.makefile("rb")
        self.number = 0
        self.packets: list[tuple[int, int, int]] = []
        self.ask("DESCRIBE", base, "Accept: application/sdp")
        setup = self.ask("SETUP", f"{base}/stream=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        session = setup["session"].partition(";")[0]
        self.range = self.ask("PLAY", f"{base}/", f"Session: {session}", *range_header)["range"]

    def ask(self, method: str, url: str, *headers: str) -> dict[str, str]:
        self.number += 1
        self.sock.sendall("\r\n".join([f"{method} {url} RTSP/1.0", f"CSeq: {self.number}", *headers, "", ""]).encode())
        while (start := self.stream.read(1)) == b"$":
            self.packet()
        status = start + self.stream.readline()
        assert status.split()[1] == b"200", status
        found = {}
        while line := self.stream.readline().decode().strip():
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip()
        self.stream.read(int(found.get("content-length", 0)))
        return found

    def packet(self) -> None:
        """What follows a "$"."""
        channel, length = struct.unpack(">BH", self.stream.read(3))
        data = self.stream.read(length)
        if channel == 0:
            self.packets.append(struct.unpack(">2xHII", data[:12]))

    def play(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.stream.read(1) == b"$"
            self.packet()


print(*version)
seen = []
for header in ((), ("Range: npt=now-",), ("Range: npt=0.000-",)):
    first = Client()
    first.play(APART)
    second = Client(*header)
    first.play(1.0)
    back = 0.0
    for (_, before, ssrc), (_, after, same) in zip(first.packets, first.packets[1:]):
        assert ssrc == same
        back = max(back, ((before - after + 2**31) % 2**32 - 2**31) / RATE)
    seen.append(back > APART / 2)
    print(
        f"the second client's PLAY has {header[0] if header else 'no Range'!r}, and is answered with Range: {second.range}; "
        + (f"the first client's timestamps jump back by {back:.1f} s" if back else "the first client does not notice")
    )
    for client in (first, second):
        client.sock.close()
sys.exit(0 if seen == [False, False, True] else "changed: a jump with npt=0.000- alone was expected")
PY
timeout 60 /usr/bin/python3 "$dir/seen.py" "$(cat "$dir/port")"
