"""The files that `auth` reads and writes: an initial configuration, and one file per secret, mode 0600.

Existing files are overwritten only if the caller says so.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relay_common import files
from relay_common.config import NestConfig, PathsConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret

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
# From dash.cloudflare.com, Realtime > SFU: create an application there.
[cloudflare]
{cloudflare}
[cameras]
include = "all"             # or a list of names: ["Front Door", "Driveway"]
# [cameras."Driveway"]
# enabled = true
# audio = false

[http]
listen = "127.0.0.1:8080"   # anywhere else needs a token: token_file = "…"
"""


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
            return path.read_text().strip() if path.is_file() else ""
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
        return Existing(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="Correct it, or name another file") from None


def new_configuration(nest: NestConfig, app_id: str, base: Path) -> str:
    """The text of a configuration whose secrets are in files beside it."""
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
        cloudflare=cloudflare,
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all; raises ConfigError."""
    try:
        files.write_private(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="Name a file you may write") from None
