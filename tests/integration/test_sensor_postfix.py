"""Stray mail: a real Postfix sends a message to a sensor, and its sender gets a bounce at once."""

import re
from pathlib import Path

import pytest

from sensor_support import running
from sensor_support.postfix import STRAY, postfix
from servers.processes import wait_until

POLICY = "https://feeds.example/why"
MESSAGE = "Subject: for somebody else\r\n\r\n" + "A line of an honest message.\r\n" * 200


@pytest.mark.parametrize(
    ("policy", "tls"),
    [
        ("reject", "off"),  # refused at DATA
        ("drain", "off"),  # refused after the text was read and discarded
        ("reject", "made"),  # Postfix uses STARTTLS if it is offered
    ],
)
def test_message_to_the_sensor_is_bounced_and_not_retried(
    tmp_path: Path, policy: str, tls: str
) -> None:
    """The bounce says why and names the host; nothing stays in the queue."""
    with (
        running(tmp_path, data_policy=policy, tls=tls, policy_url=POLICY) as sensor,
        postfix(sensor.place()) as mta,
    ):
        mta.send(MESSAGE)
        # The message, and then its bounce, have left the queue.
        wait_until(lambda: mta.log.count(": removed") == 2, what="the bounce is there")
        log, bounce = mta.log, mta.bounce()
        outcomes = re.findall(r"to=<([^>]*)>.* status=(\w+)", log)
        assert outcomes == [(STRAY, "bounced"), ("one@sender.example", "sent")], log
        assert "dsn=5.7.1" in log
        assert "TLS connection established" in log or tls == "off"
        assert "554 5.7.1" in bounce
        assert POLICY in re.sub(r"\s+", " ", bounce)
        assert "Status: 5.7.1" in bounce
        assert sensor.stop() == 0
    rows = sensor.rows()
    assert rows["smtpgreet", "127.0.0.1"][0] == 1
    assert rows["smtpdata", "127.0.0.1"][0] == 1
