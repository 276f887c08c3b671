"""A publishing process: its supervision, its errors, and the record of a running one."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smtpfeeds_aggregator.clock.database import ClockInDoubt, DatabaseClock
from smtpfeeds_aggregator.publish import failures
from smtpfeeds_aggregator.publish.failures import (
    REASONS,
    DiskFull,
    LockLost,
    PublishKilled,
    PublishTimedOut,
    carried,
    name_of,
    reason_of,
)
from smtpfeeds_aggregator.publish.generation import FeedsDirectory
from smtpfeeds_aggregator.publish.messages import (
    MAX_LINE_BYTES,
    Done,
    decode_from_child,
    encode,
)
from smtpfeeds_aggregator.publish.once import Published, _disk_errors
from smtpfeeds_aggregator.publish.process import Follower, Limits
from smtpfeeds_aggregator.publish.sanity import SuspiciousFeeds
from smtpfeeds_aggregator.publish.status import StatusFile, Success
from smtpfeeds_aggregator.publish.stopping import PublishStopped
from smtpfeeds_aggregator.store.errors import DatabaseRefused, DatabaseTimeout
from smtpfeeds_common.errors import (
    DatabaseUnavailable,
    ListsError,
    OriginError,
    PublishError,
    SettingsError,
    SmtpfeedsError,
)
from smtpfeeds_common.logs import JsonFormatter, TextFormatter

LEFT = '{"type":"done","published":null}'


def follow(
    program: str, stop: Callable[[], bool] = lambda: False, timeout_s: float = 600
) -> Published | None:
    """Follow a program that replaces the publishing program."""
    asked = threading.Event()
    if stop():
        asked.set()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
    ) as process:
        return Follower(process, DatabaseClock(), Limits(asked, timeout_s, 0.0)).result()


def test_log_of_the_process_is_written_to_the_log_of_the_aggregator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Logger, level, time, fields and traceback are kept, in both forms of the log."""
    line = json.dumps(
        {
            "type": "log",
            "logger": "smtpfeeds_aggregator.publish.made_up",
            "level": 30,
            "created": 1.5,
            "event": "half done",
            "fields": {"part": "misp"},
            "traceback": "Traceback:\n  ZeroDivisionError",
        }
    )
    assert follow(f"print({line!r}); print({LEFT!r})") is None
    (record,) = caplog.records
    assert (record.name, record.levelno) == (
        "smtpfeeds_aggregator.publish.made_up",
        logging.WARNING,
    )
    assert TextFormatter().format(record) == (
        "1970-01-01T00:00:01Z warning aggregator.publish.made_up: half done part=misp"
        "\n  Traceback:\n    ZeroDivisionError"
    )
    assert json.loads(JsonFormatter().format(record))["traceback"].endswith("ZeroDivisionError")


def test_output_that_is_not_a_message_is_dropped_within_a_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    not_utf8 = LEFT.encode().replace(b"done", b"\xff") + b"\n"
    program = [
        "import sys",
        f"print('x' * {3 * MAX_LINE_BYTES})",
        "print('nonsense', flush=True)",
        f"sys.stdout.buffer.write({not_utf8!r})",
        f"print({LEFT!r})",
    ]
    assert follow("; ".join(program)) is None
    events = [record.message for record in caplog.records]
    assert "the publishing process sent too long a line: dropped" in events
    assert events[-2:] == ["the publishing process sent an unreadable message: dropped"] * 2


@pytest.mark.parametrize(
    ("program", "error", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", PublishKilled, "^SIGKILL ended .* memory ran out"),
        ("import os; os.kill(os.getpid(), 15)", PublishStopped, "The program is stopping"),
        ("raise SystemExit('no module of this name')", PublishError, "no module of this name"),
        ("raise SystemExit(4)", PublishError, "exit code 4"),
    ],
)
def test_end_without_a_result_is_reported_with_its_cause(
    program: str, error: type[PublishError], words: str
) -> None:
    with pytest.raises(error, match=words):
        follow(program)


def test_stopped_or_late_process_is_killed() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    with pytest.raises(PublishStopped):
        follow(stubborn, stop=lambda: True)
    with pytest.raises(PublishTimedOut, match="longer than 0 s"):
        follow(stubborn, timeout_s=0)


def test_result_after_the_time_limit_counts() -> None:
    """The edition is published already."""
    finished = f"print({LEFT!r}, flush=True)"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", finished], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
    ) as process:
        process.wait()
        assert (
            Follower(process, DatabaseClock(), Limits(threading.Event(), 0, 600)).result() is None
        )


def test_publication_is_unchanged_after_the_pipe() -> None:
    now = datetime(2026, 11, 26, 1, tzinfo=UTC)
    left_out = {"smtpgreet": {"excluded": 1}}
    published = Published(
        Path("/feeds/x"), now, now, {"smtpgreet": 2}, left_out, 3, 0.5, "a file is stuck"
    )
    assert decode_from_child(encode(Done(published))) == Done(published)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SuspiciousFeeds("half of it"), "refused"),
        (DiskFull("no space"), "disk_full"),
        (LockLost("lost"), "lock_lost"),
        (ClockInDoubt("earlier"), "clock_in_doubt"),
        (DatabaseRefused("no such account"), "database"),
        (DatabaseUnavailable("away"), "database"),
        (OriginError("truncated"), "data_set"),
        (ListsError("damaged"), "data_set"),
        (PublishError("in the way"), "other"),
        (SettingsError("unknown key"), "other"),
    ],
)
def test_error_keeps_class_message_and_reason_between_processes(
    error: SmtpfeedsError, reason: str
) -> None:
    arrived = carried(name_of(error), error.message)
    assert (type(arrived), arrived.message) == (type(error), error.message)
    assert reason_of(arrived) == reason
    assert reason in REASONS


def test_class_that_is_not_carried_arrives_as_its_parent() -> None:
    assert type(carried(name_of(DatabaseTimeout("slow")), "slow")) is DatabaseUnavailable
    assert type(carried("", "ZeroDivisionError: by zero")) is PublishError


def test_tree_of_errors_is_complete() -> None:
    """The tree at the top of the module is the reference for the reasons."""
    drawn = failures.__doc__ or ""
    for cls in PublishError.__subclasses__():
        assert f"── {cls.__name__} " in drawn, cls


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, DiskFull, "Free space there"),
        (errno.EDQUOT, DiskFull, "raise the quota"),
        (errno.EACCES, PublishError, "directory's permissions"),
    ],
)
def test_full_disk_has_its_own_reason(
    tmp_path: Path, number: int, error: type[PublishError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught, _disk_errors(FeedsDirectory(tmp_path)):
        raise OSError(number, "as the system says")
    assert type(caught.value) is error


def test_running_publication_is_shown_while_its_process_has_the_lock(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    assert file.read_running() is None
    with file.running(90):
        running = file.read_running()
        assert running is not None
        assert running.timeout_s == 90
    assert file.read_running() is None
    (tmp_path / "absent").touch()
    with StatusFile(tmp_path / "absent").running(None):
        assert StatusFile(tmp_path / "absent").read_running() is None


def test_failure_is_kept_after_the_next_success(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    success = Success(datetime.now(UTC), "g", {}, {}, 1.0)
    file.failed("SIGKILL ended it", "killed")
    file.published(success)
    file.published(success)
    status = file.read()
    assert status.failure is None
    assert status.earlier_failure is not None
    assert status.earlier_failure.kind == "killed"
    file.failed("half of it", "refused")
    refused = file.read().failure
    assert refused is not None
    assert refused.refused
