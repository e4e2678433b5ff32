"""Check that UDP works both ways: one STUN binding transaction (RFC 8489) with Cloudflare's server."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from aioice import stun

from relay_common.config import CloudflareConfig
from relay_common.loopback import is_loopback_url
from relay_common.spoken import spoken
from relay_supervisor.checks.report import Finding, failed, ok, warn

SERVER: Final = "stun.cloudflare.com:3478"
_TRIES: Final = 3
_WAIT: Final = 1.0


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, transaction: bytes) -> None:
        self.received: asyncio.Future[stun.Message] = asyncio.get_running_loop().create_future()
        self._transaction = transaction

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            message = stun.parse_message(data)
        except ValueError:
            return
        if message.transaction_id == self._transaction and not self.received.done():
            self.received.set_result(message)

    def error_received(self, exc: Exception) -> None:
        # ICMP says that nothing listens there; further attempts may still be answered.
        pass


async def binding(host: str, port: int) -> str | None:
    """Our address as the server sees it ("" when it does not say); None without an answer within three seconds.

    Raises OSError when the name cannot be resolved or there is no route.
    """
    loop = asyncio.get_running_loop()
    address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0][4]
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Answer(request.transaction_id), remote_addr=(str(address[0]), port)
    )
    try:
        for _ in range(_TRIES):
            transport.sendto(bytes(request))
            done, _pending = await asyncio.wait([protocol.received], timeout=_WAIT)
            if done:
                mapped = protocol.received.result().attributes.get("XOR-MAPPED-ADDRESS")
                return f"{mapped[0]}:{mapped[1]}" if mapped else ""
        return None
    finally:
        transport.close()


async def reachability(config: CloudflareConfig, server: str = "") -> Finding:
    """Check whether media could flow over UDP; `server` is HOST:PORT, empty for Cloudflare's."""
    part = "UDP to the SFU"
    if not server and is_loopback_url(config.api_base_url):
        return warn(part, "not tested: the SFU is on this machine (a simulator)", "--stun HOST:PORT tests another")
    host, _, port = (server or SERVER).rpartition(":")
    try:
        seen = await binding(host, int(port))
    except (OSError, ValueError) as error:
        remedy = "Check that this machine is online and resolves names, then try again"
        return warn(part, f"not tested: {host}:{port} cannot be reached: {spoken(error)}", remedy)
    if seen is None:
        return failed(
            part,
            f"no answer from {host}:{port}",
            "A firewall seems to drop UDP: allow it outwards, or set [cloudflare.turn] to a TURN key",
        )
    return ok(part, f"{host}:{port} answers" + (f"; it sees us as {seen}" if seen else ""))
