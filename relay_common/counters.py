"""Counters by name: those of several parts as one flat mapping."""

from __future__ import annotations

from collections.abc import Mapping


def joined(**parts: Mapping[str, int]) -> dict[str, int]:
    """The counters of all parts as `part.name`; those at zero are left out."""
    return {f"{part}.{name}": value for part, counted in parts.items() for name, value in counted.items() if value}
