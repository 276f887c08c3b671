"""What the worker does with each delivery; source and store fail as each test requires.

There are no threads: time passes only while the worker waits (`ingest_support.stepped`).
Integration tests use the program's real threads.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from ingest_support import HOUR_MS, KnowsAllOrigins, greet, made_batch
from ingest_support.stepped import SteppedWork
from ingest_support.worker import MemoryStore
from smtpfeeds_aggregator.clock.database import Reading, Record
from smtpfeeds_aggregator.ingest import collect, refusals
from smtpfeeds_aggregator.ingest import probe_batch as known_good_module
from smtpfeeds_aggregator.ingest.check import CheckedBatch, check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.ingest.handover import TICK_S, Collection
from smtpfeeds_aggregator.ingest.openings import Openings
from smtpfeeds_aggregator.ingest.write import HOLD_S
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.origin.lookup import OriginLookup
from smtpfeeds_aggregator.sources import Delivery
from smtpfeeds_aggregator.store.rows import Folded
from smtpfeeds_common.wire import Batch, HourCount, Observation, PrefixOverflow


def work_in_memory(
    origin: Callable[[], OriginLookup] = lambda: EMPTY, **settings: object
) -> SteppedWork[MemoryStore]:
    return SteppedWork(MemoryStore(), origin, **settings)


AT = 1_795_431_600_000


def batches(count: int, rows: int = 1) -> list[Batch]:
    spool = uuid.uuid4()
    ips = [f"192.0.2.{n}" for n in range(rows)]
    return [made_batch(*(greet(ip) for ip in ips), spool=spool, seq=n) for n in range(1, count + 1)]


def test_waiting_batches_are_written_together_then_acknowledged() -> None:
    work = work_in_memory(ingest_wait_ms=200)
    work.source.put(*batches(5))
    work.run_for(1)
    assert len(work.source.acknowledged) == 5
    assert [len(keys) for keys in work.store.transactions] == [5]
    assert work.counted("batches") == 5


def test_collection_is_bounded_by_messages_and_by_rows() -> None:
    work = work_in_memory(ingest_batch_messages=3, ingest_wait_ms=200)
    work.source.put(*batches(7))
    work.run_for(1)
    assert len(work.source.acknowledged) == 7
    assert [len(keys) for keys in work.store.transactions] == [3, 3, 1]
    work = work_in_memory(ingest_batch_rows=20, ingest_wait_ms=200)
    work.source.put(*batches(5, rows=10))
    work.run_for(1)
    assert len(work.source.acknowledged) == 5
    assert [len(keys) for keys in work.store.transactions] == [2, 2, 1]


def test_next_collection_fills_while_the_store_is_busy() -> None:
    """Under load transactions grow to the bound, without a time limit."""
    work = work_in_memory(ingest_wait_ms=1, ingest_batch_messages=10)
    work.handover.held = True
    deliveries = batches(20)
    for number, batch in enumerate(deliveries):
        work.time.after(number * 0.005, partial(work.source.put, batch))
    work.worker.collector.turn(work.stop)
    work.handover.held = False
    work.worker.writer.turn(work.stop)
    work.run_for(1)
    assert len(work.store.transactions[0]) == 10
    assert len(work.source.acknowledged) == 20


def test_same_batch_twice_in_a_collection_counts_once_and_both_are_acknowledged() -> None:
    work = work_in_memory(ingest_wait_ms=200)
    one, two = batches(2)
    work.source.put(one, two, one, one)
    work.run_for(1)
    assert len(work.source.acknowledged) == 4
    assert [key.seq for keys in work.store.transactions for key in keys] == [1, 2]
    assert (work.counted("batches"), work.counted("duplicates")) == (2, 2)


def test_repeats_are_logged_once_a_minute_for_an_account(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    work = work_in_memory(ingest_wait_ms=200)
    mine, other = made_batch(sensor="s1", seq=1), made_batch(sensor="s2", seq=1)
    for _ in range(50):
        work.source.put(mine)
        work.run_for(1)
    work.source.put(other, other, account="s2")
    work.run_for(60)
    work.source.put(mine)
    work.run_for(1)
    lines = [vars(record) for record in caplog.records if "counted before" in record.msg]
    assert [line["fields"]["account"] for line in lines] == ["s1", "s2", "s1"]
    assert work.counted("duplicates") == 51


def test_garbage_is_refused_and_other_batches_are_written() -> None:
    work = work_in_memory(ingest_wait_ms=200)
    one, two = batches(2)
    work.source.put(one, b"garbage", two)
    work.source.put(two, account=None)
    work.run_for(1)
    assert len(work.source.acknowledged) == 3
    assert [(r.kind, d.body) for d, r in work.source.refused][:1] == [("message", b"garbage")]
    assert {key.seq for key in work.store.known} == {1, 2}


def test_bad_batch_is_identified_by_writing_one_at_a_time() -> None:
    work = work_in_memory(ingest_wait_ms=200)
    batch = batches(5)
    work.source.put(*batch, batch[2], batch[3])
    work.store.bad = {3}
    work.run_for(1)
    assert len(work.source.acknowledged) == 6
    ((delivery, refusal),) = work.source.refused
    assert refusal.kind == "batch"
    assert delivery.body == refusal.body
    assert {key.seq for key in work.store.known} == {1, 2, 4, 5}
    assert work.counted("refused", kind="batch") == 1


def test_bad_batch_is_refused_by_a_current_delivery() -> None:
    """A refusal by an ended session would keep nothing, and its repeat would be acknowledged."""
    work = work_in_memory(ingest_wait_ms=600)
    (batch,) = batches(1)
    work.store.bad = {1}
    work.source.put(batch)
    work.time.after(0.3, lambda: redeliver(work, batch))
    work.run_for(1)
    ((delivery, _),) = work.source.refused
    assert work.source.is_current(delivery)
    assert len(work.source.acknowledged) == 1, "the other delivery is done with"


def redeliver(work: SteppedWork[MemoryStore], batch: Batch) -> None:
    """The source has a new connection, and delivers everything again."""
    work.source.session += 1
    work.source.put(batch)


def watch(work: SteppedWork[MemoryStore], seconds: int) -> list[str]:
    """Return the parts that a watchdog would call silent during these seconds."""
    silent: list[str] = []
    for second in range(seconds):
        work.time.after(second, lambda: silent.extend(work.health.stuck()))
    return silent


def test_stream_of_bad_messages_does_not_make_a_part_silent() -> None:
    """Otherwise a watchdog would end the program every few minutes."""
    work = work_in_memory(ingest_wait_ms=10_000)
    silent = watch(work, 700)
    for second in range(700):
        work.time.after(second + 0.5, lambda: work.source.put(b"garbage"))
    work.worker.collector.turn(work.stop)
    work.run_for(700)
    assert len(work.source.refused) == 700
    assert silent == []


def test_long_outage_does_not_make_the_writer_silent() -> None:
    work = work_in_memory()
    work.store.away = True
    work.source.put(*batches(3))
    silent = watch(work, 700)
    work.time.after(700, work.stop.set)
    work.run_for(701)
    assert work.source.pauses == 1
    assert "store" not in silent


def test_collection_that_waits_for_the_writer_does_not_make_the_collector_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = work_in_memory(ingest_wait_ms=20)
    taken_s = work.time.now_s + 700
    silent = watch(work, 700)

    def put(_: Collection) -> bool:
        work.time.wait(TICK_S)
        return work.time.now_s > taken_s

    monkeypatch.setattr(work.handover, "put", put)
    work.source.put(*batches(3))
    work.run_for(1)
    assert work.time.now_s > taken_s
    assert silent == []


def test_batch_with_refused_rows_is_acknowledged_once_they_are_kept() -> None:
    work = work_in_memory(ingest_wait_ms=50)
    work.source.put(made_batch(greet("192.0.2.1"), greet("nonsense")))
    work.run_for(1)
    assert bool(work.source.refused)
    assert [refusal.kind for _, refusal in work.source.refused] == ["rows"]
    assert work.source.acknowledged == []
    assert len(work.store.known) == 1
    assert work.counted("rows_refused") == 1


def test_short_outage_holds_the_batches() -> None:
    work = work_in_memory()
    work.store.away = True
    work.source.put(*batches(3))

    def come_back() -> None:
        assert work.health.problems()
        assert work.source.acknowledged == []
        work.store.away = False

    work.time.after(HOLD_S - 10, come_back)
    work.run_for(HOLD_S)
    assert len(work.source.acknowledged) == 3
    assert work.source.pauses == 0
    assert work.health.problems() == []
    assert work.counted("holds") == 1


def test_long_outage_returns_the_batches_and_resumes_later() -> None:
    work = work_in_memory()
    work.store.away = True
    work.source.put(*batches(3))

    def come_back() -> None:
        assert (work.source.pauses, work.source.resumes) == (1, 0), "the batches are given back"
        work.store.away = False

    work.time.after(HOLD_S + 100, come_back)
    work.run_for(HOLD_S + 110)
    assert work.source.resumes == 1
    assert work.source.acknowledged == []
    work.source.put(*batches(2))
    work.run_for(1)
    assert len(work.source.acknowledged) == 2
    assert work.source.refused == []


def test_deliveries_of_an_ended_session_are_dropped() -> None:
    work = work_in_memory(ingest_wait_ms=300)
    work.source.put(*batches(2))
    work.time.after(0.1, work.source.pause)
    work.run_for(1)
    assert work.source.acknowledged == []
    assert work.store.known == set()


def test_batch_delivered_again_is_acknowledged_by_its_second_delivery() -> None:
    """The first delivery is from an ended session; the second must not stay unacknowledged."""
    work = work_in_memory(ingest_wait_ms=600)
    (batch,) = batches(1)
    work.source.put(batch)
    work.time.after(0.3, lambda: redeliver(work, batch))
    work.run_for(1)
    assert len(work.store.known) == 1
    assert any(map(work.source.is_current, work.source.acknowledged))


def test_stop_finishes_the_current_collection() -> None:
    work = work_in_memory(ingest_wait_ms=10_000)
    work.source.put(*batches(4))
    work.time.after(0.3, work.stop.set)
    work.run_for(10)
    assert len(work.source.acknowledged) == 4
    work.finish()
    assert work.store.closed


def test_stop_does_not_wait_for_an_unavailable_database() -> None:
    work = work_in_memory()
    work.store.away = True
    work.source.put(*batches(4))
    started_s = work.time.now_s
    work.time.after(3, work.stop.set)
    work.run_for(HOLD_S)
    work.finish()
    assert work.time.now_s - started_s < 10
    assert work.source.acknowledged == []


def test_bug_in_reading_a_message_refuses_only_that_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise one message would end every program that receives it."""

    def faulty(delivery: Delivery) -> CheckedBatch:
        if delivery.body == b"odd":
            raise ZeroDivisionError
        return check(delivery)

    monkeypatch.setattr(collect, "check", faulty)
    work = work_in_memory(ingest_wait_ms=50)
    work.source.put(b"odd", *batches(1))
    work.run_for(1)
    assert len(work.source.acknowledged) == 1
    ((_, refusal),) = work.source.refused
    assert (refusal.kind, refusal.body) == ("message", b"odd")
    assert "ZeroDivisionError" in refusal.reason


def test_bug_in_folding_a_batch_refuses_only_that_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """This happened with a feed that the schema accepted: every aggregator ended."""

    def faulty(batches: Sequence[CheckedBatch], origin: OriginLookup, today: int) -> Folded:
        if 2 in {batch.key.seq for batch in batches}:
            raise KeyError("smtpdata\n")
        return fold(batches, origin, today)

    monkeypatch.setattr(collect, "fold", faulty)
    work = work_in_memory(ingest_wait_ms=200)
    one, two, three = batches(3)
    work.source.put(one, two, three, two)
    work.run_for(1)
    assert len(work.source.acknowledged) == 3
    ((delivery, refusal),) = work.source.refused
    assert (refusal.kind, delivery.body) == ("message", refusal.body)
    assert "KeyError" in refusal.reason
    assert {key.seq for key in work.store.known} == {1, 3}


def test_fault_of_the_origin_table_loses_the_origin_and_no_batch() -> None:
    class Faulty(KnowsAllOrigins):
        def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
            raise OSError("the index is gone")

    work = work_in_memory(origin=Faulty, ingest_wait_ms=200)
    work.source.put(*batches(3))
    work.run_for(1)
    assert len(work.source.acknowledged) == 3
    assert work.source.refused == []
    (problem,) = work.health.problems()
    assert "OSError: the index is gone" in problem


def test_bug_that_affects_every_batch_refuses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program ends, and the broker delivers its batches again: nothing is refused."""

    def broken(*_: object) -> Folded:
        raise ZeroDivisionError

    monkeypatch.setattr(collect, "fold", broken)
    monkeypatch.setattr(known_good_module, "fold", broken)
    work = work_in_memory()
    work.source.put(*batches(1))
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        work.worker.collect(stop)
    assert (work.source.refused, work.source.acknowledged) == ([], [])


def test_bug_in_writing_a_batch_refuses_only_that_batch() -> None:
    work = work_in_memory(ingest_wait_ms=200)
    work.store.faults = {2: OverflowError("too large to pack")}
    work.source.put(*batches(3))
    work.run_for(1)
    assert len(work.source.acknowledged) == 2
    ((_, refusal),) = work.source.refused
    assert "OverflowError: too large to pack" in refusal.reason
    assert {key.seq for key in work.store.known} == {1, 3}


def test_bug_in_encoding_refused_rows_loses_only_those_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: CheckedBatch) -> bytes:
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    monkeypatch.setattr(refusals, "refused_rows_body", broken)
    work = work_in_memory()
    work.source.put(made_batch(greet("192.0.2.1"), greet("nonsense")))
    work.run_for(1)
    assert bool(work.source.refused)
    ((_, refusal),) = work.source.refused
    assert (refusal.kind, "UnicodeEncodeError" in refusal.reason) == ("rows", True)
    assert len(work.store.known) == 1


def test_all_batches_wait_if_the_database_refuses_every_batch() -> None:
    """With an added constraint or a missing partition, all batches would be refused."""
    work = work_in_memory(ingest_wait_ms=200)
    work.store.refuses_all = True
    work.source.put(*batches(3))

    def accept() -> None:
        assert (work.gauge("refusing_all"), work.gauge("holding")) == (1, 1)
        (problem,) = work.health.problems()
        assert "refuses every batch" in problem
        work.store.refuses_all = False

    work.time.after(20, accept)
    work.run_for(HOLD_S)
    assert len(work.source.acknowledged) == 3
    assert (work.source.refused, work.health.problems()) == ([], [])
    assert (work.gauge("holding"), work.gauge("refusing_all")) == (0, 0)


def test_batches_are_returned_if_the_database_refuses_every_batch_for_long() -> None:
    work = work_in_memory()
    work.store.refuses_all = True
    work.source.put(*batches(3))

    def accept() -> None:
        assert (work.source.pauses, work.source.resumes) == (1, 0)
        work.store.refuses_all = False

    work.time.after(HOLD_S + 100, accept)
    work.run_for(HOLD_S + 110)
    assert work.source.resumes == 1
    work.source.put(*batches(2))
    work.run_for(1)
    assert len(work.source.acknowledged) == 2
    assert work.source.refused == []


PREFIXES = [PrefixOverflow("smtpgreet", f"2001:db8:{n:x}::/64", AT, AT, 1) for n in range(10)]
HOURS = [HourCount("smtpgreet", AT + n * HOUR_MS, 1) for n in range(10)]


@pytest.mark.parametrize(
    ("rows", "hours", "overflows"),
    [([], HOURS, []), ([], [], PREFIXES), ([greet("nonsense")] * 10, [], [])],
    ids=["hours", "overflows", "refused"],
)
def test_rows_of_every_kind_count_towards_the_bound_of_a_collection(
    rows: list[Observation], hours: list[HourCount], overflows: list[PrefixOverflow]
) -> None:
    """Hours and refused rows count too."""
    work, spool = work_in_memory(ingest_batch_rows=20, ingest_wait_ms=200), uuid.uuid4()
    work.source.put(
        *(
            made_batch(*rows, spool=spool, seq=n, hours=hours, overflows=overflows)
            for n in range(1, 6)
        )
    )
    work.run_for(1)
    assert len(work.store.known) == 5
    assert [len(keys) for keys in work.store.transactions] == [2, 2, 1]


def test_octets_count_towards_the_bound_of_a_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_COLLECTION_BYTES", 2_000)
    work = work_in_memory(ingest_wait_ms=200)
    spool = uuid.uuid4()
    work.source.put(
        *(made_batch(spool=spool, seq=n, counters={"x" * 100: n}) for n in range(1, 21))
    )
    work.run_for(1)
    assert len(work.source.acknowledged) == 20
    assert max(len(keys) for keys in work.store.transactions) < 10


def test_openings_over_the_bound_are_refused_and_other_batches_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collect, "Openings", partial(Openings, most=2))
    work = work_in_memory(ingest_wait_ms=200)
    work.source.put(*(made_batch(sensor="mallory") for _ in range(4)), account="mallory")
    honest = made_batch(sensor="honest")
    work.source.put(honest, account="honest")
    work.run_for(1)
    assert [str(refusal.kind) for _, refusal in work.source.refused] == ["message", "message"]
    assert all("openings of its spool" in refusal.reason for _, refusal in work.source.refused)
    assert sorted(key.sensor for key in work.store.known) == ["honest", "mallory", "mallory"]


def test_collection_is_written_if_the_source_waits_for_acknowledgements() -> None:
    work = work_in_memory(ingest_wait_ms=10_000)
    work.source.can_send_more = False
    work.source.put(*batches(3))
    work.run_for(1)
    assert len(work.source.acknowledged) == 3


@pytest.mark.parametrize("ends", [True, False])
def test_nothing_is_refused_while_the_clock_is_in_doubt(ends: bool) -> None:
    """A refused message is acknowledged, and counted by the hour of that clock."""
    work = work_in_memory()
    at_s, now = work.time.now_s, datetime.now(UTC)
    record = Record(now + timedelta(hours=1), 0, None)
    work.clock.take(Reading(at_s, at_s, now, record))
    accepted = record._replace(noted=now, acceptances=1)
    work.time.after(60, lambda: work.clock.take(Reading(at_s, at_s, now, accepted)))
    if not ends:
        work.time.after(30, work.stop.set)
    work.source.put(b"no batch")
    work.run_for(1)
    assert len(work.source.refused) == ends
    assert work.time.now_s >= at_s + 30
