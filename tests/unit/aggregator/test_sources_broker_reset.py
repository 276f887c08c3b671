"""A broker that resets a connection at once is away, and no reason for the program to end."""

import socket
from unittest.mock import Mock

import pytest

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources.broker import connect
from smtpfeeds_common.errors import BrokerUnavailable


def test_connection_reset_before_pika_looked_at_it_is_an_absent_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pika says ValueError then; seen when everything was broken at random."""
    met = ValueError("Expected connected socket, but getpeername() failed")
    monkeypatch.setattr("pika.BlockingConnection", Mock(side_effect=met))
    with socket.create_server(("127.0.0.1", 0)) as broker:
        url = f"amqp://a:x@127.0.0.1:{broker.getsockname()[1]}/v"
        with pytest.raises(BrokerUnavailable, match="getpeername"):
            connect(AggregatorSettings(broker=(url,)), "test")
