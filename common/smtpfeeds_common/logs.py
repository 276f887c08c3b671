"""Logging to stderr: one line per event, with a fixed event name and fields.

``logger.info("batch confirmed", extra=fields(seq=7))`` writes one event. A client's bytes are only
ever the value of a field, never a format. systemd's journal adds the time of each line, so the
text form leaves it out if stderr is the journal.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

from .printable import printable

logger = logging.getLogger(__name__)

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")


def fields(**values: Any) -> dict[str, Any]:
    """Return the ``extra`` of a log call with these fields."""
    return {"fields": values}


class TextFormatter(logging.Formatter):
    """``2026-11-23T11:00:00Z warning smtpfeeds_sensor.delivery: held reason="no route"``."""

    def __init__(self, *, with_time: bool = True) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line; a traceback follows on lines of its own."""
        name = record.name.removeprefix("smtpfeeds_")
        line = f"{record.levelname.lower()} {name}: {record.getMessage()}"
        if self._with_time:
            line = f"{_utc(record.created)} {line}"
        for key, value in getattr(record, "fields", {}).items():
            line += f" {key}={_quoted(value)}"
        line = line.replace("\n", "\\n")
        # Indented, so that text which an exception quotes cannot pass for a log line.
        traceback = _traceback(self, record).splitlines()
        line += "".join(f"\n  {_harmless(part)}" for part in traceback)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line."""
        entry: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if traceback := _traceback(self, record):
            entry["traceback"] = traceback
        return json.dumps(entry, default=str)


def configure(level: str = "info", form: str = "text") -> None:
    """Send all log lines to stderr in one form; a command calls this once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else TextFormatter(with_time=not is_journal(sys.stderr))
    )
    # An error that ends a thread must be logged.
    threading.excepthook = _log_end_of_thread
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("twisted",):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # pika logs a traceback for each failed connection; smtpfeeds logs one line itself.
    logging.getLogger("pika").setLevel(
        logging.WARNING if root.level == logging.DEBUG else logging.CRITICAL
    )


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the traceback of a record; a record from another process has it as text."""
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "unknown"
    logger.error(
        "thread ended by an error",
        exc_info=(arguments.exc_type, error, arguments.exc_traceback),
        extra=fields(thread=name),
    )


def is_journal(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a stream goes to systemd's journal, which adds the time to each line.

    JOURNAL_STREAM names the device and inode that systemd connected (systemd.exec(5)). A child
    inherits the variable even if its stderr is a file, so this compares the two.
    """
    stated = (os.environ if environ is None else environ).get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or without a descriptor
        return False
    return stated == f"{status.st_dev}:{status.st_ino}"


def _utc(created: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))


def _harmless(text: str) -> str:
    return printable(text, keep="\t")


def _quoted(value: Any) -> str:
    text = str(value)
    if text and all(char.isalnum() or char in "-_.:/,+@[]" for char in text):
        return text
    return json.dumps(text)
