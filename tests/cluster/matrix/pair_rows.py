"""The rows of supervisors' faults: each inflicts one on the pair, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Final

from tests.cluster.api import Json
from tests.cluster.engine import ClusterNode
from tests.cluster.matrix.bench import Outcome
from tests.cluster.matrix.pair import PEERS, Pair, Seen, on
from tests.cluster.matrix.patience import PATIENCE
from tests.cluster.shipped import NAMESPACE, dashboard

RUN_ON: Final = 20.0
"""Seconds after which nobody has a promise any more, and all pictures run."""
DEPOSED: Final = 10.0
"""Seconds for one that is deposed to do what it must not do; meanwhile its successor sends some ten commands."""


async def killed(pair: Pair) -> Outcome:
    """The supervisor that commands is killed with its Pod: the other one goes on."""

    async def inflict(old: Seen) -> float:
        began = time.monotonic()
        await pair.api.delete(f"{NAMESPACE}/pods/{old.name}", gracePeriodSeconds=0)
        return began

    return await pair.measured(inflict)


async def restarted(pair: Pair) -> Outcome:
    """A supervisor that is alone is killed, and started again in its Pod."""
    await fresh(pair)
    await pair.replicas(1)
    try:
        await pair.until(lambda seen: len(seen) == 1 and seen[0].commands, "one is left, and commands")

        async def inflict(old: Seen) -> float:
            began = time.monotonic()
            pair.signal(old, signal.SIGKILL)
            await pair.until(lambda seen: not any(one.status for one in seen), "it is gone")
            return began

        return await pair.measured(inflict, another=False, alone=True)
    finally:
        await pair.replicas(2)


async def both_killed(pair: Pair) -> Outcome:
    """Both are killed at once, and started again in their Pods."""
    await fresh(pair)

    async def inflict(old: Seen) -> float:
        seen, began = await pair.look(), time.monotonic()
        for one in seen:
            pair.signal(one, signal.SIGKILL)
        await pair.until(lambda seen: not any(one.status for one in seen), "both are gone")
        return began

    outcome = await pair.measured(inflict, another=False)
    pair.unsure()
    return outcome


async def cut_off_from_the_api_server(pair: Pair) -> Outcome:
    """The one that commands cannot reach the API server any more, but all else: the other one takes over."""
    port, cut = pair.cluster.control_plane.port, list[Seen]()

    async def inflict(old: Seen) -> float:
        began = time.monotonic()
        pair.node(old).block(port)
        cut.append(old)
        return began

    try:
        outcome = await pair.measured(inflict)
        await deposed_sends_nothing(pair, cut[0], outcome)
    finally:
        for one in cut:
            pair.node(one).unblock(port)
    await deposed_sends_nothing(pair, cut[0], outcome)
    pair.unsure()
    return outcome


async def cut_off(pair: Pair) -> Outcome:
    """The one that commands is cut off with its node from everything, and heals: some cameras are lost with it."""
    cut = list[ClusterNode]()

    async def inflict(old: Seen) -> float:
        began = time.monotonic()
        node.partition()
        cut.append(node)
        return began

    old = await pair.spread_out()
    node = pair.node(old)
    try:
        outcome = await pair.measured(inflict, lost=on(old, node))
    finally:
        for one in cut:
            one.heal()
    await deposed_sends_nothing(pair, old, outcome)
    await pair.cluster.node_ready(pair.api, node.name)
    pair.unsure()
    return outcome


async def killed_with_its_node(pair: Pair) -> Outcome:
    """The node of the one that commands loses its power: some cameras are lost with it."""
    old = await pair.spread_out()
    node = pair.node(old)

    async def inflict(_: Seen) -> float:
        began = time.monotonic()
        node.power_off()
        return began

    try:
        return await pair.measured(inflict, lost=on(old, node))
    finally:
        node.power_on()
        await pair.cluster.node_ready(pair.api, node.name)


async def stands_still(pair: Pair) -> Outcome:
    """The one that commands is suspended, and wakes when another one has taken over."""
    stopped = list[Seen]()

    async def inflict(old: Seen) -> float:
        began = time.monotonic()
        pair.signal(old, signal.SIGSTOP)
        stopped.append(old)
        return began

    try:
        outcome = await pair.measured(inflict)
    finally:
        for one in stopped:
            pair.signal(one, signal.SIGCONT)
    await deposed_sends_nothing(pair, stopped[0], outcome)
    return outcome


async def api_away(pair: Pair) -> Outcome:
    """The API server is away, both supervisors are up, and a worker of each protocol dies."""
    old = await pair.settled()
    victims = {camera["lease"]["protocol"]: one for one, camera in old.cameras.items()}.values()
    pods = {await pair.worker(old, one): pair.node_named(old.cameras[one]["worker"]["where"]) for one in victims}

    def inflict() -> None:
        for pod, node in pods.items():
            node.signal(pod, signal.SIGKILL)

    return await _under_promises(pair, old, inflict, victims)


async def api_away_and_one_starts(pair: Pair) -> Outcome:
    """The API server is away when the other supervisor starts anew in its Pod: it promises as it did before."""
    await fresh(pair)
    old = await pair.settled()
    other = next(one for one in await pair.look() if one.name != old.name)
    return await _under_promises(pair, old, lambda: pair.signal(other, signal.SIGKILL))


async def _under_promises(pair: Pair, old: Seen, inflict: Callable[[], None], victims: Collection[str] = ()) -> Outcome:
    """Streams are extended all the time, by the one that commanded; the workers of all but `victims` go on."""
    outcome, others = Outcome(), {one: name for one, name in _workers(old).items() if one not in victims}
    before, generates = await pair.counted(old, victims), await pair.generates()
    async with away(pair):
        inflict()
        await asyncio.sleep(pair.away / 2)
        half = time.monotonic()
        await asyncio.sleep(pair.away / 2)
        holder = await _answered(pair, old)
        outcome.expect(holder.live(others), "a running camera lost its stream, or its worker")
        sent = pair.commands_of(old.address, half)
        outcome.expect(sent > 0, "nothing was extended")
        outcome.expect(sum(one.at >= half for one in pair.sent) == sent, "one that stands by sent something")
        causes = [str(holder.cameras[victim]["verdict"]["cause"]) for victim in victims]
        outcome.words = "; ".join((holder.status["seat"]["state"], f"{sent} commands in the second half", *causes))
        outcome.expect(all("API server" in cause for cause in causes), "why the dead one waits is not said")
    await pair.settled()
    outcome.times = [time.monotonic() - pair.server_back]
    await pair.account(outcome, before, victims)
    outcome.generates = await _generated(pair, generates)
    pair.unsure()
    outcome.expect(sum(outcome.generates.values()) <= len(victims), "Generates for those that had not died")
    return outcome


async def api_away_and_one_cut_off(pair: Pair) -> Outcome:
    """The API server is away, and nobody can ask the other supervisor for its promise.

    Pictures run until their streams end; nobody sends anything, and either supervisor says why.
    """
    outcome, old = Outcome(), await pair.settled()
    other = next(one for one in await pair.look() if one.name != old.name)
    node, generates = pair.node(other), await pair.generates()
    before, received = await pair.counted(old), await _received(pair)
    try:
        async with away(pair):
            node.block(PEERS)
            began = time.monotonic()
            await asyncio.sleep(RUN_ON)
            await pair.account(outcome, before, [])
            later = await _received(pair)
            outcome.expect(all(later.get(name, 0) > count for name, count in received.items()), "a picture stopped")
            await asyncio.sleep(pair.away - (time.monotonic() - began))
            outcome.expect(not any(one.at > began + RUN_ON for one in pair.sent), "somebody sent a command")
            said = await asyncio.gather(*map(_why, pair.known))
            outcome.words = " | ".join(said)
            outcome.expect(all("the cameras" in why for why in said), "why is not said")
    finally:
        node.unblock(PEERS)
    await pair.settled()
    outcome.times = [time.monotonic() - pair.server_back]
    outcome.generates = await _generated(pair, generates)
    pair.unsure()
    return outcome


async def _generated(pair: Pair, before: dict[str, int]) -> dict[str, int]:
    """Generates since then, by protocol."""
    return {protocol: count - before[protocol] for protocol, count in (await pair.generates()).items()}


async def _received(pair: Pair) -> dict[str, int]:
    """Packets that the SFU has, by track."""
    sessions = (await pair.sfu("sessions"))["sessions"]
    return {track["name"]: track["packets"] for session in sessions for track in session["published"]}


async def _why(pod: Json) -> str:
    """Why a supervisor's page shows no camera; "" when it shows some."""
    async with dashboard(pod) as http:
        answer = (await http.get("/api/cameras")).json()
    return str(answer["error"]["message"]) if "error" in answer else ""


async def _answered(pair: Pair, old: Seen) -> Seen:
    """What is seen of that supervisor now: on a busy machine it may not answer at once."""

    def answers(seen: list[Seen]) -> bool:
        return any(one.name == old.name and one.status for one in seen)

    seen = await pair.until(answers, "the one that commanded answers")
    return next(one for one in seen if one.name == old.name)


async def fresh(pair: Pair) -> None:
    """See that no supervisor's container was started again before: next time its kubelet would wait for ten seconds."""
    for one in await pair.look():
        if any(status["restartCount"] for status in one.pod["status"].get("containerStatuses", ())):
            await pair.api.delete(f"{NAMESPACE}/pods/{one.name}")
            await pair.api.gone(f"{NAMESPACE}/pods/{one.name}", PATIENCE)
            await pair.settled()


@contextlib.asynccontextmanager
async def away(pair: Pair) -> AsyncIterator[None]:
    """The API server is away."""
    plane = pair.cluster.control_plane
    plane.api_server_dies()
    try:
        yield
        await plane.api_server.up()
        pair.server_back = time.monotonic()
    finally:
        await plane.api_server_back()


async def deposed_sends_nothing(pair: Pair, old: Seen, outcome: Outcome) -> None:
    """Watch one whose successor commands, until that has sent some."""
    began = time.monotonic()
    await asyncio.sleep(DEPOSED)
    while not (others := sum(one.at >= began and one.by != old.address for one in pair.sent)):
        assert time.monotonic() - began < PATIENCE, "its successor sends nothing either"
        await asyncio.sleep(0.5)
    sent = pair.commands_of(old.address, began)
    outcome.expect(sent == 0, f"one that was deposed sent {sent} commands, its successor {others}")


def _workers(seen: Seen) -> dict[str, str]:
    return {one: camera["worker"]["instance"] for one, camera in seen.cameras.items()}


PAIR_ROWS: Final[dict[str, tuple[Callable[[Pair], Awaitable[Outcome]], float]]] = {
    "supervisor killed with its Pod": (killed, 20.0),
    "supervisor suspended, and woken": (stands_still, 20.0),
    "supervisor cut off from the API server": (cut_off_from_the_api_server, 20.0),
    "supervisor cut off with its node, healed": (cut_off, 20.0),
    "supervisor killed with its node": (killed_with_its_node, 20.0),
    "both supervisors killed": (both_killed, 20.0),
    "lone supervisor started again": (restarted, 5.0),
    "API server away, both supervisors up, a worker dies": (api_away, 65.0),
    "API server away, one supervisor cut off": (api_away_and_one_cut_off, 65.0),
    "API server away, one supervisor starts": (api_away_and_one_starts, 65.0),
}
"""Each with the longest time until a supervisor commands and has all cameras live that were not lost, in seconds."""
