"""PostgreSQL's programs: the newest, or the version of existing data; and how they are run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host.postgres_binaries import Binaries, choose
from smtpfeeds_deploy.single_host.postgres_cluster import make_cluster
from smtpfeeds_deploy.single_host.unprivileged import Identity

DATA = Path("/srv/smtpfeeds/postgres/data")
NEW, OLD = Binaries(Path("/new/bin"), 18), Binaries(Path("/old/bin"), 16)


def test_new_data_are_created_by_the_newest() -> None:
    assert choose([NEW, OLD], None, DATA) is NEW


def test_existing_data_are_served_by_their_major_version() -> None:
    assert choose([NEW, OLD], 16, DATA) is OLD


def test_data_of_a_missing_version_are_refused_and_both_are_named() -> None:
    with pytest.raises(
        SingleHostError,
        match=r"created by PostgreSQL 15, and the extra single-host contains 18, 16",
    ):
        choose([NEW, OLD], 15, DATA)


def test_missing_postgresql_is_an_error_with_the_package() -> None:
    with pytest.raises(SingleHostError, match=r"the extra single-host: .*pip install"):
        choose([], None, DATA)


def test_ctrl_c_in_a_terminal_does_not_reach_initdb(tmp_path: Path) -> None:
    """Otherwise `smtpfeeds up` would end with the output of a failed initdb."""
    initdb = tmp_path / "initdb"
    initdb.write_text('#!/bin/sh\nmkdir "${1#--pgdata=}"\ncut -d " " -f 6 /proc/$$/stat >session\n')
    initdb.chmod(0o755)
    make_cluster(tmp_path / "data", Binaries(tmp_path, 18), Identity(), durable=True)
    assert int((tmp_path / "session").read_text()) != os.getsid(0)
