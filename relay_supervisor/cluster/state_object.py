"""The state of a relay as one Secret, which only the supervisor that has claimed it last can write.

Every write names the version that it follows. A supervisor that was deposed has an older one, so the server refuses its
write (409) whatever it believes, and it knows that it must send nothing.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from relay_supervisor.cluster.objects import STATE_LABEL, Objects, conflicts, find, unchanged, version_of
from relay_supervisor.fleet.pods.api import SECRETS, ApiAway, ApiRefused, Object

log = logging.getLogger(__name__)

MOST_BYTES: Final = 960_000
"""Of the content: Kubernetes takes 1 MiB for all of a Secret's data."""
_TRIES: Final = 5
_CLAIM: Final = "claim"
_CONTENT: Final = "state"
_KEY: Final = "bus.key"
_OVERRIDES: Final = "overrides.json"


class Deposed(Exception):
    """Another supervisor has claimed the state."""


class Claimed(NamedTuple):
    """What was in it when it was claimed."""

    content: bytes
    """b"" when there was none yet."""
    key: bytes
    """The supervisors' key on the bus."""
    overrides: bytes
    """What people have switched on and off; b"" when there was none yet."""
    before: str
    """Whose it was; "" when there was none yet."""


class StateObject:
    """The Secret `RELAY-state`; `claim` tells this process from every other. Methods raise ApiAway and ApiRefused.

    When somebody has deleted it, the next `save` makes it anew, while `in_command` says that no other may do so.
    """

    def __init__(self, objects: Objects, relay: str, claim: str, in_command: Callable[[], bool] = lambda: True) -> None:
        self._objects, self._relay, self._claim, self._in_command = objects, relay, claim, in_command
        self._name = f"{relay}-state"
        self._rest: dict[str, str] = {}
        """What is in it beside the content."""
        self._version, self._turn = "", asyncio.Lock()
        self._before = ""

    async def claim(self, key: bytes) -> Claimed:
        """Make the state ours, and return what is in it; `key` is that of a state that has none yet."""
        for _ in range(_TRIES):
            try:
                found = await self._claimed(key)
            except ApiRefused as error:
                if not conflicts(error):
                    raise
                continue
            self._version = version_of(found)
            self._rest = {name: value for name, value in (found.get("data") or {}).items() if name != _CONTENT}
            return Claimed(_field(found, _CONTENT), _field(found, _KEY), _field(found, _OVERRIDES), self._before)
        raise ApiAway("the state in the cluster changes faster than it can be claimed")

    async def key(self) -> bytes:
        """The supervisors' key on the bus; b"" when there is no state yet."""
        found = await self._read()
        return b"" if found is None else _field(found, _KEY)

    async def kept(self) -> bool:
        """Whether there is a content, whoever has claimed it."""
        found = await self._read()
        return found is not None and bool(_field(found, _CONTENT))

    async def save(self, content: bytes) -> None:
        """Write the content. Raises Deposed when another has claimed it."""
        await self._save(_CONTENT, content)

    async def save_overrides(self, overrides: bytes) -> None:
        """Write what people have switched on and off. Raises Deposed when another has claimed it."""
        await self._save(_OVERRIDES, overrides)
        self._rest[_OVERRIDES] = _encoded(overrides)

    async def _save(self, name: str, content: bytes) -> None:
        change = {"data": {name: _encoded(content)}}
        async with self._turn:
            try:
                await self._write(change)
            except ApiRefused as error:
                if error.absent and name == _CONTENT and self._in_command():
                    log.warning("somebody has deleted %s: it is made anew", self._name)
                    await self._made_anew(change["data"])
                    return
                if not conflicts(error):
                    raise
                # Either somebody has claimed it, or the answer to a write of ours was lost.
                found = await self._read()
                if found is None or _field(found, _CLAIM).decode() != self._claim:
                    raise Deposed(f"another supervisor has claimed {self._name}") from error
                self._version = version_of(found)
                await self._write(change)

    async def _made_anew(self, data: dict[str, str]) -> None:
        try:
            self._version = version_of(await self._create(self._rest | data))
        except ApiRefused as error:
            if conflicts(error):  # which it does on its own behalf
                raise Deposed(f"another supervisor has made {self._name} anew") from error
            raise

    async def _create(self, data: dict[str, str]) -> Object:
        metadata = {"name": self._name, "labels": {STATE_LABEL: self._relay}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        return await self._objects.create(SECRETS, body)

    async def _read(self) -> Object | None:
        return await find(self._objects, SECRETS, self._name)

    async def _write(self, change: dict[str, Any]) -> None:
        change = change | {"metadata": unchanged(self._version)}
        self._version = version_of(await self._objects.patch(SECRETS, self._name, change))

    async def _claimed(self, key: bytes) -> Object:
        found = await self._read()
        data = {_CLAIM: _encoded(self._claim.encode())}
        if found is None:
            self._before = ""
            return await self._create(data | {_KEY: _encoded(key)})
        if (whose := _field(found, _CLAIM).decode()) != self._claim:  # it is when the answer to a try was lost
            self._before = whose
        change = {"metadata": unchanged(version_of(found)), "data": data}
        return await self._objects.patch(SECRETS, self._name, change)


def _field(found: Object, name: str) -> bytes:
    return base64.b64decode((found.get("data") or {}).get(name, ""))


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
