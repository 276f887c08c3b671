"""Run one scheduled publication, in any process.

`process.ProcessRunner` runs it in its own process, whose program is ``child``.
"""

import threading
from datetime import datetime
from typing import Protocol

from ..origin.lookup import DescribedLookup
from ..settings import AggregatorSettings
from ..store.connection import Connection, connect, discard
from .judgements import DatedLists
from .once import PublicationClock, Published, publish_once
from .stopping import KeepGoing


class Runner(Protocol):
    """Runs publications, one at a time."""

    def run(self, unless_made_since: datetime, stop: threading.Event, /) -> Published | None:
        """Publish, unless another process publishes now, or has since that time.

        Raises:
            SmtpfeedsError: the publication failed; PublishStopped if the event was set.
        """
        ...


def publish_scheduled(
    settings: AggregatorSettings,
    table: DescribedLookup,
    lists: DatedLists,
    clock: PublicationClock,
    unless_made_since: datetime,
    keep_going: KeepGoing,
) -> Published | None:
    """Publish once, with its own connection; see `publish_once`."""
    connection = connect_publisher(settings)
    try:
        return publish_once(
            settings,
            table,
            connection,
            lists=lists,
            clock=clock,
            unless_made_since=unless_made_since,
            keep_going=keep_going,
            timeout_s=settings.publish_timeout_s,
        )
    finally:
        discard(connection)


def connect_publisher(settings: AggregatorSettings) -> Connection:
    """Open a connection for publishing."""
    # It reads and sorts the whole window in one statement.
    limit_s = 10 * settings.database_timeout_s
    return connect(settings.for_publishing, "publish", autocommit=True, limit_s=limit_s)
