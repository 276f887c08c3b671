"""The directories of published generations, and the one symlink that says which is current.

    FEEDS_DIR/feeds -> generations/20261123T110000Z-1f0c9a2e
    FEEDS_DIR/generations/20261123T110000Z-1f0c9a2e/smtpgreet.txt ...
    FEEDS_DIR/generations/.partial-...      being written; of a dead run: removed by the next
    FEEDS_DIR/.directory-id                 what the advisory lock is named by

A generation never changes once it has its name. Everything is on disk before
the symlink is switched, by one rename. What a web server serves is world-readable,
whatever the umask. Only the holder of the directory's lock calls what writes here.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import PublishError

from .disk import sync_directory
from .manifest import generated_at

LINK: Final = "feeds"
GENERATIONS: Final = "generations"
MANIFEST: Final = "manifest.json"
_ID_FILE: Final = ".directory-id"
_PARTIAL: Final = ".partial-"
_NEW_LINK: Final = ".feeds-"
DIRECTORY_MODE: Final = 0o755


class FeedsDirectory:
    """One directory in which the feeds are published."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generations = path / GENERATIONS

    def prepare(self) -> None:
        """Make what is missing.

        Raises:
            PublishError: something else stands where the feeds should be.
        """
        link = self.path / LINK
        if link.exists() and not link.is_symlink():
            raise PublishError(
                f"{link} is not a symlink made by smtpfeeds; move it away, or set feeds_dir "
                "to another directory"
            )
        for folder in (self.path, self._generations):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(DIRECTORY_MODE)

    def lock_key(self) -> int:
        """The advisory lock's number: the same for everyone who sees this very directory."""
        file = self.path / _ID_FILE
        with suppress(FileExistsError):
            temporary = self.path / f"{_ID_FILE}-{uuid.uuid4().hex}"
            temporary.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
            try:
                os.link(temporary, file)  # never over one that is there
            finally:
                temporary.unlink()
        try:
            return int.from_bytes(uuid.UUID(file.read_text("ascii").strip()).bytes[:8], signed=True)
        except ValueError as exc:
            raise PublishError(f"{file} holds no UUID; remove it, a new one is made") from exc

    def generated(self) -> datetime | None:
        """When what is published now was made; None if nothing is, or nothing readable."""
        try:
            told = (self.path / LINK / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return generated_at(told)

    @contextmanager
    def new_generation(self, now: datetime) -> Iterator["Generation"]:
        """A directory to write a generation into; removed unless it was published."""
        name = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        partial = self._generations / f"{_PARTIAL}{name}"
        partial.mkdir()
        partial.chmod(DIRECTORY_MODE)
        try:
            yield Generation(partial, self._generations / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def switch(self, generation: "Generation") -> None:
        """Give a generation its name and let the symlink name it: the one moment that counts."""
        generation.partial.rename(generation.final)
        sync_directory(self._generations)
        new_link = self.path / f"{_NEW_LINK}{uuid.uuid4().hex}"
        new_link.symlink_to(Path(GENERATIONS) / generation.final.name)
        try:
            new_link.replace(self.path / LINK)
        except OSError:
            new_link.unlink()
            raise
        sync_directory(self.path)

    def clean(self) -> int:
        """Remove what dead runs left behind; returns how many partial generations went."""
        for link in self.path.glob(f"{_NEW_LINK}*"):
            link.unlink(missing_ok=True)
        partials = list(self._generations.glob(f"{_PARTIAL}*"))
        for partial in partials:
            shutil.rmtree(partial, ignore_errors=True)
        return len(partials)

    def prune(self, kept: int) -> None:
        """Remove all but the newest generations, and never the current one."""
        current = (self.path / LINK).resolve().name
        names = sorted(
            folder.name for folder in self._generations.iterdir() if folder.name[0] != "."
        )
        for name in names[:-kept]:
            if name != current:
                # Out of sight by one rename first: half a generation is none.
                doomed = self._generations / f"{_PARTIAL}{name}"
                (self._generations / name).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


class Generation:
    """A generation that is being written."""

    def __init__(self, partial: Path, final: Path) -> None:
        self.partial = partial
        self.final = final

    def seal(self) -> None:
        """See to it that the directory itself is on disk; its files have seen to themselves."""
        sync_directory(self.partial)
