"""Logs: one line per event, for every value of a field."""

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpfeeds_common.logs import JsonFormatter, TextFormatter, configure, fields, is_journal


def record(message: str, **values: object) -> logging.LogRecord:
    log_record = logging.LogRecord("smtpfeeds_sensor.x", logging.WARNING, "f", 1, message, (), None)
    log_record.created = 1_795_431_600.0
    log_record.__dict__.update(fields(**values))
    return log_record


def test_text_is_one_line_with_quoted_values() -> None:
    line = TextFormatter().format(record("batch held", reason="no\nroute", seq=7))
    assert line == ('2026-11-23T11:00:00Z warning sensor.x: batch held reason="no\\nroute" seq=7')


def test_a_traceback_forges_no_line_and_no_colour() -> None:
    log_record = record("part failed")
    try:
        raise ValueError("bad: '\n2026-11-23T11:00:00Z info x: ready\x1b[31m'")
    except ValueError:
        log_record.exc_info = sys.exc_info()
    lines = TextFormatter().format(log_record).splitlines()
    assert all(line.startswith("  ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)


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


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    root, pika = logging.getLogger(), logging.getLogger("pika")
    kept = root.handlers[:], root.level, pika.level
    yield
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    pika.setLevel(kept[2])


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_broker_that_is_away_writes_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """smtpfeeds logs one line; pika's tracebacks appear only at level debug."""
    configure("info")
    logging.getLogger("pika.adapters.blocking_connection").error("Error in _create_connection().")
    assert capsys.readouterr().err == ""
    configure("debug")
    logging.getLogger("pika.adapters.blocking_connection").error("Error in _create_connection().")
    assert "_create_connection" in capsys.readouterr().err


def test_time_is_left_out_only_where_the_journal_reads_this_very_stream(tmp_path: Path) -> None:
    """A child of a service inherits the variable but writes to a file."""
    with (tmp_path / "log").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, environ)
        assert not is_journal(other, environ)
        assert not is_journal(stream, {})
    assert not is_journal(stream, environ), "closed"
    assert not is_journal(io.StringIO(), environ), "no file at all"


def test_thread_that_nobody_watches_does_not_end_without_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    before = root.handlers[:]
    configure()
    try:
        thread = threading.Thread(target=lambda: 1 / 0, name="metrics")
        thread.start()
        thread.join()
    finally:
        root.handlers[:] = before
    written = capsys.readouterr().err
    assert "error common.logs: thread ended by an error thread=metrics\n" in written
    assert "  ZeroDivisionError" in written
