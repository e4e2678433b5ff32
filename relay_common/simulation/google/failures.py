"""Injected command failures: how many, for which camera, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from relay_common.simulation.google.errors import Reply, error

ANY: Final = "*"

_MESSAGES: Final[Mapping[int, str]] = {
    401: "Request had invalid authentication credentials.",
    403: "The caller does not have permission",
    404: "Requested entity was not found.",
    409: "The operation was aborted.",
    429: "Rate limited for the ExecuteDeviceCommand API for the user.",
    500: "Internal error encountered.",
    503: "The service is currently unavailable.",
}


@dataclass
class Failure:
    """The next `remaining` commands of a kind get `reply`.

    With `after_effect` the command is carried out anyway and only its answer is lost or late: the delay and the trickle
    of `reply` are used, and its body if its status is not 200.
    """

    reply: Reply
    remaining: int = 1
    after_effect: bool = False

    def applied_to(self, answer: Reply) -> Reply:
        """The reply the client gets instead of the true `answer`."""
        late = replace(answer, delay=self.reply.delay, trickle=self.reply.trickle)
        return late if self.reply.status == 200 else self.reply


class Failures:
    """Pending failures, by camera name and command; "*" matches any."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Failure] = {}

    def add(self, camera: str, command: str, failure: Failure) -> None:
        """Make the next commands fail; replaces an earlier failure for the same camera and command.

        With nothing remaining, it ends that, and for any command all that were added for the camera.
        """
        if failure.remaining > 0:
            self._waiting[camera, command] = failure
            return
        for key in [key for key in self._waiting if key[0] == camera and command in (ANY, key[1])]:
            del self._waiting[key]

    def clear(self) -> None:
        """Remove all failures."""
        self._waiting.clear()

    def take(self, camera: str, command: str) -> Failure | None:
        """The failure for a command that has just arrived, counted down."""
        for key in ((camera, command), (camera, ANY), (ANY, command), (ANY, ANY)):
            failure = self._waiting.get(key)
            if failure is None:
                continue
            failure.remaining -= 1
            if failure.remaining <= 0:
                del self._waiting[key]
            return failure
        return None


def failure(
    status: int,
    *,
    count: int = 1,
    message: str = "",
    grpc_status: str = "",
    raw_body: str | None = None,
    delay: float = 0.0,
    trickle: float = 0.0,
    after_effect: bool = False,
) -> Failure:
    """A failure with Google's body for `status`, or with `raw_body` verbatim (for responses that are not JSON)."""
    reply = error(status, message or _MESSAGES.get(status, "Error"), grpc_status)
    body: dict[str, Any] | str = reply.body if raw_body is None else raw_body
    return Failure(Reply(status, body, delay, trickle), count, after_effect)
