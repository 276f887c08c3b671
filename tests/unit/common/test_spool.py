"""The sensor's side of the spool: the file's content, folding, and the bounds."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recorded import FIRST, environment_of
from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolInUse, SpoolUnwritable
from smtpfeeds_common.spool import Bounds, Event, Sealer, Spool, opening, read_status
from smtpfeeds_common.spool.opening import MOST_QUARANTINED, quarantine, quarantined
from smtpfeeds_common.wire import Batch, decode
from spool_support import at

NOW = 1_795_000_000_000
HOUR = 3_600_000
IP = bytes([192, 0, 2, 1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.spool"


def opened(path: Path, **bounds: int) -> Spool:
    return Spool(path, sensor="s", bounds=Bounds(**bounds))


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def sealed(path: Path) -> list[Batch]:
    """Read the batches in the file, in order."""
    return [decode(body).batch for (body,) in query(path, "SELECT body FROM batch ORDER BY seq")]  # type: ignore[arg-type]  # octets, by the table


def test_rows_of_a_day_are_sealed_when_the_next_begins(path: Path) -> None:
    """No row has behaviours of two weeks, with either deliverer, and after any delay."""
    midnight = NOW - NOW % (24 * HOUR) + 24 * HOUR
    spool = opened(path)
    spool.fold(Event(0, IP, midnight - 5, 1, 0))
    spool.commit()
    spool.fold(Event(0, IP, midnight - 1, 2, 1))
    spool.fold(Event(0, IP, midnight, 4, 2))
    spool.note(Event(0, IP, midnight), 8)
    assert spool.unwritten == 2
    spool.commit()
    assert spool.unwritten == 0
    spool.fold(Event(0, IP, midnight + 1, 16, 3))
    spool.commit()
    spool.close()
    (batch,) = sealed(path)
    (row,) = batch.observations
    assert (row.first_ms, row.last_ms, row.hits) == (midnight - 5, midnight - 1, 2)
    assert (row.flags, row.targets) == (1 | 2, 0b11)
    assert [hour.events for hour in batch.hours] == [2]
    assert query(path, "SELECT * FROM observation") == [
        (0, IP, midnight, midnight + 1, 2, 4 | 8 | 16, 0b1100)
    ]
    # The deliverer sends it like any other batch.
    sealer = Sealer(path)
    assert [(each.spool, each.seq) for each in sealer.waiting()] == [(str(batch.spool), 1)]
    later = sealer.seal(at(midnight + 9))
    sealer.close()
    assert later is not None
    assert [each.flags for each in decode(later.body).batch.observations] == [4 | 8 | 16]


def test_rows_that_a_stopped_sensor_left_are_sealed_by_the_first_event_of_a_later_day(
    path: Path,
) -> None:
    spool = opened(path)
    spool.fold(Event(0, IP, NOW, 1))
    spool.commit()
    spool.close()
    for later, rows in ((1, 0), (24 * HOUR, 1)):
        spool = opened(path)
        spool.fold(Event(0, IP, NOW + later, 2))
        spool.commit()
        spool.close()
        assert len(sealed(path)) == rows
    assert [row.flags for row in sealed(path)[0].observations] == [3]


def test_events_of_two_days_that_could_not_be_written_fold_and_both_days_are_known(
    path: Path,
) -> None:
    spool = opened(path)
    for day in (0, 1, 2):
        spool.fold(Event(0, IP, NOW + day * 24 * HOUR))
    spool.commit()
    spool.close()
    sealer = Sealer(path)
    last = sealer.seal(at(NOW + 48 * HOUR + 1))
    sealer.close()
    assert last is not None
    days = [(row.first_ms, row.last_ms) for batch in sealed(path) for row in batch.observations]
    assert days == [(NOW, NOW), (NOW + 24 * HOUR, NOW + 48 * HOUR)]


def test_a_note_has_no_hit_and_the_batch_says_how_many_addresses_there_are(path: Path) -> None:
    spool = opened(path)
    spool.note(Event(0, IP, NOW), 8)
    spool.commit()
    spool.note_state(at(NOW), version="9", counters={}, addresses=7)
    spool.close()
    sealer = Sealer(path)
    batch = sealer.seal(at(NOW + 1))
    sealer.close()
    assert batch is not None
    (row,) = decode(batch.body).batch.observations
    assert (row.hits, row.flags) == (0, 8)
    assert decode(batch.body).batch.addresses == 7


def test_repeats_fold_into_one_row(path: Path) -> None:
    spool = opened(path)
    for at_ms, flags, target in ((NOW + 5, 1, 0), (NOW, 2, 3), (NOW + 9, 0, 63)):
        assert spool.fold(Event(0, IP, at_ms, flags, target))
        spool.commit()
    spool.close()
    assert query(path, "SELECT * FROM observation") == [
        (0, IP, NOW, NOW + 9, 3, 3, (1 | 1 << 3) - (1 << 63))
    ]
    assert query(path, "SELECT events FROM activity") == [(3,)]


def test_hours_and_feeds_are_counted_apart(path: Path) -> None:
    spool = opened(path)
    for feed, at_ms in ((0, NOW), (0, NOW + HOUR), (1, NOW)):
        spool.fold(Event(feed, IP, at_ms))
    spool.commit()
    spool.close()
    assert len(query(path, "SELECT * FROM activity")) == 3
    assert len(query(path, "SELECT * FROM observation")) == 2


def test_committed_events_survive_kill_9(path: Path) -> None:
    """Answered events are in the file, so a killed process loses none."""
    code = (
        "import sys; from pathlib import Path; from smtpfeeds_common.spool import *\n"
        "spool = Spool(Path(sys.argv[1]), sensor='s')\n"
        "n = 0\n"
        "while True:\n"
        "    spool.fold(Event(0, n.to_bytes(4), 1_795_000_000_000)); spool.commit()\n"
        "    n += 1; print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    committed = 0
    for line in process.stdout:
        committed = int(line)
        if committed == 200:
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.stdout.read().split("\n")
    committed = max([committed, *(int(line) for line in rest[:-1] if line)])
    process.stdout.close()
    process.wait()
    spool = opened(path)
    spool.close()
    kept = query(path, "SELECT count(*) FROM observation")[0][0]
    assert isinstance(kept, int)
    # One more may be committed but not printed.
    assert committed <= kept <= committed + 1


def test_second_sensor_on_one_spool_is_refused(path: Path) -> None:
    spool = opened(path)
    with pytest.raises(SpoolInUse, match="give each sensor"):
        opened(path)
    spool.close()
    opened(path).close()


def test_spool_of_another_sensor_is_refused(path: Path) -> None:
    opened(path).close()
    with pytest.raises(SpoolError, match="belongs to the sensor 's'"):
        Spool(path, sensor="other")


def test_locked_file_is_busy_at_once_and_nothing_is_lost(path: Path) -> None:
    spool = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    spool.fold(Event(0, IP, NOW))
    with pytest.raises(SpoolBusy):
        spool.commit()
    assert spool.unwritten == 1
    other.execute("COMMIT")
    other.close()
    spool.commit()
    assert spool.unwritten == 0
    spool.close()


def fill_up(spool: Spool) -> None:
    for number in range(100_000):
        spool.fold(Event(0, number.to_bytes(4), NOW))
        try:
            if number % 50 == 0:
                spool.commit()
        except SpoolUnwritable:
            return
    pytest.fail("the file took more than its bound")


def test_full_file_keeps_events_in_memory_within_the_bound(path: Path) -> None:
    """At the file's bound events fold in memory; past memory's bound their rows are dropped,
    counted, and that count reaches the next batch."""
    spool = opened(path, max_bytes=64 * 4096, memory_rows=1000)
    fill_up(spool)
    before = spool.unwritten
    for extra in range(2000):
        spool.fold(Event(0, (1_000_000 + extra).to_bytes(4), NOW))
    assert spool.drops == 2000 - (1000 - before)
    assert spool.unwritten == before + 2000
    sealer = Sealer(path, bounds=spool.bounds)
    while (batch := sealer.seal(at(NOW))) is not None:
        sealer.confirm([(batch.spool, batch.seq)], at(NOW))
    sealer.keep_bounds(at(NOW + 2 * 24 * HOUR))
    spool.commit()
    batch = sealer.seal(at(NOW))
    assert batch is not None
    assert decode(batch.body).batch.drops == spool.drops
    sealer.close()
    spool.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is not a database, whatever its name says" * 200),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 20_000),
    ],
)
def test_damaged_file_is_quarantined_and_replaced(path: Path, damage: object) -> None:
    spool = opened(path)
    for number in range(3000):
        spool.fold(Event(0, number.to_bytes(4), NOW))
    spool.commit()
    spool.close()
    damage(path)  # type: ignore[operator]
    spool = opened(path)
    assert spool.quarantined == 1
    assert [each.exists() for each in quarantined(path)] == [True]
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_damage_while_running_is_detected_and_the_file_replaced(path: Path) -> None:
    spool = opened(path)
    sealer = Sealer(path)
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    assert not bool(sealer.replaced)
    # A failing disk changes pages of the file and of its log.
    for name in (path, path.with_name(path.name + "-wal")):
        with name.open("r+b") as stream:
            stream.seek(0)
            stream.write(b"\xaa" * name.stat().st_size)
    assert spool._db is not None
    spool._db.execute("PRAGMA shrink_memory")  # else SQLite reads them from its cache
    spool.fold(Event(0, bytes(4), NOW))
    with pytest.raises(SpoolDamaged):
        spool.commit()
    spool.replace()
    assert len(quarantined(path)) == 1
    assert sealer.replaced
    spool.commit()
    sealer.close()
    sealer = Sealer(path)
    batch = sealer.seal(at(NOW))
    assert batch is not None
    assert decode(batch.body).batch.observations
    sealer.close()
    spool.close()


def test_deleted_file_is_detected_while_running(path: Path) -> None:
    spool = opened(path)
    path.unlink()
    with pytest.raises(SpoolDamaged, match="deleted or moved"):
        spool.note_state(at(NOW), version="1", counters={})
    spool.replace()
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_write_ahead_log_of_a_deleted_file_is_not_used_for_a_new_spool(path: Path) -> None:
    """After a kill during quarantine, or if only the file was deleted, the old log is not used."""
    code = (
        "import os, sys; from pathlib import Path; from smtpfeeds_common.spool import *\n"
        "spool = Spool(Path(sys.argv[1]), sensor='s')\n"
        "for n in range(500): spool.fold(Event(0, n.to_bytes(4), 1_795_000_000_000))\n"
        "spool.commit(); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    log = path.with_name(path.name + "-wal")
    assert log.stat().st_size
    path.unlink()
    spool = opened(path)
    (base,) = quarantined(path)
    assert base.with_name(base.name + "-wal").stat().st_size
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_error_while_a_file_is_replaced_is_a_spool_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk fills up while the new file is renamed, the sensor tries again."""
    spool = opened(path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(opening, "_begin", full)
        with pytest.raises(SpoolUnwritable):
            spool.replace()
    spool.replace()
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_addresses_of_one_prefix64_are_bounded_a_day(path: Path) -> None:
    """A host with a /64 has millions of addresses; 64 a day get rows, the rest a count."""
    spool = opened(path, per_prefix64=4)
    prefix = bytes.fromhex("20010db800000001")
    for number in range(10):
        spool.fold(Event(0, prefix + number.to_bytes(8), NOW))
    spool.fold(Event(1, prefix + (0).to_bytes(8), NOW))
    spool.begin_day()
    spool.fold(Event(0, prefix + (99).to_bytes(8), NOW + 24 * HOUR))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]
    # The remaining rows of the first day are sealed.
    (batch,) = sealed(path)
    assert Counter(row.feed for row in batch.observations) == {"smtpgreet": 4, "smtpdata": 1}
    assert [(row.prefix, row.hits) for row in batch.overflows] == [("2001:db8:0:1::/64", 6)]
    assert sum(hour.events for hour in batch.hours) == 11
    assert query(path, "SELECT sum(events) FROM activity") == [(1,)]


def test_newer_layout_is_not_changed(path: Path) -> None:
    opened(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(SpoolError, match="newer than this program"):
        opened(path)
    assert query(path, "PRAGMA user_version") == [(99,)]


def test_status_reads_beside_a_running_sensor(path: Path) -> None:
    spool = opened(path)
    spool.fold(Event(0, IP, NOW))
    spool.fold(Event(1, IP, NOW + 1))
    spool.commit()
    spool.note_state(at(NOW), version="1.2", counters={"greets": 1})
    status = read_status(path)
    assert (status.sensor, status.version, status.noted_ms) == ("s", "1.2", NOW)
    assert status.rows == {"smtpgreet": 1, "smtpdata": 1}
    assert (status.oldest_ms, status.counters) == (NOW, {"greets": 1})
    spool.close()


def test_only_the_owner_can_read_a_spool(path: Path) -> None:
    opened(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_quarantined_files_are_bounded_and_the_oldest_are_deleted(path: Path) -> None:
    """A disk that damages one file after another must not fill up with them."""
    for number in range(MOST_QUARANTINED + 3):
        path.write_text(f"{number}")
        Path(f"{path}-wal").write_text("log")
        os.utime(path, (number, number))
        os.utime(f"{path}-wal", (number, number))
        quarantine(path)
    left = quarantined(path)
    assert [each.read_text() for each in left] == [
        str(number) for number in range(3, MOST_QUARANTINED + 3)
    ]
    assert len(list(path.parent.iterdir())) == 2 * MOST_QUARANTINED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("is_there", [False, True])
def test_spool_starts_in_memory_on_a_full_disk_and_writes_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_there: bool
) -> None:
    if is_there:
        opened(path).close()

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        spool = opened(path)
        assert os.strerror(number) in spool.unopened
        for _ in range(2):
            spool.fold(Event(0, IP, NOW))
            with pytest.raises(SpoolUnwritable):
                spool.commit()
    spool.commit()
    assert (spool.unopened, spool.unwritten, spool.quarantined) == ("", 0, 0)
    spool.close()
    assert query(path, "SELECT hits FROM observation") == [(2,)]


def test_full_spool_does_not_stop_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(opening, "add_tables", full)
        spool = opened(path)
        assert "full" in spool.unopened
        with pytest.raises(SpoolInUse):
            opened(path)
    spool.commit()
    assert spool.unopened == ""
    spool.close()


def test_spool_that_this_user_may_not_write_is_refused_at_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing right does not pass by itself, unlike a full disk."""

    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        with pytest.raises(SpoolError, match="Permission denied") as raised:
            opened(path)
        assert not isinstance(raised.value, SpoolUnwritable)
    opened(path).close()
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        with pytest.raises(SpoolError, match="this user has no write access"):
            opened(path)


def test_read_only_file_system_is_a_temporary_fault(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        with pytest.raises(SpoolError, match="Read-only") as raised:
            opened(path)
        assert not isinstance(raised.value, SpoolUnwritable), "there was never a spool"
    opened(path).close()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        spool = opened(path)
        assert "Read-only" in spool.unopened
    spool.commit()
    spool.close()


def test_undated_events_fold_apart_and_share_the_bounds(path: Path) -> None:
    spool = Spool(path, sensor="s", bounds=Bounds(memory_rows=2), boot="b")
    assert spool.fold(Event(0, IP, NOW, 1, 3))
    assert spool.fold(Event(0, IP, 120_500, 2, 4, dated=False))
    assert spool.fold(Event(0, IP, 60_000, 0, 4, dated=False))
    assert not spool.fold(Event(1, IP, 60_000, dated=False))
    assert spool.unwritten == 4
    spool.commit()
    spool.close()
    assert query(path, "SELECT * FROM observation") == [(0, IP, NOW, NOW, 1, 1, 8)]
    assert query(path, "SELECT * FROM undated_observation") == [
        ("b", 0, IP, 60_000, 120_500, 2, 2, 16)
    ]
    assert query(path, "SELECT * FROM undated_activity") == [
        ("b", 0, 60_000, 1),
        ("b", 0, 120_000, 1),
        ("b", 1, 60_000, 1),
    ]
    assert read_status(path).undated == 1
    assert read_status(path).drops == 1


def test_note_adds_behaviours_to_its_event_and_counts_nothing(path: Path) -> None:
    """The note arrives before the commit, after it, and after the event is sealed."""
    spool = opened(path)
    event = Event(0, IP, NOW, flags=1, target=3)
    spool.fold(event)
    spool.note(event, 1 | 2)
    spool.commit()
    spool.note(event, 1 | 2 | 4)
    assert spool.unwritten == 0
    spool.commit()
    assert query(path, "SELECT * FROM observation") == [(0, IP, NOW, NOW, 1, 7, 1 << 3)]
    db = sqlite3.connect(path)
    db.execute("DELETE FROM observation")
    db.commit()
    db.close()
    spool.note(event, 8)
    spool.commit()
    spool.close()
    assert query(path, "SELECT * FROM observation") == [(0, IP, NOW, NOW, 0, 8, 0)]
    assert query(path, "SELECT events FROM activity") == [(1,)]


def test_note_of_an_undated_event_waits_with_it(path: Path) -> None:
    spool = opened(path)
    event = Event(0, IP, 5000, flags=1, dated=False)
    spool.fold(event)
    spool.commit()
    spool.note(event, 3)
    spool.commit()
    spool.close()
    assert query(path, "SELECT hits, flags FROM undated_observation") == [(1, 3)]
    assert query(path, "SELECT count(*) FROM observation") == [(0,)]


def test_note_needs_no_place_in_the_bound_of_its_64(path: Path) -> None:
    spool = opened(path, per_prefix64=1)
    admitted, crowded = (Event(0, b"\x20\x01" + bytes(13) + bytes((last,)), NOW) for last in (1, 2))
    for event in (admitted, crowded):
        spool.fold(event)
        spool.commit()
        spool.note(event, 4)
    spool.commit()
    spool.close()
    assert query(path, "SELECT ip, hits, flags FROM observation") == [(admitted.ip, 1, 4)]


def test_notes_are_bounded(path: Path) -> None:
    spool = opened(path, memory_rows=2)
    for last in range(5):
        spool.note(Event(0, bytes((192, 0, 2, last)), NOW), 4)
    spool.commit()
    assert (len(query(path, "SELECT * FROM observation")), spool.drops) == (2, 0)
    spool.close()


def test_the_first_version_reads_our_messages(path: Path) -> None:
    """An aggregator of 0.1.0 refuses no row of a sensor of this version."""
    spool = opened(path)
    spool.note_state(at(NOW), version="9", counters={}, addresses=7)
    for day in (0, 1, 9):
        spool.fold(Event(0, IP, NOW + day * 24 * HOUR, 1 << 28, 63))
    spool.commit()
    spool.close()
    sealer = Sealer(path)
    sealer.seal(at(NOW + 10 * 24 * HOUR))
    bodies = [batch.body for batch in sealer.waiting()]
    sealer.close()
    read = (
        "import sys; from smtpfeeds_common.wire import decode;"
        "batch, refused = decode(sys.stdin.buffer.read());"
        "print(len(refused), *((row.hits, row.flags, row.targets) for row in batch.observations))"
    )
    theirs = [
        subprocess.run(
            [sys.executable, "-c", read],
            env=environment_of(FIRST),
            input=body,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.decode()
        for body in bodies
    ]
    assert theirs == [f"0 ({hits}, {1 << 28}, {-(1 << 63)})\n" for hits in (1, 2)]
