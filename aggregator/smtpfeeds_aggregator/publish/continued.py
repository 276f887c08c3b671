"""The files that continue those of the previous edition: changes, MISP feed, archive.

`once` uses this twice: while a generation is written, and after it is published.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from smtpfeeds_common.errors import PublishError
from smtpfeeds_common.feeds import FEEDS
from smtpfeeds_common.logs import fields

from ..settings import AggregatorSettings
from . import changes
from .archive import ARCHIVED, INDEX, write_archive
from .changes import Snapshot, Snapshots
from .chunks import FeedRows
from .columns import Window
from .judgements import Judgements
from .misp_feed import MispFeed, too_many
from .stopping import KeepGoing, guarded
from .withdrawn import Withdrawn
from .written import Written, write_checked

logger = logging.getLogger(__name__)


class Continued:
    """The continued files of one publication."""

    def __init__(
        self,
        settings: AggregatorSettings,
        directory: Path,
        before: Path | None,
        now: datetime,
        withdrawn: Withdrawn,
        keep_going: KeepGoing,
    ) -> None:
        """Write nothing yet.

        Args:
            settings: the formats, and the retention of the archive.
            directory: the directory that contains `feeds`.
            before: the published generation, if any.
            now: the time of the new generation.
            withdrawn: the addresses that are no longer published.
            keep_going: called now and then.
        """
        self._settings, self._before, self._now = settings, before, now
        self._withdrawn, self._keep_going = withdrawn, keep_going
        self._snapshots = Snapshots(directory, now)
        self._snapshot: Snapshot | None = None
        #: The edition with which the changes are compared.
        self.changes_since: datetime | None = None
        #: The files that are not written, and why, by name.
        self.not_written: dict[str, str] = {}

    def write(
        self,
        folder: Path,
        window: Window,
        judgements: Judgements,
        feeds: Mapping[str, FeedRows],
        files: list[Written],
    ) -> list[Written]:
        """Write all of them into a generation; `files` are its files with rows."""
        written = self._write_changes(folder, window, judgements)
        written += self._write_misp(folder, feeds)
        return written + self._write_archive(folder, files)

    def published(self, prune: Callable[[int], None]) -> str | None:
        """After the publication, store what the next one needs, and delete what is no longer
        needed.

        The next run repeats a step that fails; the edition stays published.

        Args:
            prune: deletes all but this many generations.

        Returns:
            What is not done, and why; None if everything is done.
        """
        is_new = self._withdrawn.is_new
        kept = 1 if is_new else self._settings.generations_kept
        # Generations first: they are served, and deleting them needs no space on the disk.
        failures = _failures(lambda: prune(kept)) + _failures(self._keep_snapshots)
        failures = failures or _failures(self._withdrawn.note)
        if not failures:
            return None
        reason = (
            f"{'addresses that are excluded now' if is_new else 'old addresses'} may still be in "
            f"files of past editions: {'; '.join(failures)}"
        )
        logger.warning(
            "not everything was cleaned up after publishing; the next publication tries again",
            extra=fields(reason=reason),
        )
        return reason

    def _keep_snapshots(self) -> None:
        if self._withdrawn.is_new:
            self._snapshots.withdraw(self._withdrawn)
        if self._snapshot is None:
            self._snapshots.clear()
        else:
            self._snapshots.keep(self._snapshot)

    def _write_changes(self, folder: Path, window: Window, judgements: Judgements) -> list[Written]:
        if "changes" not in self._settings.formats:
            return []
        self._snapshot = Snapshot.of_window(window, judgements)
        nearest = self._snapshots.nearest()
        before, self.changes_since = nearest or (self._snapshot, None)
        written: list[Written] = []
        for feed in FEEDS:
            differences = guarded(self._snapshot.since(before, feed.name), self._keep_going)
            lines = (
                (msgspec.json.encode(change).decode() + "\n", 1)
                for change in differences
                if not self._withdrawn.holds(change.ipaddr)
            )
            name = f"{feed.name}{changes.SUFFIX}"
            written += write_checked(
                folder, name, feed.name, lines, changes.read_back, self._keep_going
            )
        return written

    def _write_misp(self, folder: Path, feeds: Mapping[str, FeedRows]) -> list[Written]:
        if "misp" not in self._settings.formats:
            return []
        feed = MispFeed(
            folder,
            self._before,
            self._settings.publisher_name,
            self._now,
            days=self._settings.misp_days,
            withdrawn=self._withdrawn,
        )
        for rows in feeds.values():
            feed.add(rows, self._keep_going)
        self.not_written |= too_many(feed.left_out.items())
        return feed.write()

    def _write_archive(self, folder: Path, files: list[Written]) -> list[Written]:
        if not self._settings.archive_days:
            return []
        if not set(ARCHIVED) & set(self._settings.formats):
            self.not_written[INDEX] = "the archive needs ndjson or csv among the formats"
            return []
        return write_archive(
            folder,
            self._before,
            files,
            self._now,
            days=self._settings.archive_days,
            withdrawn=self._withdrawn,
            keep_going=self._keep_going,
        )


def _failures(step: Callable[[], None]) -> list[str]:
    """Run a step; return what failed."""
    try:
        step()
    except (OSError, PublishError) as exc:
        return [str(exc)]
    return []
