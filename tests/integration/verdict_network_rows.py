"""Rows of the verdict matrix that are inflicted on the machine itself. Run by test_verdict_network.py, in a network
and mount namespace of their own, with `libfaketime` in the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from relay_common.causes import Cause
from relay_supervisor.app import Supervisor
from relay_supervisor.commands.demo_world import demo_world
from relay_supervisor.google.errors import NestError
from tests.fixtures.no_names import google_by_name
from tests.fixtures.resolver import Resolver
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay
from tests.fixtures.verdict_surfaces import Surfaces, surfaces_of

pytestmark = pytest.mark.timeout(370)

PRELOAD: Final = "LD_PRELOAD"


@contextlib.asynccontextmanager
async def namespace_relay() -> AsyncIterator[RunningRelay]:
    """A live relay to which Google has a name; simulators have the true clock."""
    wrong_clock = os.environ.pop(PRELOAD)
    async with demo_world(2, "320x180", (*SMALL, "--unlimited")) as world, httpx.AsyncClient(timeout=30) as http:
        os.environ[PRELOAD] = wrong_clock
        supervisor = Supervisor(world.config(**UNLIMITED, **google_by_name(world), log={"level": "info"}))
        relay = RunningRelay(supervisor, world, http)
        try:
            await supervisor.start()
            await relay.until_live(within=90.0)
            yield relay
        finally:
            await supervisor.stop()


async def test_every_surface_names_what_is_wrong_with_the_machine() -> None:
    resolver = Resolver()
    await resolver.start()
    async with namespace_relay() as relay, surfaces_of(relay) as surfaces:
        assert resolver.asked, "names were meant to be asked for here"
        await clock_wrong(surfaces)
        async with asyncio.TaskGroup() as at_once:
            at_once.create_task(uplink_blocked(surfaces))
            at_once.create_task(names_unresolved(surfaces, resolver))
        print(f"every surface named every fault within {surfaces.slowest:.1f} s")


async def clock_wrong(surfaces: Surfaces) -> None:
    """An hour ahead, and right again: what shows it is the Date of Google's next answer."""
    before, setting = time.time(), Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
    setting.write_text("+3600s")
    assert time.time() > before + 3000.0, "the clock was meant to be wrong"
    await surfaces.relay.supervisor.verbs.discover()
    sentence = await surfaces.told(Cause.CLOCK_WRONG)
    assert "60 min ahead of Google's" in sentence
    setting.write_text("+0s")
    await surfaces.relay.supervisor.verbs.discover()
    await surfaces.over(sentence)


async def uplink_blocked(surfaces: Surfaces) -> None:
    """A firewall drops all UDP but questions for names: what shows it is the deadline of the next attempt's ICE."""
    firewall = ["iptables", "-A", "OUTPUT", "-p", "udp", "!", "--dport", "53", "-j", "DROP"]
    await asyncio.to_thread(subprocess.run, firewall, check=True)

    for name in ("Front Door", "Driveway"):
        await surfaces.ice_failed(name)
        await surfaces.told(Cause.UPLINK_BLOCKED, name, ready=503)


async def names_unresolved(surfaces: Surfaces, resolver: Resolver) -> None:
    """The name server stops answering: what shows it is the deadline of glibc's resolver."""
    resolver.silent = True
    await surfaces.relay.nest("oauth", {"expire_tokens": True})
    with pytest.raises(NestError, match="name"):
        await surfaces.relay.supervisor.verbs.discover()
    await surfaces.told(Cause.NAMES_UNRESOLVED, ready=503)
