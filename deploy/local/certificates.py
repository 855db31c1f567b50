"""Makes an authority that signs one certificate and is forgotten.

The parts of one server prove to each other with that certificate that they belong together; nobody else is let in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.private import write_private

_LIFE = timedelta(days=3650)
"""Certificates are made anew at each start, so this bounds how long a server may run."""


@dataclass(frozen=True)
class Identity:
    """Paths of PEM files: the authority's certificate, and a certificate for server and client with its key."""

    authority: Path
    certificate: Path
    key: Path


def make_identity(folder: Path, hosts: Sequence[str]) -> Identity:
    """Write a new identity into a folder, for these host names and addresses; takes about 5 ms.

    The authority's own key is never written, so that nobody can sign a second certificate.
    """
    identity = Identity(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = _name("Imagemill stack"), _name("Imagemill store")
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = _unsigned(issuer, issuer, authority_key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    certificate = (
        _unsigned(subject, issuer, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    for path, builder in ((identity.authority, authority), (identity.certificate, certificate)):
        signed = builder.sign(authority_key, hashes.SHA256())
        write_private(path, signed.public_bytes(serialization.Encoding.PEM).decode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(identity.key, pem.decode())
    return identity


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),  # clocks may be set back
        not_valid_after=now + _LIFE,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
