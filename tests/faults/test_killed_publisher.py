"""SIGKILL of publications and of their program always leaves one complete set of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.killed_publisher import KilledPublisher
from ingest_support.fixtures import dsn

__all__ = ["dsn"]


def test_readers_get_whole_sets_while_publications_are_killed(
    dsn: str, tmp_path: Path, seed: int
) -> None:
    print(KilledPublisher(dsn, tmp_path / "www", seed).run(generations=3, kills=3))


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_readers_get_whole_sets_over_two_hundred_publications(
    dsn: str, tmp_path: Path, seed: int
) -> None:
    figures = KilledPublisher(dsn, tmp_path / "www", seed).run(generations=200, kills=200)
    print(f"\nseed {seed}: {figures}", flush=True)
