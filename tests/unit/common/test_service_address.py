"""The address of a service is read correctly or refused, and printed without its secret."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.service_address import BROKER_PORTS, parse_address, parse_brokers


def parse(url: str) -> tuple[object, ...]:
    read = parse_address(url, BROKER_PORTS, name="broker")
    return (read.host, read.port, read.account, read.password, read.vhost)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("amqp://127.0.0.1", ("127.0.0.1", 5672, None, None, "/")),
        ("amqps://mq.example/", ("mq.example", 5671, None, None, "/")),
        ("amqp://s1@mq:1234/feeds", ("mq", 1234, "s1", None, "feeds")),
        ("amqp://s1:@mq/%2F", ("mq", 5672, "s1", "", "/")),
        (
            "amqps://s1:se%23cr%2Fet@[2001:db8::1]:5671/a%20b/",
            ("2001:db8::1", 5671, "s1", "se#cr/et", "a b"),
        ),
        ("amqp://s1:a:b@mq", ("mq", 5672, "s1", "a:b", "/")),
        ("amqp://s1:a@b@mq", ("mq", 5672, "s1", "a@b", "/")),  # the last @ precedes the host
        ("amqp://s1:100%@mq", ("mq", 5672, "s1", "100%", "/")),
        ("amqp://s1:[x]@mq?heartbeat=10", ("mq", 5672, "s1", "[x]", "/")),
        ("amqp://:word@mq", ("mq", 5672, None, "word", "/")),
    ],
)
def test_address_is_read(url: str, read: tuple[object, ...]) -> None:
    assert parse(url) == read


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mq.example",
        "http://mq.example",
        "amqp:/s1:Quokka@mq",
        "AMQP://s1:Quokka@mq",
        "amqp://s1:Zebra/Quokka@mq",
        "amqp://s1:Zebra?Quokka@mq",
        "amqp://s1:Zebra#Quokka@mq",
        "amqp://s1:12/Quokka@mq",  # it would be a valid port
        "amqp://s1:12?heartbeat=Quokka@mq",
        "amqp://s1:Quokka",
        "amqp://s1:Zebra/Quokka",
        "amqp://s1:Quokka@mq:port",
        "amqp://s1:Quokka@mq:65536",
        "amqp://s1:Quokka@mq:0",
        "amqp://s1:Quokka@",
        "amqp://s1:Quokka@[2001:db8::1",
        "amqp://s1:Quok%FFka@mq",
        "amqp://s1:Quokka@mq\n",
        "amqp://s1:Zebra Quokka@mq",
        "amqp://s1:Quokka@mq/a/b",
        "amqp://s1:Quokka@mq/#",
    ],
)
def test_address_that_is_not_understood_is_refused_and_none_of_it_quoted(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_brokers(("amqp://127.0.0.1", url))
    message = caught.value.message
    assert message.startswith("broker: address 2 of 2 is not amqp://ACCOUNT@HOST")
    assert "# as %23" in message
    assert "okka" not in message
    assert "Zebra" not in message
    assert caught.value.__cause__ is None


def test_text_of_an_address_has_no_password() -> None:
    read = parse_address("amqp://s%401:Quokka@mq/v?heartbeat=9", BROKER_PORTS, name="broker")
    assert str(read) == "amqp://s%401@mq:5672/v"
    assert "Quokka" not in repr(read)
    assert read.without_account == "amqp://mq:5672/v?heartbeat=9"


@given(st.text(min_size=1, max_size=30))
def test_any_password_that_is_escaped_is_read_back(password: str) -> None:
    try:
        escaped = quote(password, safe="")
    except UnicodeEncodeError:
        return  # a lone surrogate cannot be part of a password
    assert parse(f"amqp://s1:{escaped}@mq")[3] == password


@given(st.text(alphabet="s1:@/?#%[]é \\,\n0", max_size=20))
def test_any_text_is_read_or_refused_and_never_raises_anything_else(rest: str) -> None:
    with contextlib.suppress(SettingsError):
        str(parse_address(f"amqp://{rest}", BROKER_PORTS, name="broker"))


def test_address_is_given_another_account_and_no_password() -> None:
    url = "amqps://s1:a[b]c@[2001:db8::1]:5672/feeds?heartbeat=5"
    (address,) = parse_brokers((url,))
    assert address.password == "a[b]c"
    assert address.with_account("s 2") == "amqps://s%202@[2001:db8::1]:5672/feeds?heartbeat=5"
