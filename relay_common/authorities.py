"""The certificate authorities that public servers (Google, Cloudflare) are checked against."""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import Final

import httpx

from relay_common.errors import ConfigError

FILE: Final = "SSL_CERT_FILE"
DIRECTORY: Final = "SSL_CERT_DIR"


@functools.cache
def public_authorities() -> ssl.SSLContext:
    """The TLS context of all of this process's clients of public servers.

    It trusts certifi's authorities, or in their place those that SSL_CERT_FILE (PEM) and SSL_CERT_DIR (directories of
    such files under their hashes, between colons) name, as OpenSSL's own default does, which cameras and WHIP servers
    are checked against. Raises ConfigError when these hold none.

    One for all, since each takes 0.7 MB and, to read some 140 certificates, 16 ms.
    """
    file, directory = os.environ.get(FILE), os.environ.get(DIRECTORY)
    if not (file or directory):
        return httpx.create_ssl_context(trust_env=False)
    missing = [one for one in (directory or "").split(os.pathsep) if one and not Path(one).is_dir()]
    if missing:
        raise _unusable(DIRECTORY, missing[0], "there is no such directory")
    try:
        return ssl.create_default_context(cafile=file or None, capath=directory or None)
    except ssl.SSLError:
        raise _unusable(FILE, file, "it holds no certificate (PEM)") from None
    except OSError as error:
        raise _unusable(FILE, file, str(error.strerror)) from None


def named_by_environment() -> str:
    """What the environment names in place of certifi's authorities, as one would set it; empty where it names none."""
    return " ".join(f"{name}={value}" for name in (FILE, DIRECTORY) if (value := os.environ.get(name)))


def _unusable(name: str, value: str | None, why: str) -> ConfigError:
    return ConfigError(
        f"the authorities of {name}={value} cannot be used: {why}",
        hint="Name a file or directory of certificates that this user may read, or unset it to trust certifi's",
    )
