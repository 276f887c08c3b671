"""Publishes repeatedly, each time in a separate process, as an aggregator does.

Run `python publisher.py PARENT` with settings as JSON on stdin. It ends when the process PARENT
ends. A test kills it, or one of its processes. A publication that fails for another reason ends it.
"""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime

import msgspec

from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.origin import EMPTY, OriginTable
from smtpfeeds_aggregator.publish.failures import PublishKilled
from smtpfeeds_aggregator.publish.process import ProcessRunner
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.parent_process import end_with_parent

#: No publication is as new as this, so each one is due.
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)


class NoTable:
    """A source of origins without a table."""

    current: OriginTable = EMPTY


def runner_of(settings: AggregatorSettings) -> ProcessRunner:
    """Create a runner without origins and lists."""
    lists = ListTable((), "none")
    return ProcessRunner(settings, NoTable(), lambda: lists, DatabaseClock(), Metrics())


def main(parent: int) -> None:
    end_with_parent(parent)
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=AggregatorSettings)
    runner = runner_of(settings)
    while True:
        try:
            runner.run(FAR_AHEAD, threading.Event())
        except PublishKilled:
            print("killed", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
