"""Fetch files from a server, with a cache below XDG_CACHE_HOME.

A manifest is requested each time, with the ETag of the cached copy (RFC 9110, section 13.1.2). A
file whose SHA-256 a manifest names is cached under that hash and is not requested again. The cache
has a bound; the oldest copies are deleted first. Without a usable cache the command works all the
same.

No server can take longer than the limit: redirects are few and never leave https, and no server
decides how long to wait before another try.
"""

import errno
import hashlib
import json
import os
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import DatasetError

from ...publish.edition import sha256_of

CACHE_BYTES_MAX: Final = 512 << 20
#: For one file, from resolving the server's name to the last octet.
WHOLE_S: Final = 600.0
_PIECE_BYTES: Final = 1 << 18
_CONNECT_S: Final = 10.0
_STALL_S: Final = 30.0
_REDIRECTS: Final = 5
#: A connection that breaks is tried once more; after an answer there is no second request.
_TRIES: Final = urllib3.Retry(
    total=2, connect=1, read=1, redirect=0, status=0, other=0, respect_retry_after_header=False
)
_FOLDER: Final = "smtpfeeds"
_NOTE: Final = ".json"
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class _Kept(NamedTuple):
    """An open cached copy, and the ETag that the server sent with it."""

    stream: IO[bytes]
    etag: str


class _NoRoom(Exception):
    """The file system of the cache is full."""


def cache_folder() -> Path | None:
    """Return the cache's folder: below XDG_CACHE_HOME, or `.cache` in the home directory.

    None if this user has no home directory.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(named) if named.startswith("/") else Path.home() / ".cache") / _FOLDER
    except RuntimeError:
        return None


class Remote:
    """Fetches files over HTTP, in the main thread: an alarm ends what takes too long."""

    def __init__(
        self, folder: Path | None, bytes_max: int = CACHE_BYTES_MAX, whole_s: float = WHOLE_S
    ) -> None:
        self._folder, self._bytes_max, self._whole_s = folder, bytes_max, whole_s

    def get(self, url: str, *, max_bytes: int, sha256: str | None = None) -> IO[bytes] | None:
        """Return a file's content; None if the server has no such file.

        Args:
            url: http or https.
            max_bytes: a larger file is refused.
            sha256: the expected hash of the content; the caller verifies it.

        Raises:
            DatasetError: it cannot be fetched.
        """
        place = self._place(sha256 or hashlib.sha256(url.encode()).hexdigest())
        if place is not None and sha256 is not None and (kept := _verified(place, sha256)):
            return kept
        with _at_most(self._whole_s, url):
            try:
                return self._fetch(url, place, max_bytes, is_addressed=sha256 is not None)
            except _NoRoom:
                return self._fetch(url, None, max_bytes, is_addressed=sha256 is not None)

    def _place(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name

    def _fetch(
        self, url: str, place: Path | None, max_bytes: int, *, is_addressed: bool
    ) -> IO[bytes] | None:
        before = None if place is None or is_addressed else _kept(place, url)
        stream = None
        try:
            stream = self._requested(url, place, max_bytes, before, is_addressed=is_addressed)
            return stream
        finally:
            if before is not None and stream is not before.stream:
                before.stream.close()

    def _requested(
        self,
        url: str,
        place: Path | None,
        max_bytes: int,
        before: _Kept | None,
        *,
        is_addressed: bool,
    ) -> IO[bytes] | None:
        headers = {"User-Agent": f"smtpfeeds/{__version__}", "Accept-Encoding": "identity"}
        if before is not None:
            headers["If-None-Match"] = before.etag
        response = _request(url, headers)
        try:
            if response.status == 304 and before is not None and place is not None:
                with suppress(OSError):
                    os.utime(place)
                return before.stream
            if response.status in {404, 410}:
                return None
            if response.status != 200:
                raise DatasetError(
                    f"{url}: the server answers {response.status} {response.reason or ''}".rstrip()
                )
            return self._save(response, url, place, max_bytes, is_addressed=is_addressed)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise _not_fetched(url, exc) from exc
        finally:
            response.close()

    def _save(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        place: Path | None,
        max_bytes: int,
        *,
        is_addressed: bool,
    ) -> IO[bytes]:
        """Write the body to a temporary file, and rename that when it is complete."""
        aside, stream = self._begin(place)
        try:
            size = _copy(response, url, stream, max_bytes)
            if place is not None and aside is not None and size <= self._bytes_max:
                with suppress(OSError):
                    if not is_addressed and (etag := response.headers.get("ETag")):
                        _note(place, url, etag, sha256_of(stream))
                    aside.replace(place)
                    self._make_room(place)
        except BaseException as exc:
            with suppress(OSError):  # flushing its buffer fails again on the full disk
                stream.close()
            if aside is not None and isinstance(exc, OSError) and exc.errno in _NO_SPACE:
                raise _NoRoom from exc
            raise
        finally:
            if aside is not None:
                aside.unlink(missing_ok=True)
        stream.seek(0)
        return stream

    def _begin(self, place: Path | None) -> tuple[Path | None, IO[bytes]]:
        """Open the file for the body: in the cache, or a temporary file if there is no cache."""
        if place is not None:
            with suppress(OSError):
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                aside = place.with_name(f".{place.name}-{os.getpid()}")
                return aside, aside.open("w+b")
        return None, tempfile.TemporaryFile()

    def _make_room(self, newest: Path) -> None:
        """Delete the oldest copies until the rest is within the bound."""
        files = [path for path in newest.parent.iterdir() if path.is_file()]
        by_age = sorted(files, key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in files)
        for path in by_age:
            if size <= self._bytes_max:
                return
            if path.name.removesuffix(_NOTE) != newest.name:
                size -= path.stat().st_size
                path.unlink(missing_ok=True)


def default_remote() -> Remote:
    """Return a Remote with the user's own cache."""
    return Remote(cache_folder())


@contextmanager
def _at_most(limit_s: float, url: str) -> Iterator[None]:
    """Limit the time of the block: each octet of a slow server restarts the other limits."""

    def give_up(*_: Any) -> None:
        raise DatasetError(f"{url} was not complete after {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _request(url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """Return the answer at the end of redirects."""
    place = url
    for _ in range(_REDIRECTS + 1):
        try:
            response = _pool(place).request(
                "GET",
                place,
                headers=headers,
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=_STALL_S),
                retries=_TRIES,
            )
        except (urllib3.exceptions.HTTPError, ValueError) as exc:
            raise _not_fetched(url, exc) from exc
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        place = _redirected(url, place, location)
    raise DatasetError(f"{url} redirects more than {_REDIRECTS} times: not followed")


def _redirected(url: str, place: str, location: str) -> str:
    """Return the address that a server redirects to.

    Raises:
        DatasetError: the redirect leaves https, or is not a web address.
    """
    try:
        target = urljoin(place, location)
        scheme = urlsplit(target).scheme
    except ValueError as exc:
        raise DatasetError(f"{url} redirects to something that is not a URL: not followed") from exc
    before = urlsplit(place).scheme
    if scheme not in {"https", before}:
        raise DatasetError(f"{url} redirects from {before} to {scheme}: not followed")
    return target


def _copy(response: urllib3.BaseHTTPResponse, url: str, stream: IO[bytes], max_bytes: int) -> int:
    """Write the body; return its number of octets.

    `read1` reads at most a piece. `stream` would read a chunk of negative length, which RFC 9112
    (section 7.1) does not allow, to the end of the connection, all of it in memory.
    """
    size = 0
    while piece := response.read1(_PIECE_BYTES, decode_content=False):
        size += len(piece)
        if size > max_bytes:
            raise DatasetError(f"{url} has more than the {max_bytes} octets allowed")
        stream.write(piece)
    stream.flush()
    return size


def _pool(url: str) -> urllib3.PoolManager:
    """Create a pool, through the proxy that the environment names, if any."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager()
    account = urlsplit(proxy).netloc.rpartition("@")[0]
    headers = urllib3.make_headers(proxy_basic_auth=unquote(account)) if account else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers)


def _opened(place: Path) -> IO[bytes] | None:
    try:
        return place.open("rb")
    except OSError:
        return None


def _verified(place: Path, sha256: str) -> IO[bytes] | None:
    """Open the copy that is cached under its hash; a damaged copy is fetched again."""
    stream = _opened(place)
    if stream is None:
        return None
    if sha256_of(stream) == sha256:
        return stream
    stream.close()
    return None


def _kept(place: Path, url: str) -> _Kept | None:
    """Open the cached copy of a URL, if its ETag belongs to it.

    Other commands write and delete copies at the same time; an open file stays readable.
    """
    try:
        note = json.loads(place.with_name(place.name + _NOTE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(note, dict) or note.get("url") != url or not note.get("etag"):
        return None
    stream = _verified(place, str(note.get("sha256")))
    return None if stream is None else _Kept(stream, str(note["etag"]))


def _note(place: Path, url: str, etag: str, sha256: str) -> None:
    """Store the ETag with the hash of its copy."""
    note = place.with_name(place.name + _NOTE)
    aside = note.with_name(f".{note.name}-{os.getpid()}")
    aside.write_text(json.dumps({"url": url, "etag": etag, "sha256": sha256}), "utf-8")
    aside.replace(note)


def _not_fetched(url: str, exc: Exception) -> DatasetError:
    if isinstance(exc, OSError) and exc.errno in _NO_SPACE:
        return DatasetError(f"{url}: there is no space left for it in {tempfile.gettempdir()}")
    reason = exc.reason if isinstance(exc, urllib3.exceptions.MaxRetryError) else exc
    text = str(reason or exc).partition(": ")[2] if "object at 0x" in str(reason) else str(reason)
    return DatasetError(f"{url} cannot be fetched: {text or type(reason).__name__}")
