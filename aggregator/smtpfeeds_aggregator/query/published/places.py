"""Open what `--from` names: a folder of feeds, a generation, a day of the archive, a file, a URL.

The manifest beside it, or above it for a day of the archive, is verified first; each file must
match the manifest. A served folder can change while it is read, so files come from the generation
whose manifest was read.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from errno import ELOOP
from pathlib import Path
from stat import S_ISDIR
from typing import IO, TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from smtpfeeds_common.errors import NotVerified, SettingsError
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.times import iso_utc

from ...datasets.generations import CURRENT
from ...publish.edition import MANIFEST, SIGNATURE, Edition, read_edition, sha256_of
from ...publish.entries import Entry
from ...publish.verify import check_manifest, record_of
from .rows import FILE_BYTES_MAX, SUFFIXES, read_entries

if TYPE_CHECKING:
    from ...publish.signing import PublicKey
    from ..address_set import AddressSet
    from .remote import Remote

_MANIFEST_BYTES_MAX: Final = 64 << 20
_SIGNATURE_BYTES_MAX: Final = 16 << 10
_COMPRESSED: Final = (".gz", "")
#: For the addresses alone: a row of CSV has half the octets of one of NDJSON.
_SHORT_ROWS_FIRST: Final = SUFFIXES[::-1]
#: `archive/2026-11-23` below a folder of feeds.
_ARCHIVED: Final = re.compile(r"(?P<root>.*?)(?P<below>archive/[0-9]{4}-[0-9]{2}-[0-9]{2}/)")
_SCHEMES: Final = ("http", "https")


class _Root(Protocol):
    """A folder with a manifest, on this host or on a server."""

    #: Its name in messages.
    name: str
    #: Whether an expired edition is refused: a server should show the newest one.
    is_live: bool

    def open(self, name: str, max_bytes: int, sha256: str | None) -> IO[bytes] | None: ...

    def of_edition(self, edition: Edition) -> None: ...


class _Folder:
    is_live = False

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, str(path)

    def open(self, name: str, max_bytes: int, sha256: str | None) -> IO[bytes] | None:  # noqa: ARG002 - as of a server
        try:
            return (self._path / name).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise NotVerified(f"cannot read {self._path / name}: {exc.strerror}") from exc

    def of_edition(self, edition: Edition) -> None:
        """Return itself: the folder is one generation."""


class _Server:
    is_live = True

    def __init__(self, url: str, remote: "Remote") -> None:
        self.name, self._remote = url, remote
        self._base = ""

    def open(self, name: str, max_bytes: int, sha256: str | None) -> IO[bytes] | None:
        """Open a file of the generation, or of the folder itself if a mirror has no generations."""
        for base in dict.fromkeys((self._base, "")):
            url = f"{self.name}{base}{name}"
            stream = self._remote.get(url, max_bytes=max_bytes, sha256=sha256)
            if stream is not None:
                return stream
        return None

    def of_edition(self, edition: Edition) -> None:
        """Use the files of this generation from now on."""
        if not self.name.endswith(edition.base):
            self._base = edition.base


class Published:
    """Published files of one edition."""

    def __init__(self, root: _Root, edition: Edition | None, below: str, file: str | None) -> None:
        self._root, self._below, self._file = root, below, file
        #: None: a single file without a manifest; it is not verified.
        self.edition = edition

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self._root.name.rstrip('/')}/{self._below}{self._file or ''}"

    def is_past(self, now: datetime) -> bool:
        """Return whether the edition has expired."""
        return self.edition is not None and now > self.edition.expires

    def feeds(self) -> set[str]:
        """Return the feeds whose rows can be read."""
        if self.edition is None or self._file is not None:
            file = self._file or ""
            return {feed for feed in FEED_NAMES if file.startswith(feed)} or set(FEED_NAMES)
        return {
            record.feed
            for name, record in self.edition.files.items()
            if record.feed is not None and name == self._named(record.feed)
        }

    def entries(self, feeds: Sequence[str]) -> Iterator[Entry]:
        """Yield the rows of feeds, in the order of the files.

        Raises:
            NotVerified: a file is missing, or does not match the manifest.
        """
        for name in self._names(feeds):
            with self._verified(name) as stream:
                every = read_entries(stream, name)
                if self._file is None:
                    yield from every
                else:
                    yield from (entry for entry in every if entry.category in feeds)

    def addresses(self, feeds: Sequence[str]) -> "AddressSet":
        """Return the addresses of the rows of feeds.

        Raises:
            NotVerified: see `entries`.
        """
        from ..address_set import AddressSet
        from .addresses import read_addresses

        parts = []
        for name in self._names(feeds, _SHORT_ROWS_FIRST):
            with self._verified(name) as stream:
                parts.append(read_addresses(stream, name, feeds if self._file else None))
        return AddressSet.union(parts)

    def _names(self, feeds: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> Iterator[str]:
        """Return the names of the files with the rows of feeds."""
        if self._file is not None:
            yield self._below + self._file
            return
        for feed in feeds:
            name = self._named(feed, suffixes)
            if name is None:
                raise NotVerified(
                    f"{self.name} has no NDJSON and no CSV of {feed}; those two can be read"
                )
            yield name

    def _named(self, feed: str, suffixes: Sequence[str] = SUFFIXES) -> str | None:
        """Return the file with the rows of a feed, by the manifest."""
        assert self.edition is not None
        names = (self._below + feed + suffix + end for suffix in suffixes for end in _COMPRESSED)
        return next((name for name in names if name in self.edition.files), None)

    @contextmanager
    def _verified(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file; it matches the manifest, if there is one."""
        record = None if self.edition is None else record_of(self.edition, name)
        if record is not None and record.bytes > FILE_BYTES_MAX:
            raise NotVerified(f"{name} has {record.bytes} octets, more than {FILE_BYTES_MAX}")
        stream = self._root.open(
            name,
            FILE_BYTES_MAX if record is None else record.bytes,
            None if record is None else record.sha256,
        )
        if stream is None:
            raise NotVerified(f"{self._root.name} has no {name}")
        with closing(stream):
            if record is not None and sha256_of(stream) != record.sha256:
                raise NotVerified(
                    f"{name} of {self._root.name} does not match {MANIFEST}: it has another SHA-256"
                )
            yield stream


def open_published(
    place: str, key: "PublicKey | None", *, now: datetime, remote: "Remote | None" = None
) -> Published:
    """Open the published files that a text names, and verify their manifest.

    Args:
        place: a folder, a file, or a URL of one.
        key: the publisher's public key; None: only hashes are verified.
        now: an edition on a server must not have expired at this time.
        remote: fetches from servers; None: one with the user's cache.

    Raises:
        NotVerified: there is no manifest, or it is not valid.
        SettingsError: the name does not exist.
    """
    if "://" in place:
        return _of_url(place, key, now, remote or _default_remote())
    return _of_path(Path(place), key, now)


def _default_remote() -> "Remote":
    from .remote import default_remote

    return default_remote()


def _of_path(path: Path, key: "PublicKey | None", now: datetime) -> Published:
    try:
        # stat, because from Python 3.14 on exists() and is_dir() hide why they fail.
        file = None if S_ISDIR(path.stat().st_mode) else path.name
        folder = path if file is None else path.parent
        current = folder / CURRENT
        folder = current if current.is_symlink() else folder
        # From Python 3.13 on resolve() accepts a loop of links; the system does not.
        with suppress(FileNotFoundError):
            folder.stat()
        folder = folder.resolve()
    except (FileNotFoundError, NotADirectoryError):
        raise SettingsError(f"--from: there is no {path}") from None
    except OSError as exc:
        if exc.errno == ELOOP:
            raise SettingsError(f"--from: {path} is a link that leads back to itself") from exc
        raise SettingsError(f"--from: cannot read {path}: {exc.strerror}") from exc
    for root, below in ((folder, ""), (folder.parent.parent, f"archive/{folder.name}/")):
        if (root / MANIFEST).is_file():
            return Published(here := _Folder(root), _edition(here, key, now), below, file)
    if file is None:
        raise NotVerified(f"{path} has no {MANIFEST}: it is not a folder of published feeds")
    if key is not None:
        raise NotVerified(f"{path}: there is no {MANIFEST} beside it, so no signature either")
    return Published(_Folder(folder), None, "", file)


def _of_url(url: str, key: "PublicKey | None", now: datetime, remote: "Remote") -> Published:
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise SettingsError(f"--from: this is not a URL: {exc}") from exc
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            "--from: the URL has an account or a password in it, which every user of this host can "
            "see: leave it out"
        )
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise SettingsError(f"--from: {url} is neither http:// nor https://")
    if parts.query or parts.fragment:
        raise SettingsError(f"--from: {url}: give a URL without `?` and `#`")
    folder, _, last = url.rpartition("/")
    is_file = bool(parts.path.strip("/")) and _is_file(last)
    folder, file = (f"{folder}/", last) if is_file else (f"{url.rstrip('/')}/", None)
    archived = _ARCHIVED.fullmatch(folder)
    root, below = (archived["root"], archived["below"]) if archived else (folder, "")
    server = _Server(root, remote)
    return Published(server, _edition(server, key, now), below, file)


def _is_file(name: str) -> bool:
    return name.removesuffix(".gz").endswith(SUFFIXES)


def _edition(root: _Root, key: "PublicKey | None", now: datetime) -> Edition:
    """Return the verified manifest; on a server both may be replaced between reading it and its
    signature.
    """
    try:
        edition = _verified(root, key, now)
    except NotVerified:
        if key is None or not root.is_live:
            raise
        edition = _verified(root, key, now)
    root.of_edition(edition)
    return edition


def _verified(root: _Root, key: "PublicKey | None", now: datetime) -> Edition:
    body = _octets(root, MANIFEST, _MANIFEST_BYTES_MAX)
    if body is None:
        raise NotVerified(f"{root.name} has no {MANIFEST}: no feeds are published there")
    signature = None
    if key is not None:
        signature = _octets(root, f"{MANIFEST}{SIGNATURE}", _SIGNATURE_BYTES_MAX)
    edition = read_edition(body)
    by = now if root.is_live else min(now, edition.expires)
    try:
        return check_manifest(body, signature, key, now=by)
    except NotVerified as exc:
        raise NotVerified(f"{root.name}: {exc.message}") from exc


def _octets(root: _Root, name: str, max_bytes: int) -> bytes | None:
    stream = root.open(name, max_bytes, None)
    if stream is None:
        return None
    with closing(stream):
        octets = stream.read(max_bytes + 1)
    if len(octets) > max_bytes:
        raise NotVerified(f"{name} of {root.name} has more than {max_bytes} octets")
    return octets


def past_words(published: Published) -> str:
    """Return the note about an edition that has expired."""
    assert published.edition is not None
    edition = published.edition
    return (
        f"note: {published.name} is the edition of {iso_utc(edition.generated)}, "
        f"which expired at {iso_utc(edition.expires)}"
    )
