"""The reader reads our properties of a message, whatever else it contains."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties

from servers.raw_amqp import (
    APP_ID,
    HEADERS,
    MESSAGE_ID,
    MORE_FLAGS,
    TIMESTAMP,
    USER_ID,
    header,
    long,
    properties,
    short,
)
from smtpfeeds_aggregator.sources.properties import Properties, read_properties

OURS = header(b"x-smtpfeeds-account", b"S", long(b"s1"))


def nested(kind: bytes, depth: int) -> bytes:
    """Return a table or an array in another, and so on."""
    value = b""
    for _ in range(depth):
        value = header(b"a", kind, long(value)) if kind == b"F" else kind + long(value)
    return header(b"deep", b"A", long(value)) if kind == b"A" else value


def test_properties_written_by_pika_are_read() -> None:
    written = BasicProperties(
        content_type="application/json",
        content_encoding="identity",
        headers={
            "x-smtpfeeds-account": "s1",
            "other": {"deep": [1, None, True, {"more": "x"}]},
            "x-smtpfeeds-reason": "größer",
        },
        delivery_mode=2,
        priority=1,
        correlation_id="c",
        reply_to="r",
        expiration="1000",
        message_id="id",
        timestamp=1_795_431_600,
        type="t",
        user_id="s1",
        app_id="a",
        cluster_id="c",
    )
    read = read_properties(b"".join(written.encode()))
    headers = {"x-smtpfeeds-account": "s1", "x-smtpfeeds-reason": "größer"}
    assert read == Properties("s1", "id", 1_795_431_600, headers)


@pytest.mark.parametrize(
    "entry",
    [
        header(b"t", b"T", b"\xff" * 8),  # a time that no calendar has
        header(b"d", b"D", b"\xff\x7f\xff\xff\xff"),
        header(b"f", b"f", struct.pack(">f", float("nan"))),
        header(b"n", b"V", b""),
        header(b"\xff\xfe", b"S", long(b"x")),
        header(b"k", b"S", long(b"\xff\xfe")),
        header(b"x", b"x", long(bytes(5000))),
        *(header(b"k", kind.encode(), b"\0") for kind in "tbB"),
        *(header(b"k", kind.encode(), bytes(2)) for kind in "sUu"),
        *(header(b"k", kind.encode(), bytes(4)) for kind in "Iif"),
        *(header(b"k", kind.encode(), bytes(8)) for kind in "LldT"),
        nested(b"F", 2000),
        nested(b"A", 20_000),
    ],
)
def test_unknown_value_is_skipped(entry: bytes) -> None:
    table = long(entry + OURS)
    read = read_properties(properties(HEADERS | USER_ID, table, short(b"s1")))
    assert read == Properties("s1", headers={"x-smtpfeeds-account": "s1"})


@pytest.mark.parametrize(
    "entry",
    [
        header(b"z", b"Z", b"1234"),  # a kind that nobody knows, so nobody knows its length
        header(b"k", b"S", struct.pack(">I", 2**32 - 1) + b"x"),  # longer than its table
        b"\xff" + b"x",
    ],
)
def test_rest_of_an_unreadable_table_is_skipped_but_not_what_follows(
    entry: bytes,
) -> None:
    read = read_properties(properties(HEADERS | USER_ID, long(OURS + entry), short(b"s1")))
    assert read == Properties("s1", headers={"x-smtpfeeds-account": "s1"})


def test_header_that_is_not_text_is_not_read() -> None:
    for value in (b"T" + b"\xff" * 8, b"F" + long(OURS), b"S" + long(b"\xff")):
        table = long(short(b"x-smtpfeeds-account") + value)
        assert read_properties(properties(HEADERS, table)).headers == {}


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        (properties(USER_ID, short(b"\xff\xfe")), "user_id is not UTF-8"),
        (properties(HEADERS, struct.pack(">I", 100) + OURS), "truncated"),
        (properties(USER_ID | APP_ID, short(b"s1")), "truncated"),
        (properties(TIMESTAMP, b"1234"), "truncated"),
        (b"", "truncated"),
        (struct.pack(">HH", MORE_FLAGS, 0), "flags"),
    ],
)
def test_properties_without_a_sender_give_a_reason(encoded: bytes, problem: str) -> None:
    assert problem in read_properties(encoded).problem


def test_message_id_that_is_not_text_is_ignored() -> None:
    assert read_properties(properties(MESSAGE_ID, short(b"\xff"))) == Properties()


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 0xFFFF), st.binary(max_size=200))
def test_reading_never_raises(flags: int, values: bytes) -> None:
    read_properties(properties(flags, values))
