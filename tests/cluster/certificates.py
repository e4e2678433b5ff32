"""A certificate authority for one cluster, and kubeconfig files for whom it knows."""

from __future__ import annotations

import datetime
import ipaddress
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID: Final = datetime.timedelta(days=2)
_BEFORE: Final = datetime.timedelta(hours=1)
"""So that what runs with another clock accepts them, too."""


_NOT_OF_AUTHORITIES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)


class Authority:
    """Writes keys and certificates into `folder`, which nobody else may read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test cluster")])
        usage = dict.fromkeys(_NOT_OF_AUTHORITIES, False)
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(own, critical=False)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        (folder / "ca.crt").write_bytes(self.certificate)

    def server(self, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key of a server at these names and addresses."""
        alternatives: list[x509.GeneralName] = []
        for host in hosts:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                alternatives.append(x509.DNSName(host))
        return self._issue(name, (), ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(alternatives))

    def service_accounts(self) -> tuple[Path, Path]:
        """The public and the private key for tokens of service accounts."""
        key = rsa.generate_private_key(65537, 2048)
        private, public = self.folder / "tokens.key", self.folder / "tokens.pub"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return public, private

    def client(self, user: str, groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """Certificate and key of a user; RBAC knows what it may do."""
        return self._issue(user, groups, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def kubeconfig(self, server: str, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig file for a user whom a certificate names."""
        certificate, key = self.client(user, groups)
        secrets = {
            "client-certificate-data": b64encode(certificate.read_bytes()).decode(),
            "client-key-data": b64encode(key.read_bytes()).decode(),
        }
        return self.kubeconfig_with(server, user, secrets)

    def kubeconfig_with(self, server: str, user: str, secrets: dict[str, str], namespace: str = "default") -> Path:
        """A kubeconfig file with these credentials: JSON, which is YAML as well."""
        authority = b64encode(self.certificate).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": secrets}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
        }
        file = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        file.write_text(json.dumps(content))
        return file

    def _issue(
        self, name: str, groups: Sequence[str], usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key).add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)  # Python 3.13 wants it
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        file = self.folder / name.replace(":", "-")
        certificate_file, key_file = file.with_name(file.name + ".crt"), file.with_name(file.name + ".key")
        certificate_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        # In the old form, which every version of Kubernetes reads.
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        return certificate_file, key_file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - _BEFORE).not_valid_after(now + _VALID)
