"""Encoding of bus messages: bytes in, message or counted refusal out; nothing here raises on bad input."""

from __future__ import annotations

import asyncio
import functools
import secrets
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
import zmq

from relay_common import protocol
from relay_common.errors import ConfigError
from relay_common.undecodable import UNDECODABLE
from relay_common.worker_stats import WorkerStats

M = TypeVar("M")

# For text that is not UTF-8 msgspec raises UnicodeDecodeError, which is a ValueError.
_REFUSALS: Final = (*UNDECODABLE, ValueError)

_encoder = msgspec.msgpack.Encoder()


def encode(message: Any) -> bytes:
    """One bus message as MessagePack."""
    return _encoder.encode(message)


def require_curve() -> None:
    """Raise ConfigError when libzmq has no CURVE: the bus would have no way to tell a worker from another program."""
    if not zmq.has("curve"):
        raise ConfigError(
            "libzmq was built without CURVE, which keeps other programs from speaking for a worker",
            hint="Install pyzmq from its wheel, or build libzmq with libsodium",
        )


def routing_id() -> bytes:
    """A fresh address for answers on the bus: it says nothing about its owner and cannot be guessed.

    A ROUTER hands an address over to whoever connects with it last. Who a message comes from is told by the key that
    its connection was authenticated with, never by this.
    """
    return secrets.token_hex(16).encode()


def delivered(sending: object) -> bool:
    """Whether a DONTWAIT send of zmq.asyncio accepted the message: such a send is decided when the call returns."""
    future = cast("asyncio.Future[object]", sending)
    return not (future.done() and future.exception() is not None)


class MessageReader(Generic[M]):
    """Decodes the messages of one direction and counts what it refuses.

    `oversized`, `malformed` and `unknown` count frames beyond `protocol.MAX_FRAME`, frames that are not a valid
    message, and messages of a type this version does not know (from a newer peer).
    """

    def __init__(self, union: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = _decoder(union)
        self._tag: msgspec.msgpack.Decoder[_Tagged] = _decoder(_Tagged)
        self._known = _tags(union)
        self.oversized = 0
        self.malformed = 0
        self.unknown = 0

    def decode(self, frame: bytes) -> M | None:
        """The message in `frame`, or None when it was refused (and counted)."""
        if len(frame) > protocol.MAX_FRAME:
            self.oversized += 1
            return None
        try:
            return self._decoder.decode(frame)
        except _REFUSALS:
            self._count_refusal(frame)
            return None

    def _count_refusal(self, frame: bytes) -> None:
        try:
            tag = self._tag.decode(frame).t
        except _REFUSALS:
            self.malformed += 1
            return
        if tag in self._known:
            self.malformed += 1
        else:
            self.unknown += 1


class _Tagged(msgspec.Struct):
    t: str


@functools.cache
def _decoder(union: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a type. It has no state; what the fork server has made is shared by all workers."""
    return msgspec.msgpack.Decoder(union)


@functools.cache
def _tags(union: Any) -> frozenset[str]:
    info = msgspec.inspect.type_info(union)
    members = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return frozenset(str(m.tag) for m in members if isinstance(m, msgspec.inspect.StructType))


def supervisor_reader() -> MessageReader[protocol.FromWorker]:
    """Reader for the supervisor's control socket."""
    return MessageReader(protocol.FromWorker)


def worker_reader() -> MessageReader[protocol.FromSupervisor]:
    """Reader for the worker's control socket."""
    return MessageReader(protocol.FromSupervisor)


def stats_reader() -> MessageReader[WorkerStats]:
    """Reader for the supervisor's stats socket."""
    return MessageReader(WorkerStats)
