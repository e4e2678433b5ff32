"""What a worker has asked of a supervisor that is replaced before it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay_common.patch_messages import PatchSession, SessionPatched
from relay_common.protocol import PublishAnswer, PublishRequest
from relay_worker.process.control import Control
from relay_worker.process.spec import WorkerSpec
from relay_worker.publish.signaling import SupervisorLost


class Worker:
    """A worker's end whose words are kept; `there`: whether a supervisor is connected."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        where = f"ipc://{directory}"
        spec = WorkerSpec(
            camera="c", name="Porch", instance="c.1", control=f"{where}/control.sock", stats=f"{where}/stats.sock"
        )
        self.control, self.said, self.there = Control(spec, lambda message: None), list[Any](), True
        monkeypatch.setattr(self.control, "send", self._send)

    def _send(self, message: Any) -> bool:
        if self.there:
            self.said.append(message)
        return self.there

    def ask(self) -> asyncio.Task[PublishAnswer]:
        return asyncio.create_task(self.control.publish("v=0", []))

    def patch(self) -> asyncio.Task[str]:
        return asyncio.create_task(self.control.patch("studio", "p", "a=ice-ufrag:x", restart=True))

    async def asked(self, count: int) -> Any:
        async with asyncio.timeout(20.0):
            while len(self.said) < count:
                await asyncio.sleep(0.001)
        assert len(self.said) == count
        return self.said[-1]


@pytest.fixture
async def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, monkeypatch)
    made.control.welcomed("one")
    yield made
    await made.control.close()


@pytest.mark.parametrize("earlier", ["one", ""], ids=["", "an earlier release's"])
async def test_an_offer_to_one_that_is_replaced_is_no_refusal_of_the_sinks(worker: Worker, earlier: str) -> None:
    worker.control.welcomed(earlier)
    asking = worker.ask()
    await worker.asked(1)
    assert worker.control.welcomed("" if not earlier else "another")
    with pytest.raises(SupervisorLost, match="it was replaced") as failure:
        await asking
    assert failure.value.retry_after == 0.0


async def test_one_that_welcomes_again_is_still_waited_for(worker: Worker) -> None:
    """The hello was said again before its welcome came; asked again, it would make two sessions."""
    asking = worker.ask()
    request = await worker.asked(1)
    assert isinstance(request, PublishRequest)
    assert not worker.control.welcomed("one")
    answer = PublishAnswer(request=request.request, publication="p", answer="v=0")
    worker.control._dispatch(answer)
    assert await asking == answer


async def test_where_the_connection_was_lost_the_same_one_is_asked_again(worker: Worker) -> None:
    asking = worker.ask()
    await worker.asked(1)
    worker.control._back()
    assert worker.control.welcomed("one")
    with pytest.raises(SupervisorLost, match="the connection to it was lost"):
        await asking
    assert not worker.control.welcomed("one"), "once"


async def test_without_a_supervisor_and_without_an_answer_nothing_is_said_of_the_sink(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_worker.process.control.PUBLISH_TIMEOUT", 0.01)
    with pytest.raises(SupervisorLost, match="no answer to the offer"):
        await worker.ask()
    worker.there = False
    with pytest.raises(SupervisorLost, match="no supervisor"):
        await worker.ask()


@pytest.mark.parametrize("there", [True, False])
async def test_the_next_supervisor_is_told_of_a_change_of_an_ice_session(worker: Worker, there: bool) -> None:
    """A restart that counted as failed would cost the publication."""
    worker.there = there
    patching = worker.patch()
    await asyncio.sleep(0)
    worker.there = True
    worker.control.welcomed("another")
    again = await worker.asked(2 if there else 1)
    assert isinstance(again, PatchSession)
    worker.control._dispatch(SessionPatched(request=again.request, fragment="a=ice-ufrag:y"))
    assert await patching == "a=ice-ufrag:y"
