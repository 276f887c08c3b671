"""One publication, from the window in the database to the switch of the symlink.

Before the switch no published file changes. A later run repeats what fails after it: for example,
origins that were not written back still differ then. From the switch on the status names the
edition, whatever ends this process afterwards.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from smtpfeeds_common.errors import DatabaseError, PublishError
from smtpfeeds_common.feeds import FEEDS
from smtpfeeds_common.history import DAY_MS, WEEK_DAYS
from smtpfeeds_common.logs import fields
from smtpfeeds_common.users import remedy_for_error

from ..clock.database import DatabaseClock, Reading
from ..origin.lookup import DescribedLookup
from ..settings import AggregatorSettings, missing
from ..store.connection import Connection
from ..store.publication import OriginChange, PublicationStore
from ..store.query_rows import ALIVE_S
from .columns import Window
from .continued import Continued
from .edition import MANIFEST
from .failures import DiskFull, LockLost
from .generation import FeedsDirectory, Generation
from .generation_writer import Content, GenerationWriter, edition_frame
from .judgements import DatedLists, NoLists, judge_window
from .sanity import check_change
from .signing import Signer
from .snapshot import LeftOut, origin_changes, origins_in, with_origins
from .statistics import TOP, Summary, summarise
from .statistics import encode as encode_summary
from .status import NOT_FINISHED, StatusFile, Success
from .stopping import KeepGoing, PublishStopped, go_on, guarded
from .withdrawn import Withdrawn

logger = logging.getLogger(__name__)

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class PublicationClock(Protocol):
    """Decides whether a publication may use the database's clock: `DatabaseClock` does."""

    @property
    def monotonic(self) -> Callable[[], float]:
        """Return the time with which readings are compared."""
        ...

    def check_publication(self, reading: Reading, /) -> datetime:
        """Return the time of the publication.

        Raises:
            ClockInDoubt: nothing may be published.
        """
        ...


@dataclass(frozen=True, slots=True)
class Published:
    """The outcome of a publication."""

    generation: Path
    generated: datetime
    window_end: datetime
    addresses: dict[str, int]
    left_out: dict[str, dict[str, int]]
    origins_changed: int
    seconds: float
    #: What was not cleaned up after the publication, and why.
    not_cleaned: str | None


def publish_once(
    settings: AggregatorSettings,
    table: DescribedLookup,
    connection: Connection,
    *,
    lists: DatedLists | None = None,
    clock: PublicationClock | None = None,
    now: datetime | None = None,
    unless_made_since: datetime | None = None,
    keep_going: KeepGoing = go_on,
    force: bool = False,
    timeout_s: float | None = None,
) -> Published | None:
    """Publish one generation of all feeds below ``settings.feeds_dir``.

    Args:
        settings: where and how to publish.
        table: the origin table; while it is empty the stored origins are used.
        connection: a connection in autocommit mode; it holds the directory's lock.
        lists: the lists of scanners and mailers, for the classes; None: no lists.
        clock: decides whether the database's clock can be trusted.
        now: the present time; None: by the database's clock.
        unless_made_since: do nothing if an edition was made since then.
        keep_going: called now and then; an error of it ends the run.
        force: also publish numbers far from those of the previous edition.
        timeout_s: the caller's time limit, which `smtpfeeds publish status` shows.

    Returns:
        None if another process publishes this directory now, or has published.

    Raises:
        SettingsError: `feeds_dir` is not set.
        SuspiciousFeeds: a feed fell or rose by more than the settings allow.
        DiskFull: there is no space for the files.
        LockLost: another process may be publishing now.
        PublishError: the directory cannot be written, or a written file is not correct.
        ClockInDoubt: nothing may be published.
        DatabaseUnavailable: the connection to the database is lost.
    """
    if not settings.feeds_dir:
        raise missing("feeds_dir", "the directory for the feeds")
    store = PublicationStore(connection)
    directory = FeedsDirectory(Path(settings.feeds_dir))
    clock = clock or DatabaseClock()
    with _disk_errors(directory):
        directory.check()
        key = directory.lock_key()
        if not store.try_lock(key):
            return None
        try:
            at = now or clock.check_publication(store.read_clock(clock.monotonic))
            if unless_made_since and _is_made_in(directory, unless_made_since, at):
                return None
            run = _Publication(
                settings, table, lists or NoLists(), store, directory, key, clock, at, keep_going
            )
            with StatusFile(directory.path).running(timeout_s):
                return run.run(force=force)
        finally:
            if not connection.closed:
                store.unlock(key)


def is_left_to_another(
    directory: FeedsDirectory, store: PublicationStore, since: datetime, until: datetime
) -> bool:
    """Return whether another process publishes the directory now, or has published in that time.
    This saves the start of a process.

    Raises:
        PublishError: the directory cannot be used.
    """
    with _disk_errors(directory):
        directory.check()
        return _is_made_in(directory, since, until) or store.is_locked(directory.lock_key())


@contextmanager
def _disk_errors(directory: FeedsDirectory) -> Iterator[None]:
    """Translate the system's errors.

    Raises:
        PublishError: the system reported an error.
    """
    try:
        yield
    except OSError as exc:
        text = f"cannot publish below {directory.path}: {exc}; the last good feeds stay. "
        if exc.errno in _NO_SPACE:
            raise DiskFull(f"{text}Free space there, or raise the quota") from exc
        remedy = remedy_for_error(exc, directory.path)
        raise PublishError(
            text + (remedy or "Check the disk and the directory's permissions")
        ) from exc


def _is_made_in(directory: FeedsDirectory, since: datetime, until: datetime) -> bool:
    """Return whether the published edition is of that time; one in the future is from a wrong
    clock.
    """
    generated = directory.generated()
    return generated is not None and since <= generated <= until


class _Publication:
    """A run that holds the lock."""

    def __init__(
        self,
        settings: AggregatorSettings,
        table: DescribedLookup,
        lists: DatedLists,
        store: PublicationStore,
        directory: FeedsDirectory,
        key: int,
        clock: PublicationClock,
        now: datetime,
        keep_going: KeepGoing,
    ) -> None:
        self._settings = settings
        self._table = table if table.info.prefixes else None
        self._lists = lists
        self._store = store
        self._directory = directory
        self._key = key
        self._clock = clock
        self._keep_going = keep_going
        key_file = settings.signing_key_file
        self._signer = Signer.from_file(Path(key_file)) if key_file else None
        self._now = now
        self._frame = edition_frame(settings, now)

    def run(self, *, force: bool) -> Published:
        began = time.monotonic()
        if dead := self._directory.prepare():
            logger.warning(
                "removed unfinished generations of an interrupted run",
                extra=fields(generations=dead),
            )
        with self._directory.new_generation(self._now) as generation:
            stored = self._read_window()
            if not force:
                self._check_change(stored)
            window = stored
            if self._table is not None:
                window = with_origins(stored, self._table)
            names = self._names(window)
            excluded = list(self._store.exclusions())
            before = self._directory.current()
            continued = Continued(
                self._settings,
                self._directory.path,
                before,
                self._now,
                Withdrawn(self._directory.path, excluded),
                self._keep_going,
            )
            left_out = LeftOut.by_settings(self._settings, excluded)
            published, left_out_counts = left_out.apply(window)
            changes = origin_changes(stored, window)
            # They may be as large as their published part.
            del stored, window
            content = self._content(published, names, left_out_counts)
            writer = GenerationWriter(
                self._settings, self._frame, self._signer, before, self._keep_going
            )
            writer.write(generation, content, continued)
            summary = self._summarise(content)
            self._switch(generation)
            self._note(generation, writer, left_out_counts, began, NOT_FINISHED)
            self._store_summary(summary)
            changed = self._write_back(changes, names)
        not_cleaned = continued.published(self._directory.prune)
        outcome = Published(
            generation.final,
            self._now,
            self._frame.window_end,
            writer.addresses,
            left_out_counts,
            changed,
            time.monotonic() - began,
            not_cleaned,
        )
        self._note(generation, writer, left_out_counts, began, not_cleaned)
        return outcome

    def _note(
        self,
        generation: Generation,
        writer: GenerationWriter,
        left_out: dict[str, dict[str, int]],
        began_s: float,
        not_cleaned: str | None,
    ) -> None:
        success = Success(
            self._now,
            generation.name,
            writer.addresses,
            left_out,
            time.monotonic() - began_s,
            writer.not_written,
            not_cleaned,
        )
        StatusFile(self._directory.path).published(success)

    def _check_change(self, window: Window) -> None:
        addresses: dict[str, int] = {
            feed.name: len(columns.address)
            for feed, columns in zip(FEEDS, window.feeds, strict=True)
        }
        before = self._directory.served / MANIFEST
        check_change(self._settings, before, addresses, self._now)

    def _read_window(self) -> Window:
        """Read the whole window, with the stored origins."""
        now_s = int(self._now.timestamp())
        week = now_s * 1000 // DAY_MS // WEEK_DAYS
        with self._store.copy_window(self._frame.window_start, None, week) as blocks:
            return Window.read(blocks, now_s, self._keep_going)

    def _names(self, window: Window) -> dict[int, str]:
        """Return the full cleaned names of all origins in the window."""
        asns = origins_in(window)
        if self._table is None:
            return self._store.names_of(asns)
        names = ((asn, self._table.name(asn)) for asn in asns)
        return {asn: name for asn, name in names if name}

    def _content(
        self, window: Window, names: dict[int, str], left_out: dict[str, dict[str, int]]
    ) -> Content:
        lists = self._lists.on(self._now.date())
        return Content(
            window,
            judge_window(window, self._store.sensors_alive(ALIVE_S), lists),
            names,
            left_out,
            self._store.events_by_hour(self._frame.window_start),
            None if self._table is None else self._table.generation,
            self._lists.generation,
        )

    def _summarise(self, content: Content) -> Summary:
        """Count the edition for `smtpfeeds stats`."""
        return summarise(
            content.window,
            content.judgements,
            content.names,
            generated=self._now,
            expires=self._frame.expires,
            hours=content.hours,
            sensors=self._store.events_by_sensor(self._frame.window_start, TOP * len(FEEDS)),
        )

    def _store_summary(self, summary: Summary) -> None:
        """Store the statistics; if that fails, the next publication stores them."""
        try:
            self._store.store_summary(self._now, encode_summary(summary))
        except DatabaseError as exc:
            logger.warning("statistics not stored", extra=fields(error=exc.message))

    def _switch(self, generation: Generation) -> None:
        """Publish if the lock is still ours and the clock is not in doubt. If the connection is
        lost, another process may have the lock.
        """
        self._directory.sync(generation)
        self._clock.check_publication(self._store.read_clock(self._clock.monotonic))
        if not self._store.holds_lock(self._key):
            raise LockLost(
                f"lost the lock of {self._directory.path} while writing; nothing was published"
            )
        self._directory.switch(generation)

    def _write_back(self, changes: Iterator[OriginChange], names: dict[int, str]) -> int:
        """Store the lists, and new origins and names, for queries."""
        try:
            self._store.store_lists(self._lists.generation, self._lists.ranges())
            if self._table is None:
                return 0
            info = self._table.info
            self._store.store_origin_generation(
                self._table.generation,
                source=info.source,
                table_time=info.table_time,
                prefixes=info.prefixes,
                origins=info.origins,
            )
            self._store.store_names(names)
            return self._store.store_origins(guarded(changes, self._keep_going))
        except (DatabaseError, PublishStopped) as exc:
            logger.warning(
                "origins and lists not stored, the next publication tries again",
                extra=fields(error=exc.message),
            )
            return 0
