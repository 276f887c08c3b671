"""The MISP feed from edition to edition: no duplicates, and no past day is rewritten."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from publish_support import Seen, rows_of
from smtpfeeds_aggregator.publish import misp_feed
from smtpfeeds_aggregator.publish.misp_feed import MispFeed
from smtpfeeds_aggregator.publish.stopping import go_on
from smtpfeeds_aggregator.publish.withdrawn import Withdrawn

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Publisher:
    """Publishes one edition after another; each reads the one before."""

    folder: Path
    before: Path | None = None
    number: int = 0
    left_out: Any = None

    def publish(
        self, now: datetime, seen: Iterable[Seen], excluded: Iterable[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """Publish an edition; return its events by feed, day and part (their info)."""
        self.number += 1
        generation = self.folder / str(self.number)
        generation.mkdir()
        withdrawn = Withdrawn(self.folder, excluded)
        feed = MispFeed(generation, self.before, "Example Watch", now, days=30, withdrawn=withdrawn)
        feed.add(rows_of("smtpgreet", seen), go_on)
        written = feed.write()
        self.left_out = dict(feed.left_out)
        withdrawn.note()
        self.before = generation
        on_disk = {path.relative_to(generation).as_posix() for path in generation.rglob("*.*")}
        assert {file.name for file in written} == on_disk
        for file in written:
            octets = (generation / file.name).read_bytes()
            assert (len(octets), hashlib.sha256(octets).hexdigest()) == (file.size, file.sha256)
        return self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        """Read like MISP: the manifest, then each event in it; check that the hashes agree."""
        assert self.before is not None
        folder = self.before / "misp"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert {path.stem for path in folder.glob("*-*.json")} == set(manifest)
        events = {}
        hashes = set()
        for uuid, listed in manifest.items():
            event = json.loads((folder / f"{uuid}.json").read_text())["Event"]
            assert event["uuid"] == uuid
            assert int(event["timestamp"]) == listed["timestamp"]
            assert {"info", "date", "Orgc", "Tag"} < listed.keys()
            assert all(event[name] == listed[name] for name in ("info", "date", "Orgc", "Tag"))
            events[event["info"].partition(":")[0]] = event
            hashes |= {
                (hashlib.md5(each["value"].encode()).hexdigest(), uuid)
                for each in event["Attribute"]
            }
        lines = (folder / "hashes.csv").read_text().splitlines()
        assert len(lines) == len(set(lines))
        assert {tuple(line.split(",")) for line in lines} == hashes
        return events


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def seen(address: str, at: datetime) -> Seen:
    return Seen(address, 64496, last_seen=at, first_seen=at - 20 * DAY)


def values(event: dict[str, Any]) -> list[str]:
    return [each["value"] for each in event["Attribute"]]


def test_first_run_holds_one_day_at_a_time(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All days of a new feed are open, and each may need 20 MB."""
    held: list[int] = []
    write = MispFeed._write_event

    def counting(self: MispFeed, feed: str, event: Any) -> None:
        gc.collect()
        held.append(sum(isinstance(each, misp_feed._Held) for each in gc.get_objects()))
        write(self, feed, event)

    monkeypatch.setattr(MispFeed, "_write_event", counting)
    days = [NOON - ago * DAY for ago in range(7)]
    events = publisher.publish(NOON, [seen(f"192.0.2.{at.day}", at) for at in days])
    assert list(events) == [f"smtpgreet {at:%Y-%m-%d}" for at in reversed(days)]
    assert held == [1] * 7


def test_same_rows_leave_events_and_files_unchanged(publisher: Publisher) -> None:
    """Timestamps stay, and an unchanged file is the same file on disk."""
    rows = [seen("192.0.2.1", NOON - HOUR), seen("2001:db8::1", NOON - 3 * DAY)]
    first = publisher.publish(NOON, rows)
    folder = publisher.before
    assert folder is not None
    assert {name: values(event) for name, event in first.items()} == {
        "smtpgreet 2026-11-20": ["192.0.2.1"],
        "smtpgreet 2026-11-17": ["2001:db8::1"],
    }
    assert publisher.publish(NOON + HOUR, rows) == first
    for path in (folder / "misp").iterdir():
        again = publisher.folder / "2" / "misp" / path.name
        assert again.read_bytes() == path.read_bytes()
        if "-" in path.name:
            assert again.samefile(path)


def test_attribute_keeps_its_identifier_and_event_time_follows_content(
    publisher: Publisher,
) -> None:
    first = publisher.publish(NOON, [seen("192.0.2.1", NOON - HOUR)])["smtpgreet 2026-11-20"]
    later = publisher.publish(NOON + HOUR, [seen("192.0.2.1", NOON)])["smtpgreet 2026-11-20"]
    (old,), (new,) = first["Attribute"], later["Attribute"]
    assert new["uuid"] == old["uuid"]
    assert new["last_seen"] == "2026-11-20T12:00:00+00:00"
    assert int(later["timestamp"]) - int(first["timestamp"]) == 3600
    assert new["to_ids"] is False
    next_day = publisher.publish(NOON + DAY, [seen("192.0.2.1", NOON + DAY - HOUR)])
    assert next_day["smtpgreet 2026-11-20"] == later
    assert next_day["smtpgreet 2026-11-21"]["Attribute"][0]["uuid"] != old["uuid"]


def test_day_closes_after_a_day_and_later_rows_go_to_their_day_of_arrival(
    publisher: Publisher,
) -> None:
    one, late, later = (f"192.0.2.{last}" for last in (1, 2, 3))
    rows = [seen(one, NOON)]
    publisher.publish(NOON + HOUR, rows)
    rows.append(seen(late, NOON + HOUR))
    open_still = publisher.publish(NOON + DAY, rows)
    assert values(open_still["smtpgreet 2026-11-20"]) == [one, late]
    rows.append(seen(later, NOON + 2 * HOUR))
    for now in (NOON + 2 * DAY, NOON + 3 * DAY):
        closed = publisher.publish(now, rows)
        assert closed["smtpgreet 2026-11-20"] == open_still["smtpgreet 2026-11-20"]
        arrived = closed["smtpgreet 2026-11-22"]["Attribute"]
        assert [each["value"] for each in arrived] == [later]
        assert arrived[0]["last_seen"] == "2026-11-20T14:00:00+00:00"
    assert len(closed) == 2, "nothing is there twice"


def test_earlier_first_seen_is_written_while_the_day_is_open(publisher: Publisher) -> None:
    """Another sensor's batch arrives late."""
    row = seen("192.0.2.1", NOON)
    publisher.publish(NOON, [row])
    earlier = Seen(row.ip, row.asn, last_seen=NOON, first_seen=NOON - 22 * DAY)
    opened = publisher.publish(NOON + DAY, [earlier])["smtpgreet 2026-11-20"]
    assert opened["Attribute"][0]["first_seen"] == "2026-10-29T12:00:00+00:00"
    earliest = Seen(row.ip, row.asn, last_seen=NOON, first_seen=NOON - 24 * DAY)
    assert publisher.publish(NOON + 2 * DAY, [earliest]) == {"smtpgreet 2026-11-20": opened}


def test_rows_outside_the_window_stay_in_their_day_until_it_expires(
    publisher: Publisher,
) -> None:
    publisher.publish(NOON, [seen("192.0.2.1", NOON)])
    before = publisher.publish(NOON + 20 * DAY, [seen("192.0.2.9", NOON + 20 * DAY)])
    assert values(before["smtpgreet 2026-11-20"]) == ["192.0.2.1"]
    after = publisher.publish(NOON + 30 * DAY, [])
    assert set(after) == {"smtpgreet 2026-12-10"}


def test_excluded_address_is_removed_from_past_days_at_once(
    publisher: Publisher,
) -> None:
    rows = [seen("192.0.2.1", NOON), seen("198.51.100.1", NOON), seen("2001:db8::1", NOON - DAY)]
    first = publisher.publish(NOON, rows)
    publisher.publish(NOON + 15 * DAY, [])
    cleaned = publisher.publish(NOON + 16 * DAY, [], ["192.0.2.0/24", "2001:db8::/32"])
    assert set(cleaned) == {"smtpgreet 2026-11-20"}
    event = cleaned["smtpgreet 2026-11-20"]
    assert values(event) == ["198.51.100.1"]
    assert event["uuid"] == first["smtpgreet 2026-11-20"]["uuid"]
    assert int(event["timestamp"]) == int((NOON + 16 * DAY).timestamp())
    assert publisher.publish(NOON + 17 * DAY, [], ["192.0.2.0/24"]) == cleaned


def test_large_day_has_several_events_and_a_bound(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misp_feed, "EVENT_ATTRIBUTES", 4)
    monkeypatch.setattr(misp_feed, "DAY_ATTRIBUTES", 10)
    rows = [seen(f"192.0.2.{last}", NOON) for last in range(12)]
    publisher.publish(NOON, rows[:3])
    events = publisher.publish(NOON + HOUR, rows)
    assert {name: len(values(event)) for name, event in events.items()} == {
        "smtpgreet 2026-11-20": 4,
        "smtpgreet 2026-11-20, part 2": 4,
        "smtpgreet 2026-11-20, part 3": 2,
    }
    assert values(events["smtpgreet 2026-11-20"])[:3] == ["192.0.2.0", "192.0.2.1", "192.0.2.2"]
    assert publisher.left_out == {("smtpgreet", date(2026, 11, 20)): 2}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        *((name, b"{", b"") for name in ("index.json", "manifest.json")),
        *((name, b"-", b"\xff") for name in ("index.json", "manifest.json")),
        *((name, None, b"") for name in ("index.json", "manifest.json", "hashes.csv")),
    ],
)
def test_feed_starts_again_after_a_damaged_or_deleted_index_manifest_or_list_of_hashes(
    publisher: Publisher, name: str, old: bytes | None, new: bytes
) -> None:
    first = publisher.publish(NOON, [seen("192.0.2.1", NOON)])
    assert publisher.before is not None
    path = publisher.before / "misp" / name
    octets = path.read_bytes()
    path.unlink()
    if old is not None:
        path.write_bytes(octets.replace(old, new, 1))
    assert publisher.publish(NOON, [seen("192.0.2.1", NOON)]) == first


@pytest.mark.parametrize("damage", [None, b"", b"19\xff", b"193"])
def test_feed_continues_without_a_damaged_or_deleted_event(
    publisher: Publisher, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    """No other event changes, and rows of the window are published again.

    An event that is whole, but not what was published, would bring an invented address.
    """
    days = {ago: NOON - ago * DAY for ago in (0, 1, 3, 5)}
    rows = [seen(f"192.0.2.{ago}", at) for ago, at in days.items()]
    first = publisher.publish(NOON, rows)
    assert publisher.before is not None
    open_day, closed_day, other = (f"smtpgreet {days[ago]:%Y-%m-%d}" for ago in (1, 3, 5))
    for name in (open_day, closed_day):
        path = publisher.before / "misp" / f"{first[name]['uuid']}.json"
        octets = path.read_bytes()
        path.unlink()
        if damage is not None:
            path.write_bytes(octets.replace(b"192", damage) if damage else octets[:-3])
    second = publisher.publish(NOON + HOUR, rows)
    assert [each.levelname for each in caplog.records] == ["WARNING"] * 2
    assert second[other] == first[other]
    assert second[open_day]["Attribute"][0]["uuid"] == first[open_day]["Attribute"][0]["uuid"]
    assert closed_day not in second
    today = second[f"smtpgreet {NOON:%Y-%m-%d}"]
    assert values(today) == ["192.0.2.0", "192.0.2.3"]
    assert publisher.publish(NOON + HOUR, rows) == second


def test_damaged_hash_does_not_stop_the_feed(publisher: Publisher) -> None:
    rows = [seen(f"192.0.2.{last}", NOON) for last in range(2)]
    publisher.publish(NOON, rows)
    assert publisher.before is not None
    hashes = publisher.before / "misp" / "hashes.csv"
    damaged, intact = hashes.read_bytes().splitlines(keepends=True)
    hashes.write_bytes(b"\xff" + damaged[1:] + intact)
    folder = publisher.folder / "after"
    folder.mkdir()
    withdrawn = Withdrawn(folder, [])
    feed = MispFeed(folder, publisher.before, "Example Watch", NOON, days=30, withdrawn=withdrawn)
    feed.add(rows_of("smtpgreet", rows), go_on)
    feed.write()
    assert intact in (folder / "misp" / "hashes.csv").read_bytes().splitlines(keepends=True)
