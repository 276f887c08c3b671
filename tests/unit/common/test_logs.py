"""Logs: one line an event, whatever a value holds."""

import json
import logging

from smtpfeeds_common.logs import JsonFormatter, TextFormatter, fields


def record(message: str, **values: object) -> logging.LogRecord:
    made = logging.LogRecord("smtpfeeds_sensor.x", logging.WARNING, "f", 1, message, (), None)
    made.created = 1_795_431_600.0
    made.__dict__.update(fields(**values))
    return made


def test_text_is_one_line_with_quoted_values() -> None:
    line = TextFormatter().format(record("batch held", reason="no\nroute", seq=7))
    assert line == ('2026-11-23T11:00:00Z warning sensor.x: batch held reason="no\\nroute" seq=7')


def test_a_percent_sign_in_a_value_is_no_format() -> None:
    assert TextFormatter(with_time=False).format(record("heard", bytes="%s%d")).endswith('"%s%d"')


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(record("batch held", seq=7))
    assert json.loads(line) == {
        "time": "2026-11-23T11:00:00Z",
        "level": "warning",
        "logger": "smtpfeeds_sensor.x",
        "event": "batch held",
        "seq": 7,
    }
    assert "\n" not in line
