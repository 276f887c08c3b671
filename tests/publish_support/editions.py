"""Writes small editions for tests of readers: rows, manifest and signature."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from smtpfeeds_aggregator.classification.classes import Class, Judgement
from smtpfeeds_aggregator.publish.edition import MANIFEST, SIGNATURE, VERSION, read_edition
from smtpfeeds_aggregator.publish.entries import Entry, rows_of
from smtpfeeds_aggregator.publish.formats import csv_file, ndjson
from smtpfeeds_aggregator.publish.signing import Signer, trusted_comment
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.times import iso_utc

GENERATION = "20261126T010000Z-0123abcd"


def entry(address: str, feed: str = "smtpgreet", cls: Class = Class.PROBE, **changes: Any) -> Entry:
    """Create a row of a feed."""
    new_entry = Entry(
        asn=64496,
        name="EXAMPLE-NET, Inc",
        address=address,
        family=6 if ":" in address else 4,
        last_seen="2026-11-26 00:59:59",
        category=feed,
        first_seen="2026-11-25 09:00:00",
        hits=3,
        sensors=2,
        flags=int(Flags.BARE_LF),
        targets=1,
        judgement=Judgement(cls, ("greet", "many_sensors"), None),
        days=0b11,
        new=True,
    )
    return new_entry._replace(**changes)


def write_edition(
    folder: Path,
    entries: Sequence[Entry],
    *,
    generated: datetime | None = None,
    kind: str = "ndjson",
    below: str = "",
    signer: Signer | None = None,
    expires_after: timedelta = timedelta(days=3650),
) -> Path:
    """Write the files of both feeds and the manifest, as a publication lays them out."""
    generated = generated or datetime(2026, 11, 26, 1, tzinfo=UTC)
    (folder / below).mkdir(parents=True, exist_ok=True)
    files = {}
    for feed in FEED_NAMES:
        rows = [row for row in entries if row.category == feed]
        form = ndjson if kind == "ndjson" else csv_file
        head = ",".join(csv_file.COLUMNS) + "\n" if kind == "csv" else ""
        plain = (head + "".join(rows_of(rows, form, 100))).encode()
        name = f"{below}{feed}{form.SUFFIX}"
        for file, octets in ((name, plain), (f"{name}.gz", gzip.compress(plain, mtime=0))):
            (folder / file).write_bytes(octets)
            files[file] = {
                "feed": feed,
                "addresses": len(rows),
                "bytes": len(octets),
                "sha256": hashlib.sha256(octets).hexdigest(),
            }
    body = json.dumps(
        {
            "version": VERSION,
            "base": f"generations/{GENERATION}/",
            "generated": iso_utc(generated),
            "expires": iso_utc(generated + expires_after),
            "files": files,
        }
    ).encode()
    (folder / MANIFEST).write_bytes(body)
    if signer is not None:
        edition = read_edition(body)
        comment = trusted_comment(MANIFEST, edition.generation, edition.generated, edition.expires)
        (folder / f"{MANIFEST}{SIGNATURE}").write_bytes(signer.sign(body, comment))
    return folder
