"""Gets the SDP offers that GenerateWebRtcStream needs from the workers that will receive the streams."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from relay_common.ingest_messages import IngestOffer, IngestOfferFailed, MakeOffer
from relay_common.protocol import FromSupervisor
from relay_supervisor.google.errors import OfferUnavailable


class IngestOffers:
    """One offer per camera at a time; `send` reaches a camera's worker and returns False when it has none.

    A worker that is still starting, or is replaced meanwhile, is asked once it is ready: the caller sets the time
    limit.
    """

    def __init__(self, send: Callable[[str, FromSupervisor], bool]) -> None:
        self._send = send
        self._waiting: dict[str, tuple[int, asyncio.Future[str]]] = {}
        self._made: dict[str, int] = {}

    async def offer(self, camera: str) -> str:
        """The SDP offer of the camera's worker; raises OfferUnavailable when the worker cannot make one."""
        # Different from any number of an earlier supervisor, whose offer the worker may still hold.
        request = secrets.randbits(48)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[camera] = request, answer
        try:
            self._send(camera, MakeOffer(request=request))
            sdp = await answer
        finally:
            if self._waiting.get(camera) == (request, answer):
                del self._waiting[camera]
        self._made[camera] = request
        return sdp

    def number(self, camera: str) -> int:
        """Number of the last offer made, to which Google's next answer belongs; 0 before the first."""
        return self._made.get(camera, 0)

    def worker_ready(self, camera: str) -> None:
        """Ask the camera's new worker for the offer that is still awaited, if any."""
        if (waiting := self._waiting.get(camera)) is not None:
            self._send(camera, MakeOffer(request=waiting[0]))

    def answered(self, camera: str, message: IngestOffer | IngestOfferFailed) -> None:
        """Handle the worker's offer, or its report that it could not make one."""
        request, answer = self._waiting.get(camera, (0, None))
        if answer is None or request != message.request or answer.done():
            return
        if isinstance(message, IngestOffer):
            answer.set_result(message.offer)
        else:
            answer.set_exception(OfferUnavailable(f"the worker cannot make a WebRTC offer: {message.reason}"))
