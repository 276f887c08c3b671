"""What is wrong with a fleet: the rules of `smtpfeeds fleet check`. Pure.

Each fault has a short name that does not change, for monitoring, and a sentence for the
person who reads the alarm. A retired sensor has no faults unless somebody uses its name.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from smtpfeeds_common.times import iso_utc

from .authority import WARN_DAYS, Validity
from .rights import wrong_limits, wrong_rights
from .state import SensorReport

#: An enrolled sensor is installed within a day, or nobody will.
_NOT_HEARD: Final = timedelta(days=1)
#: All names, and what each says; the reference and the help are made from it.
FAULTS: Final = {
    "silent": "no batch came in the last three minutes",
    "not_heard": "enrolled more than a day ago, and not heard yet",
    "no_row": "an account at the broker that the database does not know",
    "no_account": "no account at the broker, and neither revoked nor retired",
    "revoked_account": "revoked or retired, and the broker has its account",
    "revoked_connection": "revoked, retired or unknown, and connected",
    "rights": "the account's permissions are not those of a sensor",
    "limits": "the account's bounds are not those of a sensor",
    "certificate_expired": "a certificate has expired",
    "certificate_expires": "a certificate expires soon",
    "spool": "many rows wait in its spool",
    "drops": "its spool was full, and events were dropped",
    "skew": "its clock differs from the centre's",
    "refused": "messages of the last 24 hours were refused",
    "flood": "it sends too much now",
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on something is a fault."""

    certificate_days: int = WARN_DAYS
    #: Four full batches: a sensor that keeps up leaves none behind.
    spool_rows: int = 20_000
    drops: int = 0
    skew_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one sensor, or of a certificate that is no sensor's."""

    name: str
    fault: str
    detail: str


def faults(
    every: Iterable[SensorReport],
    certificates: Iterable[Validity],
    now: datetime,
    vhost: str,
    thresholds: Thresholds,
) -> Iterator[Fault]:
    """All faults, by sensor; then those of certificates.

    Args:
        every: the sensors.
        certificates: what the authority issued, and its own.
        now: UTC.
        vhost: of the sensors.
        thresholds: from where on something is a fault.
    """
    unused = set()
    for report in every:
        if report.state in {"revoked", "retired"} or report.account is None:
            unused.add(report.name)
        for fault, detail in _of_sensor(report, now, vhost, thresholds):
            yield Fault(report.name, fault, detail)
    for one in certificates:
        if one.kind != "client" or one.name not in unused:
            yield from _of_certificate(one, now, thresholds)


def _of_sensor(
    report: SensorReport, now: datetime, vhost: str, thresholds: Thresholds
) -> Iterator[tuple[str, str]]:
    if report.state in {"revoked", "retired"}:
        yield from _of_revoked(report)
        return
    yield from _of_account(report, vhost)
    yield from _of_row(report, now, thresholds)


def _of_revoked(report: SensorReport) -> Iterator[tuple[str, str]]:
    if report.account is not None:
        yield "revoked_account", f"it is {report.state}; `smtpfeeds fleet revoke {report.name}`"
    if report.connections:
        yield "revoked_connection", f"it is {report.state}; connected from {_peers(report)}"


def _of_account(report: SensorReport, vhost: str) -> Iterator[tuple[str, str]]:
    again = f"`smtpfeeds fleet enroll {report.name}` sets it again"
    if report.account is None:
        if report.row is not None:
            yield "no_account", f"{again}; or retire it"
        if report.connections:
            yield "revoked_connection", f"it has no account; connected from {_peers(report)}"
        return
    if report.row is None:
        yield "no_row", again
    if wrong := "; ".join(wrong_rights(report.account, vhost)):
        yield "rights", f"{wrong}; {again}"
    if wrong := "; ".join(wrong_limits(report.account)):
        yield "limits", f"{wrong}; {again}"


def _of_row(
    report: SensorReport, now: datetime, thresholds: Thresholds
) -> Iterator[tuple[str, str]]:
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
        yield "skew", f"its clock is {abs(row.skew_s):.0f} s {_way(row.skew_s)}"
    if row.refused_24h:
        yield "refused", f"{row.refused_24h} messages; `smtpfeeds sensors refusals {row.name}`"
    if row.flood_since is not None:
        yield "flood", f"since {iso_utc(row.flood_since)}, {row.flood_messages_per_s:.0f}/s"


def _of_certificate(
    certificate: Validity, now: datetime, thresholds: Thresholds
) -> Iterator[Fault]:
    what = f"the {certificate.kind}'s, {iso_utc(certificate.ends)}"
    if certificate.ends <= now:
        yield Fault(certificate.name, "certificate_expired", what)
    elif certificate.ends_within(now, thresholds.certificate_days):
        yield Fault(certificate.name, "certificate_expires", what)


def _peers(report: SensorReport) -> str:
    return ", ".join(report.peers)


def _way(seconds: float) -> str:
    return "ahead" if seconds > 0 else "behind"
