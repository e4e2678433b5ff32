"""What only the source tells: kinds of events, codes of errors and keys of log lines, wherever they are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.fixtures.product_source import files, nodes

_CODE = re.compile(r"[a-z][a-z_]*")


@cache
def calls() -> list[ast.Call]:
    """Every call in the product; the simulators are none of it."""
    return [node for file in _files() for node in nodes(file) if isinstance(node, ast.Call)]


def _files() -> list[Path]:
    return [file for file in files() if "simulation" not in file.parts]


def event_kinds() -> list[str]:
    """First argument of every `….events.publish(…)`; one that is no literal is shown as it is written."""
    found = set()
    for call in calls():
        to = call.func
        if isinstance(to, ast.Attribute) and to.attr == "publish" and ast.unparse(to.value).endswith("events"):
            kind = call.args[0]
            found.add(kind.value if isinstance(kind, ast.Constant) else ast.unparse(kind))
    return sorted(found)


def error_codes() -> list[str]:
    """`code status` of every error answer: calls that take a code beside an HTTP status, or alone before a sentence."""
    found = set()
    for call in calls():
        match [argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant)]:
            case [int(status), str(code)] | [str(code), int(status)] if 400 <= status < 600 and _CODE.fullmatch(code):
                found.add(f"{code} {status}")
            case [str(code), str()] if (
                "_" in code and _CODE.fullmatch(code) and ast.unparse(call.func).endswith("Error")
            ):
                found.add(f"{code} -")
    return sorted(found)


def written_objects() -> list[str]:
    """Keys of every literal that is written as JSON: where it stands as an argument, or under a name before."""
    found = set()
    for file in _files():
        for function in nodes(file):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= {" ".join(keys) for keys in _written_by(function)}
    return sorted(found)


def _written_by(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[list[str]]:
    literals = {
        ast.unparse(node.targets[0]): node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("json_reply", "msgspec.json.encode") and call.args:
            written = literals.get(ast.unparse(call.args[0]), call.args[0])
            if isinstance(written, ast.Dict):
                yield [ast.unparse(key) for key in written.keys if key is not None]


def environment() -> list[str]:
    """Names of the variables that are looked up by themselves, not for a key of the configuration."""
    found = set()
    for call in calls():
        to = call.func
        if not isinstance(to, ast.Attribute) or to.attr not in ("get", "pop"):
            continue
        if ast.unparse(to.value).endswith("environ") and call.args and isinstance(call.args[0], ast.Constant):
            found.add(str(call.args[0].value))
    return sorted(found)


def log_keys() -> list[str]:
    """Keys of every `extra={…}` that is given to a logger, and of what is spread into one or given for one."""
    found: set[str] = set()
    for call in calls():
        for keyword in call.keywords:
            if keyword.arg == "extra":
                found |= _keys(keyword.value)
    return sorted(found)


def _keys(value: ast.expr) -> set[str]:
    if not isinstance(value, ast.Dict):
        return _returned_by(ast.unparse(value.func if isinstance(value, ast.Call) else value).rpartition(".")[2])
    found: set[str] = set()
    for key, inner in zip(value.keys, value.values, strict=True):
        found |= _keys(inner) if key is None else {str(ast.literal_eval(key))}
    return found


@cache
def _returned_by(name: str) -> set[str]:
    """Keys of the literals that functions of that name return."""
    found: set[str] = set()
    for file in _files():
        for node in nodes(file):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                returned = [r.value for r in ast.walk(node) if isinstance(r, ast.Return)]
                for value in returned:
                    if isinstance(value, ast.Dict):
                        found |= {str(ast.literal_eval(key)) for key in value.keys if key is not None}
    return found
