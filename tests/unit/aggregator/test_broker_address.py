"""Addresses of the broker, as the settings give them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pika.credentials import PlainCredentials

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources.broker import parameters


@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("amqp://centre@127.0.0.1:5672/smtpfeeds", "from the file"),
        ("amqp://centre:its%20own@127.0.0.1:5672/smtpfeeds", "its own"),
    ],
)
def test_password_file_is_used_if_the_address_has_no_password(
    tmp_path: Path, address: str, password: str
) -> None:
    (tmp_path / "password").write_text("from the file\n")
    settings = AggregatorSettings(
        broker=(address,), broker_password_file=str(tmp_path / "password")
    )
    (read,) = parameters(settings, "test")
    credentials = read.credentials
    assert isinstance(credentials, PlainCredentials)
    assert (credentials.username, credentials.password) == ("centre", password)
    assert (read.host, read.virtual_host) == ("127.0.0.1", "smtpfeeds")
