"""Where the pipeline's frames go: to every publication that is up, none of which can hold another up.

A single one is the pipeline's output itself. Where there are several, one that joins the others begins at the next
keyframe, as its receiver can decode nothing before; the others notice nothing of it.
"""

from __future__ import annotations

from relay_worker import native
from relay_worker.media.keyframe_starts import KeyframeStarts
from relay_worker.media.stream import Frame, Kind, Output
from relay_worker.native.states import OutputsState
from relay_worker.pipeline import Pipeline
from relay_worker.rtp.h264 import MAX_PAYLOAD
from relay_worker.wakes import Found, parts_of


class _Branch:
    __slots__ = ("max_payload", "output", "waits")

    def __init__(self, output: Output, max_payload: int, *, waits: bool) -> None:
        self.output, self.max_payload = output, max_payload
        self.waits = waits
        """Whether it gets no video until a keyframe begins."""


class Outputs(OutputsState):
    """Attaches any number of outputs to a pipeline that has one. Implements `Output`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._branches: dict[object, _Branch] = {}
        self._starts = KeyframeStarts()
        self._arranged = object()
        """Another one whenever the outputs are."""

    def attach(self, key: object, output: Output, max_payload: int, now: float) -> None:
        """Send to `output` as well, in packets that fit into `max_payload` bytes: the first one gets the group of
        pictures that is held, one that joins others (viewers included) begins at the next keyframe. `key` names it
        from then on.
        """
        first = not self._branches
        self._arranged = object()
        branch = self._branches[key] = _Branch(output, max_payload, waits=not first)
        self._fit()
        if first:
            branch.waits = not self.pipeline.attach(output, now)
        if branch.waits:
            # What it sees first may be the rest of a picture.
            self._starts = KeyframeStarts()
            self.pipeline.output = self

    def replace(self, key: object, output: Output) -> None:
        """Put `output` in the place of the one that was attached with this key."""
        self._branches[key].output = output
        self._arranged = object()
        self._simplify()

    def detach(self, key: object) -> None:
        """Stop sending to this one; after the last, the group of pictures is held again."""
        if self._branches.pop(key, None) is None:
            return
        self._arranged = object()
        if self._branches:
            self._fit()
            self._simplify()
        else:
            self.pipeline.detach()

    def send(self, frame: Frame, now: float) -> None:
        if frame.kind is Kind.VIDEO:
            self._let_in(frame)
        for branch in list(self._branches.values()):
            if not branch.waits or frame.kind is not Kind.VIDEO:
                branch.output.send(frame, now)

    def wake_parts(self) -> Found | None:
        """The parts of all outputs; None while one of them waits, or is no connection."""
        parts: list[native.OutputParts] = []
        guards: list[native.StillSo] = [(self, "_arranged", self._arranged)]
        for branch in self._branches.values():
            found = None if branch.waits else parts_of(branch.output)
            if found is None:
                return None
            parts += found[0]
            guards += found[1]
        return (parts, guards) if len(parts) <= native.MOST_OUTPUTS else None

    def _let_in(self, frame: Frame) -> None:
        """Have those that wait begin with this frame, if a keyframe begins with it."""
        waiting = [branch for branch in self._branches.values() if branch.waits]
        if waiting and self._starts.begins(frame):
            for branch in waiting:
                branch.waits = False
            self._simplify()

    def _fit(self) -> None:
        """Fragmenting is done once, for the narrowest."""
        self.pipeline.fit(min((branch.max_payload for branch in self._branches.values()), default=MAX_PAYLOAD))

    def _simplify(self) -> None:
        """Leave out this object where there is a single output that has begun."""
        branches = list(self._branches.values())
        alone = len(branches) == 1 and not branches[0].waits
        self.pipeline.output = branches[0].output if alone else self
