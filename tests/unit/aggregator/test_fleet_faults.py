"""The rules of `smtpfeeds fleet check`: which fault each state of a sensor is, and its bounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtpfeeds_aggregator.cli.fleet_state import check
from smtpfeeds_aggregator.fleet.authority import Validity
from smtpfeeds_aggregator.fleet.faults import FAULTS, Thresholds, faults
from smtpfeeds_aggregator.fleet.management import BrokerConnection
from smtpfeeds_aggregator.fleet.rights import (
    TAG,
    BrokerAccount,
    limits,
    permission,
    topic_permission,
)
from smtpfeeds_aggregator.fleet.state import SensorReport, reports
from smtpfeeds_aggregator.store.reading import SensorState
from smtpfeeds_common.topology import EXCHANGE

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = timedelta(days=1)
VHOST = "smtpfeeds"
ROW = SensorState(
    name="s1",
    heard_at=NOW,
    alive=True,
    version="0.2.0",
    epoch=1,
    events_24h=0,
    events=0,
    skew_s=0.1,
    spool_depth=0,
    drops=0,
    past_bucket_24h=0,
    refused_24h=0,
    flood_since=None,
    flood_messages_per_s=None,
    flood_reason=None,
    enrolled_at=NOW - 9 * DAY,
    first_heard_at=NOW - 8 * DAY,
    revoked_at=None,
    retired_at=None,
    epoch_at=NOW - 9 * DAY,
)
ACCOUNT = BrokerAccount(
    name="s1",
    has_password=True,
    tags=(TAG,),
    permissions={VHOST: permission()},
    topics={(VHOST, EXCHANGE): topic_permission("s1")},
    max_connections=limits(1)["max-connections"],
    max_channels=limits(1)["max-channels"],
)
CONNECTION = BrokerConnection("192.0.2.1:1 -> 5671", "s1", "192.0.2.1")


def row(**values: Any) -> SensorState:
    return ROW._replace(**values)


def account(**values: Any) -> BrokerAccount:
    return replace(ACCOUNT, **values)


SILENT = row(alive=False, heard_at=NOW - DAY)
REVOKED = row(alive=False, revoked_at=NOW)
RETIRED = row(alive=False, revoked_at=NOW, retired_at=NOW)
NEW = row(alive=None, heard_at=None, epoch_at=NOW - DAY)


@pytest.mark.parametrize(
    ("state", "of", "connected", "expected"),
    [
        (ROW, ACCOUNT, True, set()),
        (SILENT, ACCOUNT, False, {"silent"}),
        (NEW, ACCOUNT, False, set()),
        (row(alive=None, heard_at=None, epoch_at=NOW - 2 * DAY), ACCOUNT, False, {"not_heard"}),
        # A rotation begins anew: the old enrolment says nothing.
        (NEW._replace(enrolled_at=NOW - 99 * DAY), ACCOUNT, False, set()),
        (None, ACCOUNT, True, {"no_row"}),
        (ROW, None, False, {"no_account"}),
        (ROW, None, True, {"no_account", "revoked_connection"}),
        (None, None, True, {"revoked_connection"}),
        (REVOKED, None, False, set()),
        (REVOKED, None, True, {"revoked_connection"}),
        (REVOKED, ACCOUNT, False, {"revoked_account"}),
        (RETIRED, None, False, set()),
        # What was wrong with it when it was retired is no fault any more.
        (RETIRED._replace(drops=9, spool_depth=99_999, skew_s=999.0), None, False, set()),
        (RETIRED, ACCOUNT, True, {"revoked_account", "revoked_connection"}),
        (row(drops=1), ACCOUNT, True, {"drops"}),
        (row(spool_depth=20_001), ACCOUNT, True, {"spool"}),
        (row(spool_depth=20_000), ACCOUNT, True, set()),
        (row(skew_s=-60.5), ACCOUNT, True, {"skew"}),
        (row(skew_s=60.0), ACCOUNT, True, set()),
        (row(skew_s=None), ACCOUNT, True, set()),
        (row(refused_24h=1), ACCOUNT, True, {"refused"}),
        (
            row(flood_since=NOW, flood_messages_per_s=9.0, flood_reason="messages"),
            ACCOUNT,
            True,
            {"flood"},
        ),
        (ROW, account(permissions={}), True, {"rights"}),
        (ROW, account(topics={}), True, {"rights"}),
        (ROW, account(tags=(TAG, "administrator")), True, {"rights"}),
        (ROW, account(permissions={**ACCOUNT.permissions, "/": permission()}), True, {"rights"}),
        (ROW, account(max_connections=None), True, {"limits"}),
        (ROW, account(max_channels=None), True, {"limits"}),
        (ROW, account(max_channels=999), True, {"limits"}),
        # As the scripts for a broker without the management plugin write it.
        (
            ROW,
            account(
                topics={(VHOST, EXCHANGE): {"write": r"^observations\.s1$", "read": "^$"}},
            ),
            True,
            set(),
        ),
    ],
)
def test_each_state_of_a_sensor(
    state: SensorState | None, of: BrokerAccount | None, connected: bool, expected: set[str]
) -> None:
    report = SensorReport(
        name="s1", row=state, account=of, connections=(CONNECTION,) if connected else ()
    )
    every = list(faults([report], [], NOW, VHOST, Thresholds()))
    assert {one.fault for one in every} == expected
    assert all(one.name == "s1" and one.detail for one in every)
    assert expected <= FAULTS.keys()


def test_certificates_are_faults_before_they_end_and_after() -> None:
    def ends(name: str, kind: str, days: float) -> Validity:
        return Validity(name, kind, NOW - 300 * DAY, NOW + days * DAY, "aa")

    retired = SensorReport(name="s2", row=RETIRED)
    certificates = [
        ends("Example fleet", "authority", 100),
        ends("broker", "server", 29),
        ends("s1", "client", -1),
        ends("s2", "client", -1),
    ]
    every = list(faults([retired], certificates, NOW, VHOST, Thresholds()))
    assert [(one.name, one.fault) for one in every] == [
        ("broker", "certificate_expires"),
        ("s1", "certificate_expired"),
    ]
    assert list(faults([], certificates[:2], NOW, VHOST, Thresholds(certificate_days=7))) == []


def test_every_source_of_a_sensor_is_joined_and_no_other_account_is_one() -> None:
    """An administrator's account is no sensor; a connection without an account is shown."""
    refused_only = row(name="stranger", epoch=None)
    accounts = {
        "s1": ACCOUNT,
        "s2": account(name="s2"),
        "admin": account(name="admin", tags=("administrator",)),
        "script": account(name="script", tags=()),
    }
    connections = [
        CONNECTION,
        replace(CONNECTION, account="admin"),
        replace(CONNECTION, account="gone"),
    ]
    states = [ROW, row(name="script"), row(name="local"), refused_only]
    every = {one.name: one for one in reports(states, accounts, connections, [])}
    assert list(every) == ["gone", "local", "s1", "s2", "script"]
    assert (every["s1"].peers, every["s1"].login) == (["192.0.2.1"], "password")
    assert (every["s2"].state, every["local"].login) == ("unknown", None)
    assert every["script"].account is accounts["script"]


def test_the_help_names_every_fault() -> None:
    assert check.help is not None
    listed = check.help.split("The faults:")[1].split(".")[0]
    assert {name.strip() for name in listed.split(",")} == set(FAULTS)
