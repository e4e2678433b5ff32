"""Two supervisors as they are shipped, one of which commands, and what a fault of theirs costs the cameras."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from relay_supervisor.commands.demo_world import DemoWorld, demo_world
from tests.cluster.api import MERGE, Api, Json
from tests.cluster.dns import name_server
from tests.cluster.engine import Cluster, ClusterNode
from tests.cluster.matrix.bench import RTSP, WEB_RTC, Outcome
from tests.cluster.matrix.patience import PATIENCE
from tests.cluster.pod_relay import BETWEEN_LOOKS, FPS
from tests.cluster.pods import of
from tests.cluster.shipped import NAMESPACE, WORKERS, Sent, copied, dashboard, documented, fill_in, shell, with_tls
from tests.fixtures.control_interface import ControlInterface
from tests.fixtures.running_relay import UNLIMITED

SUPERVISORS: Final = "app.kubernetes.io/name=nest-relay"
LEASE: Final = "60"
"""Seconds that a stream lives, so that commands are sent every second or two."""
PEERS: Final = 7422
"""The port at which supervisors ask each other for promises."""
AWAY: Final = 300.0
UNSURE: Final = 62.0
"""Seconds for which one that could not reach the API server, or has promised to wait, would send nothing if it took
over, since it cannot know what Google was sent in that minute. A row that begins earlier has two faults at once."""
SETTLED: Final = 240.0
"""Seconds until two supervisors are up again, on a machine that has much else to do."""
STANDING_BY: Final = ("standing by", "taking")
ANSWERS: Final = 1.0
"""Seconds for a supervisor that is not cut off."""


class Seen(NamedTuple):
    """A supervisor's Pod, and its status, of its seat alone if it stands by; {} while it serves none."""

    pod: Json
    status: Json

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def address(self) -> str:
        return str(self.pod["status"].get("podIP", ""))

    @property
    def commands(self) -> bool:
        return bool(self.status) and bool(self.status["seat"]["commands"])

    @property
    def stands_by(self) -> bool:
        """Whether it can take over within seconds."""
        return bool(self.status) and not self.commands and bool(self.status["seat"]["known"])

    @property
    def cameras(self) -> dict[str, Json]:
        """By id."""
        return {camera["id"]: camera for camera in self.status.get("cameras", ())}

    def live(self, instances: dict[str, str]) -> bool:
        """Whether these cameras are live with these workers."""
        cameras = self.cameras
        return all(
            one in cameras and (cameras[one]["state"], cameras[one]["worker"]["instance"]) == ("live", instance)
            for one, instance in instances.items()
        )


class Pair(ControlInterface):
    """The relay on a cluster. `second` is what its cameras do with a second client; `sent` has all commands."""

    def __init__(
        self, cluster: Cluster, api: Api, world: DemoWorld, http: httpx.AsyncClient, sent: Sequence[Sent], second: str
    ) -> None:
        self.cluster, self.api, self.world, self.http, self.sent, self.second = cluster, api, world, http, sent, second
        self.away = AWAY
        """Seconds for which the API server is away."""
        self._cameras: dict[str, Json] = {}
        self._unsure_until = 0.0
        self.server_back = 0.0
        """When the API server was there again (monotonic seconds)."""
        self.known: list[Json] = []
        """The supervisors' Pods, as they were when the API server was asked last."""

    async def look(self) -> list[Seen]:
        """All supervisors; those of before while the API server is away."""
        with contextlib.suppress(httpx.HTTPError):
            found = await self.api.get(f"{NAMESPACE}/pods", labelSelector=SUPERVISORS)
            self.known = [pod for pod in found["items"] if pod["status"].get("podIP")]
        return await asyncio.gather(*map(self._ask, self.known))

    async def _ask(self, pod: Json) -> Seen:
        try:
            async with asyncio.timeout(ANSWERS), dashboard(pod) as http:
                seat = (await http.get("/api/seat")).json()
                if seat["state"] in STANDING_BY:  # it would pass the question on
                    return Seen(pod, {"seat": seat})
                stats = (await http.get("/api/stats")).raise_for_status().json()
                return Seen(pod, {**stats, "seat": seat})
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError):
            return Seen(pod, {})

    async def until(self, condition: Callable[[list[Seen]], bool], what: str, within: float = PATIENCE) -> list[Seen]:
        """Wait until what is seen of the supervisors is so."""
        began = time.monotonic()
        while not condition(seen := await self.look()):
            if time.monotonic() - began > within:
                told = [(one.name, one.status.get("seat"), _told(one)) for one in seen]
                raise AssertionError(f"after {within:.0f} s still not: {what}; {told}")
            await asyncio.sleep(BETWEEN_LOOKS)
        return seen

    async def settled(self, *, alone: bool = False) -> Seen:
        """Return who commands, once all cameras are live and, but for `alone`, another one could take over at once."""

        def all_well(seen: list[Seen]) -> bool:
            holders = [one for one in seen if one.commands]
            live = len(holders) == 1 and all(one["state"] == "live" for one in holders[0].cameras.values())
            return live and bool(holders[0].cameras) and (alone or any(one.stands_by for one in seen))

        await asyncio.sleep(max(0.0, self._unsure_until - time.monotonic()))
        seen = await self.until(all_well, "all are live, and another one stands by", SETTLED)
        return next(one for one in seen if one.commands)

    async def spread_out(self) -> Seen:
        """Move workers until no node has more than its share of the cameras; returns who commands then."""
        holder = await self.settled()
        share = math.ceil(len(holder.cameras) / len(self.cluster.nodes))
        while crowd := [one for node in self.cluster.nodes for one in on(holder, node)[share:]]:
            before = {one: holder.cameras[one]["worker"]["instance"] for one in crowd}
            for one in crowd:
                await self.api.delete(f"/api/v1/namespaces/{(await self.worker(holder, one)).replace('/', '/pods/')}")

            def moved(seen: list[Seen], before: dict[str, str] = before) -> bool:
                cameras = next((one.cameras for one in seen if one.commands), {})
                return all(one in cameras and cameras[one]["worker"]["instance"] != was for one, was in before.items())

            await self.until(moved, "workers are moved", SETTLED)
            holder = await self.settled()
        return holder

    def unsure(self) -> None:
        """Have the next row begin when everybody is sure again of what Google was sent."""
        self._unsure_until = time.monotonic() + UNSURE

    def node(self, seen: Seen) -> ClusterNode:
        return of(self.cluster, seen.pod)[0]

    def node_named(self, name: str) -> ClusterNode:
        return next(node for node in self.cluster.nodes if node.name == name)

    async def worker(self, seen: Seen, camera: str) -> str:
        """The Pod of a camera's worker, as NAMESPACE/NAME."""
        labels = f"{WORKERS},nest-relay/instance={seen.cameras[camera]['worker']['instance']}"
        (found,) = (await self.api.get(f"{NAMESPACE}/pods", labelSelector=labels))["items"]
        return f"nest-relay/{found['metadata']['name']}"

    def signal(self, seen: Seen, number: int) -> None:
        """Send a signal to a supervisor's process."""
        self.node(seen).signal(f"nest-relay/{seen.name}", number)

    async def replicas(self, count: int) -> None:
        change = {"spec": {"replicas": count}}
        await self.api.patch("/apis/apps/v1/namespaces/nest-relay/deployments/nest-relay", change, MERGE)

    async def generates(self) -> dict[str, int]:
        """Generate commands that the simulated Google has seen, by protocol."""
        sent = [one["command"] for one in (await self.nest("commands"))["commands"]]
        return {
            RTSP: sum(command.startswith("GenerateRtsp") for command in sent),
            WEB_RTC: sum(command.startswith("GenerateWebRtc") for command in sent),
        }

    async def counted(self, seen: Seen, but: Collection[str] = ()) -> dict[str, Any]:
        """The `counts` of the cameras that this supervisor has, but of those."""
        self._cameras = seen.cameras
        return await self.counts(but)

    async def counts(self, but: Collection[str]) -> dict[str, Any]:
        """What must not change of cameras (by id) but those: packets lost by session, and what Google and they saw."""
        sessions = (await self.sfu("sessions"))["sessions"]
        found: dict[str, Any] = {}
        for session in sessions:
            for track in session["published"]:
                if not any(one in track["name"] for one in but):
                    found[f"lost of {track['name']}"] = found.get(f"lost of {track['name']}", 0) + track.get("lost", 0)
        names = {camera["name"] for one, camera in self._cameras.items() if one not in but}
        for camera in (await self.nest("cameras"))["cameras"]:
            if camera["name"] in names:
                for kind in ("describes", "refused", "generates", "sessions_cut"):
                    found[f"{kind} of {camera['name']}"] = camera.get(kind)
        return found

    async def measured(
        self,
        inflict: Callable[[Seen], Awaitable[float]],
        *,
        another: bool = True,
        alone: bool = False,
        lost: Collection[str] = (),
    ) -> Outcome:
        """Inflict a fault on the supervisor that commands, until one (`another`: not that) has all cameras live.

        All but `lost` (by id) keep their workers, lose no packet and need no Generate. `times` has the takeover alone,
        what became of the lost is said.
        """
        outcome, old = Outcome(), await self.settled(alone=alone)
        kept = {one: c["worker"]["instance"] for one, c in old.cameras.items() if one not in lost}
        before = await self.counted(old, lost)
        began = await inflict(old)

        def taken(seen: list[Seen]) -> bool:
            return any(one.commands and one.live(kept) for one in seen if not another or one.name != old.name)

        await self.until(taken, f"another one has all but {len(lost)} live")
        outcome.times = [time.monotonic() - began]

        def back(seen: list[Seen]) -> bool:
            holder = next((one for one in seen if one.commands and (not another or one.name != old.name)), None)
            return holder is not None and all(camera["state"] == "live" for camera in holder.cameras.values())

        if lost:
            await self.until(back, "all are live")
            outcome.words = (
                f"{len(lost)} of {len(old.cameras)} cameras lost, live after {time.monotonic() - began:.1f} s"
            )
        await self.account(outcome, before, lost)
        return outcome

    async def account(self, outcome: Outcome, before: dict[str, Any], lost: Collection[str]) -> None:
        """Compare what must not have changed."""
        now = await self.counts(lost)
        outcome.others_lost = sum(now.get(key, 0) - count for key, count in before.items() if key.startswith("lost of"))
        changed = [f"{key}: {count}, then {now.get(key)}" for key, count in before.items() if now.get(key) != count]
        outcome.expect(not changed, "; ".join(changed[:5]))

    def commands_of(self, address: str, since: float) -> int:
        """How many were sent from there since then."""
        return sum(one.by == address and one.at >= since for one in self.sent)


def on(seen: Seen, node: ClusterNode) -> list[str]:
    """The cameras whose workers are on a node."""
    return [one for one, camera in seen.cameras.items() if camera["worker"]["where"] == node.name]


def _told(seen: Seen) -> list[str]:
    return [f"{c['name']}: {c['state']} {c['reason']}" for c in seen.cameras.values() if c["state"] != "live"][:4]


@contextlib.asynccontextmanager
async def pair(
    cluster: Cluster, api: Api, folder: Path, second: str, cameras: int, webrtc: int, *, fps: int = FPS
) -> AsyncIterator[Pair]:
    """Apply the manifests as they are shipped; all that they make is deleted afterwards. Takes kubectl."""
    manifests, sent = copied(folder / "deploy" / "kubernetes"), list[Sent]()
    here = ("--shared-clip", "--plain", "--host", cluster.network.gateway)
    options = ("--unlimited", "--lease", LEASE, "--webrtc", str(webrtc), "--second-client", second, "--fps", str(fps))
    async with (
        demo_world(cameras, "320x180", [*here, *options], here) as world,
        with_tls(cluster, world, sent),
        name_server(api, cluster.network.gateway),
        httpx.AsyncClient(timeout=10.0, verify=False) as http,
    ):
        fill_in(folder, world, **UNLIMITED)
        for command in documented("deploy/kubernetes"):
            await shell(command, cluster, manifests)
        try:
            yield Pair(cluster, api, world, http, sent, second)
        finally:
            await api.delete(NAMESPACE)
            await api.gone(NAMESPACE, PATIENCE)
