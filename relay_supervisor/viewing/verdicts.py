"""Tracks the verdicts on all cameras: reports changes, and has the worker try a remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from relay_common.clock import Clock
from relay_common.protocol import RecoverVideo
from relay_common.worker_stats import WorkerStats
from relay_supervisor.viewing.decoding import Decodable, Decoding, DecodingVerdict

LOOK: Final = 2.0
"""Seconds between checks."""
REMEDY_AGAIN: Final = 60.0
"""Seconds between remedies for one camera; its worker refuses more frequent ones."""


class Verdicts:
    """The latest verdicts on all running cameras.

    `live` returns them with the newest statistics of those that are live; `send` sends a message to a camera's worker
    (False: it has none); `tell` publishes a text about a camera.
    """

    def __init__(
        self,
        decoding: Decoding,
        clock: Clock,
        *,
        live: Callable[[], Mapping[str, WorkerStats | None]],
        send: Callable[[str, RecoverVideo], bool],
        tell: Callable[[str, str], object],
    ) -> None:
        self._decoding, self._clock, self._live, self._send, self._tell = decoding, clock, live, send, tell
        self._verdicts: dict[str, DecodingVerdict] = {}
        self._remedied_at: dict[str, float] = {}
        self.remedies = 0
        """Remedies requested."""

    def verdict(self, camera: str) -> DecodingVerdict:
        """The latest verdict on a camera."""
        return self._verdicts.get(camera, DecodingVerdict())

    def look(self, now: float) -> None:
        """Judge every camera."""
        cameras = self._live()
        for camera, stats in cameras.items():
            self._decoding.worker(camera, stats, now)
            self._judge(camera, self._decoding.verdict(camera, now), now)
        for known in (self._verdicts, self._remedied_at):
            for camera in known.keys() - cameras.keys():
                del known[camera]

    def _judge(self, camera: str, verdict: DecodingVerdict, now: float) -> None:
        before, self._verdicts[camera] = self.verdict(camera), verdict
        undecodable = verdict.decodable is Decodable.NO
        if undecodable and before.decodable is not Decodable.NO:
            self._tell(verdict.reason, camera)
        elif before.decodable is Decodable.NO and verdict.decodable is Decodable.YES:
            self._tell("live: its picture is decoded again", camera)
        if undecodable and now - self._remedied_at.get(camera, now - REMEDY_AGAIN) >= REMEDY_AGAIN:
            self._remedied_at[camera] = now
            self.remedies += 1
            self._send(camera, RecoverVideo(reason=verdict.reason))

    async def watch(self) -> None:
        """Look every two seconds; runs until cancelled."""
        while True:
            await self._clock.sleep(LOOK)
            self.look(self._clock.now())

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"mends": self.remedies}
