"""The SFU's DTLS server (RFC 5764) and its SRTP contexts, without I/O."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from pylibsrtp import Policy, Session

# Name in OpenSSL → (libsrtp profile, key length, salt length).
_PROFILES: Final = {
    b"SRTP_AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    b"SRTP_AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    b"SRTP_AES128_CM_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
}
_DTLS_1_2: Final = 0xFEFD
_MTU: Final = 1200


class DtlsIdentity:
    """The simulator's certificate, key and TLS context; one for all its sessions."""

    def __init__(self, srtp_profiles: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sfu-simulator")])
        start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = _hex_pairs(certificate.fingerprint(hashes.SHA256()))
        self.context = SSL.Context(SSL.DTLS_METHOD)
        # `outgoing` splits flights by one record format.
        self.context.set_max_proto_version(_DTLS_1_2)
        self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)
        self.context.set_tlsext_use_srtp(srtp_profiles.encode())


class DtlsServer:
    """One handshake as server. `receive` datagrams, send what `outgoing` returns, call `poll` at `next_deadline`.

    `srtp` is (inbound, outbound) once the peer's certificate matches one of `fingerprints`; `closed` is set when the
    peer has closed or failed, `failure` then says why it failed.
    """

    def __init__(self, identity: DtlsIdentity) -> None:
        self._tls = SSL.Connection(identity.context)
        self._tls.set_accept_state()
        self._tls.set_ciphertext_mtu(_MTU)
        self.fingerprints: list[tuple[str, str]] = []
        self.srtp: tuple[Any, Any] | None = None
        self.profile = ""
        self.closed = False
        self.failure = ""

    def receive(self, datagram: bytes) -> None:
        """Take a DTLS datagram from the peer."""
        if self.closed:
            return
        self._tls.bio_write(datagram)
        if self.srtp is None:
            self._handshake()
            return
        try:
            self._tls.recv(2048)
        except SSL.ZeroReturnError:
            self.closed = True
        except SSL.Error:
            pass

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            self._fail(f"handshake failed: {error}")
            return
        certificate = self._tls.get_peer_certificate(as_cryptography=True)
        der = certificate.public_bytes(Encoding.DER) if certificate else b""
        digests = {
            (name, _hex_pairs(hashlib.new(name.replace("-", ""), der).digest()))
            for name, _ in self.fingerprints
            if name in ("sha-256", "sha-384", "sha-512")
        }
        if not digests & set(self.fingerprints):
            self._fail("the certificate does not match the fingerprint in the description")
            return
        self._derive()

    def _derive(self) -> None:
        name = self._tls.get_selected_srtp_profile()
        if name not in _PROFILES:
            self._fail("no SRTP profile in common")
            return
        profile, key_length, salt_length = _PROFILES[name]
        material = self._tls.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key_length + salt_length))
        salts = 2 * key_length
        client = material[:key_length] + material[salts : salts + salt_length]
        server = material[key_length:salts] + material[salts + salt_length :]
        self.profile = name.decode()
        self.srtp = (
            _session(client, profile, Policy.SSRC_ANY_INBOUND),
            _session(server, profile, Policy.SSRC_ANY_OUTBOUND),
        )

    def _fail(self, why: str) -> None:
        self.closed, self.failure = True, why

    def close(self) -> None:
        """Close; `outgoing` then returns the alert."""
        if not self.closed:
            self.closed = True
            try:
                self._tls.shutdown()
            except SSL.Error:
                pass

    def next_deadline(self) -> float | None:
        """Seconds until `poll` is due, None when no retransmission is pending."""
        return None if self.closed or self.srtp else self._tls.DTLSv1_get_timeout()

    def poll(self) -> None:
        """Retransmit the last flight if its timer has expired."""
        try:
            self._tls.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._fail(f"handshake timed out: {error}")

    def outgoing(self) -> list[bytes]:
        """Datagrams to send now, each of whole records and at most the MTU long."""
        try:
            flight = self._tls.bio_read(65536)
        except SSL.Error:
            return []
        datagrams: list[bytes] = []
        position = 0
        while position < len(flight):
            end = position + 13 + int.from_bytes(flight[position + 11 : position + 13], "big")
            if datagrams and len(datagrams[-1]) + end - position <= _MTU:
                datagrams[-1] += flight[position:end]
            else:
                datagrams.append(flight[position:end])
            position = end
        return datagrams


def _session(key: bytes, profile: int, direction: int) -> Session:
    policy = Policy(key=key, ssrc_type=direction, srtp_profile=profile)
    policy.window_size = 1024
    # A viewer without RTX gets the same sequence number again.
    policy.allow_repeat_tx = True
    return Session(policy)


def _hex_pairs(digest: bytes) -> str:
    return digest.hex(":").upper()
