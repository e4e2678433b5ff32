"""Offers for Google: asked of the worker that is there, or of the one that comes."""

from __future__ import annotations

import asyncio

import pytest

from relay_common.ingest_messages import IngestOffer, IngestOfferFailed, MakeOffer
from relay_common.protocol import FromSupervisor
from relay_supervisor.cameras.offers import IngestOffers
from relay_supervisor.google.errors import OfferUnavailable


class Workers:
    """What was sent to whom; a camera without a worker takes nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.there = {"door", "drive"}
        self.desk = IngestOffers(self.send)

    def send(self, camera: str, message: FromSupervisor) -> bool:
        assert isinstance(message, MakeOffer)
        if camera in self.there:
            self.asked.append((camera, message.request))
        return camera in self.there

    def answer(self, index: int, sdp: str = "v=0") -> None:
        camera, request = self.asked[index]
        self.desk.answered(camera, IngestOffer(request=request, offer=sdp))


async def ask(workers: Workers, camera: str = "door") -> asyncio.Task[str]:
    task = asyncio.create_task(workers.desk.offer(camera))
    await asyncio.sleep(0)
    return task


async def test_an_offer_comes_from_the_cameras_worker_and_its_number_is_kept_for_the_answer() -> None:
    workers = Workers()
    door, drive = await ask(workers, "door"), await ask(workers, "drive")
    workers.answer(1, "drive's")
    workers.answer(0, "door's")
    assert (await door, await drive) == ("door's", "drive's")
    assert [(camera, workers.desk.number(camera)) for camera in ("door", "drive")] == workers.asked
    assert workers.desk.number("attic") == 0


async def test_a_worker_that_is_not_there_yet_is_asked_when_it_comes() -> None:
    workers = Workers()
    workers.there = set()
    task = await ask(workers)
    assert not workers.asked
    workers.there = {"door"}
    workers.desk.worker_ready("door")
    workers.answer(0)
    assert await task == "v=0"
    workers.desk.worker_ready("door")
    assert len(workers.asked) == 1, "nobody waits any more"


async def test_a_worker_that_cannot_is_an_error_that_costs_no_command() -> None:
    workers = Workers()
    task = await ask(workers)
    workers.desk.answered("door", IngestOfferFailed(request=workers.asked[0][1], reason="no sockets"))
    with pytest.raises(OfferUnavailable, match="no sockets") as raised:
        await task
    assert not raised.value.counted


async def test_answers_to_earlier_requests_are_not_taken_for_the_present_one() -> None:
    workers = Workers()
    given_up = await ask(workers)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    workers.answer(0, "late, to nobody")
    task = await ask(workers)
    workers.answer(0, "late, to another request")
    assert not task.done()
    workers.answer(1, "right")
    assert await task == "right"
