#!/usr/bin/env bash
# uvloop 0.23.0 calls a reader once for a reset that lies behind unread data, and never again. Seen 2026-11-28, Linux.
#
# Guess: `loop.add_reader` is level-triggered, as in asyncio: the reader is called as long as the socket has anything to
# tell, so one that takes a bounded piece each time reaches the end of the data, and then the error.
# Seen: libuv ends its watch of a descriptor that polls with an error, so uvloop calls the reader once. What is unread
# stays unread, the reset is never noticed, and a connection that is gone looks like one that is silent.
#
# It takes python3 with its venv module.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0

cat >"$dir/seen.py" <<'PY'
import asyncio
import socket
import struct
import sys
from collections.abc import Callable

import uvloop

SENT = 8


async def calls_until_the_reset() -> tuple[int, bool]:
    """How often a reader is called that takes one of `SENT` octets each time, and whether it saw the reset."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        peer, _ = server.accept()
        peer.sendall(bytes(SENT))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()  # with SO_LINGER of 0 this is a reset
        await asyncio.sleep(0.2)
        client.setblocking(False)
        loop, calls, reset = asyncio.get_running_loop(), 0, False

        def read() -> None:
            nonlocal calls, reset
            calls += 1
            try:
                client.recv(1)
            except ConnectionResetError:
                reset = True
                loop.remove_reader(client)

        loop.add_reader(client, read)
        await asyncio.sleep(2.0)
        loop.remove_reader(client)
        return calls, reset


def run(factory: Callable[[], asyncio.AbstractEventLoop]) -> tuple[int, bool]:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(calls_until_the_reset())


seen = {"asyncio": run(asyncio.new_event_loop), f"uvloop {uvloop.__version__}": run(uvloop.new_event_loop)}
for name, (calls, reset) in seen.items():
    print(f"{name}: {SENT} octets and a reset: the reader was called {calls} times, and saw the reset: {reset}")
sys.exit(0 if [*seen.values()] == [(SENT + 1, True), (1, False)] else "changed")
PY
"$dir/venv/bin/python" "$dir/seen.py"
