"""Reads when certificates expire, from PEM files and from TLS peers, and warns before.

It reads only the end of a certificate's validity (RFC 5280, section 4.1) and skips the fields
before it by their lengths. It is separate because a sensor without STARTTLS installs no
library that reads certificates, and Python's ``ssl`` reads none from a file.
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

#: The log warns of a certificate that expires within this time,
WARN_BEFORE_S: Final = 14 * 86_400
#: once per this time.
WARN_EVERY_S: Final = 86_400

_PEM: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)
#: DER tags: a sequence, an integer, the two forms of a time, and the optional version.
_SEQUENCE, _INTEGER, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x02, 0x17, 0x18, 0xA0


def expiries(pem: str) -> list[float]:
    """Return when each certificate of a PEM text expires, in Unix time, in the order of the text.

    Raises:
        ValueError: the text has no certificate, or one cannot be read.
    """
    ends = [_expiry(ssl.PEM_cert_to_DER_cert(text)) for text in _PEM.findall(pem)]
    if not ends:
        raise ValueError("no certificate in PEM")
    return ends


def file_expiry(path: str, *, authorities: bool = False) -> float | None:
    """Return when a file of certificates expires, in Unix time; None if it cannot be read.

    Args:
        path: a PEM file.
        authorities: the file holds trusted authorities, of which one is enough, so the one that
            expires last counts. Otherwise the first certificate counts; the rest are its chain.
    """
    try:
        ends = expiries(Path(path).read_text("ascii", "replace"))
    except (OSError, ValueError):
        return None
    return max(ends) if authorities else ends[0]


def peer_expiry(connection: object) -> float | None:
    """Return when the certificate of a TLS peer expires, in Unix time; None if not known."""
    if not isinstance(connection, ssl.SSLSocket | ssl.SSLObject):
        return None
    certificate = connection.getpeercert(binary_form=True)
    try:
        return None if certificate is None else _expiry(certificate)
    except ValueError:
        return None


def iso_day(expires_s: float) -> str:
    """Return the UTC day on which a certificate expires."""
    return datetime.fromtimestamp(expires_s, UTC).date().isoformat()


class ExpiryNotes:
    """When the certificates in use expire, by name; safe to call from any thread."""

    def __init__(self) -> None:
        self._expires_s: dict[str, float] = {}
        #: By name and expiry, so that a renewed certificate counts as another one.
        self._warned_s: dict[tuple[str, float], float] = {}

    @property
    def all(self) -> Mapping[str, float]:
        """When each certificate expires, in Unix time."""
        return dict(self._expires_s)

    def note(self, name: str, expires_s: float | None) -> None:
        """Note when a certificate in use expires; None changes nothing."""
        if expires_s is not None:
            self._expires_s[name] = expires_s

    def warn(self, now_s: float, monotonic_s: float) -> None:
        """Log each certificate that has expired or expires within two weeks, once a day.

        Args:
            now_s: Unix time.
            monotonic_s: the monotonic clock.
        """
        for name, expires_s in sorted(self.all.items()):
            left_s = expires_s - now_s
            last_s = self._warned_s.get((name, expires_s))
            if left_s > WARN_BEFORE_S:
                continue
            if last_s is not None and monotonic_s - last_s < WARN_EVERY_S:
                continue
            # Keep one entry per name.
            self._warned_s = {k: v for k, v in self._warned_s.items() if k[0] != name}
            self._warned_s[name, expires_s] = monotonic_s
            event_fields = fields(certificate=name, expires=iso_day(expires_s))
            if left_s <= 0:
                logger.error("certificate expired; replace it", extra=event_fields)
            else:
                logger.warning("certificate expires soon; replace it", extra=event_fields)


def _expiry(der: bytes) -> float:
    """Return the end of the validity. Version, serial number, algorithm and issuer precede it."""
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
    """Return the tag and the content of the first element, and the octets after it."""
    if len(der) < 2:
        raise ValueError("a truncated certificate")
    length, begin = der[1], 2
    if length & 0x80:
        octets = length & 0x7F
        length, begin = int.from_bytes(der[2 : 2 + octets]), 2 + octets
    end = begin + length
    if end > len(der):
        raise ValueError("a truncated certificate")
    return der[0], der[begin:end], der[end:]


def _time(tag: int, text: str) -> float:
    """Read a time of a certificate; the two-digit year 50 is 1950, 49 is 2049 (RFC 5280)."""
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a certificate without an end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
