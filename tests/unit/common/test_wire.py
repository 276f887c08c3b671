"""The message: one end decodes what the other encodes, and an invalid row costs no other."""

import json
import uuid
from typing import Any

import pytest

from smtpfeeds_common import wire
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.errors import WireError

NOW_MS = 1_795_431_600_000
SPOOL = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"


def batch(**changes: Any) -> wire.Batch:
    fields: dict[str, Any] = {
        "spool": uuid.UUID(SPOOL),
        "seq": 1,
        "sensor": "sensor-1",
        "sealed_ms": NOW_MS,
        "observations": [observation()],
        "hours": [wire.HourCount("smtpgreet", NOW_MS, 3)],
    }
    return wire.Batch(**(fields | changes))


def observation(**changes: Any) -> wire.Observation:
    fields: dict[str, Any] = {
        "feed": "smtpgreet",
        "ip": "192.0.2.1",
        "first_ms": NOW_MS,
        "last_ms": NOW_MS + 5,
        "hits": 3,
        "flags": int(Flags.BARE_LF),
        "targets": -(2**63),
    }
    return wire.Observation(**(fields | changes))


def raw(**changes: Any) -> dict[str, Any]:
    """Create a valid batch as JSON, for tests to break."""
    decoded: dict[str, Any] = json.loads(wire.encode(batch()))
    return decoded | changes


def test_batch_reads_back_as_it_was_written() -> None:
    decoded = wire.decode(wire.encode(batch()))
    assert decoded.batch == batch()
    assert decoded.refused == []


def test_unknown_fields_are_ignored() -> None:
    """A newer sensor may add fields without breaking an older aggregator."""
    message = raw(later="field")
    message["observations"][0]["later"] = 1
    assert wire.decode(json.dumps(message).encode()).batch == batch()


@pytest.mark.parametrize(
    "spoilt",
    [
        {"hits": 10**30},  # beyond every counter
        {"hits": -1},
        {"hits": "3"},
        {"hits": 1.5},
        {"ip": "1" * 65},
        {"ip": None},
        {"feed": "dnsrd"},
        {"feed": "smtpdata\n"},  # Python's `$` also matches before a final line feed
        {"first_ms": 0},  # a clock at the epoch is wrong
        {"last_ms": 2**62},
        {"targets": 2**63},
        {"flags": -1},
    ],
)
def test_hostile_row_is_refused_alone(spoilt: dict[str, Any]) -> None:
    """The other rows are decoded; the row is returned as received, with the reason."""
    message = raw()
    good = message["observations"][0]
    message["observations"] = [good, good | spoilt, good]
    decoded = wire.decode(json.dumps(message).encode())
    assert decoded.batch.observations == [observation(), observation()]
    (refused,) = decoded.refused
    assert refused.kind == "observations"
    assert json.loads(refused.raw) == good | spoilt
    assert refused.reason


def test_row_that_is_not_utf8_is_refused_alone() -> None:
    body = wire.encode(batch(observations=[observation(), observation(ip="203.0.113.9")]))
    decoded = wire.decode(body.replace(b"203.0.113.9", b"203.0.\xff.113"))
    assert decoded.batch.observations == [observation()]
    assert len(decoded.refused) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"\0" * 100,
        b'{"spool":"x"}',
        b"[" * 100_000,  # deeper than any parser's stack
        json.dumps(raw(v=2)).encode(),  # a later schema
        json.dumps(raw(v=0)).encode(),
        json.dumps(raw(seq=0)).encode(),
        json.dumps(raw(seq=2**63)).encode(),
        json.dumps(raw(spool="../../etc/passwd")).encode(),
        json.dumps(raw(sensor="Sensor.1")).encode(),
        json.dumps(raw(sensor="sensor-1\n")).encode(),
        json.dumps(raw(spool=SPOOL + "\n")).encode(),
        json.dumps(raw(sealed_ms="now")).encode(),
        json.dumps(raw(observations={})).encode(),
        json.dumps(raw(counters={"a": -1})).encode(),
    ],
)
def test_message_that_is_not_a_batch_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(WireError, match=r"."):
        wire.decode(body)


def test_a_message_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(WireError, match=r"more than 8388608"):
        wire.decode(b" " * (wire.MAX_BODY_BYTES + 1))


def test_a_full_batch_is_within_the_bounds() -> None:
    """5,000 of the longest rows that a sensor can write are accepted."""
    longest = observation(
        feed="smtpgreet", ip="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", hits=2**53, flags=7
    )
    full = wire.encode(batch(observations=[longest] * wire.MAX_ROWS))
    assert len(full) < wire.MAX_BODY_BYTES
    assert len(wire.decode(full).batch.observations) == wire.MAX_ROWS


def test_reason_that_quotes_a_stranger_is_bounded() -> None:
    message = raw()
    message["observations"][0]["feed"] = "x" * 100_000
    ((_, _, reason),) = wire.decode(json.dumps(message).encode()).refused
    assert len(reason) == 300
