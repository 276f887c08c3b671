"""Reads the other published files as a consumer does: STIX, MISP, changes, archive, hashes.

Like ``published``, it follows the description of the formats.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from .ledger import Recorded
from .published import NotThatFormat, PublishedRow, Rows, second

_ORIGIN: Final = re.compile(r"; AS([0-9]+) (.+)")


def read_more(folder: Path, feed: str) -> dict[str, Rows]:
    """Read the rows of one feed from STIX and from MISP.

    Raises:
        NotThatFormat: a file is missing, cut, or not of its format.
    """
    try:
        return {
            f"{feed}.stix.json": read_stix(folder / f"{feed}.stix.json", feed),
            f"{feed} in misp/": read_misp(folder / "misp", feed),
        }
    except (OSError, EOFError, ValueError, LookupError, TypeError) as exc:
        raise NotThatFormat(f"cannot read the feed {feed} in {folder}: {exc!r}") from exc


def read_stix(path: Path, feed: str) -> Rows:
    """Read a bundle of observations, each with an address and the origin that it belongs to."""
    objects = {each["id"]: each for each in json.loads(path.read_bytes())["objects"]}
    rows: Rows = {}
    for observed in objects.values():
        if observed["type"] != "observed-data":
            continue
        address, *origins = (objects[ref] for ref in observed["object_refs"])
        if [origin["id"] for origin in origins] != address.get("belongs_to_refs", []):
            raise NotThatFormat(f"{path}: {address['value']} does not belong to its origin")
        label, cls = observed["labels"]
        if label != feed or (feed, address["value"]) in rows:
            raise NotThatFormat(f"{path}: {address['value']} is invalid or repeated")
        recorded = Recorded(
            _second(observed["first_observed"]),
            _second(observed["last_observed"]),
            observed["number_observed"],
            None,
        )
        asn = origins[0]["number"] if origins else None
        name = origins[0].get("name", "NA") if origins else "NA"
        rows[feed, address["value"]] = PublishedRow(asn, name, recorded, None, cls)
    return rows


def read_misp(folder: Path, feed: str) -> Rows:
    """Read a feed's events; an address that is in several days has its latest row."""
    rows: Rows = {}
    for event in _events(folder):
        if not event["info"].startswith(f"{feed} "):
            continue
        for each in event["Attribute"]:
            if each["to_ids"] or each["type"] != "ip-src":
                raise NotThatFormat(f"{folder}: {each['value']} is not an observation")
            recorded = Recorded(_second(each["first_seen"]), _second(each["last_seen"]), None, None)
            before = rows.get((feed, each["value"]))
            if before is not None and before.recorded.last > recorded.last:
                continue
            origin = _ORIGIN.search(each["comment"])
            asn, name = (int(origin[1]), origin[2]) if origin else (None, "NA")
            cls = each["comment"].partition(":")[0]
            rows[feed, each["value"]] = PublishedRow(asn, name, recorded, None, cls)
    return rows


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of the manifest, as MISP does, and check that their times agree."""
    for uuid, listed in json.loads((folder / "manifest.json").read_bytes()).items():
        event: dict[str, Any] = json.loads((folder / f"{uuid}.json").read_bytes())["Event"]
        if (event["uuid"], int(event["timestamp"])) != (uuid, listed["timestamp"]):
            raise NotThatFormat(f"{folder}: the event {uuid} differs from its manifest")
        yield event


def _second(text: str) -> Any:
    return second(text[:19].replace("T", " "))


def folder_disagreements(folder: Path, feeds: Mapping[str, Rows]) -> list[str]:
    """Describe each difference of the hashes, changes and archive from the feeds beside them.

    Args:
        folder: a generation.
        feeds: the rows of each feed.
    """
    try:
        return [
            *_hash_disagreements(folder),
            *(
                disagreement
                for feed, rows in feeds.items()
                for disagreement in _changed(folder, feed, rows)
            ),
            *_archived(folder, feeds),
        ]
    except (OSError, EOFError, ValueError, LookupError, TypeError) as exc:
        return [f"cannot read {folder}: {exc!r}"]


def _hash_disagreements(folder: Path) -> Iterator[str]:
    lines = (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for name in sorted(on_disk ^ {*sums, "SHA256SUMS"}):
        yield f"{name}: in SHA256SUMS or on disk, not in both"
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    for name in sorted(on_disk & sums.keys()):
        octets = (folder / name).read_bytes()
        if hashlib.sha256(octets).hexdigest() != sums[name]:
            yield f"{name}: not what SHA256SUMS says"
        if name in files and (files[name]["sha256"], files[name]["bytes"]) != (
            sums[name],
            len(octets),
        ):
            yield f"{name}: not what the manifest says"


def _changed(folder: Path, feed: str, rows: Rows) -> Iterator[str]:
    """Check that added and changed addresses are in the feed with that class, removed ones not."""
    path = folder / f"{feed}-changes.ndjson"
    if gzip.decompress(Path(f"{path}.gz").read_bytes()) != path.read_bytes():
        yield f"{path.name}.gz differs from {path.name}"
    for line in path.read_bytes().splitlines():
        change = json.loads(line)
        row = rows.get((change["category"], change["ipaddr"]))
        if (None if row is None else row.cls) != change["class"]:
            yield f"{path.name}: {change['change']} {change['ipaddr']} disagrees with the feed"


def _archived(folder: Path, feeds: Mapping[str, Rows]) -> Iterator[str]:
    """Check that the archive has a day, and no address that is not in the feed."""
    days = json.loads((folder / "archive" / "index.json").read_bytes())["days"]
    if not days:
        yield "archive: it has no day"
    for day in days:
        for name, file in day["files"].items():
            plain = gzip.decompress((folder / "archive" / name).read_bytes())
            if plain.count(b"\n") != file["addresses"]:
                yield f"archive/{name}: not as many rows as its index says"
            for line in plain.splitlines():
                row = json.loads(line)
                if (row["category"], row["ipaddr"]) not in feeds[file["feed"]]:
                    yield f"archive/{name}: {row['ipaddr']} is not in the feed"


def rows_by_feed(files: Mapping[str, Mapping[str, Rows]]) -> dict[str, Rows]:
    """Return the rows of each feed from the file that has all columns."""
    return {feed: of_feed[f"{feed}.ndjson"] for feed, of_feed in files.items()}
