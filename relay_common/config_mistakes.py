"""Messages about configuration mistakes: the key, its value, what is expected, and what to write instead."""

from __future__ import annotations

import difflib
import re
import ssl
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from relay_common.config import IceServer, WhipConfig
from relay_common.config_forms import FORMS, FOUND_ELSEWHERE, WHERE
from relay_common.loopback import is_loopback
from relay_common.secrets import redact
from relay_common.whip.endpoint import UnusableUrl, parse_endpoint

_TOML_NAMES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
}
_SPOKEN: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}

_TOML_HINTS: Final = {
    "twice": "Each [section] may appear once; only several accounts are written as [[nest]]",
    "overwrite": "The same key is set twice: remove one of them",
    "Unescaped": "Write a path with / in place of \\, or between single quotation marks: 'C:\\…'",
    "Unclosed array": "A list ends with ], and has a comma between its elements",
    "(at end of document)": "A quotation mark or a bracket is opened and never closed",
}
"""What to do about it, by a part of the TOML parser's message."""


def mismatch(label: str, field: msgspec.structs.FieldInfo, value: Any, error: msgspec.ValidationError) -> str:
    """Message for a value that `field` of the section `label` cannot take."""
    return f"{label}.{field.name} is {describe(value)}; expected {_expected(field, error)}{_fix(label, field, value)}"


def _expected(field: msgspec.structs.FieldInfo, error: msgspec.ValidationError) -> str:
    if field.name == "include":
        return '"all" or an array of display names or device ids'
    if typing.get_origin(field.type) is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(field.type))
    expected = str(error).partition(" - at `$")[0].partition(", got")[0].replace("`", "").removeprefix("Expected ")
    name, space, bounds = expected.partition(" ")
    return _TOML_NAMES.get(name, name) + space + bounds


def _fix(label: str, field: msgspec.structs.FieldInfo, value: Any) -> str:
    """The line to write: the same value where only its type is wrong, else an example or the default."""
    key, default = f"{label.partition('[')[0]}.{field.name}", default_of(field)
    form = FORMS.get(key) or FOUND_ELSEWHERE.get(key)
    for meant in _meant(value, as_text=not default):
        try:
            converted = msgspec.convert(meant, field.type, strict=False)
        except (msgspec.ValidationError, ValueError):
            continue
        if form is None or form.takes(converted):
            return f"; write {field.name} = {_toml(converted)}"
    if key in FOUND_ELSEWHERE:
        return f"; write {WHERE[field.name]}, in quotation marks"
    if form is not None and form.example:
        return f"; write {field.name} = {_toml(form.example)}, for example"
    return "" if field.required else f"; write {field.name} = {_toml(default)}, the default, or leave it out"


def _meant(value: Any, *, as_text: bool) -> Iterator[Any]:
    """What `value` was probably meant to be."""
    if isinstance(value, str):
        word = value.strip().lower()
        yield _SPOKEN.get(word, word)
        yield [value]
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and as_text:
        yield str(value)


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """The default of a key; None for a required one."""
    if field.required:
        return None
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def _toml(value: Any) -> str:
    """A string, number, boolean or array of these in TOML syntax, which is JSON's here."""
    return msgspec.json.encode(value).decode()


def describe(value: Any) -> str:
    """Kind and value, or only the kind if the value is long or has parts."""
    shown = repr(value) if not isinstance(value, (dict, list)) else ""
    return f"{kind_of(value)} {shown}".strip() if len(shown) <= 60 else kind_of(value)


def kind_of(value: Any) -> str:
    """The kind of a value in TOML's terms."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "an integer", float: "a number", list: "an array", dict: "a table"}
    return names.get(type(value), type(value).__name__)


_LEFT_OUT: Final = ("exclude", "excluded", "ignore", "skip")


def suggest(key: str, known: Iterable[str]) -> str:
    """The known key that was probably meant, or all of them."""
    if key in _LEFT_OUT and "include" in (known := list(known)):  # the nearest word is the contrary
        return ' A camera is left out by [cameras."NAME"] with enabled = false'
    close = difflib.get_close_matches(key, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else f" Known: {', '.join(sorted(known))}"


def toml_hint(text: str, message: str) -> str:
    """What is probably wrong in a file that is not TOML, from the parser's message; never quotes a value."""
    for fragment, hint in _TOML_HINTS.items():
        if fragment in message:
            return hint
    at = re.search(r"\(at line (\d+)", message)
    lines = text.splitlines()
    line = lines[min(int(at[1]), len(lines)) - 1].strip() if at and lines else ""
    if line.startswith("["):
        return 'A section is written [name]; names with spaces need quotation marks: [cameras."Front Door"]'
    key, equals, value = (part.strip() for part in line.partition("="))
    if not equals:
        return "Each line is written key = value" if line else ""
    if re.search("[“”„‘’]", value):
        return f'Straight quotation marks are needed: {key} = "…"'
    if value[:1] in ("'", '"'):
        return f"What {key} is set to has to end with the quotation mark that it begins with, on the same line"
    if value.lower() in ("true", "false"):
        return f"Write {key} = {value.lower()}, in lower case"
    if value.startswith("["):
        return f'Each text in a list needs quotation marks: {key} = ["…", "…"]'
    return f'Text needs quotation marks: {key} = "…". Numbers, true and false have none'


_ICE_SCHEMES: Final = ("stun", "stuns", "turn", "turns")


def ice_problem(server: str | IceServer) -> str:
    """What is wrong with an entry of `cloudflare.ice_servers`, without its credential; "" when browsers take it."""
    urls = [server] if isinstance(server, str) else server.addresses
    for url in urls:
        scheme, colon, host = url.partition(":")
        if scheme not in _ICE_SCHEMES or not colon or not host or host.startswith("/") or "@" in host:
            shown = f"{scheme}:…@…" if "@" in url else redact(url)
            return f"is {shown!r}; expected stun:host:port, turn:host:port or turns:host:port, without a user name"
    signed = not isinstance(server, str) and server.username and server.credential
    if not signed and any(url.startswith("turn") for url in urls):
        return (
            "is a TURN server without username and credential, which browsers refuse; write "
            '{ urls = "turn:…", username = "…", credential_file = "…" }, or use [cloudflare.turn]'
        )
    return "" if urls else 'has no urls; write urls = "turns:…"'


def overheard(label: str, key: str, section: object) -> str:
    """Message if credentials sent to the URL in `section.key` could be read in transit; empty if they could not."""
    url = getattr(section, key, "")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return f"{label}.{key} is {url!r}, which is not a URL. Leave it out: the default is right"
    if parts.scheme == "https" or not url or (parts.scheme == "http" and is_loopback(host)):
        return ""
    return (
        f"{label}.{key} is {url!r}: credentials are sent there, so it must begin with https:// "
        "(http:// is for simulators on loopback). Leave it out: the default is right"
    )


_SINK_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED: Final = ("sfu", "cloudflare", "local")


def whip_problems(table: WhipConfig, taken: Collection[str]) -> list[str]:
    """What is wrong with a [[whip]] table, beginning with the key; `taken` are the names of the tables before it.

    The URL is not quoted: it may hold a secret.
    """
    problems = []
    if not _SINK_NAME.fullmatch(table.name) or table.name.lower() in _RESERVED:
        problems.append(
            f"name is {describe(table.name)}; use 1 to 64 letters, digits, dots, hyphens and underscores, and not "
            + ", ".join(_RESERVED)
        )
    elif table.name in taken:
        problems.append(f"name is {describe(table.name)}, which another [[whip]] table has, too; give each its own")
    try:
        parse_endpoint(table.url, table.bearer_token)
    except UnusableUrl as error:
        problems.append(f"url cannot be used: {error}")
    if table.ca_file and (why := authorities_problem(table.ca_file)):
        problems.append(f"ca_file {table.ca_file} {why}")
    return problems


def authorities_problem(ca_file: str) -> str:
    """What is wrong with a file of authorities to trust; "" when it can be used."""
    try:
        ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        return "holds no certificate (PEM)"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', '') or error}"
    return ""
