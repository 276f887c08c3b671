"""The directory of the published feeds: generations, and the names that readers use.

    FEEDS_DIR/feeds/                        all that is served; a directory that stays the same
        generations/20261123T110000Z-1f0c9a2e/smtpgreet.txt ...
        current -> generations/20261123T110000Z-1f0c9a2e
        smtpgreet.txt -> current/smtpgreet.txt ...
    FEEDS_DIR/.unfinished/                  what is being written or deleted
    FEEDS_DIR/.directory-id                 names the advisory lock

One rename, that of `current`, switches all files. A bind mount or a container with `feeds` sees
each switch, because every link in it is relative and stays inside. Every user can read the served
files, whatever the umask. Only the holder of the directory's lock may write here.

Version 0.1.0 had a symlink `feeds` to one of FEEDS_DIR/generations; ``layout`` converts it.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import PublishError
from smtpfeeds_common.users import remedy_for_owner

from ..datasets.generations import CURRENT, GENERATIONS, Generations, sync_path
from . import layout
from .edition import MANIFEST, generated_at

SERVED: Final = "feeds"
_UNFINISHED: Final = ".unfinished"
_ID_FILE: Final = ".directory-id"


class FeedsDirectory:
    """The directory of the published feeds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: The folder that a web server serves.
        self.served = path / SERVED
        self._generations = Generations(self.served, path / _UNFINISHED, public=True)

    def check(self) -> None:
        """Create the directory if it is missing.

        Raises:
            PublishError: something else has the name of the feeds' folder.
        """
        if not self.path.is_dir():
            self.path.mkdir(parents=True)
            self.path.chmod(0o755)
        if self.served.is_symlink() or not self.served.exists():
            return
        if not self.served.is_dir() or (
            any(self.served.iterdir()) and not (self.served / GENERATIONS).is_dir()
        ):
            raise PublishError(
                f"{self.served} was not created by smtpfeeds; move it away, or set feeds_dir to "
                "another directory"
            )
        if copied := self._generations.copied_link():
            raise PublishError(
                f"{copied} is not a link: {self.served} was copied without its links. Copy it "
                "again with `cp -a` or `rsync -a`, or move it away: the next publication then "
                "makes a new one, without the archive"
            )

    def prepare(self) -> int:
        """Create what is missing, finish or delete what a killed run left, convert 0.1.0's layout.

        Returns:
            How many unfinished generations were deleted.
        """
        layout.take_over(self.path, self.served, self.path / _UNFINISHED)
        self._generations.prepare()
        removed = self._generations.clean()
        self._link_files()
        return removed

    def lock_key(self) -> int:
        """Return the number of the advisory lock, the same for all users of this directory."""
        file = self.path / _ID_FILE
        with suppress(FileExistsError):
            temporary = self.path / f"{_ID_FILE}-{uuid.uuid4().hex}"
            temporary.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
            try:
                os.link(temporary, file)  # never overwrite an existing file
            finally:
                temporary.unlink()
        try:
            return int.from_bytes(uuid.UUID(file.read_text("ascii").strip()).bytes[:8], signed=True)
        except ValueError as exc:
            raise PublishError(f"{file} has no UUID; remove it: the next run makes one") from exc

    def generated(self) -> datetime | None:
        """Return the time of the published edition; None if there is none, or it is unreadable."""
        for folder in (self.served / CURRENT, self.served):
            with suppress(FileNotFoundError, NotADirectoryError):
                return generated_at((folder / MANIFEST).read_bytes())
        return None

    def current(self) -> Path | None:
        """Return the published generation's own path; None if there is none yet."""
        current = self._generations.current()
        return current if current is not None and layout.is_there(current) else None

    @contextmanager
    def new_generation(self, now: datetime) -> Iterator["Generation"]:
        """Create a folder for a generation; it is deleted unless it is published."""
        name = f"{self._generations.next_stamp(now)}-{uuid.uuid4().hex[:8]}"
        with self._generations.new(name) as partial:
            yield Generation(name, partial, self._generations.path(name))

    def sync(self, generation: "Generation") -> None:
        """Sync a finished generation to disk; readers still see the previous one."""
        self._generations.sync(generation.partial)

    def switch(self, generation: "Generation") -> None:
        """Publish the generation by one rename."""
        self._generations.add(generation.partial, generation.name)
        self._generations.switch(generation.name)
        self._link_files()

    def prune(self, kept: int) -> None:
        """Delete all but the newest generations, and never the current one.

        Raises:
            PublishError: a deleted generation is still served.
        """
        if stuck := self._generations.prune(kept):
            remedy = remedy_for_owner(self._generations.path(stuck[0]), self.path)
            raise PublishError(
                f"cannot remove {', '.join(stuck)} in {self.served / GENERATIONS}"
                + (remedy and f": {remedy}")
            )

    def _link_files(self) -> None:
        """Create one link for each file of the current generation, and delete others."""
        current = self._generations.current()
        if current is None:
            return
        wanted = {path.name for path in current.iterdir()}
        linked = {
            path.name: path.readlink() == Path(CURRENT) / path.name
            for path in self.served.iterdir()
            if path.is_symlink() and path.name != CURRENT
        }
        right = {name for name in wanted if linked.get(name)}
        for name in sorted(linked.keys() - right):
            (self.served / name).unlink(missing_ok=True)
        for name in sorted(wanted - right):
            try:
                (self.served / name).symlink_to(Path(CURRENT) / name)
            except FileExistsError as exc:
                raise PublishError(
                    f"{self.served / name} is not a link of smtpfeeds; move it away"
                ) from exc
        if linked.keys() != wanted or right != wanted:
            sync_path(self.served)


class Generation:
    """A generation that is being written."""

    def __init__(self, name: str, partial: Path, final: Path) -> None:
        self.name = name
        self.partial = partial
        #: Its final path.
        self.final = final

    @property
    def base(self) -> str:
        """Return its path below the served directory."""
        return f"{GENERATIONS}/{self.name}/"
