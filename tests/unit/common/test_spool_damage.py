"""What a damaged disk, or somebody else, changed in a spool keeps nothing else from delivery.

SQLite notices no change of a value. The other rows of the file are delivered; a row or a note that
no sensor can have written is dropped and counted.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SpoolDamaged, SpoolError
from smtpfeeds_common.spool import Bounds, Event, Sealer, Spool, keep_room, read_status, replay
from smtpfeeds_common.spool.fold import DAY_MS
from smtpfeeds_common.spool.left_behind import look_at
from smtpfeeds_common.spool.take_over import deliver_quarantined
from smtpfeeds_common.wire import COUNT_MAX, decode
from spool_support import BOOT, at

NOW = 1_795_700_000_000
GOOD, OTHER = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9])

#: Of one row; the others stay good.
ROWS = {
    "a feed that is none": "UPDATE observation SET feed = 7 WHERE ip = :ip",
    "a feed that is a text": "UPDATE observation SET feed = 'x' WHERE ip = :ip",
    "an address without octets": "UPDATE observation SET ip = x'' WHERE ip = :ip",
    "an address of five octets": "UPDATE observation SET ip = ip || x'00' WHERE ip = :ip",
    "an address that is a text": "UPDATE observation SET ip = 'text' WHERE ip = :ip",
    "an address that is a number": "UPDATE observation SET ip = 5 WHERE ip = :ip",
    "hits that are octets": "UPDATE observation SET hits = x'ff' WHERE ip = :ip",
    "an hour of no feed": "UPDATE activity SET feed = 9",
    "a prefix of one octet": "INSERT INTO overflow VALUES (0, x'01', 5, 5, 5)",
    "an undated row of no feed": (
        "INSERT INTO undated_observation VALUES ('b', 9, x'01', 'x', 'y', 'z', 1, 1)"
    ),
    "an undated row past all times": (
        "INSERT INTO undated_observation VALUES ('b', 0, :ip, 1, 9223372036854775807, 1, 1, 1)"
    ),
}
#: Of a sealed batch.
BATCHES = {
    "a time that is a text": "UPDATE batch SET sealed_ms = 'x'",
    "a time that is octets": "UPDATE batch SET sealed_ms = x'ff'",
    "events that are a text": "UPDATE batch SET events = 'x'",
    "events below none": "UPDATE batch SET events = -5",
    "a reason that is octets": "UPDATE batch SET set_aside = x'ff'",
    "a body that is a number": f"UPDATE batch SET body = {2**62}",
}
NOTE = "INSERT OR REPLACE INTO meta VALUES "
NOTES = {
    "drops that are a text": f"{NOTE} ('drops', 'x')",
    "drops below none": f"{NOTE} ('drops', -5)",
    "a state that is a list": f"{NOTE} ('state', '[]')",
    "a state that is nested without end": f"{NOTE} ('state', '{'[' * 100_000}')",
    "a time that is a text": f"""{NOTE} ('state', '{{"noted_ms": "x"}}')""",
    "a time past all times": f"""{NOTE} ('state', '{{"noted_ms": 9e17, "client_ms": 9e17}}')""",
    "counters below none": f"""{NOTE} ('state', '{{"counters": {{"a": -5}}}}')""",
    "a version that is a number": f"""{NOTE} ('state', '{{"version": 7}}')""",
    "bounds that are texts": f"""{NOTE} ('bounds', '{{"max_bytes": "x"}}')""",
    "bounds below none": f"""{NOTE} ('bounds', '{{"max_bytes": -1, "replay_ms": -1}}')""",
    "an age that is a text": f"""{NOTE} ('age', '{{"age_ms": "x"}}')""",
    "an age without its boot's": f"""{NOTE} ('age', '{{"boot": "{BOOT}"}}')""",
    "a delivery that is a list": f"{NOTE} ('delivery', '[1]')",
}


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql, {"ip": OTHER} if ":ip" in sql else {})


def heard(spool: Spool, at_ms: int = NOW - 5_000) -> None:
    for ip in (GOOD, OTHER):
        spool.fold(Event(0, ip, at_ms, 1))
    spool.commit()


def spool_of(path: Path) -> Spool:
    spool = Spool(path, sensor="s1", boot=BOOT)
    heard(spool)
    return spool


def delivered(path: Path) -> Counter[str]:
    """Deliver all that waits, as a program would that does not know of the damage."""
    hits: Counter[str] = Counter()
    with closing(Sealer(path)) as sealer:
        sealer.keep_bounds(at(NOW))
        sealer.seal(at(NOW), empty=True)
        for sealed in sealer.waiting():
            batch, refused = decode(sealed.body)
            assert (batch.sensor, refused) == ("s1", [])
            hits += Counter({row.ip: row.hits for row in batch.observations})
            sealer.confirm([(sealed.spool, sealed.seq)], at(NOW))
        assert sealer.waiting() == []
    return hits


def test_row_that_no_sensor_wrote_is_dropped_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.spool"
    with closing(Spool(path, sensor="s1", boot=BOOT)) as spool:
        for number, (what, sql) in enumerate(ROWS.items(), 1):
            heard(spool)
            change(path, sql)
            expected = {"192.0.2.1": 1, "192.0.2.9": 1}
            if sql.startswith("UPDATE observation"):
                del expected["192.0.2.9"]
            assert delivered(path) == expected, what
            assert read_status(path).drops == number, what
    assert caplog.text.count("damaged rows of the spool dropped") == len(ROWS)


def test_feed_that_is_a_fraction_is_dropped_too(tmp_path: Path) -> None:
    """A column holds one where the octets of its row changed; here it has no type."""
    path = tmp_path / "s.spool"
    spool_of(path).close()
    change(path, "DROP TABLE overflow")
    change(path, "CREATE TABLE overflow (feed, prefix, first_ms, last_ms, hits)")
    change(path, f"INSERT INTO overflow VALUES (1.0, zeroblob(16), {NOW}, {NOW}, 5)")
    assert delivered(path) == {"192.0.2.1": 1, "192.0.2.9": 1}
    assert read_status(path).drops == 1


def test_sensor_seals_the_day_before_without_such_rows(tmp_path: Path) -> None:
    """Otherwise it could write nothing more into the file from that day on."""
    path = tmp_path / "s.spool"
    with closing(spool_of(path)) as spool:
        for day, sql in enumerate((sql for sql in ROWS.values() if "undated" not in sql), 1):
            change(path, sql)
            heard(spool, NOW + day * DAY_MS)
            assert (spool.unwritten, read_status(path).batches_waiting) == (0, day), sql


def test_note_that_no_program_wrote_counts_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    for number, (what, sql) in enumerate(NOTES.items(), 1):
        with closing(spool_of(path)):
            pass
        change(path, sql)
        assert delivered(path) == {"192.0.2.1": 1, "192.0.2.9": 1}, what
        status = read_status(path)
        assert (status.noted_ms, status.client_ms, status.counters) == (None, None, {}), what
        assert (status.drops, status.delivered_ms, status.batches_kept) == (0, NOW, number), what
    with closing(Spool(path, sensor="s1", boot=BOOT)) as spool:
        assert spool.noted_ms is None
        spool.note_state(at(NOW), version="0.2.0", counters={"a": 1})
    assert read_status(path).counters == {"a": 1}
    assert replay(path, 0) == len(NOTES)


@pytest.mark.parametrize("key", ["uuid", "next_seq"])
@pytest.mark.parametrize("value", ["x", -1, 2**63 - 1])
def test_batch_gets_a_new_name_if_the_notes_give_none(
    tmp_path: Path, key: str, value: str | int
) -> None:
    path = tmp_path / "s.spool"
    spool = spool_of(path)
    with closing(Sealer(path)) as sealer:
        first = sealer.seal(at(NOW))
        spool.fold(Event(0, GOOD, NOW, 1))
        spool.commit()
        change(path, f"UPDATE meta SET value = {value!r} WHERE key = '{key}'")
        second = sealer.seal(at(NOW))
    spool.close()
    assert first is not None
    assert second is not None
    assert first.spool != second.spool
    assert decode(second.body).batch.observations[0].ip == "192.0.2.1"


@pytest.mark.parametrize("body", ["'text'", "5", "x'ff'", "zeroblob(9000000)"])
def test_body_of_a_batch_is_octets_and_bounded(tmp_path: Path, body: str) -> None:
    path = tmp_path / "s.spool"
    spool_of(path).close()
    change(path, f"INSERT INTO batch VALUES ('x', 1, 1, 1, {body}, NULL, NULL)")
    with closing(Sealer(path)) as sealer:
        (sealed,) = sealer.waiting()
    assert isinstance(sealed.body, bytes)
    assert len(sealed.body) < 5


@pytest.mark.parametrize("sql", [*ROWS.values(), *BATCHES.values()])
def test_damaged_file_can_be_shown_and_taken_over(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "s.spool"
    with closing(spool_of(path)) as spool:
        with closing(Sealer(path)) as sealer:
            sealer.seal(at(NOW))
            heard(spool)
            change(path, sql)
            assert sealer.waiting_state()[0] <= 1
        status, shown = read_status(path), look_at(path)
    for time_ms in (status.oldest_ms, status.oldest_waiting_ms):
        assert time_ms is None or isinstance(time_ms, int)
    assert shown.trouble == ""
    assert shown.events in range(2, 6), "of two rows and a batch of two"
    old = path.rename(path.with_name("s.damaged-20261126T000000Z.spool"))
    Spool(path, sensor="s1", boot=BOOT).close()
    assert deliver_quarantined(old, path).events in range(1, 6)
    assert not old.exists()


def test_damaged_rows_are_deleted_at_the_bound_too(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    with closing(Spool(path, sensor="s1", boot=BOOT)) as spool:
        for number in range(10_000):
            spool.fold(Event(0, number.to_bytes(4), NOW + number))
        spool.commit()
        change(path, f"UPDATE observation SET hits = {2**62} WHERE last_ms < {NOW + 10}")
        change(path, f"UPDATE observation SET hits = 'x' WHERE last_ms < {NOW + 5}")
        dropped = keep_room(path, Bounds(max_bytes=300_000), at(NOW + 10_000)).events
    status = read_status(path)
    assert status.used_bytes <= 240_000
    assert dropped >= status.drops == COUNT_MAX


ENDLESS = (
    "CREATE VIEW activity AS WITH RECURSIVE every (feed, hour_ms, events) AS"
    " (SELECT 0, 1, 1 UNION ALL SELECT 0, hour_ms + 1, 1 FROM every) SELECT * FROM every"
)
AGAIN = (
    "CREATE TRIGGER again AFTER DELETE ON observation BEGIN INSERT INTO observation"
    " VALUES (old.feed, old.ip, old.first_ms, old.last_ms, old.hits, 0, 0); END"
)


@pytest.mark.parametrize("sql", [("DROP TABLE activity", ENDLESS), (AGAIN,)])
@pytest.mark.parametrize("is_open", [True, False])
def test_no_view_and_no_trigger_of_a_file_runs(
    tmp_path: Path, sql: tuple[str, ...], is_open: bool
) -> None:
    """One program delivers from the spools of many sensors; it must not hang in one of them."""
    path = tmp_path / "s.spool"
    spool_of(path).close()
    sealer = Sealer(path) if is_open else None
    for statement in sql:
        change(path, statement)
    sealer = sealer or Sealer(path)
    with closing(sealer), pytest.raises(SpoolError, match="not authorized|prohibited"):
        sealer.seal(at(NOW))


def test_rows_of_a_table_with_other_columns_are_not_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.spool"
    spool_of(path).close()
    change(path, "ALTER TABLE observation ADD COLUMN more TEXT")
    with closing(Sealer(path)) as sealer, pytest.raises(SpoolDamaged, match="other columns"):
        sealer.seal(at(NOW))
    assert read_status(path).rows["smtpgreet"] == 2
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
