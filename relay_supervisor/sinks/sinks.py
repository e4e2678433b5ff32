"""Every sink with its broker: the SFU, and those of the [[whip]] tables, which come and go with the configuration."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from relay_common.clock import Clock
from relay_common.config import WhipConfig
from relay_common.protocol import SinkTarget
from relay_common.tasks import Tasks
from relay_supervisor.sinks.broker import Broker, Listener, Publication
from relay_supervisor.sinks.whip import WhipSink

log = logging.getLogger(__name__)


class Sinks:
    """The brokers of all sinks, by name. `sfu` is the SFU's, `target` what workers have to know of it: None where there
    is nothing published there.
    """

    def __init__(self, sfu: Broker, target: SinkTarget | None, clock: Clock) -> None:
        self.sfu, self._target, self._clock = sfu, target, clock
        self._whip: dict[str, tuple[WhipSink, Broker]] = {}
        self._listeners: list[Listener] = []
        self._ending = Tasks(log, "a sink could not be ended")

    def listen(self, listener: Listener) -> None:
        """Call `listener` on every change of a publication, at any sink."""
        self._listeners.append(listener)
        for broker in self:
            broker.listen(listener)

    def __iter__(self) -> Iterator[Broker]:
        yield self.sfu
        yield from (broker for _, broker in self._whip.values())

    def find(self, name: str) -> Broker | None:
        """The broker of the sink with this name."""
        found = self._whip.get(name)
        return found[1] if found is not None else None if name or self._target is None else self.sfu

    @property
    def at_sfu(self) -> bool:
        """Whether cameras are published at the SFU."""
        return self._target is not None

    def whip(self) -> list[WhipSink]:
        """The WHIP servers."""
        return [sink for sink, _ in self._whip.values()]

    def configure(self, tables: Sequence[WhipConfig]) -> list[Publication]:
        """Have these WHIP servers and no others. Returns the publications whose server is now found elsewhere, or with
        another token: their workers have to publish again.
        """
        wanted = {table.name: table for table in tables}
        moved: list[Publication] = []
        for name, (sink, broker) in list(self._whip.items()):
            if sink.config != wanted.get(name):
                del self._whip[name]
                moved += broker.snapshot() if name in wanted else []
                self._ending.spawn(self._end(sink, broker))
        for name, table in wanted.items():
            if name not in self._whip:
                sink = WhipSink(table, self._clock)
                broker = Broker(sink, self._clock)
                for listener in self._listeners:
                    broker.listen(listener)
                self._whip[name] = sink, broker
        return moved

    def targets(self, name: str, device: str) -> list[SinkTarget]:
        """Where the camera with this display name and device id is published."""
        sfu = [self._target] if self._target is not None else []
        return [*sfu, *(sink.target for sink in self.whip() if sink.config.takes(name, device))]

    def keeps_awake(self, name: str, device: str) -> bool:
        """Whether one of its sinks wants the camera also while nobody watches it."""
        return any(sink.config.keeps_awake and sink.config.takes(name, device) for sink in self.whip())

    def having_small(self) -> Counter[str]:
        """How many WHIP servers have the small picture of each camera: for whom, only they know."""
        live = [broker.locate(camera) for _, broker in self._whip.values() for camera in broker.cameras()]
        return Counter(found.camera for found in live if found is not None and found.has_small)

    def restore(self, publications: Collection[Publication]) -> None:
        """Restore the publications of a previous run; those at a sink that is no more are forgotten."""
        for publication in publications:
            if (broker := self.find(publication.sink)) is not None:
                broker.restore([publication])

    async def retire(self, camera: str, *, within: float = 3.0) -> None:
        """End a camera's publications everywhere, in at most `within` seconds."""
        await asyncio.gather(*(broker.retire(camera, within=within) for broker in self))

    def forget(self, camera: str) -> None:
        """Forget a camera that is no longer configured; `retire` it first."""
        for broker in self:
            broker.forget(camera)

    async def aclose(self, *, within: float = 3.0) -> None:
        """Wait at most `within` seconds for closings under way, then abandon them."""
        await self._ending.aclose(within=within)
        await asyncio.gather(*(broker.aclose(within=within) for broker in self))
        await asyncio.gather(*(sink.aclose() for sink in self.whip()))

    async def _end(self, sink: WhipSink, broker: Broker) -> None:
        await asyncio.gather(*(broker.retire(camera) for camera in broker.cameras()))
        await broker.aclose()
        await sink.aclose()

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name, of all sinks together."""
        total: dict[str, int] = {}
        for broker in self:
            for name, value in broker.counters().items():
                total[name] = total.get(name, 0) + value
        return total
