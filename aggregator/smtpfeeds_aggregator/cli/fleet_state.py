"""`smtpfeeds fleet list`, `show` and `check`: show what broker, database and authority know."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from smtpfeeds_common.answers import Form, format_options, note, write_record, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import FleetError

from .database import connected
from .fleet_accounts import check_name
from .fleet_options import CA_FOLDER, ca_option, management_options
from .options import EXIT_CODES, database_options
from .sensors import flood_of, state_colour

if TYPE_CHECKING:
    from ..fleet.authority import Validity
    from ..fleet.management import Management
    from ..fleet.state import SensorReport
    from ..settings import AggregatorSettings
    from ..store.fleet import SensorDetail

_STATE: Final = Column(
    "state",
    help="as in `smtpfeeds sensors`; unknown: the database does not know it",
    colour=state_colour,
)
_LIST: Final = (
    Column("name", least=12),
    _STATE,
    Column("login", help="`password` or `certificate`; null: no account at the broker", rank=1),
    Column("epoch", "integer", "the number of its account's epoch", rank=4),
    Column("last_heard", "time"),
    Column("version", rank=3),
    Column("connections", "integer", "open at the broker now"),
    Column("peers", "texts", "the addresses of those connections", least=12, rank=2),
)
_CARD: Final = (
    Column("name"),
    _STATE,
    Column("enrolled", "time", "when the database first knew it"),
    Column("first_heard", "time"),
    Column("last_heard", "time", "in its current epoch"),
    Column("revoked", "time", "when its account was deleted"),
    Column("retired", "time", "when it was taken out of service"),
    Column("version"),
    Column("epoch", "integer", "the number of its account's epoch"),
    Column("epoch_began", "time"),
    Column("last_client", help="the newest client that it reported"),
    Column("last_client_at", "time"),
    Column("events_24h", "integer"),
    Column("events", "integer", "all that are kept"),
    Column("addresses", "integer", "how many it listens on; 0: not known"),
    Column("skew_s", "number", "its clock minus the centre's at the last batch"),
    Column("spool_depth", "integer", "rows that wait in its spool"),
    Column("drops", "integer", "events that it dropped"),
    Column("counters", "object", "the sensor's own, since it started; without those that are 0"),
    Column("refused_24h", "integer", "its messages that the centre refused"),
    Column("refused", "object", "those messages by reason"),
    Column("flood", help="the rates of its account that are too high now"),
    Column("login", help="`password` or `certificate`; null: no account at the broker"),
    Column("rights", "texts", "what is wrong with the account's permissions"),
    Column("limits", "object", "connections and channels that the account may have"),
    Column("connections", "integer", "open at the broker now"),
    Column("peers", "texts", "the addresses of those connections"),
    Column("certificate_expires", "time", "null: it has no client certificate"),
)
_FAULTS: Final = (
    Column("name", help="the sensor's, or a certificate's", least=12),
    Column("fault", help="a name that does not change"),
    Column("detail", help="what it is, and what to do", least=20),
)
#: The command found faults: the answer to "is everything right?" is no.
_FAULTY: Final = 1


@dataclass(frozen=True, slots=True)
class _Fleet:
    reports: "list[SensorReport]"
    certificates: "list[Validity]"


@click.command("list", epilog=EXIT_CODES, short_help="List the sensors of the fleet.")
@click.option("--operator", default="", metavar="PREFIX", help="Only names that begin so.")
@format_options(_LIST)
@management_options
@database_options
def list_sensors(
    settings: "AggregatorSettings", management: "Management", operator: str, form: Form
) -> None:
    """List the sensors: their accounts at the broker, and when the centre last heard them.

    State: alive, silent, enrolled (not heard yet), revoked, retired; unknown: an account that the
    database does not know. Times are UTC.

    \b
    Example:
      smtpfeeds fleet list --operator acme-
    """
    records = (
        {
            "name": report.name,
            "state": report.state,
            "login": report.login,
            "epoch": None if report.row is None else report.row.epoch,
            "last_heard": None if report.row is None else report.row.heard_at,
            "version": None if report.row is None else report.row.version or None,
            "connections": len(report.connections),
            "peers": report.peers,
        }
        for report in _fleet(settings, management, None).reports
        if report.name.startswith(operator)
    )
    write_records(records, form, "no sensor is enrolled")


@click.command("show", epilog=EXIT_CODES, short_help="Show everything about one sensor.")
@click.argument("name")
@format_options(_CARD)
@ca_option
@management_options
@database_options
def show(
    settings: "AggregatorSettings",
    management: "Management",
    ca_folder: Path,
    name: str,
    form: Form,
) -> None:
    """Show everything that broker, database and authority know about the sensor NAME.

    Times are UTC.

    \b
    Examples:
      smtpfeeds fleet show acme-berlin
      smtpfeeds fleet show acme-berlin --json
    """
    from ..store.fleet import FleetStore

    check_name(name)
    reports = _fleet(settings, management, ca_folder).reports
    report = next((each for each in reports if each.name == name), None)
    if report is None:
        note(f"there is no sensor {name!r}; `smtpfeeds fleet list` lists them")
        raise click.exceptions.Exit(1)
    detail = None
    if report.row is not None and report.row.epoch is not None:
        with connected(settings, long=True) as connection:
            detail = FleetStore(connection).detail(name, report.row.epoch)
    record = _card(report, detail, management.vhost)
    write_record(record, form if form.chosen or not form.is_table else _known(form, record))


@click.command("check", short_help="Find faults, for monitoring.")
@click.option(
    "--certificate-days",
    type=click.IntRange(0, 3_650),
    default=30,
    show_default=True,
    help="A certificate that expires within this many days is a fault.",
)
@click.option(
    "--spool-rows",
    type=click.IntRange(0),
    default=20_000,
    show_default=True,
    # Four full batches: a sensor that delivers as fast as it hears has fewer.
    help="More rows than this in a spool are a fault.",
)
@click.option(
    "--drops",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="More dropped events than this are a fault: raise it once you know the reason.",
)
@click.option(
    "--skew-s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="A clock that differs by more than this many seconds is a fault.",
)
@click.option("--operator", default="", metavar="PREFIX", help="Only names that begin so.")
@format_options(_FAULTS)
@ca_option
@management_options
@database_options
def check(
    settings: "AggregatorSettings",
    management: "Management",
    ca_folder: Path,
    certificate_days: int,
    spool_rows: int,
    drops: int,
    skew_s: float,
    operator: str,
    form: Form,
) -> None:
    """Find faults of the fleet: print one line for each, and nothing if there are none.

    The faults: silent, not_heard, no_row, no_account, revoked_account, revoked_connection, rights,
    limits, no_external, certificate_expired, certificate_expires, spool, drops, skew, refused,
    flood, transaction.

    Exit codes: 0 no fault, 1 faults, 2 wrong use, 3 no answer, because the broker or the database
    cannot be reached.

    \b
    Examples:
      smtpfeeds fleet check
      smtpfeeds fleet check --json --operator acme-
    """
    from ..fleet.faults import Thresholds, faults

    fleet = _fleet(settings, management, ca_folder, with_channels=True)
    problems = faults(
        fleet.reports,
        fleet.certificates,
        datetime.now(UTC),
        management.vhost,
        Thresholds(certificate_days, spool_rows, drops, skew_s),
        accepts_certificates=management.accepts_certificates(),
    )
    records = [
        {"name": each.name, "fault": each.fault, "detail": each.detail}
        for each in problems
        if each.name.startswith(operator)
    ]
    if not records:
        if form.format == "json":
            click.echo("[]")
        return
    write_records(records, form, "")
    raise click.exceptions.Exit(_FAULTY)


def _fleet(
    settings: "AggregatorSettings",
    management: "Management",
    ca_folder: Path | None,
    *,
    with_channels: bool = False,
) -> _Fleet:
    from ..fleet.state import reports
    from ..store.status import StatusStore

    # Read the database first: a sensor that is enrolled in between then has an account without a
    # row, which is no fault.
    with connected(settings) as connection:
        states = StatusStore(connection).sensors()
    certificates = [] if ca_folder is None else _certificates(ca_folder)
    accounts, connections = management.accounts(), management.connections()
    # Only `check` needs them, and a large fleet has a channel for each worker.
    uncommitted = management.uncommitted() if with_channels else {}
    return _Fleet(reports(states, accounts, connections, certificates, uncommitted), certificates)


def _certificates(ca_folder: Path) -> "list[Validity]":
    """Return the issued certificates; a monitoring user may lack the right to read the default
    folder.
    """
    from ..fleet.authority import validities

    try:
        return list(validities(ca_folder))
    except FleetError as exc:
        if ca_folder != Path(CA_FOLDER):
            raise
        note(f"certificates are not checked: {exc.message}")
        return []


def _card(report: "SensorReport", detail: "SensorDetail | None", vhost: str) -> dict[str, Any]:
    from ..fleet.rights import wrong_rights

    row, account = report.row, report.account
    record: dict[str, Any] = dict.fromkeys(column.name for column in _CARD)
    record |= {
        "name": report.name,
        "state": report.state,
        "login": report.login,
        "connections": len(report.connections),
        "peers": report.peers,
        "certificate_expires": None if report.certificate is None else report.certificate.ends,
    }
    if account is not None:
        record["rights"] = list(wrong_rights(account, vhost))
        record["limits"] = {
            "connections": account.max_connections,
            "channels": account.max_channels,
        }
    if row is not None:
        record |= {
            "enrolled": row.enrolled_at,
            "first_heard": row.first_heard_at,
            "last_heard": row.heard_at,
            "revoked": row.revoked_at,
            "retired": row.retired_at,
            "version": row.version or None,
            "epoch": row.epoch,
            "epoch_began": row.epoch_at,
            "events_24h": row.events_24h,
            "events": row.events,
            "skew_s": None if row.skew_s is None else round(row.skew_s, 1),
            "spool_depth": row.spool_depth,
            "drops": row.drops,
            "refused_24h": row.refused_24h,
            "flood": flood_of(row),
        }
    if detail is not None:
        record |= {
            "last_client": detail.last_client,
            "last_client_at": detail.last_client_at,
            "addresses": detail.addresses,
            "counters": {name: count for name, count in detail.counters.items() if count},
            "refused": detail.refused,
        }
    return record


def _known(form: Form, record: dict[str, Any]) -> Form:
    """Return the form without the lines that have no value."""
    names = [column.name for column in _CARD if record[column.name] not in (None, [], {})]
    return Form(form.format, tuple(column for column in form.columns if column.name in names))
