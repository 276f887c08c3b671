"""The spool, sensor's side: what is in the file, what folds, what the bounds do."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolInUse, SpoolUnwritable
from smtpfeeds_common.spool import Bounds, Event, Sealer, Spool, file, read_status
from smtpfeeds_common.wire import decode

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


def test_repeats_fold_into_one_row(path: Path) -> None:
    spool = opened(path)
    for at, flags, target in ((NOW + 5, 1, 0), (NOW, 2, 3), (NOW + 9, 0, 63)):
        assert spool.fold(Event(0, IP, at, flags, target))
        spool.commit()
    spool.close()
    assert query(path, "SELECT * FROM observation") == [
        (0, IP, NOW, NOW + 9, 3, 3, (1 | 1 << 3) - (1 << 63))
    ]
    assert query(path, "SELECT events FROM activity") == [(3,)]


def test_hours_and_feeds_are_counted_apart(path: Path) -> None:
    spool = opened(path)
    for feed, at in ((0, NOW), (0, NOW + HOUR), (1, NOW)):
        spool.fold(Event(feed, IP, at))
    spool.commit()
    spool.close()
    assert len(query(path, "SELECT * FROM activity")) == 3
    assert len(query(path, "SELECT * FROM observation")) == 2


def test_committed_events_survive_kill_9(path: Path) -> None:
    """What was answered is in the file: a killed process loses nothing of it."""
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
    said = 0
    for line in process.stdout:
        said = int(line)
        if said == 200:
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.stdout.read().split("\n")
    said = max([said, *(int(line) for line in rest[:-1] if line)])
    process.stdout.close()
    process.wait()
    spool = opened(path)
    spool.close()
    kept = query(path, "SELECT count(*) FROM observation")[0][0]
    assert isinstance(kept, int)
    # One more may have been committed and not said any more.
    assert said <= kept <= said + 1


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
    while (batch := sealer.seal(NOW)) is not None:
        sealer.forget([(batch.spool, batch.seq)], NOW)
    sealer.keep_bounds(NOW + 2 * 24 * HOUR)
    spool.commit()
    batch = sealer.seal(NOW)
    assert batch is not None
    assert decode(batch.body).batch.drops == spool.drops
    sealer.close()
    spool.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, whatever its name says" * 200),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 20_000),
    ],
)
def test_damaged_file_is_set_aside_and_a_new_one_begun(path: Path, damage: object) -> None:
    spool = opened(path)
    for number in range(3000):
        spool.fold(Event(0, number.to_bytes(4), NOW))
    spool.commit()
    spool.close()
    damage(path)  # type: ignore[operator]
    spool = opened(path)
    assert spool.set_aside is not None
    assert spool.set_aside.exists()
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_damage_while_running_is_told_and_replaced(path: Path) -> None:
    spool = opened(path)
    sealer = Sealer(path)
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    assert not bool(sealer.replaced)
    # What a failing disk leaves: pages that are not what they were, also in the log.
    for name in (path, path.with_name(path.name + "-wal")):
        with name.open("r+b") as stream:
            stream.seek(0)
            stream.write(b"\xaa" * name.stat().st_size)
    spool._db.execute("PRAGMA shrink_memory")  # else SQLite has the few pages in its cache
    spool.fold(Event(0, bytes(4), NOW))
    with pytest.raises(SpoolDamaged):
        spool.commit()
    aside = spool.replace("s")
    assert aside.exists()
    assert sealer.replaced
    spool.commit()
    sealer.close()
    sealer = Sealer(path)
    batch = sealer.seal(NOW)
    assert batch is not None
    assert decode(batch.body).batch.observations
    sealer.close()
    spool.close()


def test_file_deleted_while_running_is_noticed(path: Path) -> None:
    spool = opened(path)
    path.unlink()
    with pytest.raises(SpoolDamaged, match="deleted or moved"):
        spool.note_state(version="1", counters={}, now_ms=NOW)
    spool.replace("s")
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_log_whose_file_is_gone_is_not_played_into_a_new_spool(path: Path) -> None:
    """Killed while setting a spool aside, or the file alone deleted: what is left stays out."""
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
    assert spool.set_aside is not None
    assert spool.set_aside.with_name(spool.set_aside.name + "-wal").stat().st_size
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_error_of_the_file_while_a_new_one_is_begun_is_one_of_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up as the new file is put in place: the sensor tries again."""
    spool = opened(path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(file, "_begin", full)
        with pytest.raises(SpoolUnwritable):
            spool.replace("s")
    spool.replace("s")
    spool.fold(Event(0, IP, NOW))
    spool.commit()
    spool.close()
    assert query(path, "SELECT count(*) FROM observation") == [(1,)]


def test_replacing_that_fails_can_be_tried_again(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    spool = opened(folder / "s.spool")
    spool.fold(Event(0, IP, NOW))
    away = tmp_path / "away"
    folder.rename(away)
    folder.write_text("a file where the folder was")
    with pytest.raises(SpoolError):
        spool.replace("s")
    with pytest.raises(SpoolUnwritable):
        spool.commit()
    folder.unlink()
    folder.mkdir()
    spool.replace("s")
    spool.commit()
    spool.close()
    assert query(folder / "s.spool", "SELECT count(*) FROM observation") == [(1,)]


def test_addresses_of_one_prefix64_are_bounded_a_day(path: Path) -> None:
    """One host with a /64 can come from millions of addresses: 64 a day, the rest by prefix."""
    spool = opened(path, per_prefix64=4)
    prefix = bytes.fromhex("20010db800000001")
    for number in range(10):
        spool.fold(Event(0, prefix + number.to_bytes(8), NOW))
    spool.fold(Event(1, prefix + (0).to_bytes(8), NOW))
    spool.fold(Event(0, prefix + (99).to_bytes(8), NOW + 24 * HOUR))
    spool.commit()
    spool.close()
    assert query(path, "SELECT feed, count(*) FROM observation GROUP BY feed") == [(0, 5), (1, 1)]
    assert query(path, "SELECT prefix, hits FROM overflow") == [(prefix + bytes(8), 6)]
    assert query(path, "SELECT sum(events) FROM activity") == [(12,)]


def test_newer_layout_is_not_touched(path: Path) -> None:
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
    spool.note_state(version="1.2", counters={"greets": 1}, now_ms=NOW)
    told = read_status(path)
    assert (told.sensor, told.version, told.noted_ms) == ("s", "1.2", NOW)
    assert told.rows == {"smtpgreet": 1, "smtpdata": 1}
    assert (told.oldest_ms, told.counters) == (NOW, {"greets": 1})
    spool.close()


def test_spool_is_for_its_owner_alone(path: Path) -> None:
    opened(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
