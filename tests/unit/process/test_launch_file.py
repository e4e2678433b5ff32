"""A worker's parameters in a file: all of them arrive, and a wrong file is described without its content."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from relay_common.errors import ConfigError
from relay_common.protocol import SinkTarget
from relay_common.secrets import Secret
from relay_worker.process.launch_file import packed, unpacked
from relay_worker.process.spec import BusKeys, WorkerSpec

SPEC = WorkerSpec(
    camera="c",
    name="Porch",
    instance="c.1",
    control="tcp://10.0.0.5:7420",
    stats="tcp://10.0.0.5:7421",
    keys=BusKeys(public="p", secret=Secret("hidden"), supervisor="s"),
    ice_servers=("turn:turn.example",),
    sinks=(SinkTarget(), SinkTarget(name="lan", loopback=True)),
    tcp_ports=(443,),
    landlock=False,
)


@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(SPEC, keys=None, tcp_ports=None, sinks=())])
def test_all_of_it_arrives(spec: WorkerSpec) -> None:
    assert unpacked(packed(spec)) == spec


def test_what_another_release_has_added_or_does_not_know_is_no_obstacle() -> None:
    fields = msgspec.json.decode(packed(SPEC))
    del fields["orphan_grace"]
    assert unpacked(msgspec.json.encode(fields | {"later": 1})) == SPEC


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": {"public": "p", "secret": ["hidden"], "supervisor": "s"}}, r"`\$\.keys\.secret`"),
        ({"data_path": "hidden"}, r"`\$\.data_path`"),
        ({"camera": None}, r"`\$\.camera`"),
    ],
)
def test_what_is_wrong_is_named_and_not_quoted(change: dict[str, object], said: str) -> None:
    data = msgspec.json.encode(msgspec.json.decode(packed(SPEC)) | change)
    with pytest.raises(ConfigError, match=f"no worker's parameters: {said}") as caught:
        unpacked(data)
    assert "hidden" not in str(caught.value)
