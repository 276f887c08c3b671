"""Check and fold batches, without a database."""

from __future__ import annotations

import json
import struct
import uuid
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_support import DAY_MS, KnowsAllOrigins, data, delivery_of, greet, made_batch, utc
from smtpfeeds_aggregator.ingest import fold as fold_module
from smtpfeeds_aggregator.ingest.check import check, printable, stored_counters
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.ingest.refusals import refused_rows_body
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.sources import Delivery
from smtpfeeds_aggregator.store.rows import ADDRESSES_MAX, MAX_COUNT, Folded
from smtpfeeds_common.errors import WireError
from smtpfeeds_common.history import OLDER
from smtpfeeds_common.wire import Batch, HourCount, Observation, PrefixOverflow, encode

AT = 1_790_000_000_000
TODAY = AT // DAY_MS
PG_EPOCH_MS = 946_684_800_000


def folded(*batches: Batch, origin: object = EMPTY) -> Folded:
    return fold([check(delivery_of(batch)) for batch in batches], origin, TODAY)  # type: ignore[arg-type]


def unpack(copy: bytes) -> list[tuple[object, ...]]:
    """Read PostgreSQL's binary COPY format back, column by column."""
    assert copy.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    at, rows = 19, []
    while (columns := struct.unpack_from(">h", copy, at)[0]) != -1:
        at += 2
        fields: list[bytes | None] = []
        for _ in range(columns):
            (length,) = struct.unpack_from(">i", copy, at)
            at += 4
            fields.append(None if length < 0 else copy[at : at + length])
            at += max(length, 0)
        rows.append(_read(fields))
    assert copy[at:] == b"\xff\xff"
    return rows


def _read(fields: list[bytes | None]) -> tuple[object, ...]:
    ip, feed, sensor, *numbers = fields
    assert ip is not None
    assert feed is not None
    assert sensor is not None
    family, bits, is_cidr, octets = ip[:4]
    assert (family, bits, is_cidr, octets) in {(2, 32, 0, 4), (3, 128, 0, 16)}
    values = [None if n is None else struct.unpack(">q", n)[0] for n in numbers]
    first, last = (v // 1000 + PG_EPOCH_MS for v in values[:2] if v is not None)
    return (str(ip_address(ip[4:])), feed.decode(), sensor.decode(), first, last, *values[2:])


def test_rows_come_sorted_as_postgresql_sorts_them() -> None:
    """IPv4 before IPv6, then by number, then by the feed's and the sensor's name."""
    fold_result = folded(
        made_batch(greet("2001:db8::1", AT), data("192.0.2.9", AT), greet("10.0.0.1", AT)),
        made_batch(greet("192.0.2.9", AT), greet("9.255.0.0", AT), sensor="a"),
    )
    assert [row[:3] for row in unpack(fold_result.copy)] == [
        ("9.255.0.0", "smtpgreet", "a"),
        ("10.0.0.1", "smtpgreet", "s1"),
        ("192.0.2.9", "smtpdata", "s1"),
        ("192.0.2.9", "smtpgreet", "a"),
        ("192.0.2.9", "smtpgreet", "s1"),
        ("2001:db8::1", "smtpgreet", "s1"),
    ]
    assert not fold_result.one_sensor_each
    assert fold_result.has_ipv6


def test_two_spellings_of_an_address_are_one_row() -> None:
    fold_result = folded(
        made_batch(
            Observation("smtpgreet", "2001:DB8:0:0::1", AT, AT + 5, 2, 1, 1),
            Observation("smtpgreet", "2001:db8::1", AT - 5, AT, 3, 4, -(2**63)),
            greet("::ffff:192.0.2.1", AT),
            greet("192.0.2.1", AT),
        )
    )
    assert unpack(fold_result.copy) == [
        ("192.0.2.1", "smtpgreet", "s1", AT, AT, 2, 1, 0, 0, 0, 0, None),
        ("2001:db8::1", "smtpgreet", "s1", AT - 5, AT + 5, 5, 1, 5, 0, 1 - 2**63, 0, None),
    ]


def test_data_event_adds_a_greet_row_without_hits() -> None:
    row = data("192.0.2.1", AT, hits=7, first_ms=AT - 3 * DAY_MS, flags=1, targets=2)
    assert unpack(folded(made_batch(row)).copy) == [
        ("192.0.2.1", "smtpdata", "s1", AT - 3 * DAY_MS, AT, 7, 0b1001, 1, 0, 2, 0, None),
        ("192.0.2.1", "smtpgreet", "s1", AT - 3 * DAY_MS, AT, 0, 0b1001, 0, 0, 2, 0, None),
    ]


def seen(later: int, **more: Any) -> Observation:
    """Return a row that many days after the first day of AT's epoch week."""
    return greet("192.0.2.1", MONDAY + later * DAY_MS, **{"flags": 1, "targets": 2, **more})


MONDAY = (AT // DAY_MS // 7 * 7) * DAY_MS
#: Rows, and days, flags, flags_before, targets, targets_before on AT's day.
DAYS_AND_BITS: list[tuple[list[Observation], list[int]]] = [
    ([seen(0)], [1, 1, 0, 2, 0]),
    # A row of several days tells the first and the last one.
    ([seen(0, first_ms=MONDAY - 4 * DAY_MS)], [0b10001, 1, 0, 2, 0]),
    # A late row is moved, and loses what is too old.
    ([seen(-1, first_ms=MONDAY - 9 * DAY_MS)], [1 << 9 | 0b10, 0, 1, 0, 2]),
    ([seen(-8)], [1 << 8, 0, 0, 0, 0]),
    ([seen(-70)], [OLDER, 0, 0, 0, 0]),
    # So are several.
    ([seen(-1, flags=8), seen(0, flags=4)], [0b11, 4, 8, 2, 2]),
    ([seen(0, flags=4), seen(-7, flags=8)], [1 | 1 << 7, 4, 8, 2, 2]),
    # A clock ahead counts as today.
    ([seen(2, first_ms=MONDAY)], [1, 1, 0, 2, 0]),
    ([seen(3, first_ms=MONDAY - DAY_MS)], [0b11, 1, 0, 2, 0]),
    ([seen(7, first_ms=MONDAY)], [1, 1, 0, 2, 0]),
    # A note makes no day; its behaviours belong to its week.
    ([seen(0), seen(0, hits=0, flags=16, targets=0)], [1, 17, 0, 2, 0]),
    ([seen(0), seen(-1, hits=0, flags=16, targets=0)], [1, 1, 16, 2, 0]),
    ([seen(0, hits=0, flags=16, targets=0)], [0, 16, 0, 0, 0]),
]


@pytest.mark.parametrize(("rows", "stored"), DAYS_AND_BITS)
def test_days_and_bits_are_relative_to_today(rows: list[Observation], stored: list[int]) -> None:
    assert TODAY == MONDAY // DAY_MS + 4
    fold_results = [fold([check(delivery_of(made_batch(*order)))], EMPTY, MONDAY // DAY_MS)
            for order in (rows, rows[::-1])]  # fmt: skip
    for one in fold_results:
        (row,) = unpack(one.copy)
        assert row[6:11] == tuple(stored)
        assert one.has_notes == (stored[0] == 0 and rows[0].hits == 0)


@pytest.mark.parametrize("kept", [0, 1, 4_096])
def test_rows_that_share_some_of_their_bits_keep_their_own(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fold has all rows of the table, each with its own address."""
    monkeypatch.setattr(fold_module, "_KEPT", kept)
    rows = [
        msgspec.structs.replace(row, ip=f"192.0.2.{number}")
        for number, (rows_of_one, _) in enumerate(DAYS_AND_BITS)
        for row in rows_of_one
    ]
    folded_together = fold([check(delivery_of(made_batch(*rows)))], EMPTY, MONDAY // DAY_MS)
    assert [list(row[6:11]) for row in unpack(folded_together.copy)] == [
        stored for _, stored in DAYS_AND_BITS
    ]


def test_note_does_not_change_times() -> None:
    event, note = greet("192.0.2.1", AT), greet("192.0.2.1", AT + 5, first_ms=AT - 5, hits=0)
    for rows in ((event, note), (note, event)):
        assert unpack(folded(made_batch(*rows)).copy)[0][3:7] == (AT, AT, 1, 1)


def test_origins_and_names_are_those_of_the_table() -> None:
    fold_result = folded(made_batch(greet("0.0.0.1"), greet("192.0.2.1")), origin=KnowsAllOrigins())
    assert [row[-1] for row in unpack(fold_result.copy)] == [None, 64_692]
    assert fold_result.names == {64_692: "AS 64692 known"}
    assert fold_result.annotated
    assert not folded(made_batch(greet("192.0.2.1"))).annotated


def test_hours_are_truncated_summed_and_bounded() -> None:
    hour = AT - AT % 3_600_000
    counts = [HourCount("smtpgreet", hour + 5, 1), HourCount("smtpgreet", hour, 2)]
    huge = [HourCount("smtpdata", hour, 2**53)] * 600
    fold_result = folded(made_batch(hours=[*counts, *huge]))
    assert [(row.feed, row.events) for row in fold_result.hours] == [
        ("smtpdata", MAX_COUNT),
        ("smtpgreet", 3),
    ]
    assert {row.hour for row in fold_result.hours} == {utc(hour)}


def test_newest_batch_of_a_sensor_has_its_state() -> None:
    fold_result = folded(
        made_batch(
            sealed_ms=AT + 1, version="new", depth=5, drops=6, addresses=64, counters={"a": 1}
        ),
        made_batch(sealed_ms=AT, version="old"),
    )
    ((name, sealed_at, version, counters, depth, drops, addresses),) = fold_result.sensors
    assert (name, sealed_at, version) == ("s1", utc(AT + 1), "new")
    assert (counters, depth, drops, addresses) == ({"a": 1}, 5, 6, 64)
    assert folded(made_batch(addresses=2**53)).sensors[0].addresses == ADDRESSES_MAX


def test_empty_batch_gives_no_row() -> None:
    fold_result = folded(made_batch())
    assert (fold_result.rows, fold_result.oldest, unpack(fold_result.copy)) == (0, None, [])
    assert len(fold_result.sensors) == 1


OVERFLOWS = [
    ("2001:db8::/64", True),
    ("2001:DB8:0:0::/64", True),
    ("2001:db8::1/64", False),
    ("2001:db8::/48", False),
    ("2001:db8::", False),
    ("192.0.2.0/64", False),
    ("::ffff:192.0.2.0/64", False),
    ("/64", False),
]


@pytest.mark.parametrize(("prefix", "good"), OVERFLOWS)
def test_only_a_64_bit_ipv6_prefix_is_an_overflow(prefix: str, good: bool) -> None:
    row = PrefixOverflow("smtpgreet", prefix, AT, AT, 1)
    checked = check(delivery_of(made_batch(greet("192.0.2.1"), overflows=[row])))
    assert (len(checked.overflows), len(checked.refused)) == ((1, 0) if good else (0, 1))
    assert len(checked.rows) == 1


def with_spool(text: str) -> bytes:
    batch = made_batch()
    return encode(batch).replace(str(batch.spool).encode(), text.encode())


REFUSED = [
    (delivery_of(made_batch(sensor="s2")).body, "s1", "names the sensor 's2'"),
    (delivery_of(made_batch()).body, None, "did not check the sending account"),
    (with_spool("-" * 36), "s1", "Invalid UUID"),
    (b"\xff", "s1", "not a batch"),
    (b'{"v": 2}', "s1", "not a batch"),
    (b" " * (8 * 1024 * 1024 + 1), "s1", "octets"),
]


@pytest.mark.parametrize(("body", "account", "reason"), REFUSED)
def test_invalid_message_or_sender_is_refused(
    body: bytes, account: str | None, reason: str
) -> None:
    with pytest.raises(WireError, match=reason):
        check(Delivery(body, account, "observations.s1", redelivered=False, token=None))


def test_two_forms_of_a_uuid_are_one_spool() -> None:
    spool = uuid.uuid4()
    spellings = (str(spool), spool.hex, str(spool).upper())
    keys = {check(delivery_of(with_spool(text))).key for text in spellings}
    assert len(keys) == 1


def test_refused_rows_are_kept_unchanged() -> None:
    checked = check(delivery_of(made_batch(greet("192.0.2.1\0"), greet("192.0.2.2"))))
    kept = refused_rows_body(checked).decode()
    assert "192.0.2.1\\\\u0000" in kept
    assert "192.0.2.2" not in kept


def test_sensors_text_is_bounded_and_printable() -> None:
    assert printable("1.0\0\x1b[31m\n" + "x" * 200) == "1.0[31m" + "x" * 54
    assert stored_counters({"b\0": 1, "a": 2}) == {"a": 2, "b": 1}
    assert len(stored_counters({str(n): n for n in range(256)})) == 128


addresses = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"])
observations = st.builds(
    lambda feed, ip, at, more, hits: Observation(feed, ip, AT + at, AT + at + more, hits),
    st.sampled_from(["smtpgreet", "smtpdata"]),
    addresses,
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 5),
)


@settings(deadline=None)
@given(st.lists(st.lists(observations, max_size=8), min_size=1, max_size=5), st.randoms())
def test_fold_is_the_same_in_any_order_and_data_is_part_of_greet(
    parts: list[list[Observation]], chance: object
) -> None:
    batches = [made_batch(*part, seq=n + 1, sealed_ms=AT) for n, part in enumerate(parts)]
    shuffled = list(batches)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    rows = unpack(folded(*batches).copy)
    assert unpack(folded(*shuffled).copy) == rows
    last = {(row[0], row[1]): row[4] for row in rows if row[6]}
    for (ip, feed), at in last.items():
        if feed == "smtpdata":
            assert last[ip, "smtpgreet"] >= at  # type: ignore[operator]
    given_hits = sum(row.hits for part in parts for row in part)
    assert sum(row[5] for row in rows) == given_hits  # type: ignore[misc]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
hostile_rows = st.fixed_dictionaries(
    {
        "feed": st.sampled_from(["smtpgreet", "smtpdata"]) | json_values,
        "ip": st.sampled_from(["192.0.2.1", "::1", "fe80::1%x", "1.2.3.4\0"]) | json_values,
        "first_ms": st.integers(946_684_800_000, 253_370_764_800_000) | json_values,
        "last_ms": st.integers(946_684_800_000, 253_370_764_800_000) | json_values,
        "hits": st.integers(0, 2**53) | json_values,
        "flags": st.integers(0, 2**63 - 1) | json_values,
        "targets": st.integers(-(2**63), 2**63 - 1) | json_values,
    }
)


@settings(deadline=None, max_examples=200)
@given(st.lists(hostile_rows | json_values, max_size=5), json_values, json_values)
def test_no_message_of_any_shape_raises_anything_but_wire_error(
    rows: list[object], counters: object, version: object
) -> None:
    body = json.loads(encode(made_batch(greet("192.0.2.77"))))
    body["observations"] += rows
    body["counters"], body["version"] = counters, version
    try:
        checked = check(delivery_of(json.dumps(body).encode(), "s1"))
    except WireError:
        return
    fold_result = fold([checked], EMPTY, TODAY)
    assert ("192.0.2.77", "smtpgreet", "s1") in [row[:3] for row in unpack(fold_result.copy)]
    assert refused_rows_body(checked)
    assert len(checked.rows) + len(checked.refused) == len(rows) + 1
