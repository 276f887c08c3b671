"""The fault run of every test run: a few kills of each program, in one site."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults import breaking
from faults.pipeline import Shape
from faults.run import Run


@pytest.mark.timeout(600)
def test_answered_events_count_once_despite_kills_of_every_part(
    begin: Callable[..., Run],
) -> None:
    """SIGKILL of sensor, worker, broker and database under load loses, repeats and invents no
    event.

    Batches go through RabbitMQ, or through a spool on the same host. Behaviours, days and targets
    are compared too.
    """
    run = begin("a few of each", Shape(spool_too=True))
    kills = [breaking.kill_sensor, breaking.kill_worker, breaking.kill_database] * 2
    run.chance.shuffle(kills)
    kills.insert(run.chance.randrange(len(kills)), breaking.kill_broker)
    for kill in kills:
        # Now and then the next kill meets what has not recovered from the last.
        run.strike(kill, after_s=(0.2, 1.2), wait=run.chance.random() < 0.6)
    run.recovered()
    result, verdict = run.finish()
    assert verdict.good, str(verdict)
    assert result.events > 500, "the load was too small to prove anything"
