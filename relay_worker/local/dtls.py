"""One viewer's DTLS (RFC 6347) and the SRTP keys that come of it (RFC 5764), by OpenSSL between buffers of memory.

No I/O: `receive_datagram` what came, `take_datagrams` what is to be sent, `poll` at `next_deadline`. OpenSSL keeps the
time of its retransmissions itself, by the system's clock.

A memory buffer knows no datagrams. What OpenSSL writes is cut at the records, each of which fits into one, and no more
than `MTU` bytes of them are put together: what does not fit the path would never arrive, however often it is repeated.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import pylibsrtp
from aiortc.rtcdtlstransport import SRTP_PROFILES, X509_DIGEST_ALGORITHMS, certificate_digest, generate_certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

MTU: Final = 1200
"""Bytes of the largest datagram: it fits a path of 1280 bytes over IPv6, with a little room for tunnels."""
MAX_DATAGRAMS: Final = 200
"""Datagrams that a peer may send before it is connected; a handshake takes about ten."""

_DTLS_1_2: Final = 0xFEFD
"""DTLS 1.3 has records without a length, and every browser speaks 1.2."""
_RECORD_HEADER: Final = 13
_CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
)
_PROFILES: Final = sorted(SRTP_PROFILES, key=lambda one: (b"AEAD" not in one.openssl_profile, one.key_length))
"""What SRTP may be protected by, the cheapest first: AES-CM with HMAC-SHA1 costs 1.7 times as much as AES-128-GCM."""
_KEYS: Final = b"EXTRACTOR-dtls_srtp"


class DtlsState(enum.Enum):
    """Of one association; FAILED and CLOSED are final."""

    HANDSHAKE = "handshake"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


class DtlsCertificate:
    """A key and its self-signed certificate."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate: x509.Certificate = generate_certificate(self.key)

    @property
    def fingerprint(self) -> str:
        """By SHA-256, as SDP states it (RFC 8122)."""
        return certificate_digest(self.certificate, "sha-256")


class DtlsEndpoint:
    """Our end of one association: passive (`server`), or active.

    `fingerprints` are those of the peer, pairs of hash function and value; the certificate that it shows has to match
    each one whose function is known, and one of them has to be. `unread` counts datagrams that were not read.
    """

    def __init__(
        self, certificate: DtlsCertificate, fingerprints: Sequence[tuple[str, str]], *, server: bool = True
    ) -> None:
        self._fingerprints, self._server = fingerprints, server
        self._connection = _connection(certificate, server=server)
        self._came = self.unread = 0
        self._deadline: float | None = None
        self.state = DtlsState.HANDSHAKE
        self.reason = ""
        """Why it failed, in our words."""
        self.sending: pylibsrtp.Session | None = None
        self.receiving: pylibsrtp.Session | None = None

    def start(self, now: float) -> None:
        """Begin the handshake, where it is ours to begin."""
        if not self._server:
            self._advance(now)

    def receive_datagram(self, datagram: bytes, now: float) -> None:
        """Process a datagram whose first octet is 20 to 63."""
        self._came += 1
        if self.state is DtlsState.HANDSHAKE and self._came <= MAX_DATAGRAMS:
            self._connection.bio_write(datagram)
            self._advance(now)
        elif self.state is DtlsState.CONNECTED:
            self._connection.bio_write(datagram)
            self._read_on()
        else:
            self.unread += 1

    def _advance(self, now: float) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            left = self._connection.DTLSv1_get_timeout()
            self._deadline = None if left is None else now + left
            return
        except SSL.Error:
            self._fail("the DTLS handshake failed")
            return
        self._deadline = None
        if not self._is_peer():
            self._fail("the certificate is not the one whose fingerprint the offer states")
            return
        self._derive_keys()

    def _read_on(self) -> None:
        """Handle what comes after the handshake: a repeat of its last flight, or the end."""
        try:
            while self._connection.recv(MTU):
                pass  # we agreed on no data
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.state = DtlsState.CLOSED
        except SSL.Error:
            self._fail("the DTLS association broke")

    def _fail(self, reason: str) -> None:
        self.state, self.reason, self._deadline = DtlsState.FAILED, reason, None

    def _is_peer(self) -> bool:
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        known = [(name.lower(), value) for name, value in self._fingerprints if name.lower() in X509_DIGEST_ALGORITHMS]
        return (
            certificate is not None
            and bool(known)
            and all(certificate_digest(certificate, name) == value.upper() for name, value in known)
        )

    def _derive_keys(self) -> None:
        chosen = self._connection.get_selected_srtp_profile()
        profile = next((one for one in _PROFILES if one.openssl_profile == chosen), None)
        if profile is None:
            self._fail("the peer takes none of our SRTP profiles")
            return
        size = 2 * (profile.key_length + profile.salt_length)
        keys = self._connection.export_keying_material(_KEYS, size)
        ours = 1 if self._server else 0  # RFC 5764 §4.2: the client's comes first

        def session(which: int, direction: int) -> pylibsrtp.Session:
            policy = pylibsrtp.Policy(profile.get_key_and_salt(keys, which), direction, 0, profile.libsrtp_profile)
            policy.allow_repeat_tx = True
            policy.window_size = 1024
            return pylibsrtp.Session(policy)

        self.sending = session(ours, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self.receiving = session(1 - ours, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        self.state = DtlsState.CONNECTED

    def next_deadline(self) -> float | None:
        """When to `poll`; None: nothing waits for an answer."""
        return self._deadline

    def poll(self, now: float) -> None:
        """Repeat what was not answered in time."""
        if self._deadline is not None and now >= self._deadline:
            try:
                self._connection.DTLSv1_handle_timeout()
            except SSL.Error:
                self._fail("the peer no longer answers the DTLS handshake")
                return
            left = self._connection.DTLSv1_get_timeout()
            self._deadline = None if left is None else now + left

    def close(self) -> None:
        """Say goodbye: what `take_datagrams` then gives is to be sent."""
        if self.state is DtlsState.CONNECTED:
            self.state = DtlsState.CLOSED
            try:
                self._connection.shutdown()
            except SSL.Error:
                pass

    def take_datagrams(self) -> list[bytes]:
        """What is to be sent."""
        written = b""
        try:
            while True:
                written += self._connection.bio_read(65536)
        except SSL.Error:
            pass  # that was all
        return _datagrams(written)


def _datagrams(written: bytes) -> list[bytes]:
    """Records put together into datagrams of at most `MTU` bytes."""
    datagrams: list[bytes] = []
    start = end = 0
    while end < len(written):
        after = end + _RECORD_HEADER + int.from_bytes(written[end + 11 : end + 13], "big")
        if after - start > MTU and end > start:
            datagrams.append(written[start:end])
            start = end
        end = after
    return [*datagrams, written[start:]] if start < len(written) else datagrams


def _connection(certificate: DtlsCertificate, *, server: bool) -> SSL.Connection:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU)
    # Whether it is the right one is judged by its fingerprint.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *args: True)
    context.use_certificate(certificate.certificate)
    context.use_privatekey(certificate.key)
    context.set_cipher_list(_CIPHERS)
    context.set_tlsext_use_srtp(b":".join(profile.openssl_profile for profile in _PROFILES))
    connection = SSL.Connection(context)
    connection.set_ciphertext_mtu(MTU)
    if server:
        connection.set_accept_state()
    else:
        connection.set_connect_state()
    return connection
