"""Publications that are killed at random moments, while readers read.

All rows of a publication have the same count, which differs from other publications. So a set of
files from two editions is recognised. Some readers read by path, like clients of a web server,
others by generation.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg

from acceptance.processes import descendants, still_there
from publish_support import publisher
from servers.processes import ServerFailedError
from smtpfeeds_aggregator.publish.status import StatusFile
from smtpfeeds_aggregator.publish.verify import open_edition
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_deploy.simulation.published import read_feed

ADDRESSES = 200
#: What becomes of publications, in any order: killed, with all that publishes, or not at all.
_FATES = ("process", "process", "publisher", "none")
_LIMIT_S = 120.0
#: All that the program may write.
_LOGGED = {"killed", "removed unfinished generations of an interrupted run"}


def settings_of(dsn: str, folder: Path) -> AggregatorSettings:
    """Keep every generation, to compare it with what readers got."""
    return AggregatorSettings(
        dsn=dsn,
        feeds_dir=str(folder),
        publish_non_global=True,
        publish_exact_counts=True,
        generations_kept=1_000,
    )


@dataclass
class Figures:
    """The counts of a run."""

    kills: Counter[str] = field(default_factory=Counter)
    generations: int = 0
    by_path: int = 0
    by_generation: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items()))
        return (
            f"{self.generations} generations in {self.seconds:.0f} s; kill -9: {kills}; read "
            f"whole: {self.by_path} files by path, {self.by_generation} sets by generation"
        )


class Publisher:
    """The program that publishes without a pause; it is started again when it is killed."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self._settings = settings
        self._program = self._start()

    def kill_process(self) -> bool:
        """Kill the process of the running publication, if there is one."""
        for process in descendants(self._program.pid):
            os.kill(process.pid, signal.SIGKILL)
            return True
        return False

    def kill_program(self) -> None:
        """Kill the program; its process ends too."""
        before = descendants(self._program.pid)
        self._program.kill()
        self._program.wait()
        _until(lambda: not still_there(before), "its process ends")
        self._program = self._start()

    def check(self) -> None:
        """Check that the program still runs; it ends when a publication fails."""
        if self._program.poll() is not None:
            code = self._program.returncode
            raise ServerFailedError(f"the publisher ended ({code}): {self._log().read_text()}")

    def end(self) -> str:
        """End it; returns its log."""
        self._program.kill()
        self._program.wait()
        return self._log().read_text()

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(Path(publisher.__file__).parents[1]), *sys.path])
        with self._log().open("ab") as log:
            program = subprocess.Popen(
                [sys.executable, publisher.__file__, str(os.getpid())],
                stdin=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )
        assert program.stdin is not None
        with program.stdin as stdin:
            stdin.write(msgspec.json.encode(self._settings))
        return program

    def _log(self) -> Path:
        return Path(self._settings.feeds_dir).with_suffix(".log")


class Readers:
    """Threads that read the published files, until they are stopped or find an error."""

    def __init__(self, served: Path) -> None:
        self._served = served
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(read,))
            for read in (self._by_path, self._by_generation)
        ]
        #: By the name of a file, the hashes of what was read by path.
        self.seen: defaultdict[str, set[str]] = defaultdict(set)
        self.files = self.sets = 0
        self.wrong: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, read: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                read()
        except Exception as exc:  # noqa: BLE001 - the test says what it was
            self.wrong.append(f"{type(exc).__name__}: {exc}")

    def _by_path(self) -> None:
        for path in sorted(self._served.glob("*.*")):
            self.seen[path.name].add(_digest(path))
            self.files += 1

    def _by_generation(self) -> None:
        check_set((self._served / "current").resolve(strict=True))
        self.sets += 1


def check_set(folder: Path) -> None:
    """Check that a set of files is of one snapshot and matches its manifest."""
    edition = open_edition(folder, None, now=datetime.min.replace(tzinfo=UTC))
    edition.verify_all()
    assert edition.edition.generation == folder.name
    counts = set()
    for feed in FEED_NAMES:
        files = read_feed(folder, feed)
        rows = files[f"{feed}.csv"]
        assert len(rows) == ADDRESSES
        assert rows == files[f"{feed}.ndjson"]
        assert rows.keys() == files[f"{feed}.txt"].keys()
        assert rows.keys() == {**files[f"{feed}-ipv4.txt"], **files[f"{feed}-ipv6.txt"]}.keys()
        counts |= {row.recorded.hits for row in rows.values()}
    assert len(counts) == 1, f"{folder.name} has rows of several snapshots: {counts}"


class KilledPublisher:
    """One run."""

    def __init__(self, dsn: str, folder: Path, seed: int) -> None:
        self._settings = settings_of(dsn, folder)
        self._folder, self._chance = folder, random.Random(seed)
        self._database = psycopg.connect(dsn, autocommit=True)
        self._figures = Figures()
        self._fates: list[str] = []
        self._publisher: Publisher
        for feed in FEED_NAMES:
            self._database.execute(
                "INSERT INTO observation SELECT address, %s, now(), now(), 1, 0, NULL FROM ("
                " SELECT '192.0.2.0'::inet + n AS address FROM generate_series(0, %s) AS n"
                " UNION ALL SELECT '2001:db8::'::inet + n FROM generate_series(0, %s) AS n"
                ") AS addresses",
                (feed, ADDRESSES // 2 - 1, ADDRESSES // 2 - 1),
            )

    def run(self, *, generations: int, kills: int) -> Figures:
        """Publish a number of generations, and kill a number of publications.

        Raises:
            AssertionError: something was wrong; the message says what.
        """
        began_s = time.monotonic()
        self._publisher = Publisher(self._settings)
        readers = Readers(self._folder / "feeds")
        try:
            self._wait_for_another(None)
            readers.start()
            while self._generations() < generations or self._figures.kills.total() < kills:
                self._strike()
                assert not readers.wrong, readers.wrong
            self._wait_for_another(self._current())
        finally:
            readers.stop()
            log = self._publisher.end()
        self._figures.seconds = time.monotonic() - began_s
        self._figures.by_path, self._figures.by_generation = readers.files, readers.sets
        assert not readers.wrong, readers.wrong
        assert set(log.splitlines()) <= _LOGGED, log
        self._check_all(readers)
        self._database.close()
        return self._figures

    def _strike(self) -> None:
        """Run one publication, and kill it at a random moment or not."""
        self._database.execute("UPDATE observation SET hits = hits + 1")
        before = self._current()
        if not self._fates:
            self._fates = self._chance.sample(_FATES, len(_FATES))
        fate = self._fates.pop()
        if fate == "process":
            self._kill(before)
        elif fate == "publisher":
            time.sleep(self._chance.uniform(0, 1.5))
            self._publisher.kill_program()
            self._figures.kills["publisher"] += 1
        else:
            self._wait_for_another(before)

    def _kill(self, before: str | None) -> None:
        """Kill it: half of the kills come at any time, half in the second half of a publication."""
        status = StatusFile(self._folder)
        if self._chance.random() < 0.5:
            _until(
                lambda: status.read_running() is not None or self._current() != before,
                "a publication runs",
                self._publisher,
            )
        time.sleep(self._chance.uniform(0, 0.5))
        if self._publisher.kill_process():
            self._figures.kills["process"] += 1

    def _wait_for_another(self, before: str | None) -> None:
        _until(lambda: self._current() not in {None, before}, "it publishes", self._publisher)

    def _current(self) -> str | None:
        link = self._folder / "feeds" / "current"
        return link.readlink().name if link.is_symlink() else None

    def _generations(self) -> int:
        return sum(1 for _ in self._folder.glob("feeds/generations/*"))

    def _check_all(self, readers: Readers) -> None:
        """Check that every generation is complete, and that files read by path belong to one of
        them.
        """
        written: defaultdict[str, set[str]] = defaultdict(set)
        for generation in sorted((self._folder / "feeds" / "generations").iterdir()):
            check_set(generation)
            self._figures.generations += 1
            for path in generation.iterdir():
                if path.is_file():
                    written[path.name].add(_digest(path))
        for name, digests in readers.seen.items():
            assert digests <= written[name], f"{name} was read as no generation has it"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _until(condition: Callable[[], bool], what: str, program: Publisher | None = None) -> None:
    deadline_s = time.monotonic() + _LIMIT_S
    while not condition():
        if program is not None:
            program.check()
        assert time.monotonic() < deadline_s, f"after {_LIMIT_S:g} s it is not so that {what}"
        time.sleep(0.01)
