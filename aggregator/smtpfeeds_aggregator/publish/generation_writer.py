"""Write the files of one generation and read them back, before they are published.

First come the rows of both feeds, then the files that continue the previous edition, then the page,
and last the manifest and SHA256SUMS, which list all files and are signed.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from smtpfeeds_common.feeds import FEEDS

from ..settings import AggregatorSettings
from .check import check_feed
from .chunks import FeedRows
from .columns import Window
from .continued import Continued
from .documents import write_documents
from .edition import MANIFEST, SIGNATURE, SUMS
from .entries import Frame
from .files import FeedFile, files_of, write_files
from .generation import Generation
from .grid import expiry
from .judgements import Judgements
from .manifest import encode, manifest
from .page.build import build_page
from .page.render import PAGE, STATIC, render, static_file
from .page.search import SEARCH_DATA, SearchColumns, search_data
from .policy import POLICY, policy_document
from .signing import Signer, trusted_comment
from .snapshot import window_end, window_start
from .statistics import Hours
from .stopping import KeepGoing, PublishStopped, each_guarded
from .unchanged import share_unchanged
from .written import Written, write_whole


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a publication."""

    window: Window
    judgements: Judgements
    #: Cleaned AS names.
    names: dict[int, str]
    #: How many addresses of each feed are left out, by reason.
    left_out: dict[str, dict[str, int]]
    #: Events by hour and feed.
    hours: Hours
    #: The origin table, if there is one, and the lists of scanners and mailers.
    origin_generation: str | None
    list_generation: str


def edition_frame(settings: AggregatorSettings, now: datetime) -> Frame:
    """Return what all files of an edition made now state about it, for the first feed."""
    end = window_end(now)
    stale = expiry(now.timestamp(), settings.publish_interval_s)
    return Frame(
        feed=FEEDS[0],
        family=None,
        window_start=window_start(end),
        window_end=end,
        generated=now,
        expires=datetime.fromtimestamp(stale, UTC),
        publisher=settings.publisher_name,
        contact=settings.publisher_contact,
        licence=settings.publisher_licence,
    )


@contextmanager
def read_back(folder: Path, keep_going: KeepGoing) -> Iterator[Callable[[list[FeedFile]], object]]:
    """Check feeds in a thread while the caller writes the next files, which waits for the disk.

    Yields a function that starts the check of a feed's files. The end waits for all checks; an
    error of the caller or of a check, or Ctrl-C, ends them.

    Raises:
        PublishError: a file is not correct.
    """
    is_over = Event()
    checks: list[Future[None]] = []

    def go_on() -> None:
        if is_over.is_set():
            raise PublishStopped
        keep_going()

    thread = ThreadPoolExecutor(1, "publish-read-back")
    try:
        yield lambda files: checks.append(thread.submit(check_feed, folder, files, go_on))
        for check in checks:
            check.result()
    finally:
        is_over.set()
        thread.shutdown(cancel_futures=True)


class GenerationWriter:
    """Writes one generation."""

    def __init__(
        self,
        settings: AggregatorSettings,
        frame: Frame,
        signer: Signer | None,
        before: Path | None,
        keep_going: KeepGoing,
    ) -> None:
        """Write nothing yet.

        Args:
            settings: the formats and the kind of counts.
            frame: the frame of the edition.
            signer: signs manifest and SHA256SUMS, if there is a key.
            before: the published generation; unchanged files become links to its files.
            keep_going: called now and then.
        """
        self._settings, self._frame = settings, frame
        self._signer, self._before, self._keep_going = signer, before, keep_going
        self._public_key = None if signer is None else signer.public_key
        #: The files that are not written, and why, by name.
        self.not_written: dict[str, str] = {}
        #: How many addresses are in each feed's files.
        self.addresses: dict[str, int] = {}

    def write(self, generation: Generation, content: Content, continued: Continued) -> None:
        """Write and check all files of a generation.

        Raises:
            PublishError: a file on disk differs from what was written, or is not correct.
        """
        folder, feeds = generation.partial, dict[str, FeedRows]()
        files: list[Written] = []
        more: list[Written] = []
        with read_back(folder, self._keep_going) as check:
            for feed in FEEDS:
                rows = feeds[feed.name] = self._rows(feed.name, content)
                frame = replace(self._frame, feed=feed)
                of_feed = self._write_rows(folder, frame, rows)
                check(of_feed)
                files += [each for file in of_feed for each in file.written]
                more += self._write_documents(folder, frame, rows)
            more += continued.write(folder, content.window, content.judgements, feeds, files)
        self.not_written |= continued.not_written
        files += more
        beside = self._write_page(folder, content, files)
        listing = self._manifest(generation, content, files, continued.changes_since)
        beside += self._write_signed(generation, MANIFEST, listing)
        share_unchanged(folder, self._before, files + beside, self._keep_going)
        self._write_signed(generation, SUMS, _sums(files + beside))

    def _rows(self, feed: str, content: Content) -> FeedRows:
        return FeedRows(
            content.window,
            feed,
            content.judgements,
            content.names,
            now_s=int(self._frame.generated.timestamp()),
            exact_counts=self._settings.publish_exact_counts,
        )

    def _write_rows(self, folder: Path, frame: Frame, rows: FeedRows) -> list[FeedFile]:
        files = files_of(frame.feed, frame, self._settings.formats)
        write_files(folder, files, each_guarded(rows.chunks(), self._keep_going))
        whole = next(file for file in files if file.is_whole)
        self.addresses[frame.feed.name] = whole.counts.addresses
        return files

    def _write_documents(self, folder: Path, frame: Frame, rows: FeedRows) -> list[Written]:
        documents, too_large = write_documents(
            folder, rows, frame, self._settings.formats, self._keep_going
        )
        self.not_written |= too_large
        return documents

    def _write_page(self, folder: Path, content: Content, files: list[Written]) -> list[Written]:
        """Write the page, the files that it loads, and the policy."""
        window, judgements, names = content.window, content.judgements, content.names
        page = build_page(
            window, judgements, names, self._frame, files, content.hours, self._public_key
        )
        contents = {PAGE: render(page), POLICY: policy_document(self._frame)}
        contents |= {name: static_file(name) for name in STATIC}
        if page.search_entries is not None:
            contents[SEARCH_DATA] = search_data(SearchColumns.of_window(window, judgements, names))
        return [
            write_whole(folder, name, octets)
            for name, octets in each_guarded(contents.items(), self._keep_going)
        ]

    def _manifest(
        self,
        generation: Generation,
        content: Content,
        files: list[Written],
        changes_since: datetime | None,
    ) -> bytes:
        classes: dict[str, dict[str, int]] = {
            feed.name: content.judgements.count(columns.address)
            for feed, columns in zip(FEEDS, content.window.feeds, strict=True)
        }
        return encode(
            manifest(
                self._frame,
                files,
                not_written=self.not_written,
                left_out=content.left_out,
                classes=classes,
                origin=content.origin_generation,
                lists=content.list_generation,
                base=generation.base,
                changes_since=changes_since,
                public_key=self._public_key,
            )
        )

    def _write_signed(self, generation: Generation, name: str, octets: bytes) -> list[Written]:
        """Write a file, and, with a key, its signature."""
        written = [write_whole(generation.partial, name, octets)]
        if self._signer is not None:
            frame = self._frame
            comment = trusted_comment(name, generation.name, frame.generated, frame.expires)
            signature = self._signer.sign(octets, comment)
            written.append(write_whole(generation.partial, f"{name}{SIGNATURE}", signature))
        return written


def _sums(files: list[Written]) -> bytes:
    """Return the SHA-256 of every file, in the format of sha256sum(1)."""
    lines = sorted((file.name, file.sha256) for file in files)
    return "".join(f"{sha256}  {name}\n" for name, sha256 in lines).encode("ascii")
