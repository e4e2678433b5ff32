"""One local viewer: what it watches, whose credential made it, and when it has to end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from relay_common.errors import Remedy
from relay_common.secrets import Secret
from relay_supervisor.state.store import SavedLocalViewer
from relay_supervisor.viewing.views import ViewError, Visitor


class WhepError(ViewError):
    """A local viewer could not be answered; `retry_after` in seconds, 0: not known."""

    def __init__(self, code: str, status: int, message: str, *, hint: str = "", retry_after: float = 0.0) -> None:
        super().__init__(code, status, message, hint=hint, remedy=Remedy.RETRY)
        self.retry_after = retry_after


@dataclass
class LocalViewer:
    """A local viewer of this supervisor."""

    saved: SavedLocalViewer
    visitor: Visitor
    made_at: float
    """Monotonic seconds."""

    @property
    def name(self) -> str:
        return self.saved.viewer

    @property
    def camera(self) -> str:
        return self.saved.camera

    @property
    def instance(self) -> str:
        return self.saved.instance


def owner_of(visitor: Visitor) -> str:
    """What identifies the credential of `visitor`: a session obeys nobody else's."""
    if visitor.operator:
        return "operator"
    return f"link {visitor.link}" if visitor.link else f"guest {visitor.address}"


def visitor_of(owner: str) -> Visitor:
    """The visitor that `owner_of` described, as far as it counts against a bound."""
    kind, _, rest = owner.partition(" ")
    if kind == "operator":
        return Visitor(operator=True)
    return Visitor(operator=False, link=rest) if kind == "link" else Visitor(operator=False, address=rest)


def credential_of(token: Secret) -> str:
    """A digest of the operator's token, to tell whether it is still the one that a session was made with."""
    return digest(f"relay-local:{token.reveal()}") if token else ""


def digest(name: str) -> str:
    """What a worker's report calls the viewer with this name (`LocalViewerStats.name`)."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
