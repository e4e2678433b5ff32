"""What a `LeaseBook` asks its owner to do."""

from __future__ import annotations

import msgspec

from relay_supervisor.google.errors import NestError
from relay_supervisor.google.models import Device, Listing, LiveStream


class Granted(msgspec.Struct, frozen=True):
    """A new stream for the camera's worker."""

    camera: str
    generation: int
    stream: LiveStream
    expires: float


class Renewed(msgspec.Struct, frozen=True):
    """The stream was extended; its token is new."""

    camera: str
    generation: int
    stream: LiveStream
    expires: float


class Lost(msgspec.Struct, frozen=True):
    """The lease of `generation` has ended. Media still arriving may be used until the next stream starts."""

    camera: str
    generation: int
    reason: str


class NotExtended(msgspec.Struct, frozen=True):
    """Google does not extend this camera's streams at all; believed until `until` (monotonic seconds)."""

    camera: str
    until: float


class TraitsRead(msgspec.Struct, frozen=True):
    """The camera's traits were read again."""

    camera: str
    device: Device


class Listed(msgspec.Struct, frozen=True):
    """Answer to a requested devices.list."""

    result: Listing | NestError


Effect = Granted | Renewed | Lost | NotExtended | TraitsRead | Listed
