"""Cameras that an operator added, removed, enabled or disabled at runtime, which overrides the configuration.

Kept as `overrides.json` in the state directory, by camera id, so that it survives restarts. An override that agrees
with the configuration is not kept, so the file lists exactly the differences; delete it (or a camera in it) and reload
to return to the configuration.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from pathlib import Path
from typing import Final

import msgspec

from relay_common.disk import DiskWork
from relay_common.errors import RelayError
from relay_common.files import write_private
from relay_common.undecodable import UNDECODABLE

log = logging.getLogger(__name__)

FILE: Final = "overrides.json"
MOST: Final = 1000
"""Most cameras in the file."""


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """The overrides of one camera; None where there is none. `name` is for people who read the file."""

    name: str = ""
    included: bool | None = None
    enabled: bool | None = None


class Overrides:
    """The overrides of all cameras, on disk once they are loaded; `directory` None keeps them in memory only.

    `known` is what the file is to hold, as another supervisor of the relay knew it; b"": what it holds. A file that
    cannot be read is logged and ignored, as is one that cannot be written when they are loaded; later that raises
    RelayError, and changes nothing.
    """

    def __init__(self, directory: Path | None = None, known: bytes = b"") -> None:
        self._path = directory / FILE if directory is not None else None
        self._cameras: dict[str, Override] = {}
        self._text = self._owed = known
        self._turn = asyncio.Lock()
        self._disk = DiskWork("overrides")

    def __getitem__(self, camera: str) -> Override:
        return self._cameras.get(camera, Override())

    def text(self) -> bytes:
        """What the file holds, or should: for other supervisors of the relay. b"" when there is none."""
        return self._text

    def load(self) -> None:
        """Read the file, when nothing waits yet."""
        self._cameras = self._read()

    async def reload(self) -> None:
        """Read the file again; raises RelayError, and changes nothing, when the disk does not answer."""
        async with self._turn:
            try:
                self._cameras = await self._disk.do(self._read)
            except (OSError, RuntimeError) as error:  # the latter without a thread
                raise RelayError(
                    f"{self._path} cannot be read: {getattr(error, 'strerror', '') or error}",
                    hint="Nothing was changed. Look at the disk that the state directory is on",
                ) from None

    def _read(self) -> dict[str, Override]:
        """What is in the file; what there was, of one that cannot be used."""
        if self._path is None:
            return self._cameras
        try:
            text = self._settled(self._path) or self._path.read_bytes()
            cameras = msgspec.json.decode(text, type=dict[str, Override])
            self._text = text
            return cameras
        except FileNotFoundError:
            self._text = b""
            return {}
        except (OSError, *UNDECODABLE) as error:
            log.error("%s is ignored: %s; correct or delete it", self._path, error)
            return self._cameras

    def _settled(self, path: Path) -> bytes:
        """What the file was still to hold, which it does now, or as soon as it can be written; b"" when nothing was."""
        owed = self._owed
        if owed:
            try:
                write_private(path, owed)
                self._owed = b""
            except OSError as error:
                log.error("%s cannot be written: %s; what it should hold applies all the same", path, error.strerror)
        return owed

    async def set(self, camera: str, override: Override) -> None:
        """Replace a camera's override; an empty override is dropped."""
        async with self._turn:
            cameras = {id_: kept for id_, kept in self._cameras.items() if id_ != camera}
            if override.included is not None or override.enabled is not None:
                cameras[camera] = override
            if len(cameras) > MOST:
                raise RelayError(f"more than {MOST} cameras are overridden", hint="Write them into the configuration")
            await self._write(cameras)
            self._cameras = cameras

    async def _write(self, cameras: dict[str, Override]) -> None:
        if self._path is None:
            return
        text = msgspec.json.format(msgspec.json.encode(cameras), indent=2) + b"\n"
        try:
            await self._disk.do(functools.partial(write_private, self._path, text))
        except (OSError, RuntimeError) as error:  # the latter without a thread
            raise RelayError(
                f"{self._path} cannot be written: {getattr(error, 'strerror', '') or error}",
                hint="The camera was not changed. Free space in the state directory, or make it writable",
            ) from None
        self._text, self._owed = text, b""
