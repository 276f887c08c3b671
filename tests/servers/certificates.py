"""A certificate authority for tests, and a server certificate for 127.0.0.1, ::1 and localhost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smtpfeeds_aggregator.fleet.authority import Authority

_AUTHORITY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "smtpfeeds test authority")])
_SERVER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority to trust, and the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path
    #: Folder of the fleet's authority, whose client certificates a broker trusts.
    fleet: Path
    #: Both authorities in one file, for a server that checks clients.
    trusted: Path

    @classmethod
    def make(cls, folder: Path, valid: timedelta = timedelta(days=60)) -> Certificates:
        folder.mkdir(parents=True, exist_ok=True)
        certificates = cls(
            folder / "authority.pem",
            folder / "server.pem",
            folder / "server.key",
            folder / "fleet",
            folder / "trusted.pem",
        )
        authority_key = ec.generate_private_key(ec.SECP256R1())
        server_key = ec.generate_private_key(ec.SECP256R1())
        authority = _sign(
            _AUTHORITY, authority_key.public_key(), authority_key, valid, authority=True
        )
        server = _sign(_SERVER, server_key.public_key(), authority_key, valid, authority=False)
        certificates.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        certificates.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
        fleet = Authority.create(certificates.fleet, "smtpfeeds test fleet")
        certificates.trusted.write_bytes(certificates.authority.read_bytes() + fleet.certificate)
        certificates.key.touch(0o600)
        certificates.key.write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificates


def _sign(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    authority_key: ec.EllipticCurvePrivateKey,
    valid: timedelta,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ip_address(text)) for text in ("127.0.0.1", "::1")]
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_AUTHORITY)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def is_issued_by(certificate: bytes, authority: bytes) -> bool:
    """Return whether an authority's key signed a certificate; both are PEM."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority)
        )
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
