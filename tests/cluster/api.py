"""Kubernetes' API for tests and for the test kubelet: JSON as it is, by a kubeconfig file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import tempfile
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import httpx

Json = dict[str, Any]

STRATEGIC: Final = "application/strategic-merge-patch+json"
MERGE: Final = "application/merge-patch+json"
WAIT_SECONDS: Final = 60.0
"""For what takes a second or two, on a machine that has much else to do."""
_PATIENT: Final = httpx.Timeout(10)
"""What a call may take on a machine that has much else to do."""


class ApiRefused(Exception):
    """The API server answered, and not with success: `code` is HTTP's, `reason` Kubernetes' own, such as Conflict."""

    def __init__(self, answer: httpx.Response) -> None:
        try:
            status = answer.json()
        except ValueError:
            status = {"message": answer.text[:200]}
        self.code: Final = answer.status_code
        self.reason: Final = str(status.get("reason", ""))
        super().__init__(f"{answer.request.method} {answer.url.path}: {self.code} {status.get('message', self.reason)}")


class Api:
    """Use as `async with Api(kubeconfig) as api`. A path is the API's, such as `/api/v1/nodes`."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        trusted = b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=trusted)
        if "client-key-data" in user:
            with tempfile.NamedTemporaryFile() as file:  # OpenSSL reads it from nowhere else
                for part in ("client-certificate-data", "client-key-data"):
                    file.write(b64decode(user[part]))
                file.flush()
                context.load_cert_chain(file.name)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._client = httpx.AsyncClient(
            base_url=cluster["server"], verify=context, headers=headers, timeout=_PATIENT, trust_env=False
        )

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, **parameters: str) -> Json:
        """Raises ApiRefused, as the others do, and httpx.HTTPError while the server cannot be reached."""
        return _answer(await self._client.get(path, params=parameters))

    async def create(self, path: str, content: Json) -> Json:
        return _answer(await self._client.post(path, json=content))

    async def replace(self, path: str, content: Json) -> Json:
        """Refused with 409 unless `metadata.resourceVersion` is the newest."""
        return _answer(await self._client.put(path, json=content))

    async def patch(self, path: str, content: Json, kind: str = STRATEGIC) -> Json:
        headers = {"Content-Type": kind}
        return _answer(await self._client.patch(path, content=json.dumps(content), headers=headers))

    async def delete(self, path: str, **options: Any) -> Json:
        """`options` are those of DeleteOptions, such as `gracePeriodSeconds`."""
        return _answer(await self._client.request("DELETE", path, json=options))

    async def watch(self, path: str, **parameters: str) -> AsyncIterator[tuple[str, Json]]:
        """What is listed, as one SYNC with the list, and then each change with its type, until the server ends it.

        It ends, too, after half a minute of silence, which may be that of a network: who watches lists anew.
        """
        listed = await self.get(path, **parameters)
        yield "SYNC", listed
        parameters |= {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        timeout = httpx.Timeout(10, read=30)
        async with self._client.stream("GET", path, params=parameters, timeout=timeout) as answer:
            if answer.is_error:
                await answer.aread()
                raise ApiRefused(answer)
            with contextlib.suppress(httpx.ReadTimeout):
                async for line in answer.aiter_lines():
                    try:
                        event = json.loads(line)
                    except ValueError:  # the server went in the middle of one
                        return
                    if event["type"] == "ERROR":  # the list is too old by now
                        return
                    yield event["type"], event["object"]

    async def until(
        self, path: str, holds: Callable[[Json], bool], within: float = WAIT_SECONDS, **parameters: str
    ) -> Json:
        """The object, or list, as soon as `holds` says so. Raises TimeoutError with what it was last."""
        deadline = time.monotonic() + within
        while True:
            found = await self.get(path, **parameters)
            if holds(found):
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is after {within} s still {json.dumps(found.get('status', found))[:2000]}")
            await asyncio.sleep(0.2)

    async def gone(self, path: str, within: float = WAIT_SECONDS) -> None:
        """Return once there is no such object any more. Raises TimeoutError."""
        try:
            await self.until(path, lambda _: False, within)
        except ApiRefused as error:
            if error.code != 404:
                raise


def _answer(answer: httpx.Response) -> Json:
    if answer.is_error:
        raise ApiRefused(answer)
    found: Json = answer.json()
    return found
