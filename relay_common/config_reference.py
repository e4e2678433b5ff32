"""The configuration reference, generated from the types.

python -m relay_common.config_reference > docs/configuration.md
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from typing import Any

import msgspec

from relay_common import config
from relay_common.config import SECRET_SUFFIX, SECTIONS, TABLES, IceServer
from relay_common.config_environment import variable_for
from relay_common.config_mistakes import default_of
from relay_common.secrets import Secret

HEAD = """\
# Configuration

One TOML file, `relay.toml` by default. This page is generated from `relay_common/config.py`; a test compares them.

- Every key can be overridden from the environment: `rtsp.read_timeout` by `RELAY_RTSP_READ_TIMEOUT`. Values are parsed
  as TOML; a value that is not valid TOML, or is wanted as a string, is taken as it is. A variable `RELAY_…` that is no
  key is ignored, with a warning from `run` and `check`.
- Every secret can be given as a file: `client_secret_file = "…"` in place of `client_secret`. Make these files
  readable only by you (`chmod 600`); `relay-supervisor check` warns otherwise.
- Relative paths, of these and of any other file or directory, start at the configuration file's directory.
- `relay-supervisor check` reports every mistake at once, with the fix: whatever `run` would refuse, in the same words.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD]
    for name, struct in SECTIONS.items():
        title = f"[[{name}]]" if name in ("nest", "whip") else f"[{name}]"
        parts.append(_section(title, struct, name, skip=set(TABLES)))
        if name == "cloudflare":
            parts.append(_section("A table in ice_servers", config.IceServer, "", skip=set()).replace("`", "", 2))
        if name == "nest":
            parts.append("One table per account or project; each has its own command budget.\n")
        elif name == "whip":
            parts.append("Any number of tables. One with a mistake costs its own sink; `check` names it.\n")
    parts.append(_section('[cameras."NAME"]', config.CameraSettings, "", skip=set()))
    parts.append("NAME is a camera's display name or device id.\n")
    return "\n".join(parts)


def _section(title: str, struct: type[msgspec.Struct], name: str, skip: set[str]) -> str:
    notes = _docstrings(struct)
    lines = [
        f"## `{title}`",
        "",
        inspect.getdoc(struct) or "",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for field in msgspec.structs.fields(struct):
        if field.name in skip:
            continue
        kind = "secret" if field.type is Secret else _type(field.type)
        secret = f" (or `{field.name}{SECRET_SUFFIX}`)" if field.type is Secret else ""
        lines.append(f"| `{field.name}`{secret} | {kind} | {_default(field)} | {notes.get(field.name, '')} |")
    if name:
        lines += ["", f"Environment: `{variable_for(name, '')}…`"]
    return "\n".join(lines) + "\n"


def _docstrings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The string that follows each field in the source, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for item, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(after, ast.Expr):
            found[item.target.id] = " ".join(str(ast.literal_eval(after.value)).split()).replace("|", "\\|")
    return found


def _type(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _type(arguments[0]) + _bounds(arguments[1])
    if origin is typing.Literal:
        return " or ".join(f'`"{choice}"`' for choice in arguments)
    if origin is list:
        return f"array of {_type(arguments[0]).replace(' or ', 's or ')}s"
    if arguments:
        return " or ".join(_type(argument) for argument in arguments)
    return {str: "string", int: "integer", float: "number", bool: "boolean", IceServer: "table"}.get(kind, str(kind))


def _bounds(meta: msgspec.Meta) -> str:
    low = f"> {meta.gt:g}" if meta.gt is not None else f"≥ {meta.ge:g}" if meta.ge is not None else ""
    high = f"≤ {meta.le:g}" if meta.le is not None else ""
    bounds = ", ".join(bound for bound in (low, high) if bound)
    return f" ({bounds})" if bounds else ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.type is Secret:
        return "none"
    return f"`{msgspec.json.encode(default_of(field)).decode()}`"


if __name__ == "__main__":
    print(reference(), end="")
