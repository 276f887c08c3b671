"""Writes batches to a database as the ingest worker does, without a source."""

from __future__ import annotations

from datetime import timedelta

from ingest_support import DAY_MS, KnowsAllOrigins, delivery_of, now_ms, settings_of, settled_clock
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.rows import BatchKey, Folded, Outcome
from smtpfeeds_common.wire import Batch

RETENTION = timedelta(days=30)


def ingest_store(dsn: str, bounds: Bounds | None = None) -> IngestStore:
    """Create a store, by default with the bounds of the settings."""
    settings = settings_of(dsn)
    return IngestStore(
        lambda: connect(settings, "test", autocommit=True),
        clock=settled_clock(),
        retention=RETENTION,
        bounds=bounds or Bounds.of(settings),
    )


def apply(store: IngestStore, *batches: Batch) -> Outcome:
    """Write batches in one transaction; a key may occur more than once."""
    unique = {checked.key: checked for checked in map(check, map(delivery_of, batches))}

    def refold(keys: frozenset[BatchKey], today: int) -> Folded:
        fresh = [checked for key, checked in unique.items() if key in keys]
        return fold(fresh, KnowsAllOrigins(), today)

    return store.apply(fold(list(unique.values()), KnowsAllOrigins(), now_ms() // DAY_MS), refold)
