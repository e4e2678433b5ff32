"""Whether a sink's next publication is offered in two layers: one that refuses them is published at plainly."""

from __future__ import annotations

import logging
from typing import Final

from relay_common.errors import RelayError
from relay_worker.publish.simulcast import SimulcastRefused

log = logging.getLogger(__name__)

NOT_ANSWERED: Final = 2
"""Offers in two layers that got no answer, one after the other, before a plain one is tried."""
NO_ANSWER: Final = "offers with simulcast get no answer, plain ones do"


class LayersOffered:
    """What the sink `name` ("" for the SFU) is offered. `mode` is the rendition that is configured; "off": plain offers
    alone.

    `refusals` counts offers in two layers that were refused, `why_plain` says why none is made any more.
    """

    def __init__(self, name: str = "") -> None:
        self._where = f" at {name}" if name else ""
        self.mode = "off"
        self.offered = "off"
        """The mode with which the latest publication was offered in two layers; "off": it was offered plainly."""
        self.why_plain = ""
        self.refusals = 0
        self._unanswered = 0
        self._at_once = False
        """Whether the plain offer that follows them is made without a pause."""

    def configure(self, mode: str) -> None:
        """Offer this from the next publication on; what was refused is tried again after a change."""
        if mode != self.mode:
            self.mode, self.why_plain, self._unanswered = mode, "", 0

    def begin(self) -> bool:
        """A publication is about to be made: whether in two layers."""
        wanted = self.mode != "off" and not self.why_plain and self._unanswered < NOT_ANSWERED
        self.offered = self.mode if wanted else "off"
        return wanted

    def failed(self, error: RelayError, *, answered: bool, retry_after: float = 0.0) -> bool:
        """It could not be made, and may not be tried again for `retry_after` seconds: whether to make a plain one at
        once.
        """
        if isinstance(error, SimulcastRefused):
            self._refuse(error.message)
            return True
        if answered:
            return False
        # A plain offer that fails as well says that layers were not the reason. It is made in the same moment where it
        # may be: after a pause its answer could as well be the end of an outage, which is to cost no small pictures.
        self._unanswered = self._unanswered + 1 if self.offered != "off" else 0
        self._at_once = self._unanswered >= NOT_ANSWERED and not retry_after
        return self._at_once

    def forget_unanswered(self) -> None:
        """Why there were no answers is known, and over."""
        self._unanswered = 0

    def connected(self) -> None:
        """It is up."""
        if self.offered == "off" and self._unanswered >= NOT_ANSWERED and self._at_once:
            self._refuse(NO_ANSWER)
        self._unanswered = 0

    def _refuse(self, why: str) -> None:
        self.why_plain = why
        self.refusals += 1
        log.warning("no small pictures%s: %s; published plainly", self._where, why)
