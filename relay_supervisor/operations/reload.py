"""What a changed configuration means for a running supervisor. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from relay_common.config import Config

_BUDGETS: Final = ("rendition_cpu_ms", "all_renditions_cpu_ms")
_LIVE: Final = ("cameras", "local", "log", "nest.refresh_token", "whip", *(f"workers.{key}" for key in _BUDGETS))
"""Sections and keys that take effect immediately."""
_LATER: Final = ("rtsp",)
"""Sections that a worker reads when it starts."""


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that a reload found changed, written as in the file ("cameras.include").

    `applied` take effect now, `later` when a camera's worker is restarted, `restart` when the supervisor is restarted.
    """

    applied: list[str] = []
    later: list[str] = []
    restart: list[str] = []


def compare(old: Config, new: Config) -> ReloadReport:
    """Sort the keys that differ."""
    report = ReloadReport()
    for key in sorted(set(_differences(old, new))):
        if key.startswith(_LIVE):
            report.applied.append(key)
        elif key.startswith(_LATER):
            report.later.append(key)
        else:
            report.restart.append(key)
    return report


def merged(old: Config, new: Config) -> Config:
    """`new` where it can take effect in a running supervisor, `old` for the rest."""
    nest = old.nest
    if len(old.nest) == len(new.nest):
        pairs = zip(old.nest, new.nest, strict=True)
        nest = [msgspec.structs.replace(was, refresh_token=now.refresh_token) for was, now in pairs]
    return msgspec.structs.replace(
        old,
        nest=nest,
        cameras=new.cameras,
        local=new.local,
        log=new.log,
        rtsp=new.rtsp,
        whip=new.whip,
        whip_mistakes=new.whip_mistakes,
        workers=msgspec.structs.replace(old.workers, **{key: getattr(new.workers, key) for key in _BUDGETS}),
    )


def _differences(old: Config, new: Config) -> Iterator[str]:
    for section in msgspec.structs.fields(Config):
        if section.name == "nest":
            if len(old.nest) != len(new.nest):
                yield "nest (number of accounts)"
            for was, now in zip(old.nest, new.nest, strict=False):
                yield from _keys("nest", was, now)
        elif section.name in ("whip", "whip_mistakes"):
            if getattr(old, section.name) != getattr(new, section.name):
                yield "whip"
        else:
            yield from _keys(section.name, getattr(old, section.name), getattr(new, section.name))


def _keys(section: str, old: Any, new: Any) -> Iterator[str]:
    for field in msgspec.structs.fields(type(old)):
        if getattr(old, field.name) != getattr(new, field.name):
            yield f"{section}.{field.name}"
