"""What is wrong with a fleet: the rules of `smtpfeeds fleet check`. Pure.

Each fault has a short name that does not change, for monitoring, and a sentence for the
person who reads the alarm. A retired sensor has no faults unless its account is in use.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from smtpfeeds_common.times import iso_utc

from .authority import Validity
from .rights import wrong_limits, wrong_rights
from .state import SensorReport

#: A sensor is usually installed on the day of its enrolment.
_NOT_HEARD: Final = timedelta(days=1)
_NO_EXTERNAL: Final = (
    "it logs in with a certificate, and the broker accepts none: `smtpfeeds fleet broker` on the "
    "broker's host"
)
#: The names; docs/how-to/fleet.md says what each means.
FaultName: TypeAlias = Literal[
    "silent",
    "not_heard",
    "no_row",
    "no_account",
    "revoked_account",
    "revoked_connection",
    "rights",
    "limits",
    "no_external",
    "certificate_expired",
    "certificate_expires",
    "spool",
    "drops",
    "skew",
    "refused",
    "flood",
    "transaction",
]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The bounds; past each of them is a fault. `fleet check` has the defaults."""

    certificate_days: int
    spool_rows: int
    drops: int
    skew_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one sensor, or of another certificate."""

    #: Of the sensor or the certificate.
    name: str
    fault: FaultName
    detail: str


def faults(
    sensors: Iterable[SensorReport],
    certificates: Iterable[Validity],
    now: datetime,
    vhost: str,
    thresholds: Thresholds,
    *,
    accepts_certificates: bool = True,
) -> Iterator[Fault]:
    """Return all faults, by sensor; then those of certificates.

    Args:
        sensors: what is known of each.
        certificates: the authority's, and those that it issued.
        now: UTC.
        vhost: the sensors' virtual host.
        thresholds: the bounds.
        accepts_certificates: whether the broker does.
    """
    unused = set()
    for report in sensors:
        if report.state in {"revoked", "retired"} or report.account is None:
            unused.add(report.name)
        for fault, detail in _sensor_faults(report, now, vhost, thresholds):
            yield Fault(report.name, fault, detail)
        if report.login == "certificate" and not accepts_certificates:
            yield Fault(report.name, "no_external", _NO_EXTERNAL)
    for certificate in certificates:
        if certificate.kind != "client" or certificate.name not in unused:
            yield from _certificate_faults(certificate, now, thresholds)


def _sensor_faults(
    report: SensorReport, now: datetime, vhost: str, thresholds: Thresholds
) -> Iterator[tuple[FaultName, str]]:
    if report.state in {"revoked", "retired"}:
        yield from _revoked_faults(report)
        return
    yield from _account_faults(report, vhost)
    yield from _row_faults(report, now, thresholds)


def _revoked_faults(report: SensorReport) -> Iterator[tuple[FaultName, str]]:
    if report.account is not None:
        yield "revoked_account", f"it is {report.state}; `smtpfeeds fleet revoke {report.name}`"
    if report.connections:
        yield "revoked_connection", f"it is {report.state}; connected from {_peers(report)}"


def _account_faults(report: SensorReport, vhost: str) -> Iterator[tuple[FaultName, str]]:
    repair = f"`smtpfeeds fleet enroll {report.name}` sets it again"
    if report.account is None:
        if report.row is not None:
            yield "no_account", f"{repair}; or retire it"
        if report.connections:
            yield "revoked_connection", f"it has no account; connected from {_peers(report)}"
        return
    if report.row is None:
        yield "no_row", repair
    if wrong := "; ".join(wrong_rights(report.account, vhost)):
        yield "rights", f"{wrong}; {repair}"
    if wrong := "; ".join(wrong_limits(report.account)):
        yield "limits", f"{wrong}; {repair}"
    if report.uncommitted is not None:
        held = f"it holds {report.uncommitted} messages in the broker's memory"
        revoke = f"`smtpfeeds fleet revoke {report.name}`"
        yield "transaction", f"{held}, which no sensor does: {revoke}"


def _row_faults(
    report: SensorReport, now: datetime, thresholds: Thresholds
) -> Iterator[tuple[FaultName, str]]:
    row = report.row
    if row is None:
        return
    if row.state == "silent" and row.heard_at is not None:
        yield "silent", f"since {iso_utc(row.heard_at)}"
    if row.state == "enrolled" and row.epoch_at is not None and now - row.epoch_at > _NOT_HEARD:
        yield "not_heard", f"its epoch {row.epoch} began {iso_utc(row.epoch_at)}"
    if row.spool_depth > thresholds.spool_rows:
        yield "spool", f"{row.spool_depth} rows wait"
    if row.drops > thresholds.drops:
        yield "drops", f"{row.drops} events since its spool was created"
    if row.skew_s is not None and abs(row.skew_s) > thresholds.skew_s:
        yield "skew", f"its clock is {abs(row.skew_s):.0f} s {_direction(row.skew_s)}"
    if row.refused_24h:
        yield "refused", f"{row.refused_24h} messages; `smtpfeeds sensors refusals {row.name}`"
    if row.flood_since is not None:
        yield "flood", f"since {iso_utc(row.flood_since)}, {row.flood_messages_per_s:.0f}/s"


def _certificate_faults(
    certificate: Validity, now: datetime, thresholds: Thresholds
) -> Iterator[Fault]:
    detail = f"the {certificate.kind}'s, {iso_utc(certificate.ends)}"
    if certificate.ends <= now:
        yield Fault(certificate.name, "certificate_expired", detail)
    elif certificate.ends_within(now, thresholds.certificate_days):
        yield Fault(certificate.name, "certificate_expires", detail)


def _peers(report: SensorReport) -> str:
    return ", ".join(report.peers)


def _direction(seconds: float) -> str:
    return "ahead" if seconds > 0 else "behind"
