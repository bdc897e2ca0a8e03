"""A certificate authority for the tests: good certificates, and every kind of bad one."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """Signs certificates, and writes them (certificate and key in one PEM file) into ``folder``."""

    def __init__(self, folder: Path, name: str = "Test CA", identified: bool = False) -> None:
        """``identified``: its certificates name keys and their use as RFC 5280 demands; private ones often do not."""
        self.folder, self._identified = folder, identified
        self._name, self._key = _name(name), ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self._signed(self._name, self._key, 3650 * DAY, (), ca=True).public_bytes(PEM))

    def intermediate(self, name: str) -> Authority:
        """An authority below this one. Its ``file`` holds its own certificate, and not that of this one."""
        below = Authority(self.folder, name, self._identified)
        below.file.write_bytes(self._signed(below._name, below._key, 3650 * DAY, (), ca=True).public_bytes(PEM))
        return below

    def issue(self, *names: str, life: timedelta = 365 * DAY, self_signed: bool = False, rsa_bits: int = 0) -> Path:
        """A certificate for these host names and addresses that expires in ``life`` (may be negative)."""
        key: Key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        found = self._signed(_name(names[0]), key, life, names, ca=False, by=key if self_signed else None)
        file = self.folder / f"{names[0].replace(':', '_')}-{found.serial_number:x}.pem"
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(found.public_bytes(PEM) + secret)
        return file

    def _signed(
        self,
        subject: x509.Name,
        key: Key,
        life: timedelta,
        names: tuple[str, ...],
        ca: bool,
        by: Key | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if by else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + life) - DAY)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
        if self._identified:
            usage = dict.fromkeys(USAGES, False) | {"digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca}
            builder = (
                builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key((by or self._key).public_key()), False
                )
                .add_extension(x509.KeyUsage(**usage), True)
            )
        return builder.sign(by or self._key, hashes.SHA256())


PEM = serialization.Encoding.PEM
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def server_context(certificate: Path, clients: Path | None = None) -> ssl.SSLContext:
    """What a server of this certificate uses; with ``clients``, it demands certificates of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
