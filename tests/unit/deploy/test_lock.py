"""requirements.lock pins what the relay runs on: all of it, at versions that pyproject.toml takes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[3] / "requirements.lock"


def needed(package: str, seen: set[str]) -> Iterator[Requirement]:
    """What `package` asks for when it runs here, and what that asks for."""
    for text in importlib.metadata.requires(package) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement
            if requirement.name not in seen:
                seen.add(requirement.name)
                yield from needed(requirement.name, seen)


def test_every_package_is_pinned_at_a_version_that_is_asked_for() -> None:
    pins = [Requirement(line) for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    locked = {}
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "==", pin
        locked[canonicalize_name(pin.name)] = version.version
    for requirement in needed("nest-relay", set()):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not in requirements.lock"
        assert requirement.specifier.contains(locked[name]), f"{requirement} is wanted, {locked[name]} is locked"
