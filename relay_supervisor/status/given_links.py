"""What is reported of links to single cameras that were given out."""

from __future__ import annotations

import msgspec


class GivenLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link that was given out and has not ended. Times are Unix seconds; 0: not known, or never."""

    id: str
    camera: str
    name: str
    """The camera's name; empty when it is gone."""
    made_at: float
    """0 for one that was not made by this list: an earlier release made it, or the state was lost."""
    expires_at: int
    seen_at: float
    """When it was last used, within ten minutes."""
    revoked_at: float
    views: int
    """How many are watching with it."""


class GivenLinks(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of GET /api/links."""

    links: list[GivenLink]
    enabled: bool
    """Whether links can be made and used here."""


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of DELETE /api/links/{id}."""

    id: str
    camera: str
    views: int
    """How many were watching with it: they are cut off now."""
    saved: bool
    """Whether it stays revoked after a restart: not while the state cannot be saved."""
