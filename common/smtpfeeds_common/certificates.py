"""Reads from PEM files and from a peer when certificates expire, and warns before.

It reads only the end of a certificate's validity (RFC 5280, section 4.1), and skips the few
fields before it by their lengths. It stands alone because a sensor without
STARTTLS has no library that reads certificates, and Python's ``ssl`` reads none that
is not in use.
"""

import logging
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .logs import fields

logger = logging.getLogger(__name__)

#: The log warns of a certificate from this long before its end,
WARN_BEFORE_S: Final = 14 * 86_400
#: once in this time.
WARN_EVERY_S: Final = 86_400

_PEM: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)
#: DER's tags: a structure, a number, the two forms of a time, and the optional version.
_SEQUENCE, _INTEGER, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x02, 0x17, 0x18, 0xA0


def expiries(pem: str) -> list[float]:
    """When each certificate of a PEM text expires, in Unix time, in the text's order.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    ends = [_expiry(ssl.PEM_cert_to_DER_cert(text)) for text in _PEM.findall(pem)]
    if not ends:
        raise ValueError("no certificate in PEM")
    return ends


def file_expiry(path: str, *, authorities: bool = False) -> float | None:
    """When a file of certificates can no longer be used, in Unix time; None: it cannot be read.

    Args:
        path: PEM.
        authorities: any of the file's certificates is enough, so the last one counts. Otherwise
            the first is the one that is shown, and the others are its chain.
    """
    try:
        ends = expiries(Path(path).read_text("ascii", "replace"))
    except (OSError, ValueError):
        return None
    return max(ends) if authorities else ends[0]


def peer_expiry(connection: object) -> float | None:
    """When the certificate of the other end of a TLS connection expires; None: not known."""
    if not isinstance(connection, ssl.SSLSocket | ssl.SSLObject):
        return None
    certificate = connection.getpeercert(binary_form=True)
    try:
        return None if certificate is None else _expiry(certificate)
    except ValueError:
        return None


def iso_day(expires_s: float) -> str:
    """The UTC day on which it expires."""
    return datetime.fromtimestamp(expires_s, UTC).date().isoformat()


class ExpiryNotes:
    """When the certificates in use expire, by name; safe to call from any thread."""

    def __init__(self) -> None:
        self._expires_s: dict[str, float] = {}
        #: By name and end: a renewed certificate is another one.
        self._warned_s: dict[tuple[str, float], float] = {}

    @property
    def all(self) -> Mapping[str, float]:
        """When each expires, in Unix time."""
        return dict(self._expires_s)

    def note(self, name: str, expires_s: float | None) -> None:
        """Note when a certificate in use expires; None: not known, nothing changes."""
        if expires_s is not None:
            self._expires_s[name] = expires_s

    def warn(self, now_s: float, monotonic_s: float) -> None:
        """Log each that expires within two weeks, or has expired: once a day.

        Args:
            now_s: Unix time.
            monotonic_s: a clock that is never set.
        """
        for name, expires_s in sorted(self.all.items()):
            left_s = expires_s - now_s
            last_s = self._warned_s.get((name, expires_s))
            if left_s > WARN_BEFORE_S:
                continue
            if last_s is not None and monotonic_s - last_s < WARN_EVERY_S:
                continue
            # The bound: as many as there are names.
            self._warned_s = {k: v for k, v in self._warned_s.items() if k[0] != name}
            self._warned_s[name, expires_s] = monotonic_s
            more = fields(certificate=name, expires=iso_day(expires_s))
            if left_s <= 0:
                logger.error("certificate expired; replace it", extra=more)
            else:
                logger.warning("certificate expires soon; replace it", extra=more)


def _expiry(der: bytes) -> float:
    """The end of the validity; before it: version, number, algorithm and issuer."""
    tag, signed, _ = _element(_inside(der))
    if tag != _SEQUENCE:
        raise ValueError("not a certificate")
    tag, _, rest = _element(signed)
    if tag == _VERSION:
        tag, _, rest = _element(rest)
    if tag != _INTEGER:
        raise ValueError("not a certificate")
    for _ in ("algorithm", "issuer"):
        _, _, rest = _element(rest)
    validity = _inside(rest)
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    return _time(tag, text.decode("ascii"))


def _inside(der: bytes) -> bytes:
    tag, content, _ = _element(der)
    if tag != _SEQUENCE:
        raise ValueError("not a certificate")
    return content


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element: its tag, its content, and what follows it."""
    if len(der) < 2:
        raise ValueError("a certificate that is cut off")
    length, begin = der[1], 2
    if length & 0x80:
        octets = length & 0x7F
        length, begin = int.from_bytes(der[2 : 2 + octets]), 2 + octets
    end = begin + length
    if end > len(der):
        raise ValueError("a certificate that is cut off")
    return der[0], der[begin:end], der[end:]


def _time(tag: int, text: str) -> float:
    """A time of a certificate; of a year in two digits, 50 is 1950 and 49 is 2049."""
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a certificate without an end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
