"""The environment's part of the configuration: `RELAY_<SECTION>_<KEY>` overrides a key of the file.

A variable that is no key is ignored and reported, never fatal: clusters and CI systems set variables of their own, and
Kubernetes adds some for every Service, so that one named `relay-http` yields `RELAY_HTTP_PORT`.
"""

from __future__ import annotations

import contextlib
import difflib
import tomllib
import typing
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from relay_common.config import SECRET_SUFFIX, SECTIONS, keys_of, secret_fields

PREFIX: Final = "RELAY_"
_READ_ELSEWHERE: Final = frozenset(("RELAY_CONFIG", "RELAY_STREAM_URL"))
"""Variables that are options of the command line."""
_MAY_HOLD_SECRETS: Final = frozenset(("ice_servers",))
_NEAR: Final = 0.75
"""How similar a name has to be (difflib's ratio, without the prefix) to be suggested."""


class Origins(dict[str, str]):
    """Which key came from which variable: `section.key` → name."""

    def attribute_problem(self, problem: str) -> str:
        """A problem that begins with its key, with the variable in front if the value came from one."""
        key = problem.partition(" ")[0].rstrip(":").replace("[0]", "", 1)
        return f"environment variable {self[key]}: {problem}" if key in self else problem


def apply(sections: dict[str, list[dict[str, Any]]], environ: MutableMapping[str, str]) -> Origins:
    """Let variables override the file, and return where values came from; [[nest]] and [[whip]]: the first table.

    Secrets are taken out of `environ`.
    """
    origins = Origins()
    for variable, section, key in _known(environ):
        if not sections[section]:
            sections[section].append({})
        struct, table, text = SECTIONS[section], sections[section][0], environ[variable]
        secret = key.removesuffix(SECRET_SUFFIX)
        if secret in secret_fields(struct):
            # A value and a file for the same secret would conflict: the environment wins.
            table.pop(secret, None)
            table.pop(secret + SECRET_SUFFIX, None)
        table[key] = text if key in secret_fields(struct) else _value(text, struct, key)
        if key in secret_fields(struct) or key in _MAY_HOLD_SECRETS:
            del environ[variable]
        origins[f"{section}.{key}"] = variable
    return origins


def unknown(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that looks like a key and is none, with the name that was probably meant."""
    names = {name.removeprefix(PREFIX) for name in _keys()}
    services = [v.removesuffix("SERVICE_HOST") for v in environ if v.endswith("_SERVICE_HOST")]
    # Kubernetes describes a Service: RELAY_SERVICE_HOST, RELAY_PORT, RELAY_PORT_8080_TCP_ADDR, …
    described = tuple(service + part for service in services for part in ("SERVICE_", "PORT"))
    warnings = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name == variable or name in names or variable in _READ_ELSEWHERE or variable.startswith(described):
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=_NEAR)
        hint = f". Did you mean {PREFIX}{near[0]}?" if near else ""
        warnings.append(f"environment variable {variable} is no key of the configuration and is ignored{hint}")
    return warnings


def drop_unknown(environ: MutableMapping[str, str]) -> None:
    """Take variables that look like a key and are none out of `environ`: a misspelt one may hold a secret.

    So may RELAY_STREAM_URL, which no supervisor reads.
    """
    known = _keys().keys() | _READ_ELSEWHERE - {"RELAY_STREAM_URL"}
    for variable in [name for name in environ if name.startswith(PREFIX) and name not in known]:
        del environ[variable]


def variable_for(section: str, key: str) -> str:
    """The variable that sets a key."""
    return f"{PREFIX}{section}_{key}".replace(".", "_").upper()


def _keys() -> dict[str, tuple[str, str]]:
    """Section and key by variable."""
    return {variable_for(name, key): (name, key) for name, struct in SECTIONS.items() for key in keys_of(struct)}


def _known(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Variable, section and key, of each that is one."""
    for variable, (section, key) in sorted(_keys().items()):
        if variable in environ:
            yield variable, section, key


def _value(text: str, struct: type[msgspec.Struct], key: str) -> Any:
    """A value as TOML would read it; anything else, and whatever a key of type string is set to, is a plain string."""
    read: Any = text
    with contextlib.suppress(ValueError, RecursionError):  # ValueError: also for a number of thousands of digits
        read = tomllib.loads(f"v = {text}")["v"]
    # An app id of digits is no number, and neither is a port where an address is wanted.
    return read if isinstance(read, str) or not _is_text(struct, key) else text


def _is_text(struct: type[msgspec.Struct], key: str) -> bool:
    kinds = {field.name: field.type for field in msgspec.structs.fields(struct)}
    kind = kinds.get(key, str)  # a file with a secret is no field of its own
    return kind is str or (typing.get_origin(kind) is typing.Annotated and typing.get_args(kind)[0] is str)
