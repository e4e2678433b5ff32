"""One running relay that faults are inflicted on, and what they cost it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from relay_supervisor.status.model import CameraStatus
from tests.benchmarks.proc import memory_of
from tests.cluster.api import Api, Json
from tests.cluster.engine import Cluster, ClusterNode
from tests.cluster.matrix.patience import patience
from tests.cluster.pod_relay import PodRelay, Trial

RTSP: Final = "RTSP"
WEB_RTC: Final = "WEB_RTC"
PROTOCOLS: Final = {RTSP: "RTSP", WEB_RTC: "WebRTC"}
"""How the table calls them."""


@dataclass
class Outcome:
    """What a row has shown. `times` are seconds until each camera that was lost was live with another worker."""

    times: list[float] = field(default_factory=list)
    by_protocol: dict[str, list[float]] = field(default_factory=lambda: {RTSP: [], WEB_RTC: []})
    """The same of the cameras of each protocol."""
    generates: dict[str, int] = field(default_factory=lambda: {RTSP: 0, WEB_RTC: 0})
    """By protocol."""
    others_lost: int = 0
    """Packets that cameras lost which were not concerned."""
    allowed: float = 0.0
    """Seconds by which Google's limit puts the last of them off, beyond the minute that the bar has for it."""
    wrong: list[str] = field(default_factory=list)
    """What must not have happened."""
    words: str = ""

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)


class Bench:
    """A relay on a cluster. `second` is what its cameras do with a second client: refuse or replace."""

    def __init__(self, cluster: Cluster, api: Api, world: Trial, relay: PodRelay, second: str) -> None:
        self.cluster, self.api, self.world, self.relay, self.second = cluster, api, world, relay, second
        self.away = 300.0
        """Seconds for which the API server is away."""

    @property
    def cameras(self) -> dict[str, CameraStatus]:
        """By id."""
        return {camera.id: camera for camera in self.relay.supervisor.status().cameras}

    @property
    def all_live(self) -> bool:
        return all(camera.state == "live" for camera in self.cameras.values())

    def patience(self, moved: int) -> float:
        """Seconds for so many cameras to be live again."""
        return patience(self.relay.supervisor.status().budgets[0], len(self.cameras), moved)

    async def live(self) -> None:
        """Wait until all are live."""
        dark = sum(camera.state != "live" for camera in self.cameras.values())
        await self.relay.until(lambda: self.all_live, self.patience(dark), "all are live")

    def on(self, node: ClusterNode) -> dict[str, str]:
        """The cameras on a node, with their workers' instances."""
        return {one: c.worker.instance for one, c in self.cameras.items() if c.worker.where == node.name}

    def fullest(self) -> ClusterNode:
        """The node with the most cameras, of those with cameras of either protocol where there are such."""
        return max(self.cluster.nodes, key=lambda node: (len(self.protocols(self.on(node))), len(self.on(node))))

    def protocols(self, cameras: Iterable[str]) -> dict[str, list[str]]:
        """Cameras (by id) by their protocol."""
        found: dict[str, list[str]] = {}
        for one in cameras:
            found.setdefault(self.cameras[one].lease.protocol, []).append(one)
        return found

    def one_each(self) -> dict[str, str]:
        """A camera (by id) of each protocol, with its worker's instance."""
        chosen = [cameras[0] for cameras in self.protocols(self.cameras).values()]
        return {one: self.cameras[one].worker.instance for one in chosen}

    def node_of(self, camera: str) -> ClusterNode:
        where = self.cameras[camera].worker.where
        return next(node for node in self.cluster.nodes if node.name == where)

    async def pod_of(self, camera: str) -> str:
        """The Pod of a camera's worker, as NAMESPACE/NAME."""
        pods = await self.relay.pods()
        name = pods[self.cameras[camera].worker.instance]["metadata"]["name"]
        return f"{self.relay.namespace.rpartition('/')[2]}/{name}"

    async def delete(self, camera: str) -> None:
        """Delete a camera's Pod by force."""
        namespace, _, name = (await self.pod_of(camera)).partition("/")
        await self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", gracePeriodSeconds=0)

    async def simulated(self) -> dict[str, dict[str, Any]]:
        """What Google and the cameras have seen, by the camera's name."""
        return {camera["name"]: camera for camera in (await self.relay.nest("cameras"))["cameras"]}

    async def packets_lost(self, but: dict[str, str]) -> int:
        """Packets that the publications of all cameras lack but of these."""
        tracks = [await self.relay.published(c.name) for one, c in self.cameras.items() if one not in but]
        return sum(track.get("lost", 0) for published in tracks for track in published)

    async def measured(
        self, lost: dict[str, str], inflict: Callable[[], Awaitable[float]], watch: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Inflict a fault on cameras (by id, with their workers' instances), until all are live with other workers.

        `inflict` returns the moment from which times count; `watch` is called again and again from then on.
        """
        outcome = Outcome()
        before, packets = await self.simulated(), await self.packets_lost(lost)
        others = {one: c.worker.instance for one, c in self.cameras.items() if one not in lost}
        longest = self.patience(len(lost))
        began, back = await inflict(), dict[str, float]()
        well = False
        while len(back) < len(lost) or not well:
            cameras, now = self.cameras, time.monotonic() - began
            well = all(camera.state == "live" for camera in cameras.values())
            for one, instance in lost.items():
                if cameras[one].state == "live" and cameras[one].worker.instance not in (instance, ""):
                    back.setdefault(one, now)
            watch()
            assert now < longest, f"after {now:.0f} s not all are live: {self.relay.summary()}"
            await asyncio.sleep(0.1)  # a look at twenty cameras takes 6 ms from the supervisor, which is in here
        outcome.times = sorted(back.values())
        for protocol, of_it in self.protocols(lost).items():
            outcome.by_protocol[protocol] = sorted(back[one] for one in of_it)
        outcome.others_lost = await self.packets_lost(lost) - packets
        await self.account(outcome, before, lost)
        moved = [c.name for one, c in self.cameras.items() if one in others and c.worker.instance != others[one]]
        outcome.expect(not moved, f"workers of others were replaced: {moved}")
        return outcome

    async def account(self, outcome: Outcome, before: dict[str, dict[str, Any]], lost: dict[str, str]) -> None:
        """Count the Generates since then; cameras that were not concerned must have needed none."""
        seen = await self.simulated()
        for one, camera in self.cameras.items():
            spent = seen[camera.name]["generates"] - before[camera.name]["generates"]
            outcome.generates[camera.lease.protocol] += spent
            outcome.expect(one in lost or spent == 0, f"{camera.name} was not lost, and took {spent} Generates")
            most = 1 if camera.lease.protocol == WEB_RTC or self.second == "refuse" else 0
            outcome.expect(one not in lost or spent <= most, f"{camera.name} took {spent} Generates, not {most}")

    async def undisturbed(self, seconds: float, outcome: Outcome, what: str) -> None:
        """For so long no worker may be replaced, no Generate spent, and no camera may be anything but live."""
        before, instances = await self.simulated(), {one: c.worker.instance for one, c in self.cameras.items()}
        packets, until, always = await self.packets_lost({}), time.monotonic() + seconds, True
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            always = always and self.all_live
        outcome.expect(always, f"{what}: not always live")
        outcome.expect({one: c.worker.instance for one, c in self.cameras.items()} == instances, f"{what}: replaced")
        seen = await self.simulated()
        for name, camera in seen.items():
            for kind in ("describes", "refused", "generates", "sessions_cut"):
                same = camera.get(kind) == before[name].get(kind)
                outcome.expect(same, f"{what}: {name} had {kind} {camera.get(kind)}, before {before[name].get(kind)}")
        outcome.others_lost += await self.packets_lost({}) - packets

    def memory(self) -> list[float]:
        """What each worker's Pod takes, in MB, with its shim and pause process where it has them.

        Private pages, and the share of those that are shared, as if twenty workers were on the machine: how many
        processes of others have the same files mapped is chance.
        """
        private, shared = ("Private_Clean", "Private_Dirty"), ("Shared_Clean", "Shared_Dirty")

        def taken(pid: int) -> float:
            pages = memory_of(pid)
            return (sum(map(pages.__getitem__, private)) + sum(map(pages.__getitem__, shared)) / 20) / 1e6

        return sorted(sum(map(taken, pod)) for node in self.cluster.nodes for pod in node.pods())

    async def spread_out(self) -> None:
        """Move cameras until no node has more than its share."""
        share = math.ceil(len(self.cameras) / len(self.cluster.nodes))
        self.relay.forget_faults()  # nodes that were lost are avoided, and a fifth end in ten minutes takes longer
        while max(len(self.on(node)) for node in self.cluster.nodes) > share:
            crowds = [list(self.on(node).items())[share:] for node in self.cluster.nodes]
            await self._move(dict(one for crowd in crowds for one in crowd))

    async def _move(self, cameras: dict[str, str]) -> None:
        def moved() -> bool:
            return self.all_live and all(
                self.cameras[one].worker.instance not in (instance, "") for one, instance in cameras.items()
            )

        longest = self.patience(len(cameras))
        await asyncio.gather(*map(self.delete, cameras))
        await self.relay.until(moved, longest, f"{', '.join(cameras)} are live elsewhere")
        self.relay.forget_faults()

    async def powered(self, node: ClusterNode) -> None:
        """Bring a node back, and wait until it takes Pods."""
        node.power_on()
        await self.ready(node)

    async def ready(self, node: ClusterNode) -> None:
        await self.cluster.node_ready(self.api, node.name)

    async def unschedulable(self, value: bool | None) -> None:
        """Let no node take Pods, or all of them again."""
        for node in self.cluster.nodes:
            change: Json = {"spec": {"unschedulable": value}}
            await self.api.patch(f"/api/v1/nodes/{node.name}", change, "application/merge-patch+json")
