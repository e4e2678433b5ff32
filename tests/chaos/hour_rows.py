"""What befalls the whole relay in the hour, besides the rows of the matrix: its processes, its account, its port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tests.chaos.hosted import Hosted
from tests.chaos.rows import SUPERVISOR_KILLED
from tests.chaos.supervisor_killed import AWAY
from tests.chaos.test_tree_paused import tree


@dataclass(frozen=True)
class WholeRow:
    """`befall` returns when its cause is over; all cameras must be live again `within` seconds after that."""

    name: str
    befall: Callable[[Hosted], Awaitable[None]]
    within: float


async def killed(relay: Hosted) -> None:
    """The supervisor is killed and started again."""
    await relay.kill()
    await asyncio.sleep(AWAY)
    await relay.start()


def stopped(seconds: float, *, all_of_it: bool) -> Callable[[Hosted], Awaitable[None]]:
    """The supervisor alone, or every process of the relay, is suspended and resumed."""

    async def befall(relay: Hosted) -> None:
        pids = [relay.pid]
        if all_of_it:
            adopted = [sight.status.worker.pid for sight in relay.sights.values()]
            pids = list(dict.fromkeys([*tree(relay.pid), *(pid for pid in adopted if pid)]))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    return befall


def authorization(seconds: float, **change: Any) -> Callable[[Hosted], Awaitable[None]]:
    """The account's authorization is refused by Google for a while; its access tokens have to be renewed at once."""

    async def befall(relay: Hosted) -> None:
        await relay.nest("oauth", {**change, "expire_tokens": True})
        await asyncio.sleep(seconds)
        await relay.nest("oauth", dict.fromkeys(change, False))

    return befall


async def forbidden(relay: Hosted) -> None:
    """Google forbids the account everything for a minute; then somebody has the cameras listed again."""
    await relay.nest("oauth", {"forbidden": True})
    await asyncio.sleep(60.0)
    await relay.nest("oauth", {"forbidden": False})
    async with asyncio.timeout(60.0):
        while (await relay.http.post(f"{relay.url}/api/discover")).status_code != 200:
            await asyncio.sleep(5.0)


async def outage(relay: Hosted) -> None:
    """Every command fails with 503 for a minute."""
    await relay.nest("cameras/*/fail_commands", {"status": 503, "count": 1_000_000})
    await asyncio.sleep(60.0)
    await relay.nest("cameras/*/fail_commands", {"status": 503, "count": 0})


async def nameless(relay: Hosted) -> None:
    """No name can be resolved for 55 s; connections that are open stay."""
    await relay.ask("names", gone=True)
    await asyncio.sleep(55.0)
    await relay.ask("names", gone=False)


async def flood(relay: Hosted) -> None:
    """600 connections to the HTTP port that say nothing, for 30 s."""
    at = urlsplit(relay.url)
    opened = []
    for _ in range(600):
        with contextlib.suppress(OSError, TimeoutError):
            opened.append((await asyncio.wait_for(asyncio.open_connection(at.hostname, at.port), 2.0))[1])
    await asyncio.sleep(30.0)
    for writer in opened:
        writer.close()


# fmt: off
WHOLE_ROWS: Final = (
    WholeRow(SUPERVISOR_KILLED, killed, 120.0),
    WholeRow("supervisor suspended for 60 s (shortened: 180 s)", stopped(60.0, all_of_it=False), 150.0),
    WholeRow("whole tree suspended for 120 s", stopped(120.0, all_of_it=True), 240.0),
    WholeRow("the token endpoint answers 503 for 100 s", authorization(100.0, down=True), 240.0),
    WholeRow("the refresh token is revoked for 45 s", authorization(45.0, revoked=True), 120.0),
    WholeRow("Google forbids the account everything for 60 s", forbidden, 240.0),
    WholeRow("every command gets 503 for 60 s", outage, 240.0),
    WholeRow("name resolution gone for 55 s", nameless, 120.0),
    WholeRow("600 idle connections to the HTTP port for 30 s", flood, 60.0),
)
# fmt: on
