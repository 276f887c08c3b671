"""Sites to break, and the table of results."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.pipeline import Pipeline, Shape
from faults.results import PAGE, Table
from faults.run import Result, Run


@pytest.fixture(scope="session")
def seed() -> int:
    """FAULT_SEED repeats the decisions of a run; the exact times depend on the machine."""
    return int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.fixture
def begin(tmp_path: Path, seed: int) -> Iterator[Callable[..., Run]]:
    """Start a site and its clients."""
    running: list[Run] = []
    sites: list[Pipeline] = []

    def start(name: str, shape: Shape | None = None, *, rate_per_s: float = 80) -> Run:
        site = Pipeline(tmp_path, shape or Shape()).__enter__()
        sites.append(site)
        run = Run(name, site, seed, rate_per_s)
        running.append(run)
        run.start()
        return run

    yield start
    for run in running:
        run.load.stop()
    for site in sites:
        site.__exit__()


@pytest.fixture(scope="session")
def long_results() -> Iterator[Callable[[Result], None]]:
    """Collects the results of long runs; each one updates the table on the page at once."""
    table = Table(PAGE)
    yield table.add
    print(f"\n{table.text()}", flush=True)
