"""The broker's addresses in the settings."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from pika.credentials import PlainCredentials
from pika.exceptions import (
    ConnectionClosedByBroker,
    ProbableAuthenticationError,
    StreamLostError,
)

from smtpfeeds_common.errors import BrokerRefused, BrokerUnavailable
from smtpfeeds_sensor.delivery.publisher import BrokerLink, read_brokers
from smtpfeeds_sensor.settings import SensorSettings


@pytest.mark.parametrize(
    "address",
    [
        "amqp://lisbon-1@127.0.0.1:5672/smtpfeeds",
        "amqp://127.0.0.1:5672/smtpfeeds",  # the account has the sensor's name
    ],
)
def test_password_file_is_used_if_the_address_has_no_password(tmp_path: Path, address: str) -> None:
    (tmp_path / "password").write_text("from the file\n")
    settings = SensorSettings(
        name="lisbon-1", broker=(address,), broker_password_file=str(tmp_path / "password")
    )
    (read,) = read_brokers(settings)
    assert read.account == "lisbon-1"
    credentials = read.parameters.credentials
    assert isinstance(credentials, PlainCredentials)
    assert credentials.password == "from the file"
    assert (read.parameters.host, read.parameters.virtual_host) == ("127.0.0.1", "smtpfeeds")


def test_connection_lost_in_the_handshake_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """pika assumes a wrong password; a refusal would raise an alarm and hold all batches."""
    lost = ProbableAuthenticationError(repr(StreamLostError("Stream connection lost: reset")))
    refused = ProbableAuthenticationError(repr(ConnectionClosedByBroker(403, "ACCESS_REFUSED")))
    settings = SensorSettings(name="s1", broker=("amqp://s1:x@127.0.0.1",))
    reset = ValueError("Expected connected socket, but getpeername() failed")
    table = ((lost, BrokerUnavailable), (reset, BrokerUnavailable), (refused, BrokerRefused))
    for met, meant in table:
        monkeypatch.setattr("pika.BlockingConnection", Mock(side_effect=met))
        with pytest.raises(meant):
            BrokerLink.of_settings(settings).open()
