"""The expiry of certificates agrees with `cryptography`, and warnings come in time."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.certificates import ExpiryNotes, expiries, file_expiry, peer_expiry

_DAY_S = 86_400
_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a name of some length" * 3)])


def made(
    until: datetime, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = _KEY, number: int = 1
) -> bytes:
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(datetime(1960, 1, 1, tzinfo=UTC))
        .not_valid_after(until)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


@given(
    st.datetimes(datetime(1961, 1, 1), datetime(9999, 12, 31)),  # noqa: DTZ001 - hypothesis's
    st.integers(1, 2**150),
)
def test_the_end_is_the_one_that_was_signed(until: datetime, number: int) -> None:
    """Both forms of a time are read: two-digit years up to 2049, four digits after that."""
    until = until.replace(microsecond=0, tzinfo=UTC)
    assert expiries(made(until, number=number).decode()) == [until.timestamp()]


def test_a_long_certificate_and_a_chain_are_read(tmp_path: Path) -> None:
    first, second = datetime(2030, 1, 2, tzinfo=UTC), datetime(2055, 3, 4, tzinfo=UTC)
    key = rsa.generate_private_key(65537, 2048)
    file = tmp_path / "chain.pem"
    text = b"# A comment\n" + made(first, key) + b"between\n" + made(second)
    file.write_bytes(text)
    assert expiries(text.decode()) == [first.timestamp(), second.timestamp()]
    assert file_expiry(str(file)) == first.timestamp()
    # A file with an old and a new authority is usable until the last one expires.
    assert file_expiry(str(file), authorities=True) == second.timestamp()


@given(st.binary(max_size=60))
def test_what_is_no_certificate_is_a_value_error(octets: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the promise is the class alone
        expiries(ssl.DER_cert_to_PEM_cert(octets or b"0"))
    with pytest.raises(ValueError, match="no certificate"):
        expiries("-----BEGIN CERTIFICATE-----")


def test_a_file_that_cannot_be_read_has_no_end(tmp_path: Path) -> None:
    assert file_expiry(str(tmp_path / "none.pem")) is None
    (tmp_path / "half.pem").write_bytes(made(datetime(2030, 1, 1, tzinfo=UTC))[:200])
    assert file_expiry(str(tmp_path / "half.pem")) is None
    assert peer_expiry(None) is None


def test_expiry_is_warned_of_once_a_day_from_two_weeks_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = datetime(2030, 1, 31, tzinfo=UTC)
    notes = ExpiryNotes()
    notes.note("broker", end.timestamp())
    notes.note("tls_certificate", None)
    assert notes.all == {"broker": end.timestamp()}

    def logged(at: datetime, monotonic_s: float) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            notes.warn(at.timestamp(), monotonic_s)
        return [record.message for record in caplog.records]

    soon = ["certificate expires soon; replace it"]
    assert logged(end - timedelta(days=15), 0) == []
    assert logged(end - timedelta(days=14), 10) == soon
    assert logged(end - timedelta(days=13), 10 + _DAY_S - 1) == [], "once a day"
    assert logged(end - timedelta(days=13), 10 + _DAY_S) == soon
    assert logged(end, 10 + 2 * _DAY_S) == ["certificate expired; replace it"]
    # A renewed certificate gets its own warning.
    notes.note("broker", end.timestamp() + 60 * _DAY_S)
    assert logged(end, 10 + 3 * _DAY_S) == []
    notes.note("broker", end.timestamp() + _DAY_S)
    assert logged(end, 10 + 3 * _DAY_S) == soon
