"""STARTTLS: the server's certificate, from files or created at start; plaintext is overwritten.

A certificate created at start is self-signed, for the sensor's host name, with a new key that is
never written to a disk: bots do not check it, and it names nobody.

pyOpenSSL copies what it decrypts twice, and neither copy can be overwritten. So it is read here
into one buffer of the process, as ``read_buffer`` does without TLS, and OpenSSL overwrites its own.
"""

import datetime as dt
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer

from smtpfeeds_common.errors import SettingsError

from ..settings import SensorSettings

_VALID: Final = dt.timedelta(days=397)
#: SSL_OP_CLEANSE_PLAINTEXT of openssl/ssl.h: what was read is overwritten in OpenSSL's buffers.
_CLEANSE_PLAINTEXT: Final = 0x2

_openssl: Final[Any] = Binding().lib
#: One for the process: what is read is done with before the next read.
_plaintext: Final = bytearray(65_536)
_view: Final = memoryview(_plaintext)
_target: Final[Any] = Binding().ffi.from_buffer(_plaintext)


class _Connection(SSL.Connection):
    """OpenSSL's connection, which reads into one buffer."""

    def recv(self, bufsiz: int, flags: int | None = None) -> Any:  # noqa: ARG002 - as there
        """Return a view of decrypted octets, valid until the next call."""
        size = _openssl.SSL_read(self._ssl, _target, min(bufsiz, len(_plaintext)))
        self._raise_ssl_error(self._ssl, size)
        return _view[:size]


@implementer(IOpenSSLServerConnectionCreator)
class TlsContext:
    """The TLS context of the edge."""

    def __init__(self, options: CertificateOptions) -> None:
        """Create the object; OpenSSL's context is created for the first connection, or by
        ``context``.
        """
        self._options = options
        self._context: SSL.Context | None = None

    def context(self) -> SSL.Context:
        """Return OpenSSL's context.

        Raises:
            SSL.Error: OpenSSL does not accept the certificate or the key.
        """
        if self._context is None:
            self._context = self._options.getContext()
            self._context.set_options(_CLEANSE_PLAINTEXT)
        return self._context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: ARG002, N803
        """Twisted's hook: a connection starts TLS."""
        return _Connection(self.context(), None)


def make_context(settings: SensorSettings, hostname: str) -> TlsContext | None:
    """Return the TLS context, or None if STARTTLS is not offered.

    Raises:
        SettingsError: the certificate or key cannot be used.
    """
    if settings.tls == "off":
        return None
    if settings.tls == "made":
        return _self_signed(hostname)
    return _from_files(Path(settings.tls_certificate), Path(settings.tls_key))


def _from_files(certificate_file: Path, key_file: Path) -> TlsContext:
    try:
        chain = x509.load_pem_x509_certificates(certificate_file.read_bytes())
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, key_file.read_bytes())
        certificates = [crypto.X509.from_cryptography(one) for one in chain]
        context = TlsContext(
            CertificateOptions(
                privateKey=key, certificate=certificates[0], extraCertChain=certificates[1:]
            )
        )
        context.context()
    except OSError as exc:
        raise SettingsError(f"tls: cannot read {exc.filename}: {exc.strerror}") from exc
    except (ValueError, SSL.Error, crypto.Error) as exc:
        raise SettingsError(
            f"tls: {certificate_file} and {key_file} are not a PEM certificate and its key: {exc}"
        ) from exc
    return context


def _self_signed(hostname: str) -> TlsContext:
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
    return TlsContext(
        CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(certificate),
        )
    )
