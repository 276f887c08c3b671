"""One run: load, faults at random times, settle, compare, one line of result.

Recovery is measured from the kill of a program (including its restart), or from the end of a longer
fault (a server or a connection works again), until all events answered by then are in the database.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from servers.processes import ServerFailedError
from smtpfeeds_common.errors import SpoolError
from smtpfeeds_common.spool import read_status

from .databases import Gauge, read_all
from .load import Load
from .pipeline import Pipeline
from .reckoning import Verdict, events, judge

RECOVERY_LIMIT_S = 120.0
#: After everything is in, what could still be counted twice has come again by then.
_QUIET_S = 3.0

#: Breaks something; what lasts is over when it returns.
Fault = Callable[["Run"], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the table."""

    fault: str
    faults: int
    events: int
    unanswered: int
    lost: int
    twice: int
    invented: int
    recovery_s: float

    def __str__(self) -> str:
        return (
            f"{self.fault}: {self.faults} faults, {self.events} events answered, "
            f"{self.unanswered} cut off, {self.lost} lost, {self.twice} twice, "
            f"{self.invented} invented, longest recovery {self.recovery_s:.1f} s"
        )


@dataclass
class Run:
    """A pipeline under load; a context manager around it is the test's."""

    name: str
    pipeline: Pipeline
    seed: int
    rate_per_s: float = 80
    faults: int = 0
    recovery_s: float = 0.0
    chance: random.Random = field(init=False)
    load: Load = field(init=False)
    _gauge: Gauge = field(init=False)
    #: What was not in the database in time.
    late: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        now = time.strftime("%H:%M:%S")
        print(f"\n{now} {self.name}: seed {self.seed}, in {self.pipeline.folder}", flush=True)
        self.chance = random.Random(self.seed)
        self.load = Load(self.pipeline.targets, seed=self.seed, rate_per_s=self.rate_per_s)
        self._gauge = self.pipeline.gauge()

    def start(self) -> None:
        """Start the clients, and wait for the first events."""
        self.load.start()
        self.pipeline.sleep(0.5)
        self.recovered()

    def strike(
        self, fault: Fault, *, after_s: tuple[float, float] = (0.3, 2.0), wait: bool = True
    ) -> None:
        """Break something at a random time; then wait for the recovery."""
        self.pipeline.sleep(self.chance.uniform(*after_s))
        before = time.monotonic()
        fault(self)
        self.faults += 1
        lasted_s = time.monotonic() - before
        line = f"  {time.strftime('%H:%M:%S')} {fault.__name__}: lasted {lasted_s:.1f} s"
        if wait:
            line += f", recovery {self.recovered():.1f} s"
        print(line, flush=True)

    def recovered(self) -> float:
        """Wait until all events answered by now are in the database; return the seconds."""
        since, pending = time.monotonic(), list(self.load.latest)

        def all_in() -> bool:
            pending[:] = self._gauge.missing(pending)
            return not pending

        try:
            self.pipeline.wait(all_in, "all that was answered is in", RECOVERY_LIMIT_S)
        except ServerFailedError as exc:
            # The comparison at the end tells what is missing; here it is only late.
            self.late.append(f"{len(pending)} events late, such as {pending[0]}: {exc}")
        took_s = time.monotonic() - since
        self.recovery_s = max(self.recovery_s, took_s)
        return took_s

    def finish(self) -> tuple[Result, Verdict]:
        """Stop the clients, wait for all batches, and compare."""
        self.load.stop()
        last_visits = self.load.begin_last_visits()
        self.pipeline.wait(lambda: not last_visits.is_alive(), "the last visits are over", 90)
        verdict = self._settle()
        verdict.differences += (
            self.late + self.load.odd + self.pipeline.complaints() + self._spool_losses()
        )
        answered, unanswered = events(self.load.entries)
        result = Result(
            self.name,
            self.faults,
            answered,
            unanswered,
            verdict.lost,
            verdict.twice,
            verdict.invented,
            self.recovery_s,
        )
        self._gauge.close()
        print(f"{time.strftime('%H:%M:%S')} {result}", flush=True)
        if self.pipeline.ended:
            print(f"  ended by themselves: {', '.join(self.pipeline.ended)}", flush=True)
        if not verdict.good:
            print(f"  {verdict}", flush=True)
        return result, verdict

    def _settle(self) -> Verdict:
        """Wait until no batch is in transit, and a little longer."""
        pipeline, deadline = self.pipeline, time.monotonic() + RECOVERY_LIMIT_S

        def nothing_waits() -> bool:
            return time.monotonic() > deadline or (
                pipeline.all_ready() and pipeline.nothing_waits()
            )

        pipeline.wait(nothing_waits, "nothing waits", RECOVERY_LIMIT_S + 10)
        late = time.monotonic() > deadline
        pipeline.sleep(_QUIET_S)
        verdict = judge(self.load.entries, read_all(pipeline.dsn()), pipeline.kills)
        if late:
            verdict.differences.append(f"something still waits after {RECOVERY_LIMIT_S:g} s")
        return verdict

    def _spool_losses(self) -> list[str]:
        losses = []
        for path in self.spool_files():
            status = read_status(path)
            held = status.batches_too_large + status.batches_refused
            if status.drops or held:
                losses.append(f"{path.name}: {status.drops} drops, {held} batches held")
        return losses

    def spool_files(self) -> list[Path]:
        paths = [
            p for s in self.pipeline.sensors for p in self.pipeline.spools(s).glob(f"{s}*.spool")
        ]
        if not paths:
            raise SpoolError("there are no spools")
        return paths
