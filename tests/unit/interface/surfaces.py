"""Everything that programs read of the relay, as text: one list of lines for each surface."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import httpx
import msgspec
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.interface import product, source
from tests.unit.interface.shapes import example_of, fields, kind_of, shape, values
from tests.unit.interface.state import database


def configuration() -> list[str]:
    """Every key with its type and default, and every variable that sets one."""
    lines = []
    for section in msgspec.structs.fields(product.CONFIGURATION):
        if section.name not in product.SECTIONS:
            continue
        kind = product.SECTIONS[section.name]
        lines += [f"{section.name}.{line}" for line in fields(kind)]
        lines += [f"environment {name}" for name in _variables(kind, f"{product.PREFIX}{section.name}_")]
    lines += [f'cameras."NAME".{line}' for line in fields(product.CAMERA_SETTINGS)]
    lines += [f"environment {name}" for name in source.environment() if f"environment {name}" not in lines]
    return sorted(lines)


def _variables(kind: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _variables(field.type, f"{prefix}{field.name}_")
        else:
            yield f"{prefix}{field.name}".upper()
            if field.type is product.Secret:
                yield f"{prefix}{field.name}{product.SECRET_SUFFIX}".upper()


def command_line() -> list[str]:
    """Every verb with its arguments and options, and what programs exit with."""
    lines = []
    for name, program in product.PROGRAMS.items():
        lines += _command(name, program)
    return lines + [f"exit code: {line}" for line in _exit_codes()]


def _command(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    yield f"{name}"
    # As when it is typed: -h is the group's setting, and click keeps the option that it makes first.
    context = click.Context(command, parent, **command.context_settings)
    for parameter in command.get_params(context):
        yield f"{name} {_parameter(parameter)}"
    if isinstance(command, click.Group):
        for verb in sorted(command.list_commands(context)):
            found = command.get_command(context, verb)
            assert found is not None, f"{name} {verb} is listed, but is not there"
            yield from _command(f"{name} {verb}", found, context)


def _parameter(parameter: click.Parameter) -> str:
    info = parameter.to_info_dict()
    kind = {key: value for key, value in info["type"].items() if key in ("min", "max", "choices") and value is not None}
    names = [*parameter.opts, *parameter.secondary_opts]
    notes = [info["type"]["param_type"], *(f"{key}={list(v) if key == 'choices' else v}" for key, v in kind.items())]
    if isinstance(parameter, click.Option):
        notes += [note for note, on in (("flag", parameter.is_flag), ("multiple", parameter.multiple)) if on]
        if isinstance(parameter.default, (str, int, float)) and not isinstance(parameter.default, bool):
            notes.append(f"default={parameter.default!r}")
        notes += [f"environment={parameter.envvar}"] if parameter.envvar else []
    notes += ["required"] if parameter.required else []
    return f"{info['param_type_name']} {' '.join(names)}: {' '.join(map(str, notes))}"


def _exit_codes() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        wrong, alone = Path(directory, "wrong.toml"), Path(directory, "alone.toml")
        wrong.write_text("[http]\nlisten = 8080\n")
        alone.write_text(f'[paths]\nruntime_dir = "{directory}"\n[http]\nlisten = "127.0.0.1:9"\n')
        asking = ("status", "drain", "stop", "reload", "logs", "links")
        named = ("add", "remove", "enable", "disable", "restart", "keyframe", "snapshot")
        tries = {
            "--help": ["--help"],
            "--version": ["--version"],
            "an unknown verb": ["strat"],
            "an unknown option": ["status", "--colour"],
            "a value out of range": ["logs", "--lines", "0"],
            "a missing argument": ["restart"],
            **{f"{v}, the configuration is missing": [v, "-c", f"{directory}/none.toml"] for v in ("run", "status")},
            **{f"{v}, the configuration is wrong": [v, "-c", str(wrong)] for v in ("run", "status", "cameras")},
            "check, something is to be mended": ["check", "-c", str(wrong)],
            **{f"{v}, no supervisor answers": [v, "-c", str(alone)] for v in asking},
            **{f"{v}, no supervisor answers": [v, "Front Door", "-c", str(alone)] for v in named},
            "dump, no supervisor answers": ["dump", "Front Door", f"{directory}/x", "-c", str(alone)],
        }
        for what, arguments in tries.items():
            yield f"{what}: {CliRunner().invoke(product.SUPERVISOR, arguments).exit_code}"
        report = CliRunner().invoke(product.SUPERVISOR, ["check", "--json", "-c", str(wrong)]).stdout
        yield from (f"check --json, the configuration is wrong: {line}" for line in shape(msgspec.json.decode(report)))


def http() -> list[str]:
    """Every path, every field of what is asked and answered, every code of an error, every kind of an event."""
    lines = asyncio.run(_served())
    for where, kind in product.JSON.items():
        lines += [f"{where}: {line}" for line in fields(kind)]
    lines += [f"error code: {code}" for code in source.error_codes()]
    lines += [f"object with {keys}" for keys in source.written_objects()]
    for where, kind in product.ENUMERATIONS.items():
        lines += [f"values of {where}: {' '.join(values(kind))}"]
    return lines


async def _served() -> list[str]:
    clock = product.ManualClock()
    relay = product.FakeRelay(clock, cameras=1)
    app = product.create_app(relay, product.HttpSettings(), clock)
    inner = next(value for value in vars(app).values() if hasattr(value, "routes"))
    lines = sorted(f"route {' '.join(sorted(route.methods))} {route.path}" for route in inner.routes)
    asked = {"GET": ["/livez", "/readyz", "/api/cameras"], "POST": ["/api/cameras/cam00000/restart", "/api/view"]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client:
        for method, paths in asked.items():
            for path in paths:
                reply = await client.request(method, path)
                found = f"{method} {path} answers {reply.status_code}"
                lines += [f"{found}: {line}" for line in shape(reply.json()) if not line.startswith("(all)")]
    await relay.aclose()
    return lines


def events() -> list[str]:
    """Kinds of what is told at /api/events, and the frames as they are sent."""
    return [f"kind {kind}" for kind in source.event_kinds()] + asyncio.run(_frames())


async def _frames() -> list[str]:
    hub = product.EventHub(product.ManualClock(), boot="boot")
    hub.publish("kind", "text", "camera")
    streams = [
        hub.subscribe("", None),
        hub.subscribe("another-7", None),
        hub.subscribe("boot-1", product.FakeRelay(product.ManualClock()).status()),
    ]
    frames = {(await anext(aiter(stream))).split(b'data: {"version')[0] for stream in streams}
    return sorted(f"frame {frame.decode()!r}" for frame in frames)


def metrics() -> list[str]:
    """Every family with its type, and every series with its labels, of a relay with one camera."""
    return asyncio.run(_metrics())


async def _metrics() -> list[str]:
    clock = product.ManualClock()
    relay = product.FakeRelay(clock, cameras=1)
    app = product.create_app(relay, product.HttpSettings(), clock)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client:
        text = (await client.get("/metrics")).text
    await relay.aclose()
    lines = []
    for family in text_string_to_metric_families(text):
        lines.append(f"{family.type} {family.name}")
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            lines.append(f"{family.type} {family.name}: {sample.name}{{{labels}}}")
    return sorted(lines)


def bus() -> list[str]:
    """Every message with its fields, and the bytes of one that has them all and of one that has only what it must."""
    ends = product.Bus(Path("/run/relay"))
    lines = [
        f"protocol {product.PROTOCOL}",
        f"largest frame {product.MAX_FRAME}",
        f"control {ends.unkeyed.control_endpoint}",
        f"stats {ends.unkeyed.stats_endpoint}",
    ]
    directions = {
        "worker to supervisor": typing.get_args(product.FROM_WORKER),
        "supervisor to worker": typing.get_args(product.FROM_SUPERVISOR),
        "stats": (product.STATS,),
    }
    for direction, messages in directions.items():
        for message in messages:
            config = message.__struct_config__
            name = f"{direction}: {config.tag_field}={config.tag}"
            lines += [name, *(f"{name}: {line}" for line in fields(message))]
            lines.append(f"{name}: all fields {product.encode_message(example_of(message)).hex()}")
            least = example_of(message, required_only=True)
            lines.append(f"{name}: least {product.encode_message(least).hex()}")
    return [
        *lines,
        f"with keys: control {ends.keyed.control_endpoint}",
        f"with keys: stats {ends.keyed.stats_endpoint}",
    ]


def log() -> list[str]:
    """The two forms of a line, and every key that may stand in one."""
    lines = [f"category {name}" for name in product.LOG_CATEGORIES]
    lines += [f"key {key}" for key in source.log_keys()]
    record = logging.makeLogRecord(
        {
            "name": "relay_part.piece",
            "levelname": "WARNING",
            "msg": "said %s",
            "args": ("this",),
            "created": 1_700_000_000.123,
            "msecs": 123.0,
            "exc_info": (ValueError, ValueError("why"), None),
            "camera": "Front door",
            "instance": "cam00000.1",
            "pid": 7,
        }
    )
    with _utc():
        lines.append(f"console {product.ConsoleFormatter(colour=False).format(record)!r}")
    lines.append(f"json {product.JsonFormatter().format(record)}")
    return lines + _levels()


def _levels() -> list[str]:
    root, stderr = logging.getLogger(), sys.stderr
    before = root.handlers[:], root.level, logging.raiseExceptions
    lines = []
    try:
        for style in ("console", "json"):
            product.configure_log("info", style, {"camera": "Front door", "instance": "cam00000.1"})
            filtered = logging.makeLogRecord({"name": "relay_part", "levelname": "INFO", "msg": "text"})
            handler = root.handlers[0]
            handler.filter(filtered)
            keys = {"camera", "instance"} & vars(filtered).keys()
            lines.append(f"every line of a worker ({style}): {' '.join(sorted(keys))}")
    finally:
        root.handlers[:], root.level, logging.raiseExceptions = before
        assert sys.stderr is stderr
    return lines


@contextlib.contextmanager
def _utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def stored() -> list[str]:
    """The state database's schema and rows, and what the files beside it hold."""
    lines = [f"file {name}" for name in product.STATE_FILES]
    for where, kind in product.STORED.items():
        lines += [f"{where}: {line}" for line in fields(kind)]
    lines += [f"leases.protocol: {kind_of(product.Protocol)}"]
    return lines + asyncio.run(database())


SURFACES: dict[str, Callable[[], list[str]]] = {
    "configuration": configuration,
    "command_line": command_line,
    "http": http,
    "events": events,
    "metrics": metrics,
    "bus": bus,
    "stored": stored,
    "log": log,
}
"""Each surface by the name of its file in `recorded`."""
