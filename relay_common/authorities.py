"""The certificate authorities that public servers (Google, Cloudflare) are checked against."""

from __future__ import annotations

import functools
import ssl

import httpx


@functools.cache
def public_authorities() -> ssl.SSLContext:
    """The TLS context of all of this process's clients of public servers: certifi's authorities, not the environment's.

    One for all, since each takes 0.7 MB and, to read some 140 certificates, 16 ms.
    """
    return httpx.create_ssl_context(trust_env=False)
