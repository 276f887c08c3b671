"""Create the manifest of a generation: its times, its files, and what was left out."""

from datetime import datetime
from typing import Any

import msgspec

from smtpfeeds_common import __version__

from ..special_purpose import AS_OF
from .edition import VERSION
from .entries import NOTICE, Frame
from .formats.ndjson import iso
from .written import Written


def manifest(
    frame: Frame,
    files: list[Written],
    *,
    not_written: dict[str, str],
    left_out: dict[str, dict[str, int]],
    classes: dict[str, dict[str, int]],
    origin: str | None,
    lists: str,
    base: str,
    changes_since: datetime | None = None,
    public_key: str | None = None,
) -> dict[str, Any]:
    """Return the manifest of a generation.

    Args:
        frame: the frame of any feed.
        files: all listed files.
        not_written: the files that are too large, and why, by name.
        left_out: how many addresses of each feed, by reason.
        classes: how many addresses of each feed, by class.
        origin: the origin table, if any.
        lists: the generation of the lists of scanners and mailers.
        base: the generation's path below the published directory.
        changes_since: the edition with which the changes are compared, if any.
        public_key: the key of its signature, if any.
    """
    return {
        "version": VERSION,
        "software": f"smtpfeeds {__version__}",
        "base": base,
        "generated": iso(frame.generated),
        "expires": iso(frame.expires),
        "window": {"start": iso(frame.window_start), "end": iso(frame.window_end)},
        "publisher": frame.publisher,
        "contact": frame.contact,
        "licence": frame.licence,
        "notice": NOTICE,
        "public_key": public_key,
        "changes_since": None if changes_since is None else iso(changes_since),
        "origin_generation": origin,
        "list_generation": lists,
        "special_purpose_registries": AS_OF,
        "left_out": left_out,
        "classes": classes,
        "not_written": not_written,
        "files": {file.name: _entry(file) for file in files},
    }


def _entry(file: Written) -> dict[str, Any]:
    entry = {
        "feed": file.feed,
        "addresses": file.addresses,
        "asns": file.asns,
        "bytes": file.size,
        "sha256": file.sha256,
    }
    return {name: value for name, value in entry.items() if value is not None}


def encode(content: dict[str, Any]) -> bytes:
    """Encode a manifest, with line breaks for people."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
