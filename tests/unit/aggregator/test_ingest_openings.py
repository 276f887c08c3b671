"""The number of openings that an account names is bounded; other accounts are not affected."""

from __future__ import annotations

import uuid

import pytest

from smtpfeeds_aggregator.accounts import RefusalCode
from smtpfeeds_aggregator.ingest.openings import Openings
from smtpfeeds_common.errors import WireError


def test_account_over_its_bound_is_refused_until_the_next_day() -> None:
    now = 0.0
    openings = Openings(most=3, monotonic=lambda: now)
    known = [uuid.uuid4() for _ in range(3)]
    for spool in known * 2:
        openings.check("mallory", spool)
    with pytest.raises(WireError, match="more than 3 openings") as refused:
        openings.check("mallory", uuid.uuid4())
    assert RefusalCode(refused.value.code) is RefusalCode.OPENINGS
    # What it named before still counts, and so does every other account.
    openings.check("mallory", known[0])
    openings.check("honest", uuid.uuid4())
    now = 86_399.0
    with pytest.raises(WireError):
        openings.check("mallory", uuid.uuid4())
    now = 86_400.0
    openings.check("mallory", uuid.uuid4())
