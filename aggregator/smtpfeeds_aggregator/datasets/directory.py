"""The folder of one data set: generations with a manifest, one current; a lock; a status.

    DIR/current -> generations/20261123T061500Z-2518d6efcace-117e44bfd736
    DIR/generations/…/manifest.json beside the data's files, with their SHA-256
    DIR/incoming/        files that a refresh is fetching and making
    DIR/status.json      last attempt, success and failure; what was rolled back
    DIR/lock             held by a refresh or a rollback, one at a time

`generations` switches and prunes generations; this module adds the manifest, the lock and the
status. It keeps the last three generations.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from smtpfeeds_common.errors import DatasetError
from smtpfeeds_common.times import iso_utc
from smtpfeeds_common.users import remedy_for_error

from .generations import Generations

KEPT: Final = 3
MANIFEST: Final = "manifest.json"
_NEW: Final = "new"
#: A manifest or status is a few kB; a larger file is neither.
_MAX_JSON_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data set, in the words of its settings and commands."""

    #: What one generation is called: "origin table".
    noun: str
    #: The setting that names the directory.
    setting: str
    #: The command whose `refresh` and `rollback` change it: "smtpfeeds origin".
    command: str
    error: type[DatasetError]


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation on disk."""

    kind: Kind
    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The stable name of its content."""
        return str(self.manifest["generation"])

    def check(self, name: str) -> Path:
        """Check a file against the manifest's SHA-256 and return its path.

        Raises:
            DatasetError: the file is damaged.
        """
        path = self.path / name
        if sha256_of(path, self.kind.error) != self.manifest["sha256"].get(name):
            raise self.kind.error(
                f"{path} is damaged: its SHA-256 is not the manifest's; use "
                f"`{self.kind.command} rollback` or `{self.kind.command} refresh --force`"
            )
        return path


class DatasetDirectory:
    """The generations of one data set; every error is of the kind's class."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.incoming = directory / "incoming"
        self._generations = Generations(directory, self.incoming)
        self._status = directory / "status.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other refreshes and rollbacks out; creates the directory.

        Raises:
            DatasetError: another one is running, or the directory cannot be used.
        """
        self._prepare()
        self._check_link()
        path = self.directory / "lock"
        try:
            stream = path.open("a")
        except OSError as exc:
            raise self.kind.error(f"cannot open {path}: {self._reason(exc)}") from exc
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise self.kind.error(
                    f"another refresh or rollback is running in {self.directory}: try again later"
                ) from exc
            yield

    @contextlib.contextmanager
    def refreshing(self, now: datetime, *, scheduled: bool) -> Iterator[Path]:
        """Hold the lock, yield an empty folder for a new generation, and record the result.

        Args:
            scheduled: this attempt counts for the schedule; an import by hand does not.

        Raises:
            DatasetError: it failed; the status has the reason, and the current generation stays.
        """
        with self.locked():
            if scheduled:
                self.note(last_attempt=iso_utc(now))
            try:
                self._generations.clean()
                with self._generations.new(_NEW) as partial:
                    yield partial
            except OSError as exc:
                reason = f"cannot work in {self.incoming}: {self._reason(exc)}"
                self._note_failure(now, reason, scheduled=scheduled)
                raise self.kind.error(reason) from exc
            except DatasetError as exc:
                self._note_failure(now, exc.message, scheduled=scheduled)
                raise
            self.note(last_success=iso_utc(now), **({"failures": 0} if scheduled else {}))

    def target(self) -> str | None:
        """Return what `current` names; it changes with each switch to another generation."""
        current = self._generations.current()
        return None if current is None else current.name

    def current(self) -> Generation | None:
        """Return the generation in use.

        Raises:
            DatasetError: what `current` names is missing or damaged, or it is not a link.
        """
        self._check_link()
        path = self._generations.current()
        return None if path is None else self._read(path)

    def readable_current(self) -> Generation | None:
        """Return the generation in use; `None` if it cannot be read."""
        with contextlib.suppress(DatasetError):
            return self.current()
        return None

    def others(self) -> list[Generation]:
        """Return the readable generations besides the current one, newest first."""
        current, others = self.target(), []
        for name in self._generations.names():
            if name != current:
                with contextlib.suppress(DatasetError):
                    others.append(self._read(self._generations.path(name)))
        return others

    def put(self, partial: Path, manifest: dict[str, Any], now: datetime) -> Generation:
        """Add a finished generation and make it current.

        Args:
            partial: the folder that `refreshing` yields.
            manifest: has `generation`, the stable name, and `sha256` of each file.

        Raises:
            DatasetError: it cannot be written; the current one stays.
        """
        name = f"{self._generations.next_stamp(now)}-{manifest['generation']}"
        try:
            write_json(partial / MANIFEST, manifest)
            final = self._generations.add(partial, name)
            self._generations.switch(name)
        except OSError as exc:
            raise self.kind.error(
                f"the new {self.kind.noun} could not be put into {self.directory}: "
                f"{self._reason(exc)}; the old one stays"
            ) from exc
        self._generations.prune(KEPT)
        self.note(rolled_back=None)
        return Generation(self.kind, final, manifest)

    def roll_back(self) -> Generation:
        """Switch to the newest generation that is older than the current one.

        A refresh does not take the abandoned one again: see `refuse_rolled_back`.

        Raises:
            DatasetError: there is no undamaged older one.
        """
        with self.locked():
            left = self.readable_current()
            generation = self._older()
            try:
                self._generations.switch(generation.path.name)
            except OSError as exc:
                raise self.kind.error(
                    f"cannot switch {self.directory} to {generation.name}: {self._reason(exc)}"
                ) from exc
            self.note(rolled_back=left.name if left else None)
            return generation

    def refuse_rolled_back(self, name: str) -> None:
        """Refuse the generation that was rolled back.

        Raises:
            DatasetError: `name` is that generation.
        """
        if self.status().get("rolled_back") == name:
            raise self.kind.error(
                f"the {self.kind.noun} {name} was rolled back: use --force to use it again"
            )

    def status(self) -> dict[str, Any]:
        """Return the status of the refreshes; empty if it cannot be read."""
        try:
            return read_json(self._status, self.kind.error)
        except DatasetError:
            return {}

    def note(self, **changes: Any) -> None:
        """Record changes in the status; on a full disk only this record is lost."""
        with contextlib.suppress(OSError):
            aside = self._status.with_suffix(".new")
            write_json(aside, self.status() | changes)
            aside.replace(self._status)

    def _prepare(self) -> None:
        try:
            self._generations.prepare()
        except OSError as exc:
            raise self.kind.error(
                f"cannot create {exc.filename} for the {self.kind.noun}: {exc.strerror}; "
                + (
                    remedy_for_error(exc, self.directory)
                    or f"check {self.kind.setting} and who may write there"
                )
            ) from exc

    def _check_link(self) -> None:
        if copied := self._generations.copied_link():
            raise self.kind.error(
                f"{copied} is not a link: {self.directory} was copied without its links. Copy it "
                f"again with `cp -a` or `rsync -a`, or remove {copied} and run "
                f"`{self.kind.command} refresh`"
            )

    def _reason(self, exc: OSError) -> str:
        remedy = remedy_for_error(exc, self.directory)
        return f"{exc.strerror}; {remedy}" if remedy else str(exc.strerror)

    def _older(self) -> Generation:
        left = self.target() or ""
        for generation in self.others():
            # The same content, put in use twice, does not count as an older generation.
            again = left.endswith(generation.name)
            if not left or (generation.path.name < left and not again):
                for name in generation.manifest["sha256"]:
                    generation.check(name)
                return generation
        raise self.kind.error(
            f"there is no older {self.kind.noun} in {self.directory} to go back to; "
            f"`{self.kind.command} refresh --force` makes a new one"
        )

    def _note_failure(self, now: datetime, reason: str, *, scheduled: bool) -> None:
        self.note(last_failure={"time": iso_utc(now), "reason": reason})
        if scheduled:
            self.note(failures=int(self.status().get("failures") or 0) + 1)

    def _read(self, path: Path) -> Generation:
        manifest = read_json(path / MANIFEST, self.kind.error)
        if not isinstance(manifest.get("generation"), str) or not isinstance(
            manifest.get("sha256"), dict
        ):
            raise self.kind.error(f"{path / MANIFEST} is not the manifest of a generation")
        return Generation(self.kind, path, manifest)


def sha256_of(path: Path, error: type[DatasetError]) -> str:
    """Return a file's SHA-256 in hexadecimal; other threads run meanwhile.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise error(f"cannot read {path}: {exc.strerror}; check the setting") from exc


def read_json(path: Path, error: type[DatasetError]) -> dict[str, Any]:
    """Read a manifest or a status.

    Raises:
        DatasetError: it is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_JSON_BYTES))
    except (OSError, ValueError) as exc:
        raise error(f"cannot read {path}: {exc}") from exc
    if not isinstance(content, dict):
        raise error(f"{path} is damaged")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a manifest or a status."""
    with path.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.write("\n")
