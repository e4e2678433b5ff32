"""The files that `auth` reads and writes: an initial configuration, and one file per secret, mode 0600.

In an existing configuration only single values are corrected; everything else in it stays as it is written.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relay_common import files
from relay_common.config import NestConfig, PathsConfig
from relay_common.config_file import ENCODING
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.state.directories import write_problem

SECRETS_DIR: Final = "secrets"

_TEMPLATE: Final = """\
# Configuration of nest-relay; `relay-supervisor check` says whether it is right.
# Every key can be overridden in the environment: RELAY_SECTION_KEY.

[nest]
project_id = "{project_id}"
client_id = "{client_id}"
client_secret_file = "{client_secret_file}"
refresh_token_file = "{refresh_token_file}"
{endpoints}
{watching}
[cameras]
include = "all"             # or a list of names: ["Front Door", "Driveway"]
# [cameras."Driveway"]
# enabled = true
# audio = false

[http]
{http}
"""
_CLOUDFLARE: Final = """\
# From dash.cloudflare.com, Realtime > SFU: create an application there.
[cloudflare]
{keys}"""
_HOME: Final = """\
# Watched at home only, without a Cloudflare account. `udp_ports = "8560-8599"` makes the ports known to a firewall.
[local]
listen = "{address}"
announce = ["{address}"]
"""
_LINKS: Final = f"""
# go2rtc and others that send no token are given a link: "Share a link" in a camera's large view.
[viewers]
access = "links"
link_secret_file = "{SECRETS_DIR}/link_secret"
"""
_OPEN: Final = 'listen = "127.0.0.1:8080"   # anywhere else needs a token: token_file = "…"'


@dataclass(frozen=True)
class Existing:
    """The existing configuration file; values are empty where it has none."""

    document: dict[str, Any]

    def nest(self, key: str) -> str:
        """A key of the first [[nest]] table."""
        section = self.document.get("nest", {})
        table = section[0] if isinstance(section, list) and section else section
        value = table.get(key, "") if isinstance(table, dict) else ""
        return value if isinstance(value, str) else ""

    def secret(self, key: str, base: Path) -> str:
        """A secret of [nest], from the file that holds it when there is one."""
        if file := self.nest(f"{key}_file"):
            path = base / Path(file).expanduser()
            return path.read_text(ENCODING).strip() if path.is_file() else ""
        return self.nest(key)

    @property
    def state_dir(self) -> Path:
        """Where the supervisor with this configuration keeps its state."""
        paths = self.document.get("paths", {})
        state = os.environ.get("RELAY_PATHS_STATE_DIR") or (paths.get("state_dir", "") if paths else "")
        return PathsConfig(state_dir=str(state)).state()


def read(path: Path) -> Existing:
    """The file, valid or not; raises ConfigError when it is not TOML."""
    if not path.exists():
        return Existing({})
    try:
        return Existing(tomllib.loads(path.read_text(ENCODING)))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="Correct it, or name another file") from None


class SetupFiles:
    """What `auth` writes: a configuration where there was none, and one file for each secret."""

    def __init__(self, path: Path, existing: Existing) -> None:
        self.path, self._existing = path, existing
        secrets = path.parent / SECRETS_DIR
        self.app_secret, self.http_token = secrets / "cloudflare_app_secret", secrets / "http_token"
        self._link_secret = secrets / "link_secret"
        self._client_secret, self._refresh_token = secrets / "google_client_secret", secrets / "google_refresh_token"
        if file := existing.nest("refresh_token_file"):
            self._refresh_token = path.parent / Path(file).expanduser()
        if file := existing.nest("client_secret_file"):
            self._client_secret = path.parent / Path(file).expanduser()

    def replaced(self, nest: NestConfig) -> list[Path]:
        """The secret files that exist and that `write` will replace; raises ConfigError where it could not write."""
        for folder in (self.path.parent, self._refresh_token.parent):
            if why := write_problem(folder):
                raise ConfigError(f"{folder} cannot be written: {why}", hint="Name a configuration elsewhere: --config")
        files = [self._refresh_token, *([self._client_secret] if self._writes_client_secret(nest) else [])]
        return [file for file in files if file.exists()]

    def write(self, nest: NestConfig) -> list[str]:
        """Write what is new, the token first; returns in words what was done, and what remains to be done."""
        if not self._existing.document:
            write_private(self._refresh_token, nest.refresh_token.reveal() + "\n")
            write_private(self._client_secret, nest.client_secret.reveal() + "\n")
            write_private(self.path, new_configuration(nest))
            return [f"{self.path} is written; its secrets are in {self._refresh_token.parent}."]
        notes = [self._write_token(nest.refresh_token)]
        if self._writes_client_secret(nest):
            write_private(self._client_secret, nest.client_secret.reveal() + "\n")
            notes.append(f"The client secret in {self._client_secret} is replaced.")
        return notes + self._correct(nest)

    def write_cloudflare(self, nest: NestConfig, app_id: str, secret: Secret) -> None:
        """Add Cloudflare's application to the configuration that `write` wrote."""
        write_private(self.app_secret, secret.reveal() + "\n")
        write_private(self.path, new_configuration(nest, app_id))

    def write_home(self, nest: NestConfig, address: str, http_listen: str, token: Secret, links: Secret) -> None:
        """Have cameras watched at `address`, and not at Cloudflare; `token` is "" on loopback.

        With a token players that send none come by a link, signed with `links`.
        """
        watching = _HOME.format(address=address)
        if token:
            write_private(self.http_token, token.reveal() + "\n")
            write_private(self._link_secret, links.reveal() + "\n")
            watching += _LINKS
        http = f'listen = "{http_listen}"\n'
        http += f'token_file = "{SECRETS_DIR}/http_token"' if token else "# anywhere else needs a token: token_file"
        write_private(self.path, new_configuration(nest, watching=watching, http=http))

    def _writes_client_secret(self, nest: NestConfig) -> bool:
        if not self._existing.document:
            return True
        in_file = bool(self._existing.nest("client_secret_file"))
        return in_file and self._existing.secret("client_secret", self.path.parent) != nest.client_secret.reveal()

    def _correct(self, nest: NestConfig) -> list[str]:
        """Put values that were given anew into the existing file."""
        values = {"project_id": nest.project_id, "client_id": nest.client_id}
        if self._existing.nest("client_secret"):
            values["client_secret"] = nest.client_secret.reveal()
        notes = []
        for key, value in values.items():
            if self._existing.nest(key) == value:
                continue
            text = corrected(self.path.read_text(ENCODING), key, value)
            shown = f'{key} = "…"' if key == "client_secret" else f'{key} = "{value}"'
            if text is None:
                notes.append(f"Put {shown} into [nest] of {self.path}: another stands there.")
            else:
                write_private(self.path, text)
                notes.append(f"{self.path}: {shown} is written.")
        return notes

    def _write_token(self, token: Secret) -> str:
        inline = self._existing.nest("refresh_token")
        if inline and (text := corrected(self.path.read_text(ENCODING), "refresh_token", token.reveal())):
            write_private(self.path, text)
            return f"The refresh token in {self.path} is replaced."
        write_private(self._refresh_token, token.reveal() + "\n")
        if self._existing.nest("refresh_token_file"):
            return f"The refresh token in {self._refresh_token} is replaced."
        return (
            f'Put refresh_token_file = "{self._refresh_token}" into [nest] of {self.path}, in place of refresh_token.'
        )


def corrected(text: str, key: str, value: str) -> str | None:
    """The text with only `key` of its first [nest] table changed, to `value`; None if that is not sure to work."""
    header = re.search(r"^[ \t]*(\[nest\]|\[\[nest\]\])[^\n]*$", text, re.MULTILINE)
    if header is None:
        return None
    start = header.end()
    following = re.search(r"^[ \t]*\[", text[start:], re.MULTILINE)
    end = start + following.start() if following else len(text)
    line = f"{key} = {json.dumps(value)}"
    table, found = re.subn(
        rf"^[ \t]*{key}[ \t]*=[ \t]*(\"[^\"\n]*\"|'[^'\n]*')",
        lambda _: line,
        text[start:end],
        count=1,
        flags=re.MULTILINE,
    )
    new = text[:start] + (table if found else f"\n{line}{table}") + text[end:]
    try:
        before, after = tomllib.loads(text), tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        return None
    first = before["nest"][0] if isinstance(before["nest"], list) else before["nest"]
    first[key] = value
    return new if before == after else None


def new_configuration(nest: NestConfig, app_id: str = "", *, watching: str = "", http: str = _OPEN) -> str:
    """The text of a configuration whose secrets are in files beside it; `watching` takes the place of [cloudflare]."""
    defaults = NestConfig(project_id="-", client_id="-", client_secret=Secret(""), refresh_token=Secret(""))
    endpoints = "".join(
        f'{key} = "{getattr(nest, key)}"\n'
        for key in ("api_base_url", "token_url")
        if getattr(nest, key) != getattr(defaults, key)
    )
    cloudflare = f'app_id = "{app_id}"\napp_secret_file = "{SECRETS_DIR}/cloudflare_app_secret"\n'
    if not app_id:
        cloudflare = "".join(f"# {line}\n" for line in cloudflare.splitlines())
    return _TEMPLATE.format(
        project_id=nest.project_id,
        client_id=nest.client_id,
        client_secret_file=f"{SECRETS_DIR}/google_client_secret",
        refresh_token_file=f"{SECRETS_DIR}/google_refresh_token",
        endpoints=endpoints,
        watching=watching or _CLOUDFLARE.format(keys=cloudflare),
        http=http,
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all; raises ConfigError."""
    try:
        files.write_private(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="Name a file you may write") from None
