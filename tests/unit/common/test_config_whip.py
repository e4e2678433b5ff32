"""[[whip]]: any number of tables, of which a wrong one costs its own sink and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay_common import config_file
from relay_common.config import Config, WhipConfig
from relay_common.secrets import Secret
from relay_supervisor.operations.reload import compare, merged


def parsed(*tables: dict[str, Any], environ: dict[str, str] | None = None, base: Path | None = None) -> Config:
    document: dict[str, Any] = {
        "nest": {"project_id": "p", "client_id": "c", "client_secret": "hush", "refresh_token": "1//hush-hush"},
        "cloudflare": {"app_id": "a", "app_secret": "cf-hush"},
    }
    if tables:
        document["whip"] = list(tables)
    return config_file.parse(document, environ if environ is not None else {}, base=base)


GOOD = {"name": "studio", "url": "https://studio.example/whip/{camera}"}


def test_without_a_table_there_is_no_sink() -> None:
    assert parsed().whip == []
    assert parsed().whip_mistakes == []


def test_a_table_with_everything(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    table = GOOD | {"bearer_token_file": "token", "cameras": ["Front Door"], "keeps_awake": True}
    (made,) = parsed(table | {"renditions": True}, base=tmp_path).whip
    assert made.renditions
    assert not WhipConfig(name="n", url="u").renditions
    assert made.bearer_token == Secret("t0ken")
    assert "t0ken" not in repr(made)
    assert made.takes("Front Door", "device-1")
    assert not made.takes("Porch", "device-2")
    assert WhipConfig(name="n", url="u").takes("Porch", "device-2")


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ({"url": GOOD["url"]}, "whip[1].name is missing"),
        (GOOD | {"name": "studio"}, "which another [[whip]] table has, too"),
        (GOOD | {"name": "sfu"}, "and not sfu, cloudflare, local"),
        (GOOD | {"name": "a b"}, "letters, digits"),
        (GOOD | {"name": "b", "url": "http://studio.example/SECRET"}, "whip[1].url cannot be used: http:// is for"),
        (GOOD | {"name": "b", "url": "nonsense"}, "no web address"),
        (GOOD | {"name": "b", "tokn": "x"}, "whip[1].tokn is not a key"),
        (GOOD | {"name": "b", "ca_file": "/nonexistent.pem"}, "ca_file /nonexistent.pem cannot be read"),
        (GOOD | {"name": "b", "bearer_token_file": "/nonexistent"}, "/nonexistent cannot be read"),
        (GOOD | {"name": "b", "bearer_token": "two words"}, "bearer_token holds characters"),
    ],
)
def test_a_wrong_table_costs_its_own_sink(table: dict[str, Any], mistake: str) -> None:
    config = parsed(GOOD, table)
    assert [one.name for one in config.whip] == ["studio"]
    assert any(mistake in found for found in config.whip_mistakes), config.whip_mistakes
    assert not any("SECRET" in found for found in config.whip_mistakes)


def test_the_environment_reaches_the_first_table() -> None:
    environ = {"RELAY_WHIP_BEARER_TOKEN": "from-there", "RELAY_WHIP_CAMERAS": '["Porch"]'}
    first, second = parsed(GOOD, GOOD | {"name": "other"}, environ=environ).whip
    assert (first.bearer_token, first.cameras, second.cameras) == (Secret("from-there"), ["Porch"], "all")
    assert "RELAY_WHIP_BEARER_TOKEN" not in environ, "no child may inherit it"
    (made,) = parsed(environ={"RELAY_WHIP_NAME": "go2rtc", "RELAY_WHIP_URL": "http://127.0.0.1:1984/x"}).whip
    assert made.name == "go2rtc"


def test_a_single_table_needs_no_double_brackets() -> None:
    document: dict[str, Any] = {"whip": GOOD, "cloudflare": {"app_id": "a", "app_secret": "s"}}
    nest = {"project_id": "p", "client_id": "c", "client_secret": "h", "refresh_token": "1//h"}
    assert config_file.parse(document | {"nest": nest}, {}).whip[0].name == "studio"


def test_a_change_takes_effect_at_once() -> None:
    old, new = parsed(GOOD), parsed(GOOD, GOOD | {"name": "second"})
    assert compare(old, new).applied == ["whip"]
    assert compare(old, new).restart == []
    assert [table.name for table in merged(old, new).whip] == ["studio", "second"]
    wrong = parsed(GOOD, {"name": "x"})
    assert compare(old, wrong).applied == ["whip"]
    assert merged(old, wrong).whip_mistakes == wrong.whip_mistakes != []
