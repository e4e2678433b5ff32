"""Requests to workers about local viewers, when another supervisor has asked before."""

from __future__ import annotations

import asyncio

from relay_common.local_messages import LocalAnswer, LocalOffer
from relay_common.protocol import FromSupervisor
from relay_supervisor.local.requests import WorkerRequests


async def test_an_answer_to_an_earlier_supervisor_is_not_given_to_another_viewer() -> None:
    asked = list[LocalOffer]()

    def send(camera: str, message: FromSupervisor) -> bool:
        assert isinstance(message, LocalOffer)
        asked.append(message)
        return True

    for viewer in ("of the one that is gone", "ours"):
        requests = WorkerRequests(send)

        def offer(number: int, viewer: str = viewer) -> FromSupervisor:
            return LocalOffer(request=number, viewer=viewer, offer="v=0")

        asking = asyncio.create_task(requests.ask("cam", offer))
        await asyncio.sleep(0)
        if len(asked) == 1:
            asking.cancel()
    earlier, later = (LocalAnswer(request=one.request, viewer=one.viewer, answer="v=0") for one in asked)
    assert not requests.answered("cam", earlier)
    assert requests.answered("cam", later)
    assert await asking == later
