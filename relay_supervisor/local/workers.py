"""Tells workers where to answer viewers: the addresses of [local], and one UDP port for each camera."""

from __future__ import annotations

from relay_common.announced import announced
from relay_common.config import LocalConfig
from relay_common.config_local import port_range
from relay_common.local_messages import LocalStats, SetLocal
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Registry
from relay_supervisor.fleet.slot import Slot
from relay_supervisor.local.answers import only_announced
from relay_supervisor.local.ports import PortDealer
from relay_supervisor.local.sessions import LocalViewer, digest
from relay_supervisor.state.store import Store

_OLD = "its worker is of an earlier release, and answers viewers after its next restart"
_NO_PORT = "no UDP port is left in local.udp_ports"


class LocalWorkers:
    """What the workers of all cameras were told, and what they report. Ports are kept in the store."""

    def __init__(self, config: LocalConfig, registry: Registry, director: Director, store: Store) -> None:
        self.config, self._registry, self._director, self._store = config, registry, director, store
        self._fleet = director.fleet
        self._ports = PortDealer()
        self._ports.configure(port_range(config.udp_ports))
        self.without: set[str] = set()
        """Cameras that got no port."""

    @property
    def on(self) -> bool:
        """Whether viewers are answered at all."""
        return bool(self.config.addresses)

    @property
    def most_guests(self) -> int:
        """Most viewers of one camera that came by a link: the last place is the operator's."""
        return max(1, self.config.viewers - 1)

    def load(self) -> None:
        """Read from the store which ports were dealt by an earlier supervisor."""
        self._ports = PortDealer(self._store.local_ports())
        self._ports.configure(port_range(self.config.udp_ports))

    def configure(self, config: LocalConfig) -> None:
        """Follow a reloaded configuration."""
        self.config = config
        self._ports.configure(port_range(config.udp_ports))
        self.without.clear()
        for camera in self._director.running:
            self.tell(camera)

    def tell(self, camera: str) -> None:
        """Tell a camera's worker where to answer viewers, if it can."""
        slot = self._fleet.slot(camera)
        if slot is None or slot.hello is None or not slot.hello.local:
            return
        port = self._deal(camera) if self.on else None
        if port is None:
            if self.on:
                self.without.add(camera)
            self._fleet.send(camera, SetLocal(listen=[]))
            return
        self.without.discard(camera)
        config = self.config
        self._fleet.send(
            camera,
            SetLocal(listen=config.addresses, port=port, announce=list(config.announce), viewers=config.viewers),
        )

    def _deal(self, camera: str) -> int | None:
        before = self._ports.dealt()
        port = self._ports.deal(camera, {known.id for known in self._registry})
        dealt = self._ports.dealt()
        for other in before.keys() - dealt.keys():
            self._store.forget_local_port(other)
        if port and before.get(camera) != port:
            self._store.save_local_port(camera, port)
        return port

    def deal_again(self) -> None:
        """Deal ports that have become free to cameras that got none."""
        for camera in list(self.without):
            if camera not in self._director.running:
                self.without.discard(camera)
            elif self._deal(camera) is not None:
                self.tell(camera)

    def slot(self, camera: str) -> Slot | None:
        """The slot of a camera's worker, once the worker has said hello."""
        slot = self._fleet.slot(camera)
        return slot if slot is not None and slot.running and slot.hello is not None else None

    def report(self, camera: str) -> LocalStats | None:
        """What a camera's worker last reported of its viewers."""
        slot = self._fleet.slot(camera)
        return slot.stats.local if slot is not None and slot.stats is not None else None

    def quality(self, viewer: LocalViewer) -> str:
        """Which picture a viewer has by its worker's last report, or else by its worker's answer."""
        report = self.report(viewer.camera)
        known = report.viewers if report is not None else []
        return next(
            (one.quality for one in known if one.name == digest(viewer.name) and one.quality), viewer.saved.quality
        )

    def without_others(self, answer: str) -> str:
        """An answer of a worker, or a fragment of one, without addresses that viewers are not to be told."""
        return only_announced(answer, {announced(text)[0] for text in self.config.announced}) if answer else ""

    def reported(self) -> list[tuple[str, str]]:
        """The viewers that workers have as they last reported: their cameras, and what reports call them."""
        reports = [(camera, self.report(camera) or LocalStats()) for camera in self._director.running]
        return [(camera, viewer.name) for camera, report in reports for viewer in report.viewers]

    def problem(self, camera: str) -> str:
        """Why a camera's running worker answers no viewers, in words; "" when it does, or it is off."""
        slot = self.slot(camera)
        if not self.on or slot is None or slot.hello is None:
            return ""
        if not slot.hello.local:
            return _OLD
        if camera in self.without:
            return _NO_PORT
        report = self.report(camera)
        return report.problem if report is not None else ""
