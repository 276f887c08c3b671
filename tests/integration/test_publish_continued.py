"""Changes, archive and MISP feed over days, and what leaves them when it is excluded."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from publish_support import NOW, Origins
from smtpfeeds_aggregator.publish.changes import Snapshot, Snapshots
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.publish.status import StatusFile
from smtpfeeds_aggregator.publish.verify import open_edition
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.exclusions import ExclusionStore
from smtpfeeds_common.addresses import parse_network
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.errors import PublishError, SettingsError

# ruff: noqa: F811 - the fixture is imported by name and used by name

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Site:
    """A database and its published folder."""

    def __init__(self, connection: Connection, settings: AggregatorSettings) -> None:
        self.connection, self.settings = connection, settings
        self.feeds = Path(settings.feeds_dir) / "feeds"

    def observe(self, ip: str, at: datetime, flags: int = 0) -> None:
        for feed in ("smtpgreet", "smtpdata"):
            self.connection.execute(
                "INSERT INTO observation (ip, feed, first_seen, last_seen, hits, flags)"
                " VALUES (%s, %s, %s, %s, 3, %s)"
                " ON CONFLICT (ip, feed) DO UPDATE SET last_seen = EXCLUDED.last_seen,"
                " flags = EXCLUDED.flags",
                (ip, feed, at - HOUR, at, flags),
            )

    def publish(self, now: datetime) -> dict[str, Any]:
        """Publish, verify all files against the manifest, and return the manifest."""
        assert publish_once(self.settings, Origins(), self.connection, now=now) is not None
        open_edition(self.feeds, None, now=now).verify_all()
        current = self.feeds / "current"
        listed = (current / "SHA256SUMS").read_text().splitlines()
        on_disk = {path.relative_to(current) for path in current.rglob("*") if path.is_file()}
        assert {Path(line.partition("  ")[2]) for line in listed} == on_disk - {Path("SHA256SUMS")}
        manifest: dict[str, Any] = json.loads((self.feeds / "manifest.json").read_text())
        return manifest

    def changes(self, feed: str = "smtpgreet") -> list[tuple[str, ...]]:
        text = (self.feeds / f"{feed}-changes.ndjson").read_text()
        assert gzip.decompress((self.feeds / f"{feed}-changes.ndjson.gz").read_bytes()) == (
            text.encode()
        )
        rows = [json.loads(line) for line in text.splitlines()]
        assert all(row["category"] == feed for row in rows)
        return [
            (row["change"], row["ipaddr"], row["class_before"] or "", row["class"] or "")
            for row in rows
        ]

    def archived(self) -> dict[str, set[str]]:
        """Return the archived addresses of smtpgreet by day."""
        index = json.loads((self.feeds / "archive" / "index.json").read_text())
        addresses = {}
        for day in index["days"]:
            assert set(day["files"]) == {
                f"{day['day']}/{feed}.ndjson.gz" for feed in ("smtpgreet", "smtpdata")
            }
            path = self.feeds / "archive" / day["day"] / "smtpgreet.ndjson.gz"
            rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
            assert len(rows) == day["files"][f"{day['day']}/smtpgreet.ndjson.gz"]["addresses"]
            addresses[day["day"]] = {row["ipaddr"] for row in rows}
        return addresses

    def not_cleaned(self) -> str | None:
        noted = StatusFile(self.feeds.parent).read().success
        assert noted is not None
        return noted.not_cleaned

    def misp(self) -> set[str]:
        values = set()
        for uuid in json.loads((self.feeds / "misp" / "manifest.json").read_text()):
            event = json.loads((self.feeds / "misp" / f"{uuid}.json").read_text())["Event"]
            values |= {each["value"] for each in event["Attribute"]}
        return values


@pytest.fixture
def site(dsn: str, tmp_path: Path) -> Iterator[Site]:
    settings = AggregatorSettings(
        dsn=dsn,
        feeds_dir=str(tmp_path),
        publish_non_global=True,
        archive_days=3,
        generations_kept=5,
    )
    with connect(settings, "test", autocommit=True) as connection:
        yield Site(connection, settings)


def test_changes_are_since_the_edition_that_is_a_day_old(site: Site) -> None:
    site.observe("192.0.2.1", NOW - 6 * DAY)
    site.observe("192.0.2.2", NOW - HOUR)
    site.observe("2001:db8::2", NOW - HOUR)
    assert site.publish(NOW)["changes_since"] is None
    assert site.changes() == site.changes("smtpdata") == []
    for hours in (1, 2, 3):
        site.publish(NOW + hours * HOUR)
    later = NOW + DAY + 20 * timedelta(minutes=1)
    site.observe("192.0.2.3", later - HOUR)
    site.observe("2001:db8::3", later - HOUR)
    site.observe("2001:db8::2", later - HOUR, int(Flags.PROBED_USERS))
    manifest = site.publish(later)
    assert manifest["changes_since"] == "2026-11-23T10:59:30Z"
    assert site.changes() == [
        ("added", "192.0.2.3", "", "probe"),
        ("added", "2001:db8::3", "", "probe"),
        ("gone", "192.0.2.1", "probe", ""),
        ("class", "2001:db8::2", "probe", "user-probe"),
    ]
    assert site.changes("smtpdata") == site.changes()
    kept = sorted((site.feeds.parent / ".changes").iterdir())
    assert len(kept) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    # If nothing was published for three days, there is no edition to compare with.
    assert site.publish(later + 3 * DAY)["changes_since"] is None
    assert site.changes() == []
    assert len(list((site.feeds.parent / ".changes").iterdir())) == 1
    # Further editions in an hour add no files.
    site.publish(later + 3 * DAY + timedelta(minutes=5))
    assert len(list((site.feeds.parent / ".changes").iterdir())) == 1


def test_archive_keeps_the_last_edition_of_each_day_for_its_own_retention(site: Site) -> None:
    site.observe("192.0.2.1", NOW - HOUR)
    manifest = site.publish(NOW)
    assert site.archived() == {"2026-11-23": {"192.0.2.1"}}
    assert "archive/2026-11-23/smtpgreet.ndjson.gz" in manifest["files"]
    site.observe("192.0.2.2", NOW)
    site.publish(NOW + HOUR)
    assert site.archived() == {"2026-11-23": {"192.0.2.1", "192.0.2.2"}}
    archived = site.feeds / "archive" / "2026-11-23" / "smtpgreet.ndjson.gz"
    before = archived.stat()
    for days in (1, 2):
        site.publish(NOW + days * DAY)
    assert list(site.archived()) == ["2026-11-25", "2026-11-24", "2026-11-23"]
    assert site.archived()["2026-11-23"] == {"192.0.2.1", "192.0.2.2"}
    assert archived.stat().st_ino == before.st_ino
    site.publish(NOW + 3 * DAY)
    assert list(site.archived()) == ["2026-11-26", "2026-11-25", "2026-11-24"]


def test_excluded_address_leaves_everything_that_is_served_at_once(site: Site) -> None:
    """This covers archive, MISP days, kept generations and changes, which must not name it."""
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        site.observe(address, NOW - HOUR)
    for days in range(2):
        site.publish(NOW + days * DAY)
    assert site.misp() == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    store = ExclusionStore(site.connection)
    for prefix in ("192.0.2.1/32", "2001:db8::/32"):
        store.add(parse_network(prefix), "asked by its owner", None)
    site.publish(NOW + DAY + HOUR)
    assert site.misp() == {"192.0.2.2"}
    assert site.archived() == {"2026-11-24": {"192.0.2.2"}, "2026-11-23": {"192.0.2.2"}}
    assert site.changes() == []
    assert len(list((site.feeds / "generations").iterdir())) == 1
    for path in site.feeds.parent.rglob("*"):
        if path.is_file():
            octets = path.read_bytes()
            octets = gzip.decompress(octets) if path.suffix == ".gz" else octets
            assert b"2001:db8::1" not in octets, path
            assert b'192.0.2.1"' not in octets, path
    # This happens once, not with each edition.
    site.publish(NOW + DAY + 2 * HOUR)
    assert len(list((site.feeds / "generations").iterdir())) == 2


def test_run_that_cannot_clean_up_has_published_and_the_next_one_cleans(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is like a run that dies after the switch: the removals stay noted.

    A full disk does not prevent the removal of published files.
    """

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    site.observe("192.0.2.1", NOW - HOUR)
    site.observe("192.0.2.2", NOW - HOUR)
    site.publish(NOW)
    store = ExclusionStore(site.connection)
    store.add(parse_network("192.0.2.1/32"), "asked by its owner", None)
    with monkeypatch.context() as patched:
        patched.setattr(Snapshots, "withdraw", full)
        site.publish(NOW + HOUR)
    assert site.misp() == {"192.0.2.2"}
    assert len(list((site.feeds / "generations").iterdir())) == 1
    assert site.not_cleaned() == (
        "addresses that are excluded now may still be in files of past editions: "
        "[Errno 28] No space left on device"
    )
    site.publish(NOW + 2 * HOUR)
    assert site.not_cleaned() is None
    assert len(list((site.feeds / "generations").iterdir())) == 1
    for path in (site.feeds.parent / ".changes").iterdir():
        assert Snapshot.read(path).families["smtpgreet", 4].keys.tolist() == [0xC0000202]


def test_damaged_file_of_the_archive_is_named_when_it_has_to_be_cleaned(site: Site) -> None:
    """After an operator has removed it, as the message says, the archive continues without it."""
    site.observe("192.0.2.1", NOW - HOUR)
    site.publish(NOW)
    site.publish(NOW + DAY)
    path = site.feeds / "archive" / "2026-11-23" / "smtpgreet.ndjson.gz"
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)
    ExclusionStore(site.connection).add(parse_network("192.0.2.1/32"), "asked", None)
    with pytest.raises(
        PublishError, match=r"2026-11-23/smtpgreet\.ndjson\.gz is damaged .* or delete it"
    ):
        publish_once(site.settings, Origins(), site.connection, now=NOW + DAY + HOUR)
    path.unlink()
    manifest = site.publish(NOW + DAY + HOUR)
    archived = {name for name in manifest["files"] if name.startswith("archive/2026-11-23/")}
    assert archived == {"archive/2026-11-23/smtpdata.ndjson.gz"}


def test_formats_choose_and_nothing_else_is_written(site: Site) -> None:
    site.observe("192.0.2.1", NOW - HOUR)
    site.publish(NOW)
    default = {path.name for path in (site.feeds / "current").iterdir()}
    assert {"misp", "archive", "smtpgreet.stix.json", "smtpgreet-changes.ndjson"} < default
    assert not {"smtpgreet.intel", "smtpgreet.json", "smtpgreet-addresses.txt"} & default
    site.settings = AggregatorSettings(
        dsn=site.settings.dsn,
        feeds_dir=site.settings.feeds_dir,
        publish_non_global=True,
        formats=("txt", "intel"),
    )
    manifest = site.publish(NOW + HOUR)
    names = {path.name for path in site.feeds.iterdir()}
    assert {name for name in names if name.startswith("smtpgreet")} == {
        *("smtpgreet.txt", "smtpgreet-ipv4.txt", "smtpgreet-ipv6.txt", "smtpgreet.intel"),
        *("smtpgreet.txt.gz", "smtpgreet-ipv4.txt.gz", "smtpgreet-ipv6.txt.gz"),
        "smtpgreet.intel.gz",
    }
    assert not {"misp", "archive"} & names
    assert not (site.feeds.parent / ".changes").exists(), "no address is kept for nothing"
    page = (site.feeds / "index.html").read_text()
    assert "smtpgreet.intel" in page
    assert "smtpgreet.csv" not in page
    assert manifest["not_written"] == {
        "archive/index.json": "the archive needs ndjson or csv among the formats"
    }
    noted = StatusFile(site.feeds.parent).read().success
    assert noted is not None
    assert noted.not_written == manifest["not_written"]
    with pytest.raises(SettingsError, match="`txt` cannot be left out"):
        AggregatorSettings(formats=("csv",))


def test_file_that_did_not_change_is_the_one_of_the_edition_before(site: Site) -> None:
    def files() -> dict[str, tuple[int, int]]:
        paths = {name: site.feeds / name for name in ("smtpgreet.csv.gz", "smtpgreet.txt")}
        return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in paths.items()}

    site.observe("9.9.9.9", NOW - DAY)
    site.publish(NOW)
    first = files()
    site.publish(NOW + HOUR)
    second = files()
    assert second["smtpgreet.csv.gz"] == first["smtpgreet.csv.gz"]
    assert second["smtpgreet.txt"] != first["smtpgreet.txt"], "it says when it was made"
    site.observe("9.9.9.10", NOW)
    site.publish(NOW + 2 * HOUR)
    third = files()
    assert third["smtpgreet.csv.gz"] != second["smtpgreet.csv.gz"]
    # The file on disk decides, not the edition before: a damaged file is written again.
    damaged = (site.feeds / "smtpgreet.csv.gz").resolve()
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    site.publish(NOW + 3 * HOUR)
    assert files()["smtpgreet.csv.gz"] != third["smtpgreet.csv.gz"]
    # The edition before the last change is complete, and shares no file with later ones.
    oldest = min((site.feeds / "generations").iterdir())
    open_edition(oldest, None, now=NOW).verify_all()


def test_file_system_without_hard_links_gets_a_file_of_each_edition(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(old: Path, new: Path) -> None:
        if new.suffix == ".link":
            raise PermissionError(1, "Operation not permitted")
        link(old, new)

    monkeypatch.setattr("smtpfeeds_aggregator.publish.unchanged.os.link", refuse)
    site.observe("9.9.9.9", NOW - DAY)
    site.publish(NOW)
    first = (site.feeds / "smtpgreet.csv").stat().st_ino
    site.publish(NOW + HOUR)
    assert (site.feeds / "smtpgreet.csv").stat().st_ino != first
