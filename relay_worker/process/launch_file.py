"""A worker's parameters as a file, for one that is started on another machine: a Secret that is mounted there.

It holds the worker's secret key. Fields that an earlier or later release does not know are ignored, as on the bus.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_worker.process.spec import WorkerSpec


def packed(spec: WorkerSpec) -> bytes:
    """The parameters as JSON, secrets included."""
    return msgspec.json.encode(spec, enc_hook=_plain)


def unpacked(data: bytes) -> WorkerSpec:
    """What `packed` has made; raises ConfigError for anything else, without its content."""
    try:
        return msgspec.json.decode(data, type=WorkerSpec, dec_hook=_kept)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        path = str(error).rpartition(" - at ")[2] if isinstance(error, msgspec.ValidationError) else "it is no JSON"
        raise ConfigError(f"these are no worker's parameters: {path}") from None


def _plain(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)


def _kept(kind: type, value: Any) -> Secret:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("a secret is a text")
