"""The changes of a day: new addresses, addresses that are gone, and new classes.

Each hour the addresses and classes of an edition are stored in a file beside the served directory
for 25 hours, with 5 octets for an IPv4 address. An edition is compared with the one closest to 24
hours old; the manifest has its time as ``changes_since``. Without such a file there are no known
changes.
"""

import logging
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np

from smtpfeeds_common.addresses import format_address
from smtpfeeds_common.feeds import FEEDS
from smtpfeeds_common.logs import fields

from .columns import Rows, Window
from .judgements import Judgements
from .withdrawn import Withdrawn

logger = logging.getLogger(__name__)

SUFFIX: Final = "-changes.ndjson"
FOLDER: Final = ".changes"
_DAY: Final = timedelta(hours=24)
_KEPT: Final = timedelta(hours=25)
#: Least time between two snapshots: at most 26 are kept, however often the feeds are published.
_APART: Final = timedelta(minutes=59)
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_FAMILIES: Final = (4, 6)
#: Addresses that are converted to text together.
_TOGETHER: Final = 20_000


class Change(msgspec.Struct, frozen=True, rename={"cls": "class", "cls_before": "class_before"}):
    """A line; null if there is no class."""

    change: str
    ipaddr: str
    category: str
    cls: str | None
    cls_before: str | None


@dataclass(frozen=True, slots=True)
class _Family:
    """Addresses of one family as sorted keys, and the number of each one's class."""

    keys: Rows
    cls: Rows

    def places(self, other: "_Family") -> Rows:
        """Return the index of each key of another family here; -1 if it is missing."""
        at = np.searchsorted(self.keys, other.keys)
        at[at == len(self.keys)] = 0
        is_here = self.keys[at] == other.keys if len(self.keys) else np.zeros(len(other.keys), bool)
        places: Rows = np.where(is_here, at, -1)
        return places


class Snapshot:
    """The addresses and classes of both feeds."""

    def __init__(self, families: Mapping[tuple[str, int], _Family], classes: tuple[str, ...]):
        self.families, self.classes = families, classes

    @classmethod
    def of_window(cls, window: Window, judgements: Judgements) -> "Snapshot":
        """Return the snapshot of a window."""
        names = sorted({str(kind.cls) for kind in judgements.kinds})
        of_kind = np.array([names.index(kind.cls) for kind in judgements.kinds] or [0], np.uint8)
        families: dict[tuple[str, int], _Family] = {}
        for feed, columns in zip(FEEDS, window.feeds, strict=True):
            classes = of_kind[judgements.which[columns.address]]
            four = columns.address < len(window.ipv4)
            six = columns.address[~four] - len(window.ipv4)
            octets = np.empty((len(six), 2), ">u8")
            octets[:, 0], octets[:, 1] = window.high[six], window.low[six]
            families[feed.name, 4] = _Family(window.ipv4[columns.address[four]], classes[four])
            families[feed.name, 6] = _Family(octets.view("S16").ravel(), classes[~four])
        return cls(families, tuple(names))

    @classmethod
    def read(cls, path: Path) -> "Snapshot":
        """Read a file.

        Raises:
            ValueError: it does not contain a snapshot.
            OSError: it cannot be read.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                families: dict[tuple[str, int], _Family] = {
                    (feed.name, family): _Family(
                        stored[f"{feed.name}-{family}-keys"], stored[f"{feed.name}-{family}-cls"]
                    )
                    for feed in FEEDS
                    for family in _FAMILIES
                }
                return cls(families, tuple(stored["classes"].tolist()))
        except (KeyError, EOFError, zipfile.BadZipFile, RuntimeError) as exc:
            # RuntimeError: a damaged octet says that it is encrypted, or of another zip version.
            raise ValueError(f"{path} does not hold a snapshot: {exc}") from exc

    def write(self, path: Path) -> None:
        """Write a file that only its owner can read."""
        columns: dict[str, Any] = {"classes": np.array(self.classes, np.str_)}
        for (feed, family), part in self.families.items():
            columns[f"{feed}-{family}-keys"] = part.keys
            columns[f"{feed}-{family}-cls"] = part.cls
        aside = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, **columns)
        aside.replace(path)

    def without(self, withdrawn: Withdrawn) -> "Snapshot":
        """Return the snapshot without addresses that are no longer published."""
        families = {}
        for key, part in self.families.items():
            packed = _packed(part.keys)
            kept = np.array([each not in withdrawn.ranges for each in packed], bool)
            families[key] = _Family(part.keys[kept], part.cls[kept])
        return Snapshot(families, self.classes)

    def since(self, before: "Snapshot", feed: str) -> Iterator[Change]:
        """Yield the changes of a feed: added addresses, then gone ones, then the others."""
        pairs = [(before.families[feed, family], self.families[feed, family]) for family in (4, 6)]
        for old, new in pairs:
            came = np.flatnonzero(old.places(new) < 0)
            for address, cls in zip(_texts(new.keys[came]), new.cls[came].tolist(), strict=True):
                yield Change("added", address, feed, self.classes[cls], None)
        for old, new in pairs:
            left = np.flatnonzero(new.places(old) < 0)
            for address, cls in zip(_texts(old.keys[left]), old.cls[left].tolist(), strict=True):
                yield Change("gone", address, feed, None, before.classes[cls])
        earlier = np.array([_place(self.classes, name) for name in before.classes], np.int16)
        for old, new in pairs:
            at = old.places(new)
            stayed = np.flatnonzero(at >= 0)
            was = old.cls[at[stayed]]
            differ = np.flatnonzero(earlier[was] != new.cls[stayed])
            for address, cls, cls_before in zip(
                _texts(new.keys[stayed[differ]]),
                new.cls[stayed[differ]].tolist(),
                was[differ].tolist(),
                strict=True,
            ):
                yield Change("class", address, feed, self.classes[cls], before.classes[cls_before])


def _place(classes: tuple[str, ...], name: str) -> int:
    return classes.index(name) if name in classes else -1


def _packed(keys: Rows) -> list[bytes]:
    width = 4 if keys.dtype.kind == "u" else 16
    octets = (keys.astype(">u4") if width == 4 else keys).tobytes()
    return [octets[at : at + width] for at in range(0, len(octets), width)]


def _texts(keys: Rows) -> Iterator[str]:
    """Convert some at a time: nearly all of a feed may have changed."""
    for start in range(0, len(keys), _TOGETHER):
        yield from map(format_address, _packed(keys[start : start + _TOGETHER]))


class Snapshots:
    """The snapshot files beside the served directory."""

    def __init__(self, directory: Path, now: datetime) -> None:
        self._folder = directory / FOLDER
        self._now = now.astimezone(UTC)

    def nearest(self) -> tuple[Snapshot, datetime] | None:
        """Return the snapshot closest to a day old, and its time."""
        times = sorted(self._times(), key=lambda time: abs(self._now - time - _DAY))
        for time in times:
            try:
                return Snapshot.read(self._path(time)), time
            except (OSError, ValueError) as exc:
                logger.warning("snapshot not read", extra=fields(error=str(exc)))
        return None

    def keep(self, snapshot: Snapshot) -> None:
        """Store a snapshot, unless there is one of this hour; delete those that are too old."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        times = list(self._times())
        known = {self._path(time) for time in times}
        for path in self._folder.iterdir():
            if path not in known:
                path.unlink(missing_ok=True)
        if not any(self._now - time < _APART for time in times):
            snapshot.write(self._path(self._now))

    def clear(self) -> None:
        """Delete all snapshots: changes are not published."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def withdraw(self, withdrawn: Withdrawn) -> None:
        """Remove addresses that are no longer published from all snapshots."""
        for time in self._times():
            path = self._path(time)
            try:
                Snapshot.read(path).without(withdrawn).write(path)
            except ValueError:
                path.unlink(missing_ok=True)

    def _times(self) -> Iterator[datetime]:
        """Return the times of the files that are neither too old nor in the future."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            try:
                time = datetime.strptime(path.name, f"{_STAMP}.npz").replace(tzinfo=UTC)
            except ValueError:
                continue
            if timedelta(0) <= self._now - time <= _KEPT:
                yield time

    def _path(self, time: datetime) -> Path:
        return self._folder / f"{time:{_STAMP}}.npz"


def read_back(stream: IO[bytes]) -> int:
    """Return the number of lines in a file; raise ValueError if it has another format."""
    decoder, lines = msgspec.json.Decoder(Change), 0
    for line in stream:
        if not line.endswith(b"\n"):
            raise ValueError("the last line is truncated")
        decoder.decode(line)
        lines += 1
    return lines
