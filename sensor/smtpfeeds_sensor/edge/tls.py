"""STARTTLS: the server's certificate, given or made at start.

Made at start it is self-signed, for the sensor's host name, with a fresh key
that never touches a disk: bots do not check it, and it names nobody.
"""

import datetime as dt
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions

from smtpfeeds_common.errors import SettingsError

from ..settings import SensorSettings

#: What the edge needs for STARTTLS.
TlsContext = CertificateOptions

_VALID: Final = dt.timedelta(days=397)


def make_context(settings: SensorSettings, hostname: str) -> TlsContext | None:
    """The TLS set-up, or None where STARTTLS is not offered.

    Raises:
        SettingsError: the certificate or key cannot be used.
    """
    if settings.tls == "off":
        return None
    if settings.tls == "made":
        return _self_signed(hostname)
    return _from_files(Path(settings.tls_certificate), Path(settings.tls_key))


def _from_files(certificate_file: Path, key_file: Path) -> CertificateOptions:
    try:
        chain = x509.load_pem_x509_certificates(certificate_file.read_bytes())
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, key_file.read_bytes())
        certificates = [crypto.X509.from_cryptography(one) for one in chain]
        options = CertificateOptions(
            privateKey=key, certificate=certificates[0], extraCertChain=certificates[1:]
        )
        options.getContext()
    except OSError as exc:
        raise SettingsError(f"tls: cannot read {exc.filename}: {exc.strerror}") from exc
    except (ValueError, SSL.Error, crypto.Error) as exc:
        raise SettingsError(
            f"tls: {certificate_file} and {key_file} are not a PEM certificate and its key: {exc}"
        ) from exc
    return options


def _self_signed(hostname: str) -> CertificateOptions:
    key = ec.generate_private_key(ec.SECP256R1())
    # RFC 5280 bounds a common name at 64.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key),
        certificate=crypto.X509.from_cryptography(certificate),
    )
