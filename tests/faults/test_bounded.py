"""The part of the fault runs that every test run makes: a few of each kill, all in one site."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults import breaking
from faults.pipeline import Shape
from faults.run import Run


@pytest.mark.timeout(600)
def test_what_clients_were_answered_counts_once_through_kills_of_everything(
    begin: Callable[..., Run],
) -> None:
    """kill -9 of sensor, worker, broker and database under load: none lost, twice or invented.

    Through RabbitMQ, and through a spool that is read on its host; behaviours, days and targets are
    compared too.
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
