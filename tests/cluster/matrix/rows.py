"""The rows: each inflicts one fault on the running relay, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec
import zmq

from relay_common.config_cluster import bus_endpoints
from relay_supervisor.fleet.keeper import CONTESTED
from relay_supervisor.status.verdict import spoken_verdict
from tests.cluster.api import Json
from tests.cluster.engine import ClusterNode
from tests.cluster.matrix.bench import WEB_RTC, Bench, Outcome
from tests.cluster.matrix.patience import EACH, MINUTE, PATIENCE, PER_MINUTE, at_once
from tests.fixtures.bus_peer import Attempt
from tests.fixtures.product_source import ROOT

HEALED: Final = 8.0
"""Seconds for a worker that is heard again to do what it must not do."""
PENDING: Final = 25.0
"""Seconds for which there is no room: longer than a worker of this machine may take to say hello."""
CALM: Final = 8.0
"""Seconds in which workers that are live have done with starting."""
SOON: Final = 15.0
"""Seconds until those are live for which there are commands."""
UNSAID: Final = 2.0
"""Seconds for which nobody may know when a camera gets a stream: while an answer is awaited that decides it."""
STARVED: Final = 25.0
"""The same for which a worker that starts is given no processor."""


async def powerless(bench: Bench) -> Outcome:
    """A node loses its power."""
    node = bench.fullest()

    async def inflict() -> float:
        began = time.monotonic()
        node.power_off()
        return began

    try:
        outcome = await bench.measured(bench.on(node), inflict)
        _elsewhere(bench, node, outcome)
        return outcome
    finally:
        await bench.powered(node)


def _elsewhere(bench: Bench, node: ClusterNode, outcome: Outcome) -> None:
    """What holds while a node is lost."""
    outcome.expect(not bench.on(node), "a camera is said to be on a lost node")
    if bench.second == "refuse":
        outcome.expect(outcome.times[-1] > CONTESTED - 4.0, "until then the old worker might have ended")


class Waits:
    """What the page says of when those of some cameras get a stream that wait for one, and how true it is."""

    def __init__(self, bench: Bench, cameras: Collection[str]) -> None:
        self._bench, self._cameras = bench, cameras
        self.unsaid = (0.0, "")
        """The longest time for which one waited and it was not said until when, in seconds; and what was said then."""
        self._silent_since: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._off: dict[str, float] = {}
        """By how many seconds what was said first of a camera was too soon."""
        self._longest = (0.0, "")

    def look(self) -> None:
        now, wall = time.monotonic(), time.time()
        for one in self._cameras:
            camera = self._bench.cameras[one]
            waiting, said = camera.lease.state == "wanted", camera.verdict.next_at or camera.lease.next_at
            if waiting and said > wall + 1.0:
                self._first.setdefault(one, said)
                self._longest = max(self._longest, (said - wall, spoken_verdict(camera.verdict, wall)))
            elif not waiting and one in self._first:
                self._off.setdefault(one, wall - self._first[one])
            if waiting and not said:
                silent = now - self._silent_since.setdefault(one, now)
                self.unsaid = max(self.unsaid, (silent, f"{camera.name}: {camera.lease.next_action}"))
            else:
                self._silent_since.pop(one, None)

    def words(self) -> list[str]:
        if not self._off:
            return ["none had to wait for a command"]
        late = sorted(self._off.values())
        return [f"the page: {self._longest[1]}", f"{len(late)} came {late[0]:+.1f} to {late[-1]:+.1f} s after that"]


async def powerless_under_limits(bench: Bench) -> Outcome:
    """A node loses its power in a minute in which nothing but extensions has been sent."""
    await _nothing_but_extensions(bench)
    return await _powerless_under_limits(bench)


async def powerless_in_a_minute_used_up(bench: Bench) -> Outcome:
    """A node loses its power, and Google's minute has no room: the relay has just started."""
    # Ten workers have started a moment ago, and take the processors still; bars are of a quiet machine.
    await asyncio.sleep(CALM)
    told = (await bench.relay.nest("commands"))["commands"]
    room = PER_MINUTE - sum(one["time"] > time.time() - MINUTE + SOON for one in told)
    outcome = await _powerless_under_limits(bench)
    outcome.expect(room <= 1, f"the minute was not used up: it had room for {room}")
    return outcome


async def _powerless_under_limits(bench: Bench) -> Outcome:
    """A node loses its power, and more Generates may be needed than Google allows in that minute."""
    node = bench.fullest()
    lost, before = bench.on(node), len((await bench.relay.nest("commands"))["commands"])
    waits = Waits(bench, lost)

    async def inflict() -> float:
        began = time.monotonic()
        node.power_off()
        return began

    try:
        soon = time.time() + SOON
        outcome = await bench.measured(lost, inflict, waits.look)
    finally:
        await bench.powered(node)
    told = await bench.relay.nest("commands")
    outcome.expect(told["most_in_any_minute"] <= PER_MINUTE, f"{told['most_in_any_minute']} commands in a minute")
    outcome.expect(not any(told["refused"].values()), f"Google refused some: {told['refused']}")
    outcome.allowed = MINUTE * (_minutes(bench, outcome) - 1)
    fit = at_once(len(lost), told["commands"], before, soon)
    late = fit > 0 and outcome.times[fit - 1] > SOON
    outcome.expect(not late, f"{fit} could be live within {SOON:.0f} s, and were not")
    outcome.words = "; ".join((f"{fit} could be live within {SOON:.0f} s", *waits.words()))
    unsaid, of = waits.unsaid
    outcome.expect(unsaid <= UNSAID, f"when one gets a stream was not said for {unsaid:.1f} s ({of})")
    return outcome


def _minutes(bench: Bench, outcome: Outcome) -> int:
    """How many minutes of Google's the commands of the lost cameras fill."""
    each = EACH if bench.second == "refuse" else 1
    commands = sum(len(times) * (each if protocol == WEB_RTC else 1) for protocol, times in outcome.by_protocol.items())
    return math.ceil(commands / PER_MINUTE)


async def _nothing_but_extensions(bench: Bench) -> None:
    """Return when no stream has been asked for in a minute: there is then what is left in any other one."""

    async def calm() -> bool:
        told = (await bench.relay.nest("commands"))["commands"]
        return not any("Extend" not in one["command"] and one["time"] > time.time() - MINUTE for one in told)

    while not await calm():
        await asyncio.sleep(0.5)


async def partitioned(bench: Bench) -> Outcome:
    """A node is cut off, and heals once its cameras are live elsewhere."""
    node = bench.fullest()

    async def inflict() -> float:
        began = time.monotonic()
        node.partition()
        return began

    try:
        outcome = await bench.measured(bench.on(node), inflict)
        _elsewhere(bench, node, outcome)
        node.heal()
        await bench.undisturbed(HEALED, outcome, "at heal")
        return outcome
    finally:
        node.heal()
        await bench.ready(node)


async def dead_before_the_start(bench: Bench) -> Outcome:
    """A node is dead, which nobody knows when Pods are placed on it: it has the most room."""
    dead = bench.fullest()
    longest = bench.patience(len(bench.on(dead)))
    await bench.cluster.drain(bench.api, dead)
    await bench.relay.until(lambda: bench.all_live and not bench.on(dead), longest, "the node is empty")
    await bench.cluster.uncordon(bench.api, dead)
    living = bench.on(bench.fullest())
    of_each = bench.protocols(living).values()
    victims = {one: living[one] for turn in itertools.zip_longest(*of_each) for one in turn if one}
    victims = dict(list(victims.items())[:7])

    async def inflict() -> float:
        dead.power_off()
        began = time.monotonic()
        for one in victims:
            await bench.delete(one)
        return began

    try:
        outcome = await bench.measured(victims, inflict)
        outcome.expect(not bench.on(dead), "a camera is said to be on a dead node")
        return outcome
    finally:
        await bench.powered(dead)


async def drained(bench: Bench) -> Outcome:
    """A node is drained."""
    node = bench.fullest()

    async def inflict() -> float:
        began = time.monotonic()
        await bench.cluster.drain(bench.api, node)
        return began

    try:
        outcome = await bench.measured(bench.on(node), inflict)
        outcome.expect(outcome.generates["RTSP"] == 0, "a drain costs no Generate over RTSP")
        return outcome
    finally:
        await bench.cluster.uncordon(bench.api, node)


async def impostors(bench: Bench) -> Outcome:
    """Others speak on the bus from a node, in a worker's name: without a key, with their own, with another worker's."""
    outcome, relay = Outcome(), bench.relay
    victim, other = list(bench.cameras.values())[:2]
    taken = relay.supervisor.fleet.keyring.issue(f"{other.id}.taken", other.id)
    endpoints = bus_endpoints(relay.supervisor.config.cluster.bus_listen)
    assert endpoints is not None
    instance = victim.worker.instance
    keyless = Attempt(*endpoints, routing_id=instance, instance=instance, camera=victim.id)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = msgspec.structs.replace(keyless, public=public, secret=secret, supervisor=taken.supervisor)
    thief = msgspec.structs.replace(stranger, public=taken.public, secret=taken.secret.reveal())
    try:
        trying = asyncio.create_task(heard(bench, keyless, stranger, thief))
        await bench.undisturbed(10.0, outcome, "with impostors on the bus")
        answers = await trying
    finally:
        relay.supervisor.fleet.keyring.remove(f"{other.id}.taken")
    outcome.expect(answers == [[], [], []], "an impostor was sent something")
    counters = relay.supervisor.status().counters
    kinds = {
        kind: counters.get(f"bus.refused_{kind}", 0) for kind in ("no_key", "unproven", "stranger", "anothers_name")
    }
    outcome.expect(kinds["no_key"] + kinds["unproven"] > 0, "one without a key was not counted")
    outcome.expect(kinds["stranger"] > 0 and kinds["anothers_name"] > 0, "a stranger or a thief was not counted")
    outcome.words = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    return outcome


async def heard(bench: Bench, *attempts: Attempt) -> list[list[Json]]:
    """What a process on a node was sent at each attempt."""
    command = [*bench.cluster.nodes[0].entrance, sys.executable, "-m", "tests.fixtures.bus_peer"]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes)
    out, _ = await asyncio.wait_for(process.communicate(msgspec.json.encode(attempts)), PATIENCE)
    found: list[list[Json]] = msgspec.json.decode(out)
    return found


async def kubelet_dead(bench: Bench, seconds: float = 75.0) -> Outcome:
    """A node's kubelet is dead for a while."""
    node, outcome = bench.fullest(), Outcome()
    node.kubelet_stop()
    try:
        await bench.undisturbed(seconds, outcome, "without a kubelet")
    finally:
        node.kubelet_start()
    await bench.undisturbed(5.0, outcome, "with the kubelet again")
    await bench.ready(node)
    return outcome


async def hung(bench: Bench) -> Outcome:
    """A worker hangs, over each protocol."""
    lost = bench.one_each()
    pods = {one: await bench.pod_of(one) for one in lost}

    async def inflict() -> float:
        began = time.monotonic()
        for one, pod in pods.items():
            bench.node_of(one).signal(pod, signal.SIGSTOP)
        return began

    return await bench.measured(lost, inflict)


async def no_room(bench: Bench) -> Outcome:
    """No node takes a Pod for a while, and a worker of each protocol dies."""
    lost, words = bench.one_each(), ""

    def restarts() -> list[int]:
        return [bench.cameras[one].worker.restarts for one in lost]

    async def inflict() -> float:
        nonlocal words
        await bench.unschedulable(True)
        await asyncio.gather(*map(bench.delete, lost))

        def said() -> bool:
            return all("Unschedulable" in bench.cameras[one].verdict.cause for one in lost)

        await bench.relay.until(said, PATIENCE, "why they wait is said")
        words, before = bench.cameras[next(iter(lost))].verdict.cause, restarts()
        await asyncio.sleep(PENDING)
        assert restarts() == before, "nothing is restarted for it"
        began = time.monotonic()
        await bench.unschedulable(None)
        return began

    try:
        outcome = await bench.measured(lost, inflict)
        outcome.words = words
        return outcome
    finally:
        await bench.unschedulable(None)


async def starved(bench: Bench) -> Outcome:
    """The successor of a worker of each protocol gets no processor for a while before it can say hello."""
    lost = bench.one_each()

    async def begun(victim: str) -> tuple[ClusterNode, str]:
        """Have its worker succeeded by one that is suspended at once: its node and its Pod."""
        await bench.delete(victim)  # the end may be told before the answer comes

        def another() -> bool:
            worker = bench.cameras[victim].worker
            return worker.instance not in ("", lost[victim]) and bool(worker.where)

        await bench.relay.until(another, PATIENCE, "its successor has a node")
        node, pod = bench.node_of(victim), await bench.pod_of(victim)
        # It may have said hello before the engine says that it runs: then it would not be starved, but hung.
        until = time.monotonic() + PATIENCE
        while True:
            try:
                node.signal(pod, signal.SIGSTOP)
            except RuntimeError:  # its container has not begun
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.02)
            else:
                return node, pod

    def workers() -> list[tuple[str, int]]:
        return [(bench.cameras[one].worker.instance, bench.cameras[one].worker.restarts) for one in lost]

    async def inflict() -> float:
        before = workers()
        suspended = await asyncio.gather(*map(begun, lost))
        successors = workers()
        await asyncio.sleep(STARVED)
        for node, pod in suspended:
            node.signal(pod, signal.SIGCONT)
        assert workers() == successors, "it is not taken for hung"
        assert [now[1] - was[1] for was, now in zip(before, successors, strict=True)] == [1] * len(lost)
        return time.monotonic()

    return await bench.measured(lost, inflict)


async def api_away(bench: Bench) -> Outcome:
    """The API server is away, and a worker of each protocol dies meanwhile."""
    lost, words = bench.one_each(), ""
    pods = {one: await bench.pod_of(one) for one in lost}

    async def inflict() -> float:
        nonlocal words
        bench.cluster.control_plane.api_server_dies()
        for one, pod in pods.items():
            bench.node_of(one).signal(pod, signal.SIGKILL)
        began = time.monotonic()
        while time.monotonic() - began < bench.away:
            await asyncio.sleep(0.1)
            others = [c for one, c in bench.cameras.items() if one not in lost]
            assert all(c.state == "live" for c in others), bench.relay.summary()
        words = bench.cameras[next(iter(lost))].verdict.cause
        await bench.cluster.control_plane.api_server.up()
        return time.monotonic()

    try:
        outcome = await bench.measured(lost, inflict)
        outcome.words = words
        return outcome
    finally:
        await bench.cluster.control_plane.api_server_back()


ROWS: Final[dict[str, tuple[Callable[[Bench], Awaitable[Outcome]], float]]] = {
    "node loses power": (powerless, 15.0),
    "node partitioned, healed": (partitioned, 15.0),
    "node dead before its Pods start": (dead_before_the_start, 15.0),
    "node drained": (drained, 15.0),
    "worker hung": (hung, 10.0),
    "impostors on the bus": (impostors, 0.0),
    "no room for 25 s": (no_room, 10.0),
    "worker starved at its start for 25 s": (starved, 10.0),
    "kubelet dead for 75 s": (kubelet_dead, 0.0),
    "API server away, a worker dies": (api_away, 65.0),
}
"""Each with the longest time until all are live again, in seconds, on a quiet machine."""
LIMITED_ROWS: Final[dict[str, tuple[Callable[[Bench], Awaitable[Outcome]], float]]] = {
    "node lost, when Google's minute is used up": (powerless_in_a_minute_used_up, 90.0),
    "node lost, under Google's limits": (powerless_under_limits, 90.0),
}
"""The same, of a relay that keeps Google's limits, which starts at their pace."""
