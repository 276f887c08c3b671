"""A broker that resets a connection at once is unavailable, and does not end the program."""

import socket
from unittest.mock import Mock

import pytest

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources.broker import connect
from smtpfeeds_common.errors import BrokerUnavailable


def test_connection_reset_at_once_means_an_unavailable_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pika raises ValueError then; the random fault runs showed it."""
    met = ValueError("Expected connected socket, but getpeername() failed")
    monkeypatch.setattr("pika.BlockingConnection", Mock(side_effect=met))
    with socket.create_server(("127.0.0.1", 0)) as broker:
        url = f"amqp://a:x@127.0.0.1:{broker.getsockname()[1]}/v"
        with pytest.raises(BrokerUnavailable, match="getpeername"):
            connect(AggregatorSettings(broker=(url,)), "test")
