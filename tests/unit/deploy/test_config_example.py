"""The example configuration is complete, loads, and shows the real defaults."""

from __future__ import annotations

import operator
import re
import tomllib
from pathlib import Path

import msgspec

from relay_common import config_file
from relay_common.config import SECRET_SUFFIX, SECTIONS, TABLES, CameraSettings
from relay_common.secrets import Secret

EXAMPLE = Path(__file__).parents[3] / "deploy/config.example.toml"
_SHOWN_DEFAULT = re.compile(r'^# (\w+ = \S.*|\[cameras\."Front Door"\]|\[\[whip\]\])$', re.MULTILINE)


def installed(tmp_path: Path, text: str) -> Path:
    """The example as a user would lay it out, with the secret files it names."""
    (tmp_path / "secrets").mkdir()
    for name in re.findall(r'"secrets/(\w+)"', text):
        (tmp_path / "secrets" / name).write_text(f"{name}-0123456789\n")
    (tmp_path / "relay.toml").write_text(text)
    return tmp_path / "relay.toml"


def test_it_loads_as_it_is(tmp_path: Path) -> None:
    config = config_file.load(installed(tmp_path, EXAMPLE.read_text()), {})
    assert config.nest[0].refresh_token.reveal() == "refresh_token-0123456789"
    assert config.cloudflare.app_secret.reveal() == "app_secret-0123456789"


def test_what_it_shows_commented_out_are_the_defaults(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    shown = _SHOWN_DEFAULT.sub(r"\1", text)
    assert shown.count("\n# ") < text.count("\n# ")
    # An empty secret stands for none, which the file may not say.
    secrets = {f.name for struct in SECTIONS.values() for f in msgspec.structs.fields(struct) if f.type is Secret}
    shown = re.sub(rf'^({"|".join(secrets)}) = ""$', "", shown, flags=re.MULTILINE)
    config = config_file.load(installed(tmp_path, shown), {})
    required = {"project_id", "client_id", "client_secret", "refresh_token", "app_id", "app_secret", "name", "url"}
    assert config.whip_mistakes == []
    for name in SECTIONS:
        values = operator.attrgetter(name)(config)
        values = values[0] if isinstance(values, list) else values
        for field in msgspec.structs.fields(type(values)):
            if field.name not in required and field.name not in TABLES:
                default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
                assert getattr(values, field.name) == default, f"{name}.{field.name}"
    assert config.cameras.settings == {"Front Door": CameraSettings()}


def test_no_key_is_missing() -> None:
    shown = tomllib.loads(_SHOWN_DEFAULT.sub(r"\1", EXAMPLE.read_text()))
    for name, struct in SECTIONS.items():
        outer, _, inner = name.partition(".")
        table = shown.get(outer, {})
        table = table.get(inner, {}) if inner else table
        keys = (table[0] if isinstance(table, list) else table).keys()
        for field in msgspec.structs.fields(struct):
            known = {field.name, field.name + SECRET_SUFFIX} if field.type is Secret else {field.name}
            if field.name not in TABLES:
                assert known & keys, f"deploy/config.example.toml lacks [{name}] {field.name}"
