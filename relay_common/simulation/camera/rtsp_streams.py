"""State shared by all RTSP connections: which stream URLs may be played, by which client, and their warm-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from relay_common.simulation.camera.camera import Camera

_REMEMBERED_STREAMS: Final = 1000


@dataclass(frozen=True)
class Admission:
    """Whether a URL may be played: an RTSP status, and for 200 the camera.

    `key` names the stream for exclusivity; `expires` returns when (wall clock) the stream currently ends, 0 once it was
    stopped.
    """

    status: int
    camera: Camera | None = None
    key: str = ""
    expires: Callable[[], float] = lambda: float("inf")


Admit = Callable[[str, str, float], Admission]
"""From (path, token, wall clock) to an Admission."""


class Holder(Protocol):
    """The one client of a stream."""

    def check_expiry(self) -> None:
        """End now if the stream has ended."""
        ...

    def cut(self, reason: str) -> None:
        """End now."""
        ...


class StreamTable:
    """Exclusivity and warm-up of streams."""

    def __init__(self, admit: Admit) -> None:
        self.admit = admit
        self.holders: dict[str, Holder] = {}
        self._first_describe: dict[str, float] = {}

    def hold(self, admission: Admission, client: Holder) -> bool:
        """Give the stream to `client`; False if another client holds it and the camera refuses second clients."""
        assert admission.camera is not None
        holder = self.holders.get(admission.key)
        if holder is not None and holder is not client:
            if admission.camera.settings.second_client == "refuse":
                return False
            holder.cut("replaced")
        self.holders[admission.key] = client
        return True

    def release(self, client: Holder) -> None:
        """Forget `client`."""
        for key in [key for key, holder in self.holders.items() if holder is client]:
            del self.holders[key]

    def recheck(self, key: str) -> None:
        """Cut the client of stream `key` if the stream has ended (for streams stopped before they expire)."""
        if key in self.holders:
            self.holders[key].check_expiry()

    def describe_wait(self, key: str, delay: float, now: float) -> float:
        """Seconds until a DESCRIBE is answered: a stream warms up once, from its first DESCRIBE."""
        if len(self._first_describe) >= _REMEMBERED_STREAMS and key not in self._first_describe:
            self._first_describe.pop(next(iter(self._first_describe)))
        return max(0.0, self._first_describe.setdefault(key, now) + delay - now)
