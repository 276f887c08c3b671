"""The directory of origin tables: generations side by side, one of them current.

    DIR/current -> generations/20261123T061500Z-2518d6efcace-117e44bfd736
    DIR/generations/…/table.dat.gz  names.json.gz  origin.index  manifest.json
    DIR/incoming/        what is being fetched and made
    DIR/status.json      last attempt, success and failure; next refresh
    DIR/lock             held by the one refresh or rollback at a time

A generation is written aside, synced and renamed whole, and never changes
afterwards; `current` is one symlink, switched by one rename. Whatever moment a
process dies at, `current` names a whole generation. The last three are kept.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from smtpfeeds_common.errors import OriginError

from .table.in_memory import OriginTable
from .table.index import OriginIndex
from .table.load import sha256_of, table_of

KEPT: Final = 3
TABLE: Final = "table.dat.gz"
NAMES: Final = "names.json.gz"
INDEX: Final = "origin.index"
MANIFEST: Final = "manifest.json"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
#: A manifest or status is a few kB; a larger file is none.
_MAX_JSON_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The stable name of its table and names."""
        return str(self.manifest["generation"])

    def open(self) -> OriginTable:
        """Map its index once its bytes are what the manifest says.

        Raises:
            OriginError: damaged, or of another version or machine.
        """
        index = self.path / INDEX
        self.check(INDEX)
        try:
            with index.open("rb") as stream:
                return table_of(OriginIndex(stream.fileno(), name=str(index)))
        except OSError as exc:
            raise OriginError(f"cannot read {index}: {exc.strerror}") from exc

    def check(self, name: str) -> Path:
        """Give a file of it, whose bytes are what the manifest says.

        Raises:
            OriginError: they are not.
        """
        path = self.path / name
        if sha256_of(path) != self.manifest["sha256"].get(name):
            raise OriginError(
                f"{path} is damaged: its SHA-256 is not the manifest's; "
                "use `smtpfeeds origin rollback` or `smtpfeeds origin refresh --force`"
            )
        return path


class Shelf:
    """The generations in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._generations = directory / "generations"
        self._current = directory / "current"
        self.incoming = directory / "incoming"

    def prepare(self) -> None:
        """Make the directory.

        Raises:
            OriginError: it cannot be made.
        """
        try:
            for path in (self.directory, self._generations, self.incoming):
                path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as exc:
            raise OriginError(
                f"cannot make {exc.filename} for the origin tables: {exc.strerror}; "
                "check origin_dir and who may write there"
            ) from exc

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other refreshes and rollbacks out.

        Raises:
            OriginError: one is at work already.
        """
        self.prepare()
        path = self.directory / "lock"
        try:
            stream = path.open("a")
        except OSError as exc:
            raise OriginError(f"cannot open {path}: {exc.strerror}") from exc
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise OriginError(
                    f"another refresh or rollback is at work in {self.directory}: try later"
                ) from exc
            yield

    def target(self) -> str | None:
        """What `current` names; changes whenever another generation is put in use."""
        try:
            return str(self._current.readlink())
        except OSError:
            return None

    def current(self) -> Generation | None:
        """The generation in use.

        Raises:
            OriginError: what `current` names is not there.
        """
        target = self.target()
        return None if target is None else self._read(self.directory / target)

    def others(self) -> list[Generation]:
        """The whole generations besides the current one, newest first."""
        target = self.target()
        found = []
        for path in self._paths():
            if target is None or path.name != Path(target).name:
                with contextlib.suppress(OriginError):
                    found.append(self._read(path))
        return found

    def put(self, made: Path, manifest: dict[str, Any], now: datetime) -> Generation:
        """Take a finished generation in, and make it current.

        Args:
            made: a directory with the files, in `incoming`; its hashes are in the manifest.

        Raises:
            OriginError: it cannot be written; the current one stays.
        """
        final = self._generations / f"{self._next_stamp(now)}-{manifest['generation']}"
        try:
            _write_json(made / MANIFEST, manifest)
            for path in made.iterdir():
                _sync(path)
            _sync(made)
            made.rename(final)
            _sync(self._generations)
            self._switch(final)
        except OSError as exc:
            raise OriginError(
                f"the new origin table could not be put into {self.directory}: "
                f"{exc.strerror}; the old one stays"
            ) from exc
        self._prune()
        return Generation(final, manifest)

    def roll_back(self) -> Generation:
        """Put the newest generation that is older than the current one in use.

        Raises:
            OriginError: there is none that is whole.
        """
        target = self.target()
        left = Path(target).name if target is not None else ""
        for generation in self.others():
            # The same table, put in use twice, is nothing to go back to.
            again = left.endswith(generation.name)
            if not left or (generation.path.name < left and not again):
                generation.open()
                self._switch(generation.path)
                return generation
        raise OriginError(
            f"there is no older origin table in {self.directory} to go back to; "
            "`smtpfeeds origin refresh --force` makes a new one"
        )

    def status(self) -> dict[str, Any]:
        """What was noted of the refreshes."""
        try:
            return _read_json(self.directory / "status.json")
        except OriginError:
            return {}

    def note(self, **changes: Any) -> None:
        """Note something of the refreshes; a full disk costs the note alone."""
        path = self.directory / "status.json"
        with contextlib.suppress(OSError):
            aside = path.with_suffix(".new")
            _write_json(aside, self.status() | changes)
            aside.replace(path)

    def clear_incoming(self) -> None:
        """Remove what an earlier process left half made; fetched pieces stay."""
        for path in self.incoming.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def _next_stamp(self, now: datetime) -> str:
        """Now, or later than every generation that is here: their names tell their order."""
        at = now.astimezone(UTC)
        for path in self._paths()[:1]:
            with contextlib.suppress(ValueError):
                newest = datetime.strptime(path.name[:16], _STAMP).replace(tzinfo=UTC)
                at = max(at, newest + timedelta(seconds=1))
        return at.strftime(_STAMP)

    def _switch(self, final: Path) -> None:
        aside = self.directory / "current.new"
        aside.unlink(missing_ok=True)
        aside.symlink_to(final.relative_to(self.directory))
        aside.rename(self._current)
        _sync(self.directory)

    def _prune(self) -> None:
        """Keep the current and the newest others; the rest goes."""
        target = self.target()
        kept = 1
        for path in self._paths():
            if target is not None and path.name == Path(target).name:
                continue
            kept += 1
            if kept > KEPT:
                shutil.rmtree(path, ignore_errors=True)

    def _paths(self) -> list[Path]:
        try:
            return sorted((p for p in self._generations.iterdir() if p.is_dir()), reverse=True)
        except OSError:
            return []

    def _read(self, path: Path) -> Generation:
        manifest = _read_json(path / MANIFEST)
        if not isinstance(manifest.get("generation"), str) or not isinstance(
            manifest.get("sha256"), dict
        ):
            raise OriginError(f"{path / MANIFEST} is no manifest of an origin table")
        return Generation(path, manifest)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_JSON_BYTES))
    except (OSError, ValueError) as exc:
        raise OriginError(f"cannot read {path}: {exc}") from exc
    if not isinstance(content, dict):
        raise OriginError(f"{path} is damaged")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.write("\n")


def _sync(path: Path) -> None:
    """Have a file's or a directory's content on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
