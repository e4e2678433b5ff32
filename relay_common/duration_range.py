"""An option of a command that is a number of seconds."""

from __future__ import annotations

import math
from typing import Any

import click


class DurationRange(click.FloatRange):
    """`click.FloatRange` without "nan", which no range keeps out, and "inf": nothing that waits so long ever ends."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; fails as any wrong value does."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds
