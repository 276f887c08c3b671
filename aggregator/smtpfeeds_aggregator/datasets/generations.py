"""Finished generations side by side, and a symlink to the current one.

    ROOT/current -> generations/20261123T110000Z-1f0c9a2e
    ROOT/generations/20261123T110000Z-1f0c9a2e/...
    UNFINISHED/...            generations being written or removed, on the same file system

A generation is written in UNFINISHED, synced to disk and moved by one rename, and never changes
afterwards; another rename switches `current`. So `current` always names a complete generation,
whenever a process dies, and `generations` has complete ones only. Names begin with a time and
sort by age. Only one process may write at a time: the callers hold a lock.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

CURRENT: Final = "current"
GENERATIONS: Final = "generations"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_STAMP_CHARS: Final = len("20261123T110000Z")
_PUBLIC_DIRECTORY: Final = 0o755
_PUBLIC_FILE: Final = 0o644


class Generations:
    """The generations below one directory."""

    def __init__(self, root: Path, unfinished: Path, *, public: bool = False) -> None:
        """Name the directories; `prepare` creates them.

        Args:
            root: the directory of `current` and `generations`.
            unfinished: where generations are written; on the file system of `root`.
            public: make files readable for every user, whatever the umask is.
        """
        self.root = root
        self.unfinished = unfinished
        self._folder = root / GENERATIONS
        self._link = root / CURRENT
        self._public = public

    def prepare(self) -> None:
        """Create the directories that are missing.

        Raises:
            OSError: one cannot be created; the error has its name.
        """
        for folder in (self.root, self._folder, self.unfinished):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                if self._public:
                    folder.chmod(_PUBLIC_DIRECTORY)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield a directory to write a generation into; remove it unless `add` moved it."""
        partial = self.unfinished / name
        partial.mkdir()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def next_stamp(self, now: datetime) -> str:
        """Return the time that a new generation's name begins with.

        It is at least a second later than the newest generation's, even if the clock is not,
        because names sort by age.
        """
        at = now.astimezone(UTC)
        for name in self.names()[:1]:
            with suppress(ValueError):
                newest = datetime.strptime(name[:_STAMP_CHARS], _STAMP).replace(tzinfo=UTC)
                at = max(at, newest + timedelta(seconds=1))
        return at.strftime(_STAMP)

    def sync(self, partial: Path) -> None:
        """Sync a finished directory to disk, which may take long; `add` does it too."""
        for folder, _, files in os.walk(partial, topdown=False):
            for file in files:
                self._sync(Path(folder, file), _PUBLIC_FILE)
            self._sync(Path(folder), _PUBLIC_DIRECTORY)

    def add(self, partial: Path, name: str) -> Path:
        """Sync a finished directory to disk and move it to `generations`; not current yet.

        Args:
            partial: a directory in `unfinished`.
            name: begins with `next_stamp`.
        """
        self.sync(partial)
        final = self._folder / name
        partial.rename(final)
        sync_path(self._folder)
        return final

    def switch(self, name: str) -> None:
        """Make a generation current, by one rename."""
        aside = self.unfinished / f".{CURRENT}-{uuid.uuid4().hex}"
        aside.symlink_to(Path(GENERATIONS) / name)
        try:
            aside.replace(self._link)
        except OSError:
            aside.unlink()
            raise
        sync_path(self.root)

    def current(self) -> Path | None:
        """Return the current generation's directory, without the symlink; None if there is none."""
        try:
            return self._folder / self._link.readlink().name
        except OSError:
            return None

    def copied_link(self) -> Path | None:
        """Return `current` if it is not a link: the directory was copied without its links."""
        exists = os.path.lexists(self._link) and not self._link.is_symlink()
        return self._link if exists else None

    def names(self) -> list[str]:
        """Return the names of all generations, newest first."""
        try:
            return sorted(
                (path.name for path in self._folder.iterdir() if path.is_dir()), reverse=True
            )
        except OSError:
            return []

    def path(self, name: str) -> Path:
        """Return a generation's directory."""
        return self._folder / name

    def prune(self, kept: int) -> list[str]:
        """Keep the current generation and the newest others, `kept` in all.

        Returns:
            The names of older generations that could not be moved away.
        """
        current = self.current()
        others = [name for name in self.names() if current is None or name != current.name]
        stuck = []
        for name in others[max(kept - 1, 0) :]:
            # Move it by one rename first: a reader sees a complete generation or none.
            moved = self.unfinished / name
            try:
                (self._folder / name).rename(moved)
            except FileNotFoundError:
                pass
            except OSError:
                stuck.append(name)
            shutil.rmtree(moved, ignore_errors=True)
        return stuck

    def clean(self) -> int:
        """Remove unfinished directories of a process that died; returns how many.

        Files in `unfinished` stay: they belong to the caller.
        """
        removed = 0
        for path in self.unfinished.iterdir():
            if path.is_symlink():
                path.unlink(missing_ok=True)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        return removed

    def _sync(self, path: Path, mode: int) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if self._public:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_path(path: Path) -> None:
    """Sync a file, or the entries of a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
