"""What has been wrong since when: told once when it begins and once when it is over, in the log and as an event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from relay_common.causes import UNREMARKABLE, cause_of
from relay_supervisor.status.model import RelayStatus
from relay_supervisor.status.verdict import StatusVerdict, duration, spoken_verdict

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between looks at the status."""
SETTLED: Final = 5.0
"""Seconds for which something has to be well before it is logged as over: a worker that keeps dying is live between."""

TOGETHER: Final = 4
"""Cameras that something happens to in one look from which one line of the log tells of all of them."""

Key = tuple[str, str, str]
"""What a verdict is about: a camera's id, or the code and subject of a problem of the relay."""


class _Line(NamedTuple):
    """What there is to say, and of which verdict."""

    words: str
    verdict: StatusVerdict


class VerdictHistory:
    """The latest verdicts. `tell` publishes an event: its kind, its text and the camera's id."""

    def __init__(self, tell: Callable[[str, str, str], object]) -> None:
        self._tell = tell
        self._latest: dict[Key, StatusVerdict] = {}
        self._warned: dict[Key, StatusVerdict] = {}
        """What has been logged as begun and not yet as over."""
        self._begun: dict[Key, float] = {}
        self._well_since: dict[Key, float] = {}
        """At which uptime each of these began, and since when it has been well: the wall clock may step meanwhile, and
        what keeps a machine from Google until its clock is set would be said to have lasted for years."""

    def before(self, camera: str) -> StatusVerdict | None:
        """The latest verdict on a camera."""
        return self._latest.get((camera, "", ""))

    def problem_before(self, code: str, subject: str) -> StatusVerdict | None:
        """The latest verdict on a problem of the relay, while it lasts."""
        return self._latest.get(("", code, subject))

    def observe(self, status: RelayStatus) -> None:
        """Remember the verdicts of `status`; log and publish those that are new, and those that are over."""
        found, began, ended = dict(_verdicts(status)), list[_Line](), list[_Line]()
        several = len(status.budgets) > 1

        def whose(found: StatusVerdict) -> str:
            return f"{found.subject}: " if several and found.subject and not found.camera else ""

        common = {problem.code for problem in status.problems}
        for key, now in found.items():
            warned = self._warned.get(key)
            # What a problem of the relay says already is not repeated for each camera.
            remarkable = cause_of(now.code) not in UNREMARKABLE and not (key[0] and now.code in common)
            if warned is not None and not remarkable:
                ended += self._well(key, now.state, status.uptime)
                continue
            self._well_since.pop(key, None)
            if remarkable and (warned is None or now.cause != warned.cause):
                if warned is not None and now.code != warned.code:
                    ended.append(self._over(key, now.state, status.uptime))
                self._warned[key] = now
                self._begun.setdefault(key, status.uptime)
                began.append(_Line(spoken_verdict(now, status.at), now))
        for key in self._warned.keys() - found.keys():
            ended += self._well(key, "", status.uptime)
        self._latest = found
        for lines in (ended, began):
            for line in lines:
                self._tell("verdict", f"{whose(line.verdict)}{line.words}", line.verdict.camera)
            _log(lines)

    def _well(self, key: Key, state: str, at: float) -> list[_Line]:
        """Something that was logged as begun is well: say that it is over once it has been for a while."""
        since = self._well_since.setdefault(key, at)
        if at - since >= SETTLED:
            del self._well_since[key]
            return [self._over(key, state, since)]
        return []

    def _over(self, key: Key, state: str, at: float) -> _Line:
        was, lasted = self._warned.pop(key), at - self._begun.pop(key)
        return _Line(f"over after {duration(lasted)}{state and ', '}{state}: {was.cause}", was)


def _log(lines: Sequence[_Line]) -> None:
    """Log each line, but one for all cameras that the same happens to at the same time."""
    by_code: dict[str, list[_Line]] = {}
    for line in lines:
        by_code.setdefault(line.verdict.code if line.verdict.camera else "", []).append(line)
    for code, alike in by_code.items():
        together = code != "" and len(alike) >= TOGETHER
        for line in alike[:1] if together else alike:
            more = ", ".join(other.verdict.subject for other in alike[1:]) if together else ""
            words = f"{line.words}; the same for {len(alike) - 1} more cameras: {more}" if together else line.words
            log.warning("%s", words, extra=_extra(line.verdict))


def _verdicts(status: RelayStatus) -> Iterator[tuple[Key, StatusVerdict]]:
    for camera in status.cameras:
        yield (camera.id, "", ""), camera.verdict
    for problem in status.problems:
        yield ("", problem.code, problem.subject), problem


def _extra(found: StatusVerdict) -> dict[str, str]:
    """The context of its log line."""
    who = {"camera": found.subject} if found.camera else {"account": found.subject} if found.subject else {}
    return {**who, "reason": found.code, "stage": found.stage}
