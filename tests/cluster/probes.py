"""A kubelet's probes over HTTP: startup first, then liveness and readiness side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import httpx

from tests.cluster.api import Json

_DEFAULTS: Final = {"initialDelaySeconds": 0, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}


class Probes:
    """Of one container, while it runs; `changed` is called when `ready` or `failed` is not what it was.

    `failed` says why the container has to be ended.
    """

    def __init__(self, spec: Json, address: str, changed: Callable[[], None]) -> None:
        self._spec, self._address, self._changed = spec, address, changed
        self.started = "startupProbe" not in spec
        self.ready = self.started and "readinessProbe" not in spec
        self.failed: str | None = None
        self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client, asyncio.TaskGroup() as group:
            if "startupProbe" in self._spec:
                await self._until_startup(client)
            if "livenessProbe" in self._spec:
                group.create_task(self._liveness(client))
            if "readinessProbe" in self._spec:
                group.create_task(self._readiness(client))

    async def _until_startup(self, client: httpx.AsyncClient) -> None:
        await self._failures(client, "startupProbe", once=True)
        if self.failed is None:
            self.started, self.ready = True, "readinessProbe" not in self._spec
        self._changed()
        if self.failed is not None:
            await asyncio.Event().wait()  # until the container has been ended

    async def _liveness(self, client: httpx.AsyncClient) -> None:
        await self._failures(client, "livenessProbe", once=False)
        self._changed()

    async def _failures(self, client: httpx.AsyncClient, kind: str, *, once: bool) -> None:
        """Return when the container has failed, or with `once` when it has answered."""
        probe = _DEFAULTS | self._spec[kind]
        await asyncio.sleep(probe["initialDelaySeconds"])
        failures = 0
        while failures < probe["failureThreshold"]:
            if await self._answers(client, probe):
                failures = 0
                if once:
                    return
            else:
                failures += 1
            await asyncio.sleep(probe["periodSeconds"])
        self.failed = f"{kind} failed {failures} times"

    async def _readiness(self, client: httpx.AsyncClient) -> None:
        probe = _DEFAULTS | self._spec["readinessProbe"]
        await asyncio.sleep(probe["initialDelaySeconds"])
        failures = 0
        while True:
            answers = await self._answers(client, probe)
            failures = 0 if answers else failures + 1
            ready = answers or (self.ready and failures < probe["failureThreshold"])
            if ready != self.ready:
                self.ready = ready
                self._changed()
            await asyncio.sleep(probe["periodSeconds"])

    async def _answers(self, client: httpx.AsyncClient, probe: Json) -> bool:
        wanted = probe["httpGet"]
        named = {port.get("name"): port["containerPort"] for port in self._spec.get("ports", ())}
        port = named.get(wanted["port"], wanted["port"])
        url = f"http://{self._address}:{port}{wanted.get('path', '/')}"
        try:
            answer = await client.get(url, timeout=probe["timeoutSeconds"])
        except httpx.HTTPError:
            return False
        return 200 <= answer.status_code < 400
