"""Failures that affect the whole account: the token, the configuration, Google itself."""

from __future__ import annotations

import math
import random
from typing import Final

from relay_common.backoff import Backoff
from relay_common.causes import Cause
from relay_supervisor.google.errors import (
    AuthorizationRevoked,
    ClientRefused,
    GoogleServerError,
    MinuteUnknown,
    NestError,
    NestTimeout,
    NestUnreachable,
    NotInCommand,
    NotReached,
    TokenUnavailable,
    Unauthenticated,
)
from relay_supervisor.google.leases.causes import nest_cause

_FATAL_PAUSE: Final = 300.0
_UNAUTHENTICATED_PAUSE: Final = 30.0
_REFUSED_TOKEN_PAUSE: Final = 30.0
"""Seconds until it is looked whether there is a token again: before it asks Google again, the token source pauses by
itself, from a minute to an hour."""
_OUTAGE: Final = 5


def servers_fault(error: NestError) -> bool:
    """Whether Google (or the network) failed, rather than the camera."""
    return isinstance(error, (GoogleServerError, NestTimeout, NestUnreachable))


class AccountErrors:
    """Counts failures of the account as a whole, and decides how long to send nothing."""

    def __init__(self, rng: random.Random) -> None:
        self.error = ""
        """Why no command can be sent, and what to do about it; "" when commands can be sent."""
        self.cause: tuple[Cause, str] = (Cause.NONE, "")
        """The cause of that, and its detail."""
        self._backoff = Backoff(2.0, 30.0, rng=rng)
        self._no_network = Backoff(1.0, 10.0, rng=rng)
        """Short, because a call that never reaches Google costs nothing."""
        self._strikes = 0
        self._struck = -math.inf
        self._outage = 0

    def failed(self, error: NestError, sent: float, now: float) -> float:
        """Record the failure of a command sent at `sent`; returns for how many seconds to send nothing."""
        self._outage += servers_fault(error)
        if not error.account:
            return 0.0
        if isinstance(error, Unauthenticated):
            # After the first 401 the same command is sent again with a fresh token. Commands already under way with the
            # same dead token say nothing new.
            if sent < self._struck:
                return 0.0
            self._struck = now
            self._strikes += 1
            if self._strikes < 2:
                return 0.0
            pause = _UNAUTHENTICATED_PAUSE
        elif isinstance(error, TokenUnavailable):
            pause = self._backoff.next_delay()
        elif isinstance(error, (AuthorizationRevoked, ClientRefused)):
            pause = _REFUSED_TOKEN_PAUSE
        elif isinstance(error, MinuteUnknown):
            pause = error.retry_after or 0.0  # then it is over
        elif isinstance(error, (NotInCommand, NotReached)):
            pause = self._no_network.next_delay()
        else:
            pause = _FATAL_PAUSE
        self.error, self.cause = str(error), nest_cause(error)
        return pause

    def succeeded(self) -> bool:
        """Record a success; whether it ends an outage (five failures on Google's side in a row)."""
        ended = self._outage >= _OUTAGE
        self.recovered()
        return ended

    def recovered(self) -> None:
        """Forget the account's failures: it works (again)."""
        self.error, self.cause = "", (Cause.NONE, "")
        self._strikes = self._outage = 0
        self._backoff.reset()
        self._no_network.reset()
