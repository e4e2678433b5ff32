"""docs/recipes.md: what its snippets ask of the relay exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import yaml

from relay_common.config import ViewersConfig, keys_of
from relay_supervisor.http.app import CALLS
from relay_supervisor.http.viewing import WatchStatus

TEXT = (Path(__file__).parents[3] / "docs/recipes.md").read_text()


class Loader(yaml.SafeLoader):
    """Knows Home Assistant's `!secret`."""


Loader.add_constructor("!secret", lambda loader, node: loader.construct_scalar(node))  # type: ignore[no-untyped-call]


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def parsed() -> list[dict[str, Any]]:
    return [yaml.load(text, Loader) for text in snippets("yaml")]


def test_the_rest_sensor_reads_fields_of_the_answer() -> None:
    ((rest,),) = [one["rest"] for one in parsed() if "rest" in one]
    fields = {field.encode_name for field in msgspec.structs.fields(WatchStatus)}
    sensors = rest["sensor"] + rest["binary_sensor"]
    templates = " ".join(sensor["value_template"] for sensor in sensors)
    read = set(re.findall(r"value_json\.(\w+)", templates)) | set(rest["sensor"][0]["json_attributes"])
    assert {"state", "viewable"} <= read <= fields
    assert re.sub(r"^https?://[^/]+", "", rest["resource"]).replace("CAMERA", "{id}") in {
        call.path for call in CALLS if call.reply is WatchStatus
    }


def test_go2rtc_plays_an_address_that_there_is() -> None:
    sources = [source for one in parsed() for source in (one.get("go2rtc") or one).get("streams", {}).values()]
    assert sources
    for source in sources:
        kind, _, url = source.partition(":")
        path = re.sub(r"^https?://[^/]+", "", url).partition("?")[0]
        assert (kind, path.replace("CAMERA", "{id}")) == ("webrtc", "/whep/{id}")
        assert ("POST", "/whep/{id}") in {(call.method, call.path) for call in CALLS}


def test_the_settings_for_a_frame_exist() -> None:
    (settings,) = map(tomllib.loads, snippets("toml"))
    assert set(settings["viewers"]) <= keys_of(ViewersConfig)
