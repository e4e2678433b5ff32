"""One worker in a Pod (`Handle`): what the cluster last said of it, and what its launcher is asked to do."""

from __future__ import annotations

import dataclasses
import logging
from typing import Protocol

from relay_supervisor.fleet.launcher import EnginePhase, Exit
from relay_supervisor.fleet.pods.seen import PodVerdict
from relay_supervisor.fleet.watched_end import WatchedEnd

log = logging.getLogger(__name__)


class PodKeeper(Protocol):
    """Who carries out what a handle is asked for."""

    def end(self, instance: str, within: float | None) -> None:
        """Delete its Pod, in so many seconds, or at once (None)."""

    def forget(self, instance: str) -> None:
        """Watch it no longer."""


class PodWorker(WatchedEnd):
    """A worker in a Pod, while it is watched."""

    number, starved = 0, 0.0

    def __init__(self, keeper: PodKeeper, instance: str, ref: str, verdict: PodVerdict) -> None:
        super().__init__()
        self.ref = ref
        self._keeper, self._instance, self._verdict = keeper, instance, verdict
        self._asked = False

    @property
    def where(self) -> str:
        return self._verdict.where

    @property
    def phase(self) -> EnginePhase:
        if self._over:
            return EnginePhase.GONE
        return EnginePhase.ENDING if self._asked else self._verdict.phase

    @property
    def reason(self) -> str:
        return self._verdict.reason

    def ask_to_end(self, within: float) -> None:
        """Delete its Pod; that it ends in time is for the caller to see."""
        self._asked = True
        self._keeper.end(self._instance, within)

    def end_now(self) -> None:
        """Delete its Pod without waiting for its node, which may be lost and its worker with it, or not."""
        self._asked = True
        self._keeper.end(self._instance, None)

    def dump(self) -> None:
        """Nobody can signal it: it dumps its stacks by itself and ends (`relay_worker.process.remote`)."""

    def dumped(self) -> str:
        return ""

    def forget(self) -> None:
        self._keeper.forget(self._instance)
        self._unwatched()

    def now(self, verdict: PodVerdict) -> None:
        """The cluster says this of it."""
        if verdict.phase is EnginePhase.GONE and not self._over:
            if verdict.last_words:
                log.error("last words of the worker:\n%s", verdict.last_words, extra={"instance": self._instance})
            self._ended(self._own(verdict.exit or Exit(None)))
        self._verdict = verdict if verdict.where or not self.where else _there(verdict, self.where)

    def _own(self, end: Exit) -> Exit:
        """An end that was asked for here is no engine's doing."""
        return dataclasses.replace(end, taken=end.taken and not self._asked)


def _there(verdict: PodVerdict, where: str) -> PodVerdict:
    """The same of a Pod that is gone, whose node was known."""
    return PodVerdict(verdict.phase, verdict.reason, where, verdict.exit, verdict.last_words)
