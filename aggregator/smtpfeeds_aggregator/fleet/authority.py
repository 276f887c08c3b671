"""A small private certificate authority: for the broker's server, and for sensors as clients.

It is separate because it is the only room that knows `cryptography`. A folder holds

    ca.pem       the authority's certificate: what sensors and aggregators trust
    ca.key       its private key, for its owner alone; it never leaves this folder
    issued/      a copy of each certificate that was issued, by name; no private key

Private keys of servers and clients are created here, written once to where the caller
wants them, and not kept. Each step is safe to interrupt (``files``). Keys are ECDSA on P-256,
signatures SHA-256, as RFC 8446 lists them for every TLS 1.3 implementation. A renewed
authority keeps its key, so that what it issued stays valid for those who still have the
old certificate of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smtpfeeds_common.errors import FleetError

from .files import finish_pair, locked, write_pair, write_whole

CERTIFICATE: Final = "ca.pem"
KEY: Final = "ca.key"
ISSUED: Final = "issued"
AUTHORITY_DAYS: Final = 3_650
#: The operator of the fleet renews certificates: a year is as often as people do it.
CERTIFICATE_DAYS: Final = 397
#: A certificate that ends within this is warned of.
WARN_DAYS: Final = 30
#: The other host's clock may be behind ours.
_EARLIER: Final = timedelta(hours=1)
_NAME_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key, both PEM; the key is held nowhere else."""

    certificate: bytes
    key: bytes
    ends: datetime


@dataclass(frozen=True, slots=True)
class Validity:
    """Whose certificate, of which kind, from when to when (UTC), and its SHA-256."""

    name: str
    #: ``authority``, ``server`` or ``client``.
    kind: str
    begins: datetime
    ends: datetime
    fingerprint: str

    def ends_within(self, now: datetime, days: int = WARN_DAYS) -> bool:
        """Return whether it has ended, or ends within this number of days."""
        return self.ends - now < timedelta(days=days)


class Authority:
    """The authority of one folder."""

    def __init__(
        self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.folder = folder
        self._certificate, self._key = certificate, key

    @classmethod
    def create(cls, folder: Path, name: str, *, days: int = AUTHORITY_DAYS) -> "Authority":
        """Make an authority in a folder that has none.

        Raises:
            FleetError: there is one already, or the folder cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority_certificate(name, key, days)
        with _writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / ISSUED).mkdir(exist_ok=True)
            with locked(folder):
                finish_pair(folder / CERTIFICATE, folder / KEY, belong)
                _refuse_existing(folder)
                pair = (_pem(certificate), _key_pem(key))
                write_pair(folder / CERTIFICATE, folder / KEY, pair)
        return cls(folder, certificate, key)

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Read the authority of a folder.

        Raises:
            FleetError: there is none, or it cannot be read.
        """
        try:
            with locked(folder):
                finish_pair(folder / CERTIFICATE, folder / KEY, belong)
            key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        except FileNotFoundError as exc:
            raise FleetError(
                f"there is no authority in {folder}: create one with `smtpfeeds fleet ca init`"
            ) from exc
        except (OSError, ValueError, TypeError) as exc:
            raise FleetError(f"the authority in {folder} cannot be read: {exc}") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FleetError(f"{folder / KEY} is not a key that `smtpfeeds fleet ca` created")
        if certificate.public_key() != key.public_key():
            raise FleetError(f"{folder / KEY} does not belong to {folder / CERTIFICATE}")
        return cls(folder, certificate, key)

    def renew(self, *, days: int = AUTHORITY_DAYS) -> None:
        """Give the authority a new certificate with its old key; what it issued stays valid."""
        self._certificate = _authority_certificate(_common_name(self._certificate), self._key, days)
        with _writing(self.folder):
            write_whole(self.folder / CERTIFICATE, _pem(self._certificate))

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM, which others trust."""
        return _pem(self._certificate)

    def issue_server(self, name: str, hosts: list[str], *, days: int = CERTIFICATE_DAYS) -> Issued:
        """Issue a certificate for a server that is reached under these names and addresses."""
        if not hosts:
            raise FleetError(f"give a host name or an address of {name}: clients check it")
        names = [_general_name(host) for host in hosts]
        return self._issue(name, x509.SubjectAlternativeName(names), days, server=True)

    def issue_client(self, name: str, *, days: int = CERTIFICATE_DAYS) -> Issued:
        """Issue a certificate whose common name is an account's."""
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        return self._issue(name, names, days, server=False)

    def fits(self, certificate: bytes, hosts: Sequence[str]) -> bool:
        """Return whether this authority issued a certificate, PEM, for exactly these hosts."""
        one = x509.load_pem_x509_certificate(certificate)
        try:
            one.verify_directly_issued_by(self._certificate)
            names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return set(names) == {_general_name(host) for host in hosts}

    def validities(self) -> Iterator[Validity]:
        """Return the authority itself, then the issued certificates with a copy, by name."""
        return validities(self.folder)

    def _issue(
        self, name: str, names: x509.SubjectAlternativeName, days: int, *, server: bool
    ) -> Issued:
        # The name is also a file's, in `issued/`.
        if name.startswith(".") or "/" in name or "\0" in name:
            raise FleetError(f"{name!r}: a certificate's name has no / and does not begin with .")
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        now = datetime.now(UTC)
        # A certificate is of no use after its authority's has expired.
        ends = min(now + timedelta(days=days), self._certificate.not_valid_after_utc)
        certificate = (
            _builder(_subject(name), key.public_key(), self._certificate, now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        copy = self.folder / ISSUED / f"{name}.pem"
        with _writing(self.folder):
            if copy.exists() and (kind := _validity_of(copy).kind) != _kind(certificate):
                raise FleetError(f"{name} has the certificate of a {kind}: choose another name")
            write_whole(copy, _pem(certificate))
        return Issued(_pem(certificate), _key_pem(key), certificate.not_valid_after_utc)


def validity(pem: bytes) -> Validity:
    """Return the validity of a certificate.

    Raises:
        FleetError: it is not a certificate in PEM.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        kind = _kind(certificate)
    except ValueError as exc:
        raise FleetError(f"this is not a certificate in PEM: {exc}") from exc
    return Validity(
        _common_name(certificate),
        kind,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def validities(folder: Path) -> Iterator[Validity]:
    """Return a folder's authority, then issued certificates by name; empty without an authority.

    Raises:
        FleetError: a certificate cannot be read.
    """
    try:
        yield _validity_of(folder / CERTIFICATE)
        for file in sorted((folder / ISSUED).glob("*.pem")):
            yield _validity_of(file)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise FleetError(f"cannot read the certificates in {folder}: {exc.strerror}") from exc


def _validity_of(file: Path) -> Validity:
    """Return the validity of the certificate in a file; an error names the file."""
    try:
        return validity(file.read_bytes())
    except FleetError as exc:
        raise FleetError(f"{file}: {exc.message}") from exc


def belong(certificate: bytes, key: bytes) -> bool:
    """Return whether a certificate belongs to this private key; both PEM."""
    try:
        public = serialization.load_pem_private_key(key, None).public_key()
        return x509.load_pem_x509_certificate(certificate).public_key() == public
    except (ValueError, TypeError):
        return False


def write_issued(issued: Issued, certificate: Path, key: Path) -> None:
    """Write a certificate and its key, for its owner alone; never over others.

    Raises:
        FleetError: one of the files is there, or they cannot be written.
    """
    try:
        with locked(key.parent):
            finish_pair(certificate, key, belong)
            if certificate.exists() or key.exists():
                raise FleetError(f"{certificate} or {key} exists already: move them away first")
            write_pair(certificate, key, (issued.certificate, issued.key))
    except OSError as exc:
        raise FleetError(f"cannot write into {key.parent}: {exc.strerror}") from exc


def _refuse_existing(folder: Path) -> None:
    if (folder / KEY).exists():
        raise FleetError(
            f"{folder} contains an authority already; `smtpfeeds fleet ca renew` gives it a new "
            "certificate"
        )
    if (folder / CERTIFICATE).exists():
        raise FleetError(
            f"{folder / CERTIFICATE} exists without its key {KEY}: give another folder"
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Translate what the file system refuses."""
    try:
        yield
    except OSError as exc:
        raise FleetError(f"cannot write into {folder}: {exc}") from exc


def _authority_certificate(
    name: str, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        _builder(_subject(name), key.public_key(), None, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    signer = public_key if issuer is None else issuer.public_key()
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    if not 1 <= len(name) <= _NAME_MAX:
        raise FleetError(f"{name!r}: a certificate's name has 1 to {_NAME_MAX} characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as exc:
        raise FleetError(f"{host!r} is neither a host name nor an address: {exc}") from exc


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _kind(certificate: x509.Certificate) -> str:
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            return "authority"
        if isinstance(value, x509.ExtendedKeyUsage):
            return "server" if ExtendedKeyUsageOID.SERVER_AUTH in value else "client"
    return "server"


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
