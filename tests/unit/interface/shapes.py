"""Types as text: one line a field, by its path, as programs see it; names of classes do not appear."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tests.unit.interface import product

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", bytes: "bytes", type(None): "null"}


def fields(kind: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    """Every field of a struct and of the structs in it, in the order in which they are written."""
    for field in msgspec.structs.fields(kind):
        name = f"{path}{field.encode_name}"
        inner, marks = _struct_in(field.type)
        text = "object" if inner is not None and not marks else kind_of(field.type)
        yield f"{name} {text} {_default(field)}"
        if inner is not None:
            yield from fields(inner, f"{name}{marks}.")


def kind_of(kind: Any) -> str:
    """A type in the words of JSON, with the values of an enumeration and the bounds of a number."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        bounds = [f"{name} {getattr(arguments[1], name)}" for name in ("gt", "ge", "lt", "le", "min_length")]
        bounds = [bound for bound in bounds if not bound.endswith(" None")]
        return f"{kind_of(arguments[0])} ({', '.join(bounds)})"
    if origin is typing.Literal:
        return "|".join(msgspec.json.encode(choice).decode() for choice in arguments)
    if origin in (list, tuple, frozenset, set):
        return f"array of {kind_of(arguments[0])}"
    if origin in (dict, Mapping):
        return f"map of {kind_of(arguments[0])} to {kind_of(arguments[1])}"
    if origin in (typing.Union, types.UnionType):
        # A struct that stands for a plain value with more to it is recorded by its fields.
        plain = [a for a in arguments if not _is_struct(a) and a is not type(None)]
        return " or ".join(kind_of(a) for a in arguments if not plain or not _is_struct(a))
    if kind is Any:
        return "anything"
    if kind is product.Secret:
        return "secret"
    if issubclass(kind, msgspec.Struct):
        return "object"
    if issubclass(kind, enum.Enum):
        return "|".join(values(kind))
    return _PLAIN[kind]


def values(kind: type[enum.Enum]) -> list[str]:
    """An enumeration's values as JSON, in their order."""
    return [msgspec.json.encode(member.value).decode() for member in kind]


def example(kind: Any, name: str) -> Any:
    """A value of a type that differs from every default; `name` is what a string holds."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated or origin in (typing.Union, types.UnionType):
        return example(arguments[0], name)
    if origin is list:
        return [example(arguments[0], name)]
    if origin is dict:
        return {name: example(arguments[1], name)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return example_of(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return list(kind)[-1]
    return {str: name, int: 300, float: 1.5, bool: True, bytes: b"\x00\xff"}[kind]


def example_of(kind: type[msgspec.Struct], *, required_only: bool = False) -> Any:
    """A struct with every field set, or only those that have no default."""
    wanted = [f for f in msgspec.structs.fields(kind) if f.required or not required_only]
    return kind(**{f.name: example(f.type, f.name) for f in wanted})


def shape(value: Any, path: str = "") -> Iterator[str]:
    """The keys of a JSON document that no type describes, with the types of what they hold."""
    match value:
        case dict():
            yield f"{path or '(all)'} object"
            for key, inner in value.items():
                yield from shape(inner, f"{path}.{key}" if path else key)
        case list():
            yield f"{path or '(all)'} array"
            for inner in value[:1]:
                yield from shape(inner, f"{path}[]")
        case _:
            yield f"{path} {_PLAIN[type(value)]}"


def _struct_in(kind: Any) -> tuple[type[msgspec.Struct] | None, str]:
    """The struct that a type holds, and how it is reached."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if _is_struct(kind):
        return kind, ""
    if origin in (typing.Union, types.UnionType):
        plain = [a for a in arguments if not _is_struct(a) and a is not type(None)]
        return next((a for a in arguments if plain and _is_struct(a)), None), ""
    if origin in (list, tuple) and arguments:
        inner, marks = _struct_in(arguments[0])
        return inner, f"[]{marks}"
    if origin is dict:
        inner, marks = _struct_in(arguments[1])
        return inner, f"{{}}{marks}"
    return None, ""


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if isinstance(value, msgspec.Struct):
        return "default {}"
    return f"default {msgspec.json.encode(value, enc_hook=lambda secret: secret.reveal()).decode()}"
