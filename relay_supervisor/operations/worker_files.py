"""Snapshots and packet captures, requested from workers over the bus."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Final

from relay_common.errors import RelayError
from relay_common.protocol import FilePart, FromSupervisor, TakeCapture, TakeSnapshot

FILE_TIMEOUT: Final = 20.0
"""Seconds for a picture: its worker waits 15 s for a keyframe. A capture gets this on top of its duration."""
MAX_FILE: Final = 16 * 1024 * 1024


class WorkerFiles:
    """Asks workers through `send` and assembles their answers; concurrent requests for the same file share one:
    for a picture, or a capture of the same length."""

    def __init__(self, send: Callable[[str, FromSupervisor], bool], first: int = 0) -> None:
        self._send = send
        # Others than those of an earlier supervisor, whose answers may still come.
        self._numbers = itertools.count(first or secrets.randbits(48))
        self._asked: dict[tuple[str, str], asyncio.Future[bytes]] = {}
        self._files: dict[int, tuple[str, bytearray, asyncio.Future[bytes]]] = {}

    async def snapshot(self, camera: str, name: str) -> bytes:
        """A JPEG of what the camera with this id shows now; raises RelayError that says why there is none."""
        request = next(self._numbers)
        return await self._ask(camera, name, "picture", request, TakeSnapshot(request=request), FILE_TIMEOUT)

    async def capture(self, camera: str, name: str, seconds: float) -> bytes:
        """The packets of the next `seconds` as a pcapng file; raises RelayError that says why there is none."""
        request = next(self._numbers)
        message = TakeCapture(request=request, seconds=seconds)
        return await self._ask(camera, name, f"capture of {seconds:g} s", request, message, FILE_TIMEOUT + seconds)

    async def _ask(
        self, camera: str, name: str, what: str, request: int, message: FromSupervisor, timeout: float
    ) -> bytes:
        if (camera, what) in self._asked:
            return await asyncio.shield(self._asked[camera, what])
        if not self._send(camera, message):
            raise RelayError(f"{name} has no worker running", hint="`relay-supervisor status` says why")
        file: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[camera, what], self._files[request] = file, (camera, bytearray(), file)
        try:
            return await asyncio.wait_for(asyncio.shield(file), timeout)
        except TimeoutError:
            error = RelayError(
                f"{name} gave no {what} in {timeout:.0f} s", hint="`relay-supervisor status` shows its state"
            )
            if not file.done():
                file.set_exception(error)
            raise error from None
        finally:
            del self._asked[camera, what], self._files[request]
            if not file.done():
                file.cancel()
            elif not file.cancelled():
                file.exception()  # marked as retrieved, in case nobody else waited for it

    def receive_part(self, camera: str, part: FilePart) -> None:
        """Handle a worker's answer, or a part of it."""
        owner, received, file = self._files.get(part.request, ("", bytearray(), None))
        if file is None or owner != camera or file.done():
            return
        received += part.data
        if part.error:
            file.set_exception(RelayError(part.error))
        elif len(received) > MAX_FILE:
            file.set_exception(RelayError(f"the answer is larger than {MAX_FILE >> 20} MiB"))
        elif part.last:
            file.set_result(bytes(received))
