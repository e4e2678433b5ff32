"""Bounds on the number of views: per link, per address, of all guests together, and in total."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from relay_supervisor.viewing.views import ViewError, Visitor

MAX_VIEWS: Final = 128
OPERATORS_SHARE: Final = 32
"""Views reserved for the operator, who has to get in when something is wrong."""
VIEWS_OF_A_LINK: Final = 8
VIEWS_OF_AN_ADDRESS: Final = 32
"""Of guests at one address (an IPv6 /64); the operator is not bounded by it."""


def refusal(visitor: Visitor, present: Collection[Visitor], most: int = MAX_VIEWS) -> ViewError | None:
    """Why `visitor` may not open another view while `present` have one each; None when they may.

    `most` is the bound of all views; a quarter of it is the operator's.
    """
    if len(present) >= most:
        return _full(f"{most} views are open, which is the most this relay serves")
    if visitor.operator:
        return None
    if visitor.link and sum(v.link == visitor.link for v in present) >= VIEWS_OF_A_LINK:
        return _too_many(
            f"This link has {VIEWS_OF_A_LINK} views open, the most of one link",
            "Close other pages with it, or ask for another link",
        )
    if sum(v.address == visitor.address for v in present if not v.operator) >= VIEWS_OF_AN_ADDRESS:
        return _too_many(
            f"{VIEWS_OF_AN_ADDRESS} views are open from your address, the most of one address", "Close other pages"
        )
    guests = most - most * OPERATORS_SHARE // MAX_VIEWS
    if sum(not v.operator for v in present) >= guests:
        return _full(f"{guests} views of guests are open, which is the most this relay serves")
    return None


def _too_many(message: str, hint: str) -> ViewError:
    return ViewError("too_many_views", 429, message, hint=hint)


def _full(message: str) -> ViewError:
    return ViewError("too_many_views", 503, message, hint="Close other pages, or wait until idle ones expire")
