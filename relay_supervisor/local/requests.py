"""What workers are asked about local viewers, and their answers: each request is answered once, or not in time."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Final, TypeVar

from relay_common.local_messages import LocalAnswer, LocalPatched, LocalRefused
from relay_common.protocol import FromSupervisor
from relay_supervisor.local.sessions import WhepError

ANSWER_WITHIN: Final = 5.0
"""Seconds that a worker has for an answer."""

LocalReply = LocalAnswer | LocalRefused | LocalPatched
R = TypeVar("R", bound=LocalReply)


class WorkerRequests:
    """Requests to the workers of cameras; `send` returns False when a camera has no worker."""

    def __init__(self, send: Callable[[str, FromSupervisor], bool]) -> None:
        self._send = send
        # Others than those of an earlier supervisor, whose answers may still come.
        self._numbers = itertools.count(secrets.randbits(48))
        self._waiting: dict[int, tuple[str, asyncio.Future[LocalReply]]] = {}
        self.unanswered = 0

    async def ask(self, camera: str, make: Callable[[int], FromSupervisor]) -> LocalReply:
        """The answer of `camera`'s worker to what `make` makes of a number; raises WhepError when there is none."""
        number = next(self._numbers)
        answer: asyncio.Future[LocalReply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = camera, answer
        try:
            if not self._send(camera, make(number)):
                raise no_worker()
            return await asyncio.wait_for(answer, ANSWER_WITHIN)
        except TimeoutError:
            self.unanswered += 1
            raise WhepError(
                "no_answer", 503, "The camera's worker does not answer", hint="Try again", retry_after=2.0
            ) from None
        finally:
            del self._waiting[number]

    def answered(self, camera: str, message: LocalReply) -> bool:
        """Pass on a worker's answer; False when nobody waits for it any more."""
        owner, waiting = self._waiting.get(message.request, ("", None))
        if waiting is None or owner != camera or waiting.done():
            return False
        waiting.set_result(message)
        return True


def no_worker() -> WhepError:
    return WhepError("no_worker", 503, "The camera's worker is not running yet", hint="Try again", retry_after=1.0)


_CODES: Final = {400: "bad_sdp", 406: "no_common_codec", 503: "too_many_viewers"}


def refused_by_worker(answer: LocalRefused) -> WhepError:
    """What a worker said to an offer, for the viewer."""
    status = answer.status if 400 <= answer.status <= 599 else 503
    return WhepError(_CODES.get(status, "refused"), status, answer.reason, retry_after=answer.retry_after)
