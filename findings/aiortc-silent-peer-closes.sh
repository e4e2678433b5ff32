#!/usr/bin/env bash
# An aiortc 1.16.0 connection whose peer falls silent goes from "connected" straight to "closed", after half a minute.
# Seen 2026-11-28, Python 3.11, aioice 0.13.0.
#
# Guess: as in browsers and in the W3C's states: "disconnected" after some seconds, "failed" when consent (RFC 7675,
# 30 s) has expired, and "closed" only by one's own close().
# Seen: after about 30 s, "closed" alone, for connectionState and iceConnectionState. Code that waits for
# "disconnected" or "failed" to reconnect waits forever, and code that takes "closed" for its own doing ignores the
# event.
#
# The peer is a second process, stopped (SIGSTOP) once connected. The address is a documentation address on the
# loopback device of a network namespace of its own: it takes root or unprivileged user namespaces, and python3 of
# 3.11 or later. It takes about 45 s.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aiortc==1.16.0 aioice==0.13.0 av==18.1.0

cat >"$dir/seen.py" <<'PY'
import asyncio
import importlib.metadata
import json
import os
import signal
import sys
import time

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

NO_SERVERS = RTCConfiguration(iceServers=[])


async def peer() -> None:
    """Answer the offer on standard input, then hold the connection."""
    connection = RTCPeerConnection(NO_SERVERS)
    offer = json.loads(sys.stdin.readline())
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    print(json.dumps(connection.localDescription.sdp), flush=True)
    await asyncio.sleep(120)


async def main() -> None:
    print("aiortc", importlib.metadata.version("aiortc"), "aioice", importlib.metadata.version("aioice"))
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "peer", stdin=pipe, stdout=pipe)
    connection = RTCPeerConnection(NO_SERVERS)
    changes: asyncio.Queue[tuple[str, str, float]] = asyncio.Queue()
    for name in ("connectionState", "iceConnectionState"):
        event = name.lower() + "change"
        connection.on(event, lambda name=name: changes.put_nowait((name, getattr(connection, name), time.monotonic())))
    connection.createDataChannel("any")
    await connection.setLocalDescription(await connection.createOffer())
    child.stdin.write(json.dumps(connection.localDescription.sdp).encode() + b"\n")
    answer = json.loads(await child.stdout.readline())
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    try:
        while connection.connectionState != "connected":
            await asyncio.wait_for(changes.get(), 20)
        while not changes.empty():
            changes.get_nowait()
        child.send_signal(signal.SIGSTOP)
        stopped, seen = time.monotonic(), []
        while len(seen) < 2:  # one of either state
            name, state, at = await asyncio.wait_for(changes.get(), 90)
            seen.append((name, state))
            print(f"{at - stopped:5.1f} s {name} {state}")
        after = at - stopped
    finally:
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
    same = {state for _, state in seen} == {"closed"} and 20 < after < 60
    sys.exit(0 if same else "changed: only 'closed' was expected, after 30 to 32 s")


asyncio.run(peer() if sys.argv[1:] == ["peer"] else main())
PY

timeout 180 unshare --user --map-root-user --net sh -c '
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo
    exec "$@"' sh "$dir/venv/bin/python" "$dir/seen.py"
