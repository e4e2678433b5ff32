"""Still pictures, asked of workers over the bus."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

from relay_common.errors import RelayError
from relay_common.protocol import FromSupervisor, SnapshotPart, TakeSnapshot

PATIENCE: Final = 20.0
"""Seconds for a picture: its worker waits 15 s for a keyframe."""
MAX_PICTURE: Final = 2 * 1024 * 1024


class Snapshots:
    """Asks workers through `send` and puts their answers together; callers at the same time share one picture."""

    def __init__(self, send: Callable[[str, FromSupervisor], bool]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._under_way: dict[str, tuple[int, asyncio.Future[bytes]]] = {}
        self._received: dict[int, bytearray] = {}

    async def take(self, camera: str, name: str) -> bytes:
        """A JPEG of what the camera with this id shows now; raises RelayError that says why there is none."""
        if camera in self._under_way:
            return await asyncio.shield(self._under_way[camera][1])
        request = next(self._numbers)
        if not self._send(camera, TakeSnapshot(request=request)):
            raise RelayError(f"{name} has no worker that runs", hint="`relay-supervisor status` says why")
        picture: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._under_way[camera], self._received[request] = (request, picture), bytearray()
        try:
            return await asyncio.wait_for(asyncio.shield(picture), PATIENCE)
        except TimeoutError:
            error = RelayError(f"{name} gave no picture in {PATIENCE:.0f} s", hint="Look at it in the status")
            picture.set_exception(error)
            raise error from None
        finally:
            del self._under_way[camera], self._received[request]
            if not picture.done():
                picture.cancel()
            elif not picture.cancelled():
                picture.exception()  # looked at, whoever else waited for it

    def receive(self, camera: str, part: SnapshotPart) -> None:
        """A worker's answer, or a piece of it."""
        request, picture = self._under_way.get(camera, (0, None))
        if picture is None or request != part.request or picture.done():
            return
        received = self._received[request]
        received += part.data
        if part.error:
            picture.set_exception(RelayError(part.error))
        elif len(received) > MAX_PICTURE:
            picture.set_exception(RelayError(f"the picture is larger than {MAX_PICTURE >> 20} MiB"))
        elif part.last:
            picture.set_result(bytes(received))
