"""The choice of PostgreSQL: the newest, or the version that created existing data."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host.postgres_binaries import Binaries, choose

DATA = Path("/srv/smtpfeeds/postgres/data")
NEW, OLD = Binaries(Path("/new/bin"), 18), Binaries(Path("/old/bin"), 16)


def test_new_data_are_made_by_the_newest() -> None:
    assert choose([NEW, OLD], None, DATA) is NEW


def test_data_that_exist_are_served_by_their_own_major_version() -> None:
    assert choose([NEW, OLD], 16, DATA) is OLD


def test_data_of_a_version_that_is_not_here_are_refused_and_both_named() -> None:
    with pytest.raises(
        SingleHostError,
        match=r"created by PostgreSQL 15, and the extra single-host contains 18, 16",
    ):
        choose([NEW, OLD], 15, DATA)


def test_no_postgres_at_all_says_what_to_install() -> None:
    with pytest.raises(SingleHostError, match=r"the extra single-host: .*pip install"):
        choose([], None, DATA)
