"""Supervisors of a relay ask each other for promises directly, while the API server is away.

Over ZeroMQ with CURVE, as on the bus: all of them have the relay's key from the Secret with its state, each shows it
and accepts no other. What they say holds nothing secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Final

import msgspec
import zmq
import zmq.asyncio

from relay_common.clock import Clock
from relay_common.config_cluster import peer_endpoint
from relay_common.errors import ConfigError
from relay_common.tcp_bus import watch_over
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.fleet.bus_sockets import Doorkeeper
from relay_supervisor.fleet.keyring import Keyring
from relay_supervisor.fleet.refusals import Refusals
from relay_supervisor.fleet.zap import DOMAIN, ZapHandler

log = logging.getLogger(__name__)

ANSWERED_WITHIN: Final = 1.0
_LARGEST: Final = 4096
_QUEUE: Final = 16


class PromiseAsked(msgspec.Struct, frozen=True):
    """A holder asks whether its seat will not be taken; `nonce` comes back with the answer."""

    relay: str
    holder: str
    session: str
    nonce: str


class PromiseGiven(msgspec.Struct, frozen=True):
    """The answer."""

    nonce: str
    given: bool


class PeerChannel:
    """Asks other supervisors, and answers them by `promises(holder, session)`. `key` is the secret key of all of them.

    `listen` is the address to answer at ("": none). Raises ConfigError when that cannot be listened on.
    """

    def __init__(self, relay: str, key: str, listen: str, promises: Callable[[str, str], bool], clock: Clock) -> None:
        self._relay, self._promises = relay, promises
        self._secret, self._public = key.encode(), zmq.curve_public(key.encode())
        keyring = Keyring()
        keyring.admit("supervisor", "", self._public.decode())
        self._context = zmq.asyncio.Context()
        doorkeeper = Doorkeeper(self._context, ZapHandler(keyring, Refusals(clock), lambda pid: ""))
        try:
            serving = [self._answer(self._listening(listen))] if listen else []
        except ConfigError:
            self._context.destroy(linger=0)
            raise
        self._tasks = [asyncio.create_task(loop) for loop in (doorkeeper.run(), *serving)]

    async def aclose(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=0)

    async def ask(self, address: str, holder: str, session: str) -> bool:
        """Whether the supervisor at `address` promises not to take that holder's seat; False without an answer."""
        asked = PromiseAsked(self._relay, holder, session, secrets.token_hex(8))
        # A socket for each question: two names may have one address, and what was not sent in time is out of date.
        with contextlib.suppress(TimeoutError), self._connected(address) as socket:
            async with asyncio.timeout(ANSWERED_WITHIN):
                await socket.send(msgspec.msgpack.encode(asked))
                while True:
                    with contextlib.suppress(*UNDECODABLE):
                        answer = msgspec.msgpack.decode(await socket.recv(), type=PromiseGiven)
                        if answer.nonce == asked.nonce:
                            return answer.given
        return False

    def _listening(self, listen: str) -> zmq.asyncio.Socket:
        endpoint = peer_endpoint(listen)
        socket = self._socket(zmq.ROUTER, endpoint)
        socket.curve_server = 1
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"[cluster] peer_listen: cannot listen on {listen} ({error.strerror})",
                hint="Choose an address of this machine, and a port that is free",
            ) from error
        return socket

    def _connected(self, address: str) -> zmq.asyncio.Socket:
        try:
            endpoint = peer_endpoint(address)
        except ValueError:  # another release's: nobody answers
            endpoint = ""
        socket = self._socket(zmq.DEALER, endpoint)
        socket.curve_publickey = socket.curve_serverkey = self._public
        with contextlib.suppress(zmq.ZMQError):  # nobody answers
            socket.connect(endpoint)
        return socket

    def _socket(self, kind: int, endpoint: str) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        watch_over(socket, endpoint)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _QUEUE)
        socket.setsockopt(zmq.SNDHWM, _QUEUE)
        socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST)
        socket.curve_secretkey = self._secret
        return socket

    async def _answer(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            peer, *frames = await socket.recv_multipart()
            try:
                asked = msgspec.msgpack.decode(frames[-1], type=PromiseAsked)
            except (IndexError, *UNDECODABLE):
                log.warning("another supervisor asked what this one does not understand")
                continue
            given = asked.relay == self._relay and self._promises(asked.holder, asked.session)
            await socket.send_multipart([peer, msgspec.msgpack.encode(PromiseGiven(asked.nonce, given))])
