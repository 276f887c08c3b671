"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.harness import Site
from smtpfeeds_deploy.simulation import synthetic


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Programs that are stopped at the end with SIGTERM."""
    site = Site(tmp_path)
    try:
        yield site
    finally:
        print(site.logs())
        stubborn = site.stop()
    assert stubborn == [], f"had to be killed: {stubborn}"


@pytest.fixture(scope="session")
def synthetic_origins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings with the invented origin table and AS names."""
    folder = tmp_path_factory.mktemp("origins")
    table, names = folder / "origin-table.txt", folder / "as-names.json"
    synthetic.write_origin_table(table)
    synthetic.write_as_names(names)
    return {"origin_table": str(table), "as_names": str(names)}
