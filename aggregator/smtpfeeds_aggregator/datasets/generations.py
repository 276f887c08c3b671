"""Finished generations side by side, and one symlink that says which is current.

    ROOT/current -> generations/20261123T110000Z-1f0c9a2e
    ROOT/generations/20261123T110000Z-1f0c9a2e/...
    UNFINISHED/...            what is being written or removed, on the same file system

A generation is written aside, put on disk, renamed whole, and never changes afterwards;
`current` is switched by one rename. Whatever moment a process dies at, `current` names a
whole generation, and all that is in `generations` is whole. Names begin with a time and sort
in the order in which they were given. One process at a time calls what writes here: the
callers have locks of their own.
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
        """Make nothing yet.

        Args:
            root: where `current` and `generations` are.
            unfinished: where generations are written; on the file system of `root`.
            public: every user may read what is in `root`, whatever the umask says.
        """
        self.root = root
        self.unfinished = unfinished
        self._folder = root / GENERATIONS
        self._link = root / CURRENT
        self._public = public

    def prepare(self) -> None:
        """Make the directories that are missing.

        Raises:
            OSError: they cannot be made; the file's name is in it.
        """
        for folder in (self.root, self._folder, self.unfinished):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                if self._public:
                    folder.chmod(_PUBLIC_DIRECTORY)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A directory to write a generation into; removed unless `add` took it."""
        partial = self.unfinished / name
        partial.mkdir()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def next_stamp(self, now: datetime) -> str:
        """The time that a new generation's name begins with.

        It is a second later than the newest that is here where the clock shows no later time:
        the names tell the order.
        """
        at = now.astimezone(UTC)
        for name in self.names()[:1]:
            with suppress(ValueError):
                newest = datetime.strptime(name[:_STAMP_CHARS], _STAMP).replace(tzinfo=UTC)
                at = max(at, newest + timedelta(seconds=1))
        return at.strftime(_STAMP)

    def sync(self, partial: Path) -> None:
        """Put a finished directory on disk, which may take long; `add` does it too."""
        for folder, _, files in os.walk(partial, topdown=False):
            for file in files:
                self._sync(Path(folder, file), _PUBLIC_FILE)
            self._sync(Path(folder), _PUBLIC_DIRECTORY)

    def add(self, partial: Path, name: str) -> Path:
        """Put a finished directory on disk and give it its place; it is not current yet.

        Args:
            partial: a directory in `unfinished`.
            name: begins with `next_stamp`.
        """
        self.sync(partial)
        final = self._folder / name
        partial.rename(final)
        sync_directory(self._folder)
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
        sync_directory(self.root)

    def current(self) -> Path | None:
        """The current generation's directory, by its own name; None if there is none yet."""
        try:
            return self._folder / self._link.readlink().name
        except OSError:
            return None

    def names(self) -> list[str]:
        """All generations, the newest first."""
        try:
            return sorted(
                (path.name for path in self._folder.iterdir() if path.is_dir()), reverse=True
            )
        except OSError:
            return []

    def path(self, name: str) -> Path:
        """A generation's directory."""
        return self._folder / name

    def prune(self, kept: int) -> list[str]:
        """Keep the current generation and the newest others, so many in all.

        Returns:
            The names of those that should be gone, and cannot be moved away.
        """
        current = self.current()
        others = [name for name in self.names() if current is None or name != current.name]
        stuck = []
        for name in others[max(kept - 1, 0) :]:
            # Out of sight by one rename first: a reader meets a whole generation or none.
            doomed = self.unfinished / name
            try:
                (self._folder / name).rename(doomed)
            except FileNotFoundError:
                pass
            except OSError:
                stuck.append(name)
            shutil.rmtree(doomed, ignore_errors=True)
        return stuck

    def clean(self) -> int:
        """Remove what a process that died left unfinished; returns how many directories went.

        Files in `unfinished` stay: they are the caller's.
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


def sync_directory(path: Path) -> None:
    """Put a directory's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
