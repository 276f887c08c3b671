"""Spool files that no program delivers are found, taken over once, or dropped."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SpoolError, SpoolInUse
from smtpfeeds_common.spool import (
    Bounds,
    Event,
    Held,
    SealedBatch,
    Sealer,
    Spool,
    read_status,
    take_over,
)
from smtpfeeds_common.spool.left_behind import delete, find_left_behind
from smtpfeeds_common.spool.opening import quarantine
from smtpfeeds_common.spool.take_over import (
    convert,
    deliver_quarantined,
    drop_held,
    release_held,
)
from smtpfeeds_common.wire import decode
from spool_support import BOOT, BOOTED_MS, at

NOW = 1_795_000_000_000


def heard(path: Path, numbers: range, *, sensor: str, sealed: int = 0) -> list[SealedBatch]:
    """Create a spool with one greet for each number; the first ones are sealed."""
    batches = []
    with contextlib.closing(Spool(path, sensor=sensor, boot=BOOT)) as spool:
        for number in numbers[:sealed]:
            spool.fold(Event(0, number.to_bytes(4), NOW + number))
        spool.commit()
        if sealed:
            with contextlib.closing(Sealer(path)) as sealer:
                batch = sealer.seal(at(NOW))
                assert batch is not None
                batches.append(batch)
        for number in numbers[sealed:]:
            spool.fold(Event(0, number.to_bytes(4), NOW + number))
        spool.fold(Event(1, numbers[-1].to_bytes(4), NOW + numbers[-1]))
        spool.fold(Event(0, b"\x20\x01" + bytes(14), 7, dated=False))
        spool.commit()
    return batches


def hits(path: Path) -> dict[tuple[str, str], int]:
    """Count all events of a spool by feed and address, in all batches."""
    counted: dict[tuple[str, str], int] = {}
    with contextlib.closing(Sealer(path)) as sealer:
        while sealer.seal(at(BOOTED_MS + 10_000)) is not None:
            pass
        names = set()
        for batch in sealer.waiting():
            assert batch[:2] not in names
            names.add(batch[:2])
            for row in decode(batch.body).batch.observations:
                counted[row.feed, row.ip] = counted.get((row.feed, row.ip), 0) + row.hits
    return counted


def expected(numbers: range) -> dict[tuple[str, str], int]:
    greets = {("smtpgreet", f"0.0.{n // 256}.{n % 256}"): 1 for n in numbers}
    last = numbers[-1]
    return greets | {
        ("smtpdata", f"0.0.{last // 256}.{last % 256}"): 1,
        ("smtpgreet", "2001::"): 1,
    }


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "s.spool"


def spoil(path: Path) -> None:
    """Overwrite a page in the middle of a file, as a failing disk does."""
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2 // 4096 * 4096)
        stream.write(b"\xaa" * 4096)


def quarantined_file(path: Path) -> Path:
    moved = quarantine(path)
    assert moved is not None
    return moved


# Quarantined files


def test_quarantined_file_is_delivered_batches_under_their_names_and_rows_once(own: Path) -> None:
    (batch,) = heard(own, range(100), sensor="s", sealed=40)
    old = quarantined_file(own)
    heard(own, range(1000, 1010), sensor="s")
    (left,) = find_left_behind(own.parent, "s")
    assert (left.path, left.is_quarantined, left.sensor, left.trouble) == (old, True, "s", "")
    assert (left.rows, left.batches, left.events) == (62, 1, 102)
    taken = deliver_quarantined(old, own)
    assert (taken.rows, taken.batches, taken.events) == (62, 1, 102)
    with contextlib.closing(Sealer(own)) as sealer:
        assert batch in sealer.waiting()
        assert len(sealer.waiting()) == 2
    merged = expected(range(100)) | expected(range(1000, 1010))
    assert hits(own) == merged | {("smtpgreet", "2001::"): 2}
    assert find_left_behind(own.parent, "s") == []
    assert not old.exists()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_taking_over_that_breaks_off_counts_nothing_twice(
    own: Path, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    """The program is killed after it has copied the rows, before or after it deletes the file."""
    heard(own, range(50), sensor="s", sealed=20)
    old = quarantined_file(own)
    heard(own, range(1000, 1001), sensor="s")

    def killed(path: Path, *, is_locked: bool) -> None:
        if is_deleted:
            delete(path, is_locked=is_locked)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(take_over, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            deliver_quarantined(old, own)
    if is_deleted:
        assert find_left_behind(own.parent, "s") == []
    else:
        assert deliver_quarantined(old, own).events == 52
        with contextlib.closing(sqlite3.connect(own)) as db:
            assert db.execute("SELECT key FROM meta WHERE key LIKE 'taken%'").fetchall() == []
    merged = expected(range(50)) | expected(range(1000, 1001))
    assert hits(own) == merged | {("smtpgreet", "2001::"): 2}


@pytest.mark.parametrize(("feed", "damaged"), [(1, 0), ("x", 1)])
def test_what_can_be_read_of_a_damaged_file_is_delivered(
    own: Path, feed: int | str, damaged: int
) -> None:
    heard(own, range(20_000), sensor="s")
    with contextlib.closing(sqlite3.connect(own)) as db:
        db.execute("UPDATE observation SET feed = ? WHERE feed = 1", (feed,))
        db.commit()
    spoil(own)
    old = quarantined_file(own)
    heard(own, range(30_000, 30_001), sensor="s")
    (left,) = find_left_behind(own.parent, "s")
    assert left.trouble
    assert 10_000 < left.rows < 20_002
    taken = deliver_quarantined(old, own)
    assert taken.rows == left.rows - damaged
    assert taken.trouble
    counted = hits(own)
    assert set(counted) <= set(expected(range(20_000)) | expected(range(30_000, 30_001)))
    assert len(counted) >= taken.rows


@pytest.mark.parametrize("octets", [b"", b"no database" * 1000])
def test_file_of_which_nothing_can_be_read_says_so_and_can_be_dropped(
    own: Path, octets: bytes
) -> None:
    own.write_bytes(octets)
    old = quarantined_file(own)
    heard(own, range(3), sensor="s")
    (left,) = find_left_behind(own.parent, "s")
    assert (left.rows, left.batches, left.sensor) == (0, 0, "")
    assert left.trouble
    with pytest.raises(SpoolError):
        deliver_quarantined(old, own)
    assert old.exists()
    delete(old)
    assert find_left_behind(own.parent, "s") == []
    assert hits(own) == expected(range(3))


def test_rows_that_no_sensor_can_have_written_are_left_out(own: Path) -> None:
    heard(own, range(3), sensor="s")
    with contextlib.closing(sqlite3.connect(own)) as db:
        for feed, ip, first_ms, last_ms, count in (
            (7, bytes(4), NOW, NOW, 1),
            (0, b"\1\2\3", NOW, NOW, 1),
            (0, "text", NOW, NOW, 1),
            (0, b"\1\2\3\4", NOW, NOW - 1, 1),
            (0, b"\1\2\3\5", 5, NOW, 1),
            (0, b"\1\2\3\6", NOW, NOW, -1),
            (0, b"\1\2\3\7", NOW, NOW, "x"),
        ):
            db.execute(
                "INSERT INTO observation VALUES (?,?,?,?,?,0,0)",
                (feed, ip, first_ms, last_ms, count),
            )
        db.execute(
            "INSERT INTO batch VALUES (?,1,?,1,'{}',NULL,NULL)",
            ("00000000-0000-0000-0000-000000000000", NOW),
        )
        db.commit()
    old = quarantined_file(own)
    heard(own, range(1), sensor="s")
    taken = deliver_quarantined(old, own)
    assert taken.trouble == "8 rows and batches are damaged"
    assert hits(own) == {**expected(range(3)), ("smtpgreet", "2001::"): 2} | {
        ("smtpgreet", "0.0.0.0"): 2,
        ("smtpdata", "0.0.0.0"): 1,
    }


def test_file_that_would_push_out_what_is_there_is_refused(own: Path) -> None:
    heard(own, range(30_000), sensor="s")
    old = quarantined_file(own)
    Spool(own, sensor="s", bounds=Bounds(max_bytes=1_000_000)).close()
    with pytest.raises(SpoolError, match="there is no space"):
        deliver_quarantined(old, own)
    assert old.exists()
    assert read_status(own).rows["smtpgreet"] == 0


# Spools of another sensor


def test_unsealed_rows_of_a_renamed_sensor_become_the_new_ones(own: Path) -> None:
    other = own.with_name("old.spool")
    heard(own, range(1000, 1001), sensor="s")
    heard(other, range(30), sensor="old")
    (left,) = find_left_behind(own.parent, "s")
    assert (left.sensor, left.is_quarantined, left.events) == ("old", False, 32)
    with pytest.raises(SpoolError, match="belongs to the sensor 'old'"):
        deliver_quarantined(other, own)
    taken = convert(other, own, sealed=False)
    assert (taken.events, taken.left) == (32, 0)
    assert hits(own) == expected(range(30)) | expected(range(1000, 1001)) | {
        ("smtpgreet", "2001::"): 2
    }
    assert sorted(path.name for path in own.parent.iterdir() if "old" in path.name) == []


def test_sealed_batches_of_another_account_stay_unless_they_are_asked_for(own: Path) -> None:
    other = own.with_name("old.spool")
    heard(own, range(1000, 1001), sensor="s")
    (batch,) = heard(other, range(30), sensor="old", sealed=10)
    taken = convert(other, own, sealed=False)
    assert (taken.events, taken.left) == (22, 1)
    (left,) = find_left_behind(own.parent, "s")
    assert (left.rows, left.batches, left.events) == (0, 1, 10)
    with contextlib.closing(Sealer(other)) as sealer:
        assert sealer.waiting() == [batch]
    taken = convert(other, own, sealed=True)
    assert (taken.rows, taken.batches, taken.events, taken.left) == (0, 1, 10, 0)
    assert hits(own) == expected(range(30)) | expected(range(1000, 1001)) | {
        ("smtpgreet", "2001::"): 2
    }
    assert not other.exists()


def test_spool_of_another_sensor_that_is_in_use_is_that_sensors_own_business(own: Path) -> None:
    heard(own, range(1), sensor="s")
    other = own.with_name("other.spool")
    running = Spool(other, sensor="other")
    assert find_left_behind(own.parent, "s") == []
    for refused in (lambda: convert(other, own, sealed=True), lambda: delete(other)):
        with pytest.raises(SpoolInUse):
            refused()
    running.close()
    with contextlib.closing(Sealer(other)):
        assert find_left_behind(own.parent, "s") == []
    assert [left.path for left in find_left_behind(own.parent, "s")] == [other]


# Held batches


def test_held_batches_are_sent_again_or_dropped(own: Path) -> None:
    (batch,) = heard(own, range(30), sensor="s", sealed=10)
    with contextlib.closing(Sealer(own)) as sealer:
        for held in (Held.TOO_LARGE, Held.REFUSED):
            sealer.hold(*batch[:2], held, "a reason")
            assert sealer.waiting() == []
            assert release_held(own) == 1
            assert sealer.waiting() == [batch]
        assert (release_held(own), drop_held(own)) == (0, (0, 0))
        sealer.hold(*batch[:2], Held.REFUSED, "a reason")
    assert drop_held(own) == (1, 10)
    status = read_status(own)
    assert (status.batches_refused, status.batches_waiting) == (0, 0)
    assert hits(own) == {
        key: count for key, count in expected(range(30)).items() if key not in _sealed(batch)
    }


def _sealed(batch: SealedBatch) -> set[tuple[str, str]]:
    return {(row.feed, row.ip) for row in decode(batch.body).batch.observations}


@pytest.mark.parametrize("how", ["quarantined", "another's", "another's, sealed"])
def test_what_is_taken_over_keeps_its_days_and_their_behaviours(tmp_path: Path, how: str) -> None:
    """An address of three weeks ago does not get this week's behaviours, and the reverse."""
    then, now = 1_795_000_000_000, 1_795_000_000_000 + 21 * 24 * 3_600_000
    own, ip = tmp_path / "s.spool", bytes([192, 0, 2, 1])
    source = own if how == "quarantined" else tmp_path / "old.spool"
    for path, at_ms, flags in ((source, then, 1), (own, now, 4)):
        if path == own and source == own and at_ms == now:
            source = quarantined_file(own)
        spool = Spool(path, sensor=path.stem)
        spool.fold(Event(0, ip, at_ms, flags))
        spool.commit()
        spool.close()
        if at_ms == then and how == "another's, sealed":
            with contextlib.closing(Sealer(path)) as sealer:
                sealer.seal(at(then + 1))
    if how == "quarantined":
        deliver_quarantined(source, own)
    else:
        convert(source, own, sealed=how == "another's, sealed")
    with contextlib.closing(Sealer(own)) as sealer:
        sealer.seal(at(now + 1))
        bodies = [decode(batch.body).batch for batch in sealer.waiting()]
    rows = [
        (batch.sensor, row.last_ms, row.hits, row.flags)
        for batch in bodies
        for row in batch.observations
    ]
    assert sorted(rows) == [("s", then, 1, 1), ("s", now, 1, 4)]
