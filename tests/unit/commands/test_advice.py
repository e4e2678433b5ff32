"""What a message about a value of the wrong type says to write is accepted, by every rule that `run` has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from relay_common import config_file
from relay_common.config import SECTIONS, TABLES, Config
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.prerequisites import refusals

WRONG: tuple[object, ...] = (5, 7420, 70_000, -1, 1.5, True, "7420", "x", [7420], ["x"], {"a": 1})


def document() -> dict[str, Any]:
    return {
        "nest": {
            "project_id": "5cd39b4c-0000-4000-8000-51a1a7edf00d",
            "client_id": "123456789012-abcdef.apps.googleusercontent.com",
            "client_secret": "GOCSPX-0123456789abcdefghijklmnopqr",
            "refresh_token": "1//0refresh",
        },
        "cloudflare": {"app_id": "app", "app_secret": "secret"},
    }


def keys() -> Iterator[tuple[str, str]]:
    for section, struct in SECTIONS.items():
        for field in msgspec.structs.fields(struct):
            if field.name not in TABLES and field.type is not Secret:
                yield section, field.name


def written(section: str, key: str, value: object) -> dict[str, Any]:
    made, (outer, _, inner) = document(), section.partition(".")
    if section == "whip":
        made["whip"] = [{"name": "studio", "url": "https://whip.example/{camera}"} | {key: value}]
    elif inner:
        made[outer][inner] = {key: value}
    else:
        made.setdefault(outer, {})[key] = value
    return made


def problems_with(section: str, key: str, value: object) -> list[str]:
    """What is said of this key alone; of the others some may be wanted as well."""
    try:
        config: Config = config_file.parse(written(section, key, value), {})
    except ConfigError as error:
        told = str(error).splitlines()
    else:
        told = [*config.whip_mistakes, *(str(one.error) for one in refusals(config))]
    about = re.compile(rf"\s*(?:{section}(?:\[0\])?\.{key}|\[{section}\] {key})\b")
    return [line for line in told if about.match(line)]


@pytest.mark.parametrize(("section", "key"), list(keys()), ids=lambda part: part)
def test_what_is_advised_is_not_refused_next(section: str, key: str) -> None:
    advised = 0
    for value in WRONG:
        for problem in problems_with(section, key, value):
            line = re.search(rf"; write ({key} = .*?)(?:, the default, or leave it out|, for example)?$", problem)
            if line is None:
                continue
            advised += 1
            assert problems_with(section, key, tomllib.loads(line[1])[key]) == [], problem
    assert advised or key in ("project_id", "client_id"), "no line was advised, whatever was wrong"
