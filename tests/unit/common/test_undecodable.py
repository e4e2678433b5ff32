"""Bytes from outside that no decoder takes: whoever decodes catches all that it can raise."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

from relay_common.undecodable import UNDECODABLE
from relay_supervisor.commands.cli import Failure
from relay_supervisor.commands.client import decode
from relay_supervisor.google.errors import parse_refusal
from relay_supervisor.status.model import RelayStatus

ROOT = Path(__file__).parents[3]
DEEP = b'{"x":' * 100_000 + b"1" + b"}" * 100_000
BROKEN = (b"", b"{", b'{"version": "\xff"}', b'{"error": "\xff"}', b"\xff", b"[]", DEEP)


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_every_error_of_a_decoder_is_one_of_them(body: bytes) -> None:
    for decoder in (msgspec.json.Decoder(RelayStatus), msgspec.msgpack.Decoder(RelayStatus)):
        with pytest.raises(UNDECODABLE):
            decoder.decode(body)
    with pytest.raises(Failure):
        decode(body, RelayStatus)
    assert parse_refusal(502, body).http == 502


def test_whoever_decodes_catches_them_all() -> None:
    """No handler around a decoder names errors of its own choice."""
    wrong = []
    for path in (file for package in ("relay_common", "relay_supervisor") for file in (ROOT / package).rglob("*.py")):
        for found in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Try)):
            body = "\n".join(map(ast.unparse, found.body))
            caught = " ".join(ast.unparse(handler.type) for handler in found.handlers if handler.type)
            if ("msgspec.json.decode(" in body or "_decode(" in body) and "UNDECODABLE" not in caught:
                wrong.append(f"{path.relative_to(ROOT)}:{found.lineno}")
    assert wrong == []
