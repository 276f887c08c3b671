"""The spool, deliverer's side: batches that never change, epochs, replay, the bound's rule."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SpoolError, SpoolInUse
from smtpfeeds_common.spool import (
    Bounds,
    Event,
    Sealer,
    Spool,
    find_spools,
    keep_room,
    read_status,
    replay,
)
from smtpfeeds_common.spool.file import connect
from smtpfeeds_common.wire import MAX_ROWS, decode

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
    spool.note_state(version="1.2", counters={"greets": 3}, now_ms=NOW)
    sealer = Sealer(path)
    sealed = sealer.seal(NOW + 5)
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
    assert sealer.seal(NOW) is None
    sealed = sealer.seal(NOW, empty=True)
    assert sealed is not None
    assert decode(sealed.body).batch.observations == []
    sealer.close()
    spool.close()


def test_batches_are_of_5000_rows_at_most(path: Path) -> None:
    spool = filled(path, MAX_ROWS + 10)
    sealer = Sealer(path)
    batches = [decode(b.body).batch for b in (sealer.seal(NOW), sealer.seal(NOW)) if b]
    assert [len(batch.observations) for batch in batches] == [MAX_ROWS, 10]
    assert [batch.depth for batch in batches] == [10, 0]
    assert [batch.seq for batch in batches] == [1, 2]
    sealer.close()
    spool.close()


def test_sealed_batch_waits_across_openings_and_never_changes(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    sealed = sealer.seal(NOW)
    sealer.close()
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    sealer = Sealer(path)
    assert sealer.waiting() == [sealed]
    assert sealed is not None
    sealer.forget([(sealed.spool, sealed.seq)], NOW)
    assert sealer.waiting() == []
    sealer.close()
    spool.close()


def test_every_opening_begins_a_new_epoch(path: Path, tmp_path: Path) -> None:
    """A restored backup or a cloned image can never reuse a number."""
    spool = filled(path)
    sealer = Sealer(path)
    first = sealer.seal(NOW)
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
        sealed = sealer.seal(NOW)
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


def test_no_spool_yet_says_so(path: Path) -> None:
    with pytest.raises(SpoolError, match="the sensor makes it"):
        Sealer(path)
    with pytest.raises(SpoolError, match="no spool"):
        replay(path, 0)
    with pytest.raises(SpoolError, match="no folder"):
        find_spools(path.parent / "none")


def test_spool_that_goes_while_it_is_opened_is_said_and_not_made_empty(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor may be setting it aside at this very moment."""
    monkeypatch.setattr(Path, "exists", lambda _: True)
    with pytest.raises(SpoolError, match="is gone"):
        Sealer(path)
    monkeypatch.undo()
    with pytest.raises(SpoolError):
        connect(path, synchronous="FULL", busy_ms=0)
    assert not path.exists()
    filled(path).close()
    Sealer(path).close()


def test_replay_makes_confirmed_batches_wait_again_beside_the_deliverer(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    sealed = sealer.seal(NOW)
    assert sealed is not None
    sealer.forget([(sealed.spool, sealed.seq)], NOW)
    assert replay(path, NOW + 1) == 0
    assert replay(path, NOW) == 1
    assert sealer.waiting() == [sealed]
    sealer.close()
    spool.close()


def test_waiting_can_be_asked_for_a_few_oldest_first(path: Path) -> None:
    spool = filled(path, 0)
    sealer = Sealer(path)
    sealed = [sealer.seal(NOW + number, empty=True) for number in range(5)]
    assert sealer.waiting(2) == sealed[:2]
    assert sealer.waiting_state() == (5, NOW)
    sealer.close()
    spool.close()


def test_batch_set_aside_is_out_of_the_way(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path)
    sealed = sealer.seal(NOW)
    assert sealed is not None
    sealer.set_batch_aside(sealed.spool, sealed.seq, "too large")
    assert sealer.waiting() == []
    assert read_status(path).batches_set_aside == 1
    sealer.close()
    spool.close()


def test_confirmed_batches_go_when_a_replay_needs_them_no_more(path: Path) -> None:
    spool = filled(path)
    sealer = Sealer(path, bounds=Bounds(replay_ms=DAY))
    sealed = sealer.seal(NOW)
    assert sealed is not None
    sealer.forget([(sealed.spool, sealed.seq)], NOW)
    sealer.keep_bounds(NOW + DAY)
    assert read_status(path).batches_kept == 1
    assert sealer.keep_bounds(NOW + DAY + 1) == 0
    assert read_status(path).batches_kept == 0
    sealer.close()
    spool.close()


def rows(path: Path, sql: str = "SELECT feed, ip FROM observation") -> set[tuple[int, bytes]]:
    db = sqlite3.connect(path)
    try:
        return set(db.execute(sql))
    finally:
        db.close()


def test_at_the_bound_the_longest_unseen_go_and_are_counted(path: Path) -> None:
    bounds = Bounds(max_bytes=1_000_000)
    spool = Spool(path, sensor="s", bounds=Bounds(max_bytes=100_000_000))
    for number in range(30_000):
        spool.fold(Event(0, number.to_bytes(4), NOW + number))
    spool.commit()
    dropped = keep_room(path, bounds, NOW + 30_000)
    left = rows(path)
    assert dropped == 30_000 - len(left) > 0
    assert {ip for _, ip in left} == {n.to_bytes(4) for n in range(dropped, 30_000)}
    assert read_status(path).drops == dropped
    assert read_status(path).used_bytes <= 800_000
    spool.close()


def test_expired_rows_go_first_and_are_no_loss(path: Path) -> None:
    spool = Spool(path, sensor="s")
    for number in range(20_000):
        spool.fold(Event(0, number.to_bytes(4), NOW + number))
    spool.commit()
    gone = keep_room(path, Bounds(max_bytes=200_000, retention_ms=DAY), NOW + DAY + 30_000)
    assert gone == 0
    assert len(rows(path)) < 20_000
    spool.close()


def test_unconfirmed_batches_never_go(path: Path) -> None:
    spool = filled(path, 5000)
    sealer = Sealer(path, bounds=Bounds(max_bytes=1))
    sealed = sealer.seal(NOW)
    sealer.keep_bounds(NOW + 60 * DAY)
    assert sealer.waiting() == [sealed]
    sealer.close()
    spool.close()


def test_greet_never_goes_before_the_data_event_of_its_address(path: Path) -> None:
    """Data ⊆ greet holds for what is left, though a data event is seen after its greet."""
    spool = Spool(path, sensor="s")
    for number in range(6000):
        spool.fold(Event(0, number.to_bytes(4), NOW + number * 10))
        spool.fold(Event(1, number.to_bytes(4), NOW + number * 10 + 5000))
    spool.commit()
    used = read_status(path).used_bytes
    assert keep_room(path, Bounds(max_bytes=used // 2), NOW + 70_000) > 0
    left = rows(path)
    greets = {ip for feed, ip in left if feed == 0}
    datas = {ip for feed, ip in left if feed == 1}
    assert datas
    assert datas <= greets
    spool.close()


def test_row_seen_again_meanwhile_stays(path: Path) -> None:
    from smtpfeeds_common.spool.bounds import Keeper
    from smtpfeeds_common.spool.file import connect

    spool = filled(path, 2)
    db = connect(path, synchronous="NORMAL", busy_ms=100)
    keeper = Keeper(db, path, Bounds(max_bytes=1))
    spool.fold(Event(0, (0).to_bytes(4), NOW + 50))
    spool.commit()
    victims = [(0, (0).to_bytes(4), NOW), (0, (1).to_bytes(4), NOW + 1)]
    assert keeper._drop_slice(victims, NOW + 60) == 1
    assert rows(path) == {(0, (0).to_bytes(4))}
    db.close()
    spool.close()


def test_deliverer_that_is_told_no_bounds_keeps_those_of_the_sensor(path: Path) -> None:
    """On a single host another program delivers, which does not know the sensor's settings."""
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
