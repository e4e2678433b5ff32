"""What is known of publications outlives the supervisor: also which layers they have."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from relay_common.clock import ManualClock
from relay_common.protocol import FromSupervisor, PublishAnswer, Published, PublishRequest, SinkTarget, TrackOffer
from relay_common.tasks import Tasks
from relay_supervisor.cameras.publications import PublicationRouter
from relay_supervisor.cameras.restored import restored
from relay_supervisor.events import EventHub
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.cloudflare import CloudflareSink
from relay_supervisor.sinks.sinks import Sinks
from relay_supervisor.state.store import Store
from tests.fixtures.scripted_sfu import ScriptedSfu


class Run:
    """One supervisor's publications; what it sends to workers is kept in `sent`."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.store = Store(directory / "relay.db", self.clock, boot="boot").open()
        self.sent: list[FromSupervisor] = []
        self.broker = Broker(CloudflareSink(ScriptedSfu().client), self.clock)
        sinks = Sinks(self.broker, SinkTarget(), self.clock)
        tasks = Tasks(logging.getLogger(__name__), "a task failed")
        events = EventHub(self.clock, boot="b")
        self.router = PublicationRouter(sinks, self.store, events, self._send, tasks)

    def _send(self, camera: str, message: FromSupervisor) -> bool:
        self.sent.append(message)
        return True


@pytest.mark.parametrize("rids", [["a", "b"], []])
async def test_the_next_supervisor_knows_whether_a_publication_has_a_small_layer(
    tmp_path: Path, rids: list[str]
) -> None:
    first = Run(tmp_path)
    offer = PublishRequest(request=1, offer="v=0", tracks=[TrackOffer(kind="video", mid="0", rids=rids)])
    answer = await first.broker.publish("door", "Door", offer)
    assert isinstance(answer, PublishAnswer)
    first.router.published("door", Published(publication=answer.publication, rids=rids))
    first.store.close()

    second = Run(tmp_path)
    second.broker.restore([restored(saved) for saved in second.store.publications()])
    assert second.broker.mark_live("door", answer.publication), "as its worker's hello says"
    found = second.broker.locate("door")
    assert found is not None
    assert found.has_small == bool(rids)
    remote = found.remote("video", "small")
    assert remote is not None
    assert (remote.simulcast.preferred_rid if remote.simulcast else "") == ("b" if rids else "")
    assert second.sent == []
    second.store.close()
