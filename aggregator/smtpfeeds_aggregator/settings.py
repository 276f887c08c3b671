"""The aggregator's settings: one frozen dataclass, from which the reference page is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpfeeds_common import settings as common
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.logs import FORMATS, LEVELS
from smtpfeeds_common.settings import setting

#: Names the environment's variables: SMTPFEEDS_AGGREGATOR_<SETTING>.
PROGRAM: Final = "aggregator"


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSettings:
    """What `smtpfeeds aggregator` and the commands that ask the database are told."""

    dsn: str = setting(
        "",
        help="PostgreSQL to use, as a libpq connection string or URL; several hosts may be named, "
        "and `target_session_attrs=read-write` finds the primary among them",
    )
    dsn_password_file: str = setting(
        "", help="a file whose first line is the database password, where the DSN has none"
    )
    broker: tuple[str, ...] = setting(
        (),
        help="where batches come from: amqp:// or amqps:// addresses of one RabbitMQ cluster, "
        "tried in turn, or one `spool:DIR`, the folder of a sensor's spools on this host",
    )
    broker_password_file: str = setting(
        "", help="a file whose first line is the broker password, where the address has none"
    )
    broker_ca_file: str = setting("", help="certificates that sign the broker's; else the system's")
    feeds_dir: str = setting(
        "", help="publish the feeds below this directory; empty: this aggregator only ingests"
    )
    publish_interval_s: int = setting(
        3600,
        unit="seconds",
        minimum=1,
        maximum=86_400,
        help="publish at every multiple of this since midnight UTC",
    )
    publish_non_global: bool = setting(
        False,
        help="also publish addresses that IANA's special-purpose registries keep off the Internet",
    )
    publisher_name: str = setting(
        "smtpfeeds", help="who publishes the feeds, named in each file's header"
    )
    publisher_contact: str = setting(
        "the operator of this site", help="where to ask about the feeds, in each file's header"
    )
    publisher_licence: str = setting(
        "CC0-1.0", help="the licence of the published feeds, in each file's header"
    )
    generations_kept: int = setting(
        3, minimum=2, maximum=1000, help="published generations kept on disk"
    )
    origin_dir: str = setting(
        "",
        help="directory of origin tables that `smtpfeeds origin refresh` keeps; the newest is used",
    )
    origin_table: str = setting(
        "", help="a pyasn routeview table, plain or .gz, in place of origin_dir"
    )
    as_names: str = setting(
        "",
        help="AS names beside origin_table: pyasn's JSON or RIPE's asn.txt, plain or .gz",
    )
    origin_watch_s: int = setting(
        10,
        minimum=1,
        maximum=86_400,
        unit="seconds",
        help="how often a running aggregator looks for a new origin table",
    )
    origin_load_timeout_s: int = setting(
        300,
        minimum=5,
        maximum=86_400,
        unit="seconds",
        help="making an origin table ready may take this long",
    )
    ingest_batch_messages: int = setting(
        50, minimum=1, maximum=1000, unit="messages", help="collect at most this many for a commit"
    )
    ingest_batch_rows: int = setting(
        50_000,
        minimum=1,
        maximum=1_000_000,
        unit="rows",
        help="collect at most about this many rows for a commit",
    )
    ingest_wait_ms: int = setting(
        200,
        minimum=1,
        maximum=10_000,
        unit="milliseconds",
        help="collect for at most this long",
    )
    retention_days: int = setting(
        30,
        minimum=8,
        maximum=3650,
        unit="days",
        help="rows unseen for longer are deleted; never under the 7 days of the feeds",
    )
    addresses_per_prefix64: int = setting(
        64,
        minimum=1,
        maximum=1_000_000,
        unit="addresses",
        help="distinct addresses of an IPv6 /64 stored in a day; more are counted under the prefix",
    )
    metrics_listen: str = setting(
        "", help="HOST:PORT of the Prometheus endpoint and of /health; empty: none"
    )
    log_level: str = setting("info", choices=LEVELS, help="least severe log lines written")
    log_format: str = setting("text", choices=FORMATS, help="form of a log line")

    def __post_init__(self) -> None:
        """Check what no single field can tell."""
        if self.origin_dir and self.origin_table:
            raise SettingsError("give either origin_dir or origin_table, not both")
        spools = [url for url in self.broker if url.startswith("spool:")]
        if spools and len(self.broker) > 1:
            raise SettingsError("broker: `spool:DIR` stands alone; name one folder and no broker")
        for url in self.broker:
            if not url.startswith(("amqp://", "amqps://", "spool:")):
                raise SettingsError(f"broker: {url!r} is neither amqp://…, amqps://… nor spool:DIR")


def load(file: Path | None, **flags: object) -> AggregatorSettings:
    """Read the file, the environment and the flags.

    Raises:
        SettingsError: as `smtpfeeds_common.settings.load`.
    """
    return common.load(AggregatorSettings, program=PROGRAM, file=file, flags=flags)
