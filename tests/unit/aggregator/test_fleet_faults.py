"""The rules of `smtpfeeds fleet check`: the fault for each state of a sensor, and the bounds."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from smtpfeeds_aggregator.cli.fleet_state import check
from smtpfeeds_aggregator.fleet.authority import Validity
from smtpfeeds_aggregator.fleet.faults import FaultName, Thresholds, faults
from smtpfeeds_aggregator.fleet.management import BrokerConnection
from smtpfeeds_aggregator.fleet.rights import (
    TAG,
    BrokerAccount,
    limits,
    permission,
    topic_permission,
)
from smtpfeeds_aggregator.fleet.state import SensorReport, reports
from smtpfeeds_aggregator.store.status import SensorState
from smtpfeeds_common.topology import EXCHANGE

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = timedelta(days=1)
VHOST = "smtpfeeds"
#: By name, of the command's options.
DEFAULTS: dict[str, Any] = {str(option.name): option.default for option in check.params}
THRESHOLDS = Thresholds(**{field.name: DEFAULTS[field.name] for field in fields(Thresholds)})
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "fleet.md"
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
    ("sensor_row", "broker_account", "connected", "expected"),
    [
        (ROW, ACCOUNT, True, set()),
        (SILENT, ACCOUNT, False, {"silent"}),
        (NEW, ACCOUNT, False, set()),
        (row(alive=None, heard_at=None, epoch_at=NOW - 2 * DAY), ACCOUNT, False, {"not_heard"}),
        # The day counts from the rotation, not from the enrolment.
        (NEW._replace(enrolled_at=NOW - 99 * DAY), ACCOUNT, False, set()),
        (None, ACCOUNT, True, {"no_row"}),
        (ROW, None, False, {"no_account"}),
        (ROW, None, True, {"no_account", "revoked_connection"}),
        (None, None, True, {"revoked_connection"}),
        (REVOKED, None, False, set()),
        (REVOKED, None, True, {"revoked_connection"}),
        (REVOKED, ACCOUNT, False, {"revoked_account"}),
        (RETIRED, None, False, set()),
        # What was wrong with it when it was retired is not a fault any more.
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
def test_each_state_of_a_sensor_has_its_fault(
    sensor_row: SensorState | None,
    broker_account: BrokerAccount | None,
    connected: bool,
    expected: set[FaultName],
) -> None:
    report = SensorReport(
        name="s1",
        row=sensor_row,
        account=broker_account,
        connections=(CONNECTION,) if connected else (),
    )
    results = list(faults([report], [], NOW, VHOST, THRESHOLDS))
    assert {result.fault for result in results} == expected
    assert all(result.name == "s1" and result.detail for result in results)


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
    results = list(faults([retired], certificates, NOW, VHOST, THRESHOLDS))
    assert [(result.name, result.fault) for result in results] == [
        ("broker", "certificate_expires"),
        ("s1", "certificate_expired"),
    ]
    within_a_week = replace(THRESHOLDS, certificate_days=7)
    assert list(faults([], certificates[:2], NOW, VHOST, within_a_week)) == []


def test_report_joins_all_sources_and_only_sensor_accounts() -> None:
    """An administrator's account is not a sensor; a connection without an account is reported."""
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
    by_name = {
        report.name: report for report in reports(states, accounts, connections, [], {"s1": 7})
    }
    assert list(by_name) == ["gone", "local", "s1", "s2", "script"]
    assert (by_name["s1"].peers, by_name["s1"].login) == (["192.0.2.1"], "password")
    assert (by_name["s1"].uncommitted, by_name["s2"].uncommitted) == (7, None)
    assert (by_name["s2"].state, by_name["local"].login) == ("unknown", None)
    assert by_name["script"].account is accounts["script"]


def test_help_and_page_name_every_fault() -> None:
    assert check.help is not None
    listed = check.help.split("The faults:")[1].split(".")[0]
    assert {name.strip() for name in listed.split(",")} == set(get_args(FaultName))
    page = PAGE.read_text()
    assert [name for name in get_args(FaultName) if f"`{name}`" not in page] == []
