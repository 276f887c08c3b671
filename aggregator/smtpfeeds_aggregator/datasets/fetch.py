"""Fetches one file over HTTPS: bounded, conditional, resumable. Runs in a child process.

The parent ends the child at the overall time limit. A read that stalls fails earlier,
redirects are few and never leave HTTPS, and headers and body have bounds. A partial
file stays beside the target with its validator (RFC 9110 section 13.1.5, If-Range), so
that the next attempt resumes it; without support for ranges the server sends all again.
"""

import errno
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from smtpfeeds_common.errors import DatasetError

MAX_REDIRECTS: Final = 5
_PIECE_BYTES: Final = 1 << 18
_PROGRESS_BYTES: Final = 8 << 20
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}


def check_url(url: str, *, allow_http: bool, http_setting: str) -> None:
    """Refuse any URL but HTTPS; allow plain HTTP to this host, or where a setting allows it.

    Args:
        http_setting: the setting that `allow_http` comes from, for the message.

    Raises:
        DatasetError: the URL has another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and (allow_http or parts.hostname in _LOOPBACK):
        return
    raise DatasetError(
        f"{url} is not fetched, because it is not https:// (set {http_setting} for a mirror "
        f"without it)"
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, *, allow_http: bool, http_setting: str) -> None:
        self._allow_http = allow_http
        self._http_setting = http_setting

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        secure = urlsplit(req.full_url).scheme == "https"
        if secure and urlsplit(newurl).scheme != "https":
            raise DatasetError(f"{req.full_url} redirects from https to {newurl}: not followed")
        check_url(newurl, allow_http=self._allow_http, http_setting=self._http_setting)
        # urllib would read the redirect's own body, which may never end, into memory.
        fp.close()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    target: Path,
    *,
    user_agent: str,
    max_bytes: int,
    stall_s: float,
    allow_http: bool = False,
    http_setting: str = "",
    validators: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Fetch a file to `target`, which appears only when it is complete.

    Args:
        validators: `etag` and `last_modified` of the copy that is already here.

    Returns:
        `unchanged`, and the new copy's `etag`, `last_modified` and `bytes`.

    Raises:
        DatasetError: the fetch failed; the partial file stays for the next attempt.
    """
    check_url(url, allow_http=allow_http, http_setting=http_setting)
    part = target.with_name(target.name + ".part")
    begun = _begun(part, url)
    headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
    headers |= _conditions(begun, validators or {})
    opener = urllib.request.build_opener(
        _Redirects(allow_http=allow_http, http_setting=http_setting)
    )
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked
        with opener.open(request, timeout=stall_s) as response:
            return _save(response, url, target, part, begun, max_bytes, progress)
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code == 304:
            return {"unchanged": True}
        if exc.code == 416:
            _forget(part)
        raise _refusal(url, exc) from exc
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as exc:
        raise DatasetError(f"{url} could not be fetched: {_reason(exc)}") from exc
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            # The partial file would keep the disk full, and the next attempt would fail too.
            _forget(part)
        raise DatasetError(f"{url} could not be fetched to {target}: {_reason(exc)}") from exc


def _conditions(begun: Mapping[str, Any], validators: Mapping[str, str]) -> dict[str, str]:
    """Return headers that ask for the rest of a partial file, or for the file if it changed."""
    if begun:
        return {"Range": f"bytes={begun['have']}-", "If-Range": begun["validator"]}
    names = {"etag": "If-None-Match", "last_modified": "If-Modified-Since"}
    return {names[key]: value for key, value in validators.items() if key in names and value}


def _refusal(url: str, exc: urllib.error.HTTPError) -> DatasetError:
    if 300 <= exc.code < 400:
        return DatasetError(f"{url} redirects in a loop, or too often: not followed")
    return DatasetError(f"{url}: the server answers {exc.code} {exc.reason}")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def _save(
    response: Any,
    url: str,
    target: Path,
    part: Path,
    begun: dict[str, Any],
    max_bytes: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Write the body to `part`, and rename it to the target once it is complete."""
    start, total = _extent(response, url, begun)
    if total is not None and total > max_bytes:
        raise DatasetError(
            f"{url} has {total} bytes, more than the {max_bytes} allowed: not fetched"
        )
    etag = response.headers.get("ETag") or ""
    modified = response.headers.get("Last-Modified") or ""
    # A weak validator does not promise the same bytes, so it cannot resume (RFC 9110, 13.1.5).
    validator = etag if etag and not etag.startswith("W/") else modified
    if not start:
        _note(part, {"url": url, "validator": validator})
    have = start
    with part.open("r+b" if start else "wb") as out:
        out.seek(start)
        out.truncate()
        while piece := response.read1(_PIECE_BYTES):
            have += len(piece)
            if have > max_bytes:
                raise DatasetError(f"{url} exceeds the {max_bytes} bytes allowed: not fetched")
            out.write(piece)
            if have // _PROGRESS_BYTES != (have - len(piece)) // _PROGRESS_BYTES:
                progress(f"fetching: {have >> 20} MB" + (f" of {total >> 20}" if total else ""))
        out.flush()
        os.fsync(out.fileno())
    if total is not None and have != total:
        raise DatasetError(
            f"{url} ended after {have} of {total} bytes; the next fetch continues there"
        )
    part.replace(target)
    _note_path(part).unlink(missing_ok=True)
    return {"unchanged": False, "etag": etag, "last_modified": modified, "bytes": have}


def _extent(response: Any, url: str, begun: dict[str, Any]) -> tuple[int, int | None]:
    """Return where the body begins in the file, and the file's length if the server sends it."""
    if response.status == 206:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if not begun or not match or int(match[1]) != begun["have"]:
            raise DatasetError(f"{url}: the server sent a part that was not requested")
        return begun["have"], None if match[3] == "*" else int(match[3])
    if response.status != 200:
        raise DatasetError(f"{url}: the server answers {response.status} {response.reason}")
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and length.isdecimal() else None


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _note(part: Path, facts: dict[str, str]) -> None:
    _note_path(part).write_text(json.dumps(facts), encoding="utf-8")


def _begun(part: Path, url: str) -> dict[str, Any]:
    """Return the partial file of an earlier attempt; empty if it may be of another file."""
    try:
        noted = json.loads(_note_path(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return {}
    if not isinstance(noted, dict) or noted.get("url") != url or not noted.get("validator"):
        return {}
    return {"have": have, "validator": noted["validator"]} if have else {}


def _reason(exc: BaseException) -> str:
    inner = getattr(exc, "reason", None)
    if isinstance(inner, TimeoutError) or isinstance(exc, TimeoutError):
        return "the server stalled"
    if isinstance(inner, OSError):
        exc = inner
    return str(getattr(exc, "strerror", None) or str(exc) or type(exc).__name__)
