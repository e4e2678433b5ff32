"""Reading the configuration: one TOML file, overridden by the environment, checked before anything starts.

Every key can be overridden by an environment variable `RELAY_<SECTION>_<KEY>` (for example
`RELAY_HTTP_LISTEN`); every secret can be given as a file (`client_secret_file = "…"`). All mistakes are reported at
once, each with the key, what it holds and the fix.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import msgspec

from relay_common import config_environment
from relay_common.config import (
    SECTIONS,
    CamerasConfig,
    CameraSettings,
    CloudflareConfig,
    Config,
    HttpConfig,
    IceServer,
    PathsConfig,
    WhipConfig,
    keys_of,
    secret_fields,
)
from relay_common.config_accounts import account_problems
from relay_common.config_cluster import cluster_problems
from relay_common.config_environment import variable_for
from relay_common.config_forms import WHERE
from relay_common.config_local import local_problems
from relay_common.config_mistakes import (
    describe,
    ice_problem,
    kind_of,
    mismatch,
    overheard,
    suggest,
    toml_hint,
    whip_problems,
)
from relay_common.errors import ConfigError
from relay_common.secrets import Secret, others_may_read

_CREDENTIALS_GO_TO = {"nest": ("api_base_url", "token_url"), "cloudflare": ("api_base_url",)}
"""Addresses that tokens and secrets are sent to."""

_PATHS = ("state_dir", "runtime_dir", "ca_file", "worker_template")

ENCODING: Final = "utf-8-sig"
"""UTF-8, with the mark at its beginning that editors of Windows write, or without."""


def load(path: Path | None, environ: MutableMapping[str, str] | None = None) -> Config:
    """Read `path` (may be None) and the environment; raise ConfigError listing every mistake.

    Secrets found in the environment are taken out of it, so that no child process inherits them.
    """
    environ = os.environ if environ is None else environ
    document = _read(path) if path is not None else {}
    return parse(document, environ, source=str(path) if path else "environment", base=path.parent if path else None)


class NotToml(ConfigError):
    """The file is there, and cannot be read as TOML."""


def load_interface(path: Path | None, environ: Mapping[str, str] | None = None) -> tuple[PathsConfig, HttpConfig]:
    """Read only what a client of a running supervisor needs; the rest of the file may be invalid.

    A token file that this user may not read counts as no token: the Unix socket may still admit them. Raises
    ConfigError for mistakes in [paths] and [http], NotToml when the file cannot be read as a whole.
    """
    return _interface(_read(path) if path is not None else {}, path, environ)


def salvage_interface(path: Path, environ: Mapping[str, str] | None = None) -> tuple[PathsConfig, HttpConfig]:
    """The same of a file that is not valid TOML: its tables [paths] and [http] where these are valid by themselves.

    Raises ConfigError as `load_interface` does.
    """
    document: dict[str, Any] = {}
    for table in re.split(r"^(?=[ \t]*\[)", path.read_bytes().decode(ENCODING, errors="replace"), flags=re.MULTILINE):
        with contextlib.suppress(ValueError, RecursionError):
            read = tomllib.loads(table)
            document |= {name: read[name] for name in ("paths", "http") if isinstance(read.get(name), dict)}
    return _interface(document, path, environ)


def _interface(
    document: Mapping[str, Any], path: Path | None, environ: Mapping[str, str] | None
) -> tuple[PathsConfig, HttpConfig]:
    environ = dict(os.environ if environ is None else environ)
    wanted = ("RELAY_PATHS_", "RELAY_HTTP_")
    problems: list[str] = []
    sections = _sections({key: document[key] for key in ("paths", "http") if key in document}, problems)
    origins = config_environment.apply(sections, {k: v for k, v in environ.items() if k.startswith(wanted)})
    base = path.parent if path else None
    paths = _build("paths", PathsConfig, sections["paths"][0], base, problems)
    http = sections["http"][0]
    if "token_file" in http and _secret("http", "token", http, base, []) is None:
        del http["token_file"]
    built = _build("http", HttpConfig, http, base, problems)
    if problems:
        raise ConfigError(
            f"{path or 'environment'}:" + "".join(f"\n  {origins.attribute_problem(p)}" for p in problems)
        )
    return paths, built


def parse(
    document: Mapping[str, Any],
    environ: MutableMapping[str, str] | None = None,
    *,
    source: str = "configuration",
    base: Path | None = None,
) -> Config:
    """Check a parsed TOML document against the types; `base` is where relative secret files are looked for."""
    problems: list[str] = []
    sections = _sections(document, problems)
    origins = config_environment.apply(sections, environ if environ is not None else {})
    _leave_cloudflare_out(sections, origins)
    values: dict[str, Any] = dict(zip(("whip", "whip_mistakes"), whip_tables(sections["whip"], base), strict=True))
    for name, struct in SECTIONS.items():
        if name == "whip":
            continue
        tables = sections[name]
        built = [_build(_label(name, i, len(tables)), struct, t, base, problems) for i, t in enumerate(tables)]
        values[name] = built if name == "nest" else built[0]
        for i, section in enumerate(built):
            problems += [
                p
                for key in _CREDENTIALS_GO_TO.get(name, ())
                if (p := overheard(_label(name, i, len(built)), key, section))
            ]
    problems += _without_cloudflare(values, sections)
    if values["local"] is not None:
        problems += local_problems(values["local"])
    if values["cluster"] is not None:
        problems += cluster_problems(values["cluster"])
        problems += account_problems([one for one in values["nest"] if one is not None], values["cluster"])
    turn = values.pop("cloudflare.turn")
    if turn is not None and bool(turn.key_id) != bool(turn.api_token):
        missing = "api_token" if turn.key_id else "key_id"
        problems.append(_missing("cloudflare.turn", missing, secret=missing == "api_token"))
    if problems:
        lines = "".join(f"\n  {origins.attribute_problem(p)}" for p in problems)
        raise ConfigError(f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''}{lines}")
    values["cloudflare"] = msgspec.structs.replace(values["cloudflare"], turn=turn)
    return Config(**values)


def _without_cloudflare(values: dict[str, Any], sections: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What is missing in [cloudflare], which may be left out as a whole where cameras can be watched elsewhere."""
    cloudflare, local = values["cloudflare"], values["local"]
    if cloudflare is None:
        return []
    written = bool(sections["cloudflare"][0] or sections["cloudflare.turn"][0])
    if not written and (local is None or local.addresses or sections["whip"]):
        return []
    missing = [
        _missing("cloudflare", key, secret=key == "app_secret")
        for key in ("app_id", "app_secret")
        if not getattr(cloudflare, key)
    ]
    other = '; or, to watch without an account, write listen = "127.0.0.1" into [local]'
    return missing if cloudflare.app_id else [f"{missing[0]}{other}", *missing[1:]]


def _leave_cloudflare_out(sections: dict[str, list[dict[str, Any]]], origins: Mapping[str, str]) -> None:
    """Forget the secret that a unit or container names in any case, where cameras are watched elsewhere without it."""
    table, elsewhere = sections["cloudflare"][0], sections["local"][0].get("listen") or sections["whip"]
    named = {key for key, value in table.items() if value != "" and f"cloudflare.{key}" not in origins}
    if (
        elsewhere
        and not named
        and table.keys() <= {"app_id", "app_secret", "app_secret_file"}
        and not table.get("app_id")
    ):
        table.clear()


def whip_tables(tables: list[dict[str, Any]], base: Path | None) -> tuple[list[WhipConfig], list[str]]:
    """The [[whip]] tables that can be used, and what is wrong with the others: each costs its own sink only."""
    usable: list[WhipConfig] = []
    mistakes: list[str] = []
    for index, table in enumerate(tables):
        label, problems = f"whip[{index}]", list[str]()
        built = _build(label, WhipConfig, table, base, problems)
        if built is not None:
            problems += [f"{label}.{problem}" for problem in whip_problems(built, {one.name for one in usable})]
        if problems:
            mistakes += problems
        else:
            usable.append(built)
    return usable, mistakes


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode(ENCODING)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist",
            hint="Run `relay-supervisor auth` to create one, or choose another file with --config",
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise NotToml(f"{path} is not valid TOML: {error.reason}", hint="Save it as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotToml(f"{path} is not valid TOML: {error}", hint=toml_hint(text, str(error))) from None
    except RecursionError:
        raise NotToml(f"{path} is not valid TOML: too many levels of nesting") from None
    except ValueError:  # of Python's, for a number of thousands of digits
        raise NotToml(f"{path} is not valid TOML: a number is too long") from None


def _sections(document: Mapping[str, Any], problems: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Each section as a list of tables: only [[nest]] and [[whip]] may have more than one, and [[whip]] none."""
    document = _with_subsections(document)
    for key in document.keys() - SECTIONS.keys():
        problems.append(f"[{key}] is not a section.{suggest(key, SECTIONS)}")
    sections: dict[str, list[dict[str, Any]]] = {}
    for name in SECTIONS:
        value = document.get(name, [] if name == "whip" else {})
        several = isinstance(value, list) and (name == "whip" or (name == "nest" and bool(value)))
        tables = value if several else [value]
        if not all(isinstance(t, dict) for t in tables):
            problems.append(f"{name} is {describe(value)}; it must be a table: write [{name}] on a line of its own")
            tables = [{}]
        sections[name] = [dict(t) for t in tables]
    cameras = sections["cameras"][0]
    tables = {k: cameras.pop(k) for k in list(cameras) if isinstance(cameras[k], dict)}
    problems += ['cameras.settings is not a key: write [cameras."NAME"]'] if "settings" in cameras else []
    cameras["settings"] = tables
    return sections


def _with_subsections(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with [cloudflare.turn] beside [cloudflare], by that name."""
    flat = dict(document)
    for name in SECTIONS:
        outer, dot, inner = name.partition(".")
        if dot and isinstance(flat.get(outer), dict) and inner in flat[outer]:
            flat[name] = flat[outer][inner]
            flat[outer] = {key: value for key, value in flat[outer].items() if key != inner}
    return flat


def _label(name: str, index: int, count: int) -> str:
    return f"{name}[{index}]" if count > 1 else name


def _build(
    label: str, struct: type[msgspec.Struct], table: dict[str, Any], base: Path | None, problems: list[str]
) -> Any:
    """One section as its struct; every mistake found is added to `problems`."""
    before = len(problems)
    known = keys_of(struct) | ({"settings"} if struct is CamerasConfig else set())
    for key in table.keys() - known:
        problems.append(f"{label}.{key} is not a key.{suggest(key, known - {'settings'})}")
    values = {k: v for k, v in table.items() if (k in known and not k.endswith("_file")) or k == "ca_file"}
    for secret in secret_fields(struct):
        value = _secret(label, secret, table, base, problems)
        values.pop(secret, None)
        if value is not None:
            values[secret] = value
    for field in msgspec.structs.fields(struct):
        if field.required and field.name not in values:
            if not any(p.startswith(f"{label}.{field.name}") for p in problems[before:]):
                problems.append(_missing(label, field.name, secret=field.type is Secret))
            continue
        if struct is CamerasConfig and field.name == "settings":
            values["settings"] = _camera_settings(values["settings"], problems)
        elif (
            struct in (CloudflareConfig, WhipConfig)
            and field.name == "ice_servers"
            and isinstance(values.get(field.name), list)
        ):
            values[field.name] = _ice_servers(f"{label}.{field.name}", values[field.name], base, problems)
        elif field.name in values and field.type is not Secret:
            try:
                values[field.name] = msgspec.convert(values[field.name], field.type)
            except msgspec.ValidationError as error:
                problems.append(mismatch(label, field, values[field.name], error))
            except UnicodeEncodeError:  # from an environment that is not UTF-8
                problems.append(f"{label}.{field.name} is not text (UTF-8)")
            else:
                if field.name in _PATHS and (written := values[field.name]):
                    why = _not_a_path(written)
                    problems += [f"{label}.{field.name} {why}"] if why else []
                    values[field.name] = written if why else str(_placed(written, base))
    return struct(**values) if len(problems) == before else None


def _camera_settings(tables: Any, problems: list[str]) -> dict[str, CameraSettings]:
    built = {name: _build(f'cameras."{name}"', CameraSettings, t, None, problems) for name, t in tables.items()}
    return {name: settings for name, settings in built.items() if settings is not None}


def _ice_servers(label: str, given: list[Any], base: Path | None, problems: list[str]) -> list[str | IceServer]:
    servers: list[str | IceServer] = []
    for place, value in enumerate(given):
        at = f"{label}[{place}]"
        if isinstance(value, str):
            servers.append(value)
        elif isinstance(value, dict):
            servers.append(_build(at, IceServer, value, base, problems))
        else:
            problems.append(f"{at} is {describe(value)}; expected a URL or a table with urls, username and credential")
    problems += [
        f"{label}[{i}] {why}" for i, one in enumerate(servers) if one is not None and (why := ice_problem(one))
    ]
    return servers


def _missing(label: str, key: str, *, secret: bool) -> str:
    section, _, index = label.partition("[")
    variable = f", or {variable_for(section, key)}" if section in SECTIONS and index in ("", "0]") else ""
    also = f", {key}_file = a file that holds it" if secret else ""
    return f"{label}.{key} is missing. Set it to {WHERE.get(key, 'a value')} ({key} = …{also}{variable})"


def _secret(label: str, name: str, table: dict[str, Any], base: Path | None, problems: list[str]) -> Secret | None:
    direct, file = table.get(name), table.get(f"{name}_file")
    if direct is not None and file is not None:
        problems.append(f"{label}.{name} and {label}.{name}_file are both set; keep one of them")
        return None
    if direct is not None:
        if isinstance(direct, str) and direct.strip():
            return Secret(direct.strip())
        problems.append(f"{label}.{name} is {kind_of(direct)}; expected a non-empty string")
        return None
    if file is None:
        return None
    if not isinstance(file, str) or not file:
        problems.append(f"{label}.{name}_file is {describe(file)}; expected the path of a file")
        return None
    if unusable := _not_a_path(file):
        problems.append(f"{label}.{name}_file {unusable}")
        return None
    path = _placed(file, base)
    try:
        text = path.read_text(ENCODING).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        problems.append(f"{label}.{name}_file: {path} cannot be read: {why}")
        return None
    if not text:
        problems.append(f"{label}.{name}_file: {path} is empty")
        return None
    return Secret(text)


def _placed(path: str, base: Path | None) -> Path:
    """The path that is meant: a relative one starts at the configuration file's directory."""
    return (base or Path()) / Path(path).expanduser()


def _not_a_path(text: str) -> str:
    """What is wrong with a path; "" when it may be one."""
    try:
        Path(text).expanduser()
    except RuntimeError:
        return f"begins with {text.split('/')[0]!r}: there is no such user's home directory"
    return "holds a NUL character" if "\0" in text else ""


def loose_secret_files(document: Mapping[str, Any], base: Path) -> list[str]:
    """Secret files named in `document` that other users of this machine may read."""
    loose: list[str] = []
    for table in _tables(document):
        for key, value in table.items():
            if key.endswith("_file") and key != "ca_file" and isinstance(value, str):
                with contextlib.suppress(OSError, ValueError, RuntimeError):
                    path = base / Path(value).expanduser()
                    if others_may_read(path.stat(), os.geteuid(), os.getegid()):
                        loose.append(str(path))
    return loose


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every table in a document, at whatever depth."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _tables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tables(inner)
