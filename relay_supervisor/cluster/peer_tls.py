"""TLS among the supervisors of a relay: each shows that it knows the relay's key, and accepts nobody who does not.

The key is that of the bus, which all of them read from the Secret with the state, and of which workers know the public
half alone. An Ed25519 key is derived from it, so that it serves one purpose, with a certificate that it signs itself:
the same at both ends, and the only one that either of them trusts. TLS 1.3, so what is passed on stays secret when the
key becomes known later.
"""

from __future__ import annotations

import datetime
import os
import ssl
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

_PURPOSE: Final = b"nest-relay: TLS between supervisors, 1"
_NAME: Final = "supervisors of nest-relay"
_SINCE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_UNTIL: Final = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
"""The key counts, whatever the clocks say."""


class PeerTls(NamedTuple):
    """Contexts for either side of a connection."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def peer_tls(key: str) -> PeerTls:
    """Contexts of whoever knows `key`, the relay's secret key on the bus."""
    seed = HKDF(hashes.SHA256(), 32, salt=None, info=_PURPOSE).derive(key.encode())
    private = Ed25519PrivateKey.from_private_bytes(seed)
    certificate = _certificate(private)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    held = private.private_bytes(encoding, form, serialization.NoEncryption()) + certificate
    made = [ssl.SSLContext(side) for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
    for context in made:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # addresses of Pods change; the key does not
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=certificate.decode())
        _load(context, held)
    return PeerTls(*made)


def _certificate(private: Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    made = x509.CertificateBuilder(name, name, private.public_key(), 1, _SINCE, _UNTIL).sign(private, None)
    return made.public_bytes(serialization.Encoding.PEM)


def _load(context: ssl.SSLContext, held: bytes) -> None:
    """Have `context` use a key and its certificate: by a file, as Python's ssl reads no other, but in memory alone."""
    file = os.memfd_create("peer tls", os.MFD_CLOEXEC)
    try:
        os.write(file, held)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
