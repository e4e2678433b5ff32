"""Answers to a page about its view, and the errors of views."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from relay_common.cloudflare import Pull, SfuError
from relay_common.errors import RelayError, Remedy
from relay_supervisor.sinks.broker import Publication

log = logging.getLogger(__name__)


class ViewError(RelayError):
    """A view could not be made or used. `code` and `status` are for the HTTP answer."""

    def __init__(self, code: str, status: int, message: str, *, hint: str = "", remedy: Remedy = Remedy.RETRY) -> None:
        super().__init__(message, hint=hint, remedy=remedy)
        self.code, self.status = code, status


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """What a viewer may see: these cameras (None: all), until this time (Unix seconds; None: no end)."""

    cameras: frozenset[str] | None = None
    until: float | None = None

    def sees(self, camera: str) -> bool:
        """Whether the camera is one of them."""
        return self.cameras is None or camera in self.cameras

    def covers(self, other: Audience) -> bool:
        """Whether this audience may use what was made for `other`."""
        return self.cameras is None or (other.cameras is not None and other.cameras <= self.cameras)


ALL_CAMERAS: Final = Audience()


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Whose share of the views a view counts against."""

    operator: bool
    """Whether they have full access; the remaining views are reserved for them."""
    address: str = ""
    link: str = ""
    """Identifies the link they came with; empty: none."""


OPERATOR: Final = Visitor(operator=True)


class ViewTrack(msgspec.Struct, frozen=True, kw_only=True):
    """One media section of the page's peer connection."""

    mid: str
    camera: str
    kind: str
    publication: str
    """Opaque; changes when the camera is republished."""
    quality: str = ""
    """`full` or `small`; empty for sound, and where there is one encoding alone."""


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """A requested camera that is not in the view (yet), and why; ask again with `update`."""

    camera: str
    reason: str


class ViewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the page has to do: `answer` the offer, nothing (`none`), or open a fresh view (`reopen`)."""

    view: str
    action: str
    tracks: list[ViewTrack]
    unavailable: list[Unavailable]
    offer: str = ""
    ice_servers: list[dict[str, Any]] = msgspec.field(default_factory=list)


def view_gone(reason: str) -> ViewError:
    return ViewError("view_gone", 410, f"The view is over: {reason}", hint="Open a fresh view")


def sfu_failure(error: SfuError) -> ViewError:
    log.info("a view failed: %s", error.message)
    answered = error.status or error.code
    what = f"Cloudflare refuses viewers: {answered}" if answered else "Cloudflare cannot be reached"
    return ViewError("sfu_unavailable", 502, what, hint=error.hint, remedy=error.remedy)


def name_of(error: SfuError) -> str:
    """Name of the SFU's error, without its message."""
    # The SFU's own text may name sessions and tracks, which are not for the page; the log has it.
    log.info("a view failed: %s", error.message)
    return error.code or (f"HTTP status {error.status}" if error.status else "the SFU could not be reached")


def may_come(pull: Pull) -> bool:
    """Whether asking again may bring a track that this pull did not."""
    return any(t.error is not None and t.error.remedy is Remedy.RETRY for t in pull.tracks)


def why_missing(pull: Pull, publication: Publication) -> str:
    """Why a pull returned nothing of the publication, in words for the page."""
    for result in pull.tracks:
        if result.track.session == publication.session and result.error is not None:
            return _REASONS.get(result.error.code, f"The SFU does not hand it out ({result.error.code})")
    return "The SFU does not hand it out"


_REASONS: Final = {
    "not_found_track_error": "The SFU has no packets of this camera yet",
    "empty_track_error": "The SFU waits for packets of this camera",
}
