"""The deliverer's side of the spool: batches that never change, epochs, replay, the bound."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from recorded import FIRST, environment_of
from smtpfeeds_common.errors import SpoolError, SpoolInUse
from smtpfeeds_common.spool import (
    Bounds,
    Dropped,
    Event,
    Held,
    Sealer,
    Spool,
    find_spools,
    keep_room,
    read_status,
    replay,
)
from smtpfeeds_common.spool.bounds import _DROPPABLE, Keeper
from smtpfeeds_common.spool.file import connect
from smtpfeeds_common.wire import MAX_ROWS, decode
from spool_support import BOOT, BOOTED_MS, at, in_doubt

FIRST_SPOOL = FIRST.with_name("0.1.0") / "lisbon-1.spool"
NOW = 1_795_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
IP = bytes([192, 0, 2, 1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.spool"


def filled(path: Path, rows: int = 1, bounds: Bounds | None = None) -> Spool:
    spool = Spool(path, sensor="s", bounds=bounds)
    for number in range(rows):
        spool.fold(Event(0, number.to_bytes(4), NOW + number, 1, number % 64))
    spool.commit()
    return spool


def test_batch_holds_what_the_spool_held(path: Path) -> None:
    spool = filled(path, 3)
    spool.note_state(at(NOW), version="1.2", counters={"greets": 3})
    sealer = Sealer(path)
    sealed = sealer.seal(at(NOW + 5))
    assert sealed is not None
    batch = decode(sealed.body).batch
    assert [(row.feed, row.ip, row.hits, row.flags) for row in batch.observations] == [
        ("smtpgreet", f"0.0.0.{number}", 1, 1) for number in range(3)
    ]
    assert (batch.seq, batch.sensor, batch.version) == (1, "s", "1.2")
    assert batch.counters == {"greets": 3}
    assert sum(hour.events for hour in batch.hours) == 3
    assert sealer.depth() == 0
    sealer.close()
    spool.close()


def test_nothing_to_seal_seals_nothing_but_an_empty_one_when_asked(path: Path) -> None:
    spool = filled(path, 0)
    sealer = Sealer(path)
    assert sealer.seal(at(NOW)) is None
    sealed = sealer.seal(at(NOW), empty=True)
    assert sealed is not None
    assert decode(sealed.body).batch.observations == []
    sealer.close()
    spool.close()


def test_nothing_to_seal_writes_nothing(path: Path) -> None:
    """Sealing is tried every second; writes would wear out the flash card of a quiet sensor."""
    spool = filled(path, 0)
    sealer = Sealer(path)
    assert sealer.seal(at(NOW)) is None
    log = path.with_name(f"{path.name}-wal")
    before = log.read_bytes()
    assert sealer.seal(at(NOW + 1_000)) is None
    assert log.read_bytes() == before
    sealer.close()
    spool.close()


def test_batches_are_of_5000_rows_at_most(path: Path) -> None:
    spool = filled(path, MAX_ROWS + 10)
    sealer = Sealer(path)
    batches = [decode(b.body).batch for b in (sealer.seal(at(NOW)), sealer.seal(at(NOW))) if b]
    assert [len(batch.observations) for batch in batches] == [MAX_ROWS, 10]
    assert [batch.depth for batch in batches] == [10, 0]
    assert [batch.seq for batch in batches] == [1, 2]
    sealer.close()
    spool.close()


def test_sealed_batch_waits_across_openings_and_never_changes(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    sealed = sealer.seal(at(NOW))
    sealer.close()
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    sealer = Sealer(path)
    assert sealer.waiting() == [sealed]
    assert sealed is not None
    sealer.confirm([(sealed.spool, sealed.seq)], at(NOW))
    assert sealer.waiting() == []
    sealer.close()
    spool.close()


def test_every_opening_begins_a_new_epoch(path: Path, tmp_path: Path) -> None:
    """A restored backup or a cloned image never reuses a number."""
    spool = filled(path)
    sealer = Sealer(path)
    first = sealer.seal(at(NOW))
    sealer.close()
    spool.close()
    copy = tmp_path / "copy.spool"
    shutil.copy(path, copy)
    seen = {first.spool if first else ""}
    for place in (path, copy):
        spool = Spool(place, sensor="s")
        spool.fold(Event(0, IP, NOW))
        spool.commit()
        sealer = Sealer(place)
        sealed = sealer.seal(at(NOW))
        assert sealed is not None
        assert sealed.spool not in seen
        assert sealed.seq == 1
        seen.add(sealed.spool)
        sealer.close()
        spool.close()


def test_second_deliverer_is_refused(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    with pytest.raises(SpoolInUse, match="already being delivered"):
        Sealer(path)
    sealer.close()
    spool.close()


def test_missing_spool_is_an_error(path: Path) -> None:
    with pytest.raises(SpoolError, match="the sensor creates it"):
        Sealer(path)
    with pytest.raises(SpoolError, match="no spool"):
        replay(path, 0)
    with pytest.raises(SpoolError, match="does not exist; a sensor creates it"):
        find_spools(path.parent / "none")


def test_spool_deleted_while_it_is_opened_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor may be quarantining the file at that moment."""
    monkeypatch.setattr(Path, "exists", lambda _: True)
    with pytest.raises(SpoolError, match="does not exist any more"):
        Sealer(path)
    monkeypatch.undo()
    with pytest.raises(SpoolError):
        connect(path, synchronous="FULL", busy_ms=0)
    assert not path.exists()
    filled(path).close()
    Sealer(path).close()


def test_replay_delivers_confirmed_batches_again_while_the_sensor_runs(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    sealed = sealer.seal(at(NOW))
    assert sealed is not None
    sealer.confirm([(sealed.spool, sealed.seq)], at(NOW))
    assert replay(path, NOW + 1) == 0
    assert replay(path, NOW) == 1
    assert (sealer.waiting(), sealer.to_replay()) == ([], [sealed])
    sealer.confirm([(sealed.spool, sealed.seq)], at(NOW + 9))
    assert sealer.to_replay() == []
    sealer.close()
    spool.close()


def test_waiting_can_be_asked_for_a_few_oldest_first(path: Path) -> None:
    spool = filled(path, 0)
    sealer = Sealer(path)
    sealed = [sealer.seal(at(NOW + number), empty=True) for number in range(5)]
    assert sealer.waiting(2) == sealed[:2]
    assert sealer.waiting_state() == (5, NOW)
    sealer.close()
    spool.close()


def test_held_batch_does_not_delay_others(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    sealed = sealer.seal(at(NOW))
    assert sealed is not None
    sealer.hold(sealed.spool, sealed.seq, Held.TOO_LARGE, "1000 octets")
    assert sealer.waiting() == []
    assert read_status(path).batches_too_large == 1
    sealer.close()
    spool.close()


def test_confirmed_batches_are_deleted_when_no_replay_needs_them(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path, bounds=Bounds(replay_ms=DAY))
    sealed = sealer.seal(at(NOW))
    assert sealed is not None
    sealer.confirm([(sealed.spool, sealed.seq)], at(NOW))
    sealer.keep_bounds(at(NOW + DAY))
    assert read_status(path).batches_kept == 1
    assert sealer.keep_bounds(at(NOW + DAY + 1)) == Dropped()
    assert read_status(path).batches_kept == 0
    sealer.close()
    spool.close()


def rows(path: Path, sql: str = "SELECT feed, ip FROM observation") -> set[tuple[int, bytes]]:
    db = sqlite3.connect(path)
    try:
        return set(db.execute(sql))
    finally:
        db.close()


def test_rows_not_seen_for_longest_are_deleted_at_the_bound_and_counted(path: Path) -> None:
    bounds = Bounds(max_bytes=1_000_000)
    spool = Spool(path, sensor="s", bounds=Bounds(max_bytes=100_000_000))
    for number in range(30_000):
        spool.fold(Event(0, number.to_bytes(4), NOW + number))
    spool.commit()
    dropped = keep_room(path, bounds, at(NOW + 30_000)).events
    left = rows(path)
    assert dropped == 30_000 - len(left) > 0
    assert {ip for _, ip in left} == {n.to_bytes(4) for n in range(dropped, 30_000)}
    assert read_status(path).drops == dropped
    assert read_status(path).used_bytes <= 800_000
    spool.close()


def test_expired_rows_are_deleted_first_and_do_not_count_as_lost(path: Path) -> None:
    spool = Spool(path, sensor="s")
    for number in range(20_000):
        spool.fold(Event(0, number.to_bytes(4), NOW + number))
    spool.commit()
    gone = keep_room(path, Bounds(max_bytes=200_000, retention_ms=DAY), at(NOW + DAY + 30_000))
    assert gone == Dropped()
    assert len(rows(path)) < 20_000
    spool.close()


def test_unconfirmed_batches_are_never_deleted(path: Path) -> None:
    spool = filled(path, 5000)
    sealer = Sealer(path, bounds=Bounds(max_bytes=1))
    sealed = sealer.seal(at(NOW))
    sealer.keep_bounds(at(NOW + 60 * DAY))
    assert sealer.waiting() == [sealed]
    sealer.close()
    spool.close()


def test_greet_is_never_deleted_before_the_data_event_of_its_address(path: Path) -> None:
    """Each remaining data event has its greet, although a data event is seen after its greet."""
    spool = Spool(path, sensor="s")
    for number in range(6000):
        spool.fold(Event(0, number.to_bytes(4), NOW + number * 10))
        spool.fold(Event(1, number.to_bytes(4), NOW + number * 10 + 5000))
    spool.commit()
    used = read_status(path).used_bytes
    assert keep_room(path, Bounds(max_bytes=used // 2), at(NOW + 70_000)).events > 0
    left = rows(path)
    greets = {ip for feed, ip in left if feed == 0}
    datas = {ip for feed, ip in left if feed == 1}
    assert datas
    assert datas <= greets
    spool.close()


def test_row_seen_again_meanwhile_stays(path: Path) -> None:
    spool = filled(path, 2)
    db = connect(path, synchronous="NORMAL", busy_ms=100)
    keeper = Keeper(db, path, Bounds(max_bytes=1))
    spool.fold(Event(0, (0).to_bytes(4), NOW + 50))
    spool.commit()
    victims = [(0, (0).to_bytes(4), NOW), (0, (1).to_bytes(4), NOW + 1)]
    assert keeper._drop_slice(_DROPPABLE[1], victims, at(NOW + 60)) == 1
    assert rows(path) == {(0, (0).to_bytes(4))}
    db.close()
    spool.close()


def test_deliverer_without_bounds_of_its_own_keeps_those_of_the_sensor(path: Path) -> None:
    """On a single host the aggregator delivers, which does not know the sensor's settings."""
    bounds = Bounds(max_bytes=1_000_000, replay_ms=DAY // 2)
    Spool(path, sensor="s", bounds=Bounds(max_bytes=2_000_000)).close()
    Spool(path, sensor="s", bounds=bounds).close()
    sealer = Sealer(path)
    assert sealer.bounds == bounds
    sealer.close()
    with contextlib.closing(connect(path, synchronous="NORMAL", busy_ms=100)) as db:
        db.execute("UPDATE meta SET value = '{\"max_bytes\": 7, \"new\": 1}' WHERE key = 'bounds'")
    sealer = Sealer(path)
    assert sealer.bounds == Bounds(max_bytes=7), "what a later sensor notes besides does no harm"
    sealer.close()
    with contextlib.closing(connect(path, synchronous="NORMAL", busy_ms=100)) as db:
        db.execute("DELETE FROM meta WHERE key = 'bounds'")
    sealer = Sealer(path)
    assert sealer.bounds == Bounds()
    sealer.close()


def sealed_and_confirmed(path: Path, batches: int, rows_each: int) -> None:
    """Create a spool with so many confirmed batches."""
    spool, sealer = Spool(path, sensor="s"), Sealer(path)
    for number in range(batches):
        for row in range(rows_each):
            spool.fold(Event(0, (number * rows_each + row).to_bytes(4), NOW))
        spool.commit()
        sealed = sealer.seal(at(NOW + number))
        assert sealed is not None
        sealer.confirm([sealed[:2]], at(NOW + number))
    sealer.close()
    spool.close()


def test_replay_near_the_bound_loses_no_event(path: Path) -> None:
    """At 90 percent of the bound, confirmed batches of a replay are dropped, and no new row."""
    sealed_and_confirmed(path, 62, 400)
    used = read_status(path).used_bytes
    bounds = Bounds(max_bytes=used * 100 // 89)
    assert replay(path, 0) == 62
    with contextlib.closing(Spool(path, sensor="s", bounds=bounds)) as spool:
        for number in range(3_000):
            spool.fold(Event(0, (1_000_000 + number).to_bytes(4), NOW))
        spool.commit()
        dropped = keep_room(path, bounds, at(NOW + 60))
        assert dropped.events == 0
        assert 0 < dropped.replays < 62
        status = read_status(path)
        assert (status.drops, status.rows["smtpgreet"]) == (0, 3_000)
        assert status.batches_to_replay == 62 - dropped.replays


def test_confirmed_batches_outside_of_a_replay_are_deleted_first(path: Path) -> None:
    sealed_and_confirmed(path, 40, 400)
    assert replay(path, NOW + 20) == 20
    bounds = Bounds(max_bytes=read_status(path).used_bytes)
    assert keep_room(path, bounds, at(NOW + 60)) == Dropped()
    assert (read_status(path).batches_to_replay, read_status(path).batches_kept < 40) == (20, True)


@pytest.mark.parametrize("step", [40 * DAY, -40 * DAY, 3650 * DAY, -3650 * DAY])
def test_step_of_the_clock_deletes_no_batch_that_a_replay_may_need(path: Path, step: int) -> None:
    """The age of a confirmation follows the monotonic clock."""
    sealed_and_confirmed(path, 3, 1)
    bounds = Bounds(replay_ms=DAY)
    now = at(NOW + HOUR)
    keep_room(path, bounds, now._replace(utc_ms=NOW + HOUR + step))
    assert read_status(path).batches_kept == 3
    keep_room(path, bounds, at(NOW + DAY - 1)._replace(utc_ms=None))
    assert read_status(path).batches_kept == 3
    keep_room(path, bounds, at(NOW + DAY + HOUR)._replace(utc_ms=NOW + step))
    assert read_status(path).batches_kept == 0


def test_time_between_two_boots_does_not_age_a_spool(path: Path) -> None:
    sealed_and_confirmed(path, 1, 1)
    bounds = Bounds(replay_ms=DAY)
    keep_room(path, bounds, at(NOW + HOUR))
    keep_room(path, bounds, at(NOW + 30 * DAY, boot="another"))
    keep_room(path, bounds, at(NOW + 30 * DAY + 22 * HOUR, boot="another"))
    assert read_status(path).batches_kept == 1
    keep_room(path, bounds, at(NOW + 30 * DAY + 24 * HOUR, boot="another"))
    assert read_status(path).batches_kept == 0


def test_counts_of_crowded_prefixes_are_deleted_before_any_address(path: Path) -> None:
    """A client with a /32 has 2³² prefixes; their counts must not replace any address."""
    bounds = Bounds(max_bytes=1_000_000, prefixes64=1)
    with contextlib.closing(Spool(path, sensor="s", bounds=Bounds(prefixes64=1))) as spool:
        for number in range(1_000):
            spool.fold(Event(0, number.to_bytes(4), NOW))
        for number in range(20_000):
            spool.fold(Event(0, b"\x20\x01" + number.to_bytes(6) + bytes(8), NOW + number))
        spool.commit()
        dropped = keep_room(path, bounds, at(NOW + 30_000))
        assert 0 < dropped.events < 20_000
        left = rows(path, "SELECT feed, prefix FROM overflow")
        assert dropped.events == 19_999 - len(left)
        assert len(rows(path)) == 1_001


# Events heard while the clock was in doubt


def test_nothing_is_sealed_while_the_clock_is_in_doubt(path: Path) -> None:
    spool = filled(path, 2)
    sealer = Sealer(path)
    assert sealer.seal(in_doubt(NOW), empty=True) is None
    sealed = sealer.seal(at(NOW))
    assert sealed is not None
    assert (sealed.seq, len(decode(sealed.body).batch.observations)) == (1, 2)
    sealer.close()
    spool.close()


def hear_undated(path: Path, boot: str, *elapsed_ms: int, feed: int = 0) -> None:
    with contextlib.closing(Spool(path, sensor="s", boot=boot)) as spool:
        for each in elapsed_ms:
            spool.fold(Event(feed, IP, each, 1, 2, dated=False))
        spool.fold(Event(feed, bytes.fromhex("20010db8") + bytes(12), elapsed_ms[0], dated=False))
        spool.commit()


def test_events_of_this_boot_are_dated_by_their_age(path: Path) -> None:
    hear_undated(path, BOOT, HOUR, HOUR + 5_000, 3 * HOUR)
    now = at(BOOTED_MS + 10 * HOUR)
    with contextlib.closing(Sealer(path)) as sealer:
        assert sealer.seal(now._replace(utc_ms=None), empty=True) is None
        sealed = sealer.seal(now)
        assert sealed is not None
        batch = decode(sealed.body).batch
    row = next(row for row in batch.observations if row.ip == "192.0.2.1")
    assert (row.first_ms, row.last_ms) == (BOOTED_MS + HOUR, BOOTED_MS + 3 * HOUR)
    assert (row.hits, row.flags, row.targets) == (3, 1, 4)
    assert sum(hour.events for hour in batch.hours) == 4
    assert {hour.hour_ms for hour in batch.hours} == {
        (BOOTED_MS + n * HOUR) // HOUR * HOUR for n in (1, 3)
    }
    assert read_status(path).undated == 0


def test_events_of_an_earlier_boot_are_dated_at_the_start_of_this_one(path: Path) -> None:
    """That is the latest time at which it can have been heard."""
    hear_undated(path, "earlier", 50 * HOUR)
    with contextlib.closing(Sealer(path)) as sealer:
        sealed = sealer.seal(at(BOOTED_MS + 2 * HOUR))
    assert sealed is not None
    for row in decode(sealed.body).batch.observations:
        assert (row.first_ms, row.last_ms, row.hits) == (BOOTED_MS, BOOTED_MS, 1)


def test_dated_and_undated_rows_of_an_address_become_one(path: Path) -> None:
    spool = Spool(path, sensor="s", boot=BOOT)
    spool.fold(Event(0, IP, BOOTED_MS + 5 * HOUR))
    spool.fold(Event(0, IP, HOUR, dated=False))
    spool.commit()
    with contextlib.closing(Sealer(path)) as sealer:
        sealed = sealer.seal(at(BOOTED_MS + 6 * HOUR))
    assert sealed is not None
    (row,) = decode(sealed.body).batch.observations
    assert (row.first_ms, row.last_ms, row.hits) == (BOOTED_MS + HOUR, BOOTED_MS + 5 * HOUR, 2)
    spool.close()


def test_many_undated_rows_are_dated_in_slices_each_once(path: Path) -> None:
    with contextlib.closing(Spool(path, sensor="s", boot=BOOT)) as spool:
        for number in range(4_100):
            spool.fold(Event(number % 2, (number // 2).to_bytes(4), number, dated=False))
        spool.commit()
    hits: dict[tuple[str, str], int] = {}
    with contextlib.closing(Sealer(path)) as sealer:
        while sealed := sealer.seal(at(BOOTED_MS + HOUR)):
            for row in decode(sealed.body).batch.observations:
                assert (row.feed, row.ip) not in hits
                hits[row.feed, row.ip] = row.hits
    assert len(hits) == 4_100
    assert set(hits.values()) == {1}


def test_undated_rows_are_deleted_last_at_the_bound(path: Path) -> None:
    with contextlib.closing(Spool(path, sensor="s", boot=BOOT)) as spool:
        for number in range(8_000):
            spool.fold(Event(0, number.to_bytes(4), NOW + number))
            spool.fold(Event(0, number.to_bytes(4), number, dated=False))
        spool.commit()
        used = read_status(path).used_bytes
        keep_room(path, Bounds(max_bytes=used), at(NOW))
        assert (len(rows(path)) < 8_000, read_status(path).undated) == (True, 8_000)
        dropped = keep_room(path, Bounds(max_bytes=used // 2), at(NOW))
        assert (len(rows(path)), read_status(path).undated < 8_000) == (0, True)
        assert dropped.events > 0


# A batch that is too large


def test_split_batch_is_two_with_new_numbers_and_each_row_once(path: Path) -> None:
    spool = filled(path, 5)
    spool.note_state(at(NOW), version="1.2", counters={"greets": 5})
    sealer = Sealer(path)
    sealed = sealer.seal(at(NOW))
    assert sealed is not None
    assert sealer.split(*sealed[:2])
    first, second = sealer.waiting()
    assert {first[:2], second[:2]} == {(sealed.spool, 2), (sealed.spool, 3)}
    parts = [decode(part.body).batch for part in (first, second)]
    assert sorted(row.ip for part in parts for row in part.observations) == [
        f"0.0.0.{number}" for number in range(5)
    ]
    assert [hour.events for part in parts for hour in part.hours] == [5]
    assert [(part.seq, part.sealed_ms, part.counters) for part in parts] == [
        (seq, NOW, {"greets": 5}) for seq in (2, 3)
    ]
    assert not sealer.split(*sealed[:2]), "it is there no more"
    following = sealer.seal(at(NOW), empty=True)
    assert following is not None
    assert following.seq == 4
    sealer.close()
    spool.close()


def test_batch_is_split_down_to_single_rows_and_no_further(path: Path) -> None:
    spool = filled(path, 4)
    sealer = Sealer(path)
    sealer.seal(at(NOW))
    for _ in range(20):
        for batch in sealer.waiting():
            sealer.split(*batch[:2])
    bodies = [decode(batch.body).batch for batch in sealer.waiting()]
    assert [len(body.observations) + len(body.hours) for body in bodies] == [1] * 5
    assert not any(sealer.split(str(body.spool), body.seq) for body in bodies)
    sealer.close()
    spool.close()


def test_batch_that_was_confirmed_before_is_never_split(path: Path) -> None:
    """The batch may already be applied; under a new name its rows would count again."""
    sealed_and_confirmed(path, 1, 5)
    replay(path, 0)
    with contextlib.closing(Sealer(path)) as sealer:
        (batch,) = sealer.to_replay()
        assert not sealer.split(*batch[:2])
        sealer.give_up_replay(*batch[:2])
        assert sealer.to_replay() == []
    assert read_status(path).batches_kept == 1


# Spools of earlier versions


def test_spool_of_the_first_version_is_converted_completely(tmp_path: Path) -> None:
    path = tmp_path / "lisbon-1.spool"
    shutil.copyfile(FIRST_SPOOL, path)
    before = read_status(path)
    assert (before.sensor, before.version) == ("lisbon-1", "0.1.0")
    assert before.rows == {"smtpgreet": 4, "smtpdata": 1}
    assert (before.batches_waiting, before.batches_kept, before.batches_to_replay) == (1, 1, 0)
    assert (before.batches_too_large, before.batches_refused, before.undated) == (1, 0, 0)
    with contextlib.closing(Spool(path, sensor="lisbon-1")) as spool:
        assert spool.quarantined == 0
        assert spool.noted_ms == NOW
        with contextlib.closing(Sealer(path)) as sealer:
            (waiting,) = sealer.waiting()
            assert len(decode(waiting.body).batch.observations) == 3
            sealed = sealer.seal(at(NOW + HOUR))
            assert sealed is not None
            batch = decode(sealed.body).batch
            assert sorted((row.feed, row.ip) for row in batch.observations) == [
                ("smtpdata", "192.0.2.6"),
                ("smtpgreet", "192.0.2.6"),
                ("smtpgreet", "192.0.2.7"),
                ("smtpgreet", "2001:db8:0:1::"),
                ("smtpgreet", "2001:db8:0:1::1"),
            ]
            assert [(row.prefix, row.hits) for row in batch.overflows] == [("2001:db8:0:1::/64", 3)]
            assert sum(hour.events for hour in batch.hours) == 8
            assert replay(path, 0) == 1
            assert [len(decode(b.body).batch.observations) for b in sealer.to_replay()] == [2]
    assert read_status(path).batches_too_large == 1


def test_first_version_can_use_a_spool_of_this_version(tmp_path: Path) -> None:
    """After a downgrade each event is still there once."""
    path = tmp_path / "lisbon-1.spool"
    shutil.copyfile(FIRST_SPOOL, path)
    Spool(path, sensor="lisbon-1").close()
    with contextlib.closing(Sealer(path)) as sealer:
        (waiting,) = sealer.waiting()
        sealer.confirm([waiting[:2]], at(NOW))
    code = (
        "import sys; from pathlib import Path; from smtpfeeds_common.spool import *\n"
        "path = Path(sys.argv[1]); sealer = Sealer(path); spool = Spool(path, sensor='lisbon-1')\n"
        "assert sealer.waiting() == []\n"
        "spool.fold(Event(0, bytes(4), 1_795_000_000_000)); spool.commit()\n"
        "sealed = sealer.seal(1_795_000_000_000); sealer.forget([sealed[:2]], 1_795_000_000_000)\n"
        "assert b'0.0.0.0' in sealed.body; assert b'192.0.2.7' in sealed.body\n"
        "sealer.seal(1_795_000_000_001, empty=True); sealer.close(); spool.close()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=environment_of(FIRST),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    with contextlib.closing(Sealer(path)) as sealer:
        assert [decode(batch.body).batch.observations for batch in sealer.waiting()] == [[]]
    assert replay(path, 0) == 3
