"""The manifest beside the feeds: its times, what each file holds, and what was left out."""

from collections import Counter
from datetime import datetime
from typing import Any, Final

import msgspec

from smtpfeeds_common import __version__

from ..special_purpose import AS_OF
from .entries import NOTICE, Frame
from .files import FeedFile
from .formats.ndjson import iso

#: Raised when a field changes its meaning or goes.
VERSION: Final = 1


class _Dated(msgspec.Struct):
    generated: datetime


def manifest(
    frame: Frame,
    files: list[tuple[FeedFile, str]],
    left_out: dict[str, Counter[str]],
    origin: str | None,
    base: str,
) -> dict[str, Any]:
    """The manifest of a generation.

    Args:
        frame: of any feed.
        files: the checked ones with their SHA-256.
        left_out: how many addresses of each feed, by reason.
        origin: the origin table, where there is one.
        base: where this very generation is, below the published directory.
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
        "origin_generation": origin,
        "special_purpose_registries": AS_OF,
        "left_out": {
            feed: {"not_global": counts["not_global"], "excluded": counts["excluded"]}
            for feed, counts in left_out.items()
        },
        "files": {
            file.name: {
                "feed": file.frame.feed.name,
                "addresses": file.counts.addresses,
                "asns": file.counts.asns,
                "sha256": digest,
            }
            for file, digest in files
        },
    }


def encode(content: dict[str, Any]) -> bytes:
    """Write a manifest, in lines that people can read."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def generated_at(body: bytes) -> datetime | None:
    """When a manifest was made; None for one that cannot be read."""
    try:
        return msgspec.json.decode(body, type=_Dated).generated
    except msgspec.MsgspecError:
        return None
