"""Files of a server, kept below XDG_CACHE_HOME: asked for again only when they changed.

A manifest is asked for each time, with the ETag of the copy that is kept (RFC 9110,
section 13.1.2). A file whose SHA-256 a manifest names is kept under it, and is not asked
for again. What is kept in all is bounded; the oldest goes first. Where nothing can be kept,
the command works without.
"""

import hashlib
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

import urllib3

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import DatasetError

CACHE_BYTES_MAX: Final = 512 << 20
#: A file of a million addresses has a fifth of it.
FILE_BYTES_MAX: Final = 1 << 30
_PIECE_BYTES: Final = 1 << 18
_CONNECT_S: Final = 10.0
_STALL_S: Final = 30.0
_WHOLE_S: Final = 600.0
_REDIRECTS: Final = 5
_FOLDER: Final = "smtpfeeds"
_NOTE: Final = ".json"


@dataclass(frozen=True, slots=True)
class _Kept:
    """A copy from before, and the ETag that the server gave for it."""

    path: Path
    etag: str


def cache_folder() -> Path:
    """Where fetched files are kept: below XDG_CACHE_HOME, or `.cache` of the home directory."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else Path.home() / ".cache") / _FOLDER


class Remote:
    """Fetches files over HTTP."""

    def __init__(
        self, folder: Path, monotonic: Callable[[], float], bytes_max: int = CACHE_BYTES_MAX
    ) -> None:
        self._folder, self._monotonic, self._bytes_max = folder, monotonic, bytes_max

    def get(self, url: str, *, max_bytes: int, sha256: str | None = None) -> IO[bytes] | None:
        """A file's content; None where the server has none of that name.

        Args:
            url: http or https.
            max_bytes: a larger one is refused.
            sha256: what its content is known to be; the caller verifies it.

        Raises:
            DatasetError: it cannot be had.
        """
        place = self._folder / (sha256 or hashlib.sha256(url.encode()).hexdigest())
        if sha256 is not None and (kept := _verified(place, sha256)) is not None:
            return kept
        before = None if sha256 is not None else _kept(place, url)
        headers = {"User-Agent": f"smtpfeeds/{__version__}", "Accept-Encoding": "identity"}
        if before is not None:
            headers["If-None-Match"] = before.etag
        response = self._request(url, headers)
        try:
            if response.status == 304 and before is not None:
                with suppress(OSError):
                    os.utime(place)
                return _opened(place)
            if response.status in {404, 410}:
                return None
            if response.status != 200:
                raise DatasetError(
                    f"{url}: the server answers {response.status} {response.reason or ''}".rstrip()
                )
            return self._save(response, url, place, max_bytes, is_addressed=sha256 is not None)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise _not_fetched(url, exc) from exc
        finally:
            response.close()

    def _request(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            response = _pool(url).request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=_STALL_S),
                retries=urllib3.Retry(total=_REDIRECTS, connect=1, read=1, redirect=_REDIRECTS),
            )
        except (urllib3.exceptions.HTTPError, ValueError) as exc:
            raise _not_fetched(url, exc) from exc
        if urlsplit(url).scheme == "https" and urlsplit(response.url or "").scheme == "http":
            response.close()
            raise DatasetError(f"{url} redirects from https to {response.url}: not followed")
        return response

    def _save(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        place: Path,
        max_bytes: int,
        *,
        is_addressed: bool,
    ) -> IO[bytes]:
        """Write the body beside its place; it takes its name once it is whole."""
        aside, stream = self._begin(place)
        try:
            self._copy(response, url, stream, max_bytes)
            if aside is not None:
                with suppress(OSError):
                    etag = response.headers.get("ETag", "")
                    _note(place, url, "" if is_addressed else etag)
                    aside.replace(place)
                    self._make_room(place)
        except BaseException:
            stream.close()
            raise
        finally:
            if aside is not None:
                aside.unlink(missing_ok=True)
        stream.seek(0)
        return stream

    def _begin(self, place: Path) -> tuple[Path | None, IO[bytes]]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = place.with_name(f".{place.name}-{os.getpid()}")
            return aside, aside.open("w+b")
        except OSError:
            return None, tempfile.TemporaryFile()

    def _copy(
        self, response: urllib3.BaseHTTPResponse, url: str, stream: IO[bytes], max_bytes: int
    ) -> None:
        deadline, size = self._monotonic() + _WHOLE_S, 0
        for piece in response.stream(_PIECE_BYTES, decode_content=False):
            size += len(piece)
            if size > max_bytes:
                raise DatasetError(f"{url} has more than the {max_bytes} octets allowed")
            if self._monotonic() > deadline:
                raise DatasetError(f"{url} was not whole after {_WHOLE_S:.0f} s")
            stream.write(piece)
        stream.flush()

    def _make_room(self, newest: Path) -> None:
        """Remove the oldest copies until the rest is within the bound."""
        files = [path for path in self._folder.iterdir() if path.is_file()]
        by_age = sorted(files, key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in files)
        for path in by_age:
            if size <= self._bytes_max:
                return
            if path.name.removesuffix(_NOTE) != newest.name:
                size -= path.stat().st_size
                path.unlink(missing_ok=True)


def default_remote() -> Remote:
    """With the user's own cache."""
    return Remote(cache_folder(), time.monotonic)


def sha256_of(stream: IO[bytes]) -> str:
    """The SHA-256 of a stream from its beginning, where it stands again afterwards."""
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    stream.seek(0)
    return digest.hexdigest()


def _pool(url: str) -> urllib3.PoolManager:
    """By way of the proxy that the environment names, if it names one."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy)
    return urllib3.PoolManager()


def _opened(place: Path) -> IO[bytes] | None:
    try:
        return place.open("rb")
    except OSError:
        return None


def _verified(place: Path, sha256: str) -> IO[bytes] | None:
    """A copy that is kept under its hash; one that is damaged is fetched again."""
    stream = _opened(place)
    if stream is None:
        return None
    if sha256_of(stream) == sha256:
        return stream
    stream.close()
    return None


def _kept(place: Path, url: str) -> _Kept | None:
    """The copy that is kept of a URL, where it is whole and has an ETag."""
    try:
        note = json.loads(place.with_name(place.name + _NOTE).read_text("utf-8"))
        size = place.stat().st_size
    except (OSError, ValueError):
        return None
    if not isinstance(note, dict) or note.get("url") != url or not note.get("etag") or not size:
        return None
    return _Kept(place, str(note["etag"]))


def _note(place: Path, url: str, etag: str) -> None:
    """Keep the ETag; a death before the copy has its name leaves no ETag for an older copy."""
    note = place.with_name(place.name + _NOTE)
    place.unlink(missing_ok=True)
    if etag:
        aside = note.with_name(f".{note.name}-{os.getpid()}")
        aside.write_text(json.dumps({"url": url, "etag": etag}), "utf-8")
        aside.replace(note)
    else:
        note.unlink(missing_ok=True)


def _not_fetched(url: str, exc: Exception) -> DatasetError:
    reason = exc.reason if isinstance(exc, urllib3.exceptions.MaxRetryError) else exc
    text = str(reason or exc).partition(": ")[2] if "object at 0x" in str(reason) else str(reason)
    return DatasetError(f"{url} cannot be fetched: {text or type(reason).__name__}")
