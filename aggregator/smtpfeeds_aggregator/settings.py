"""The aggregator's settings: one frozen dataclass, from which the reference page is made.

The module has more than 400 lines because the dataclass is the reference of all settings, one
field with its default, bounds and help for each. A program cannot create it with settings that
contradict each other.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from smtpfeeds_common import settings as common
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.host_port import parse_host_port
from smtpfeeds_common.logs import FORMATS, LEVELS
from smtpfeeds_common.settings import setting
from smtpfeeds_common.topology import QUEUE

#: Names the environment's variables: SMTPFEEDS_AGGREGATOR_<SETTING>.
PROGRAM: Final = "aggregator"
#: What a feed can be published as; the text, which all others are compared with, always is.
FEED_FORMATS: Final = (
    *("txt", "csv", "ndjson", "stix", "misp", "changes", "json", "intel", "addresses"),
)
_DEFAULT_FORMATS: Final = ("txt", "csv", "ndjson", "stix", "misp", "changes")


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSettings(common.Loaded):
    """Every setting of `smtpfeeds aggregator` and of the commands that ask the database."""

    dsn: str = setting(
        "",
        secret=True,
        help="PostgreSQL to use, as a libpq connection string or URL; it can contain several "
        "hosts, and `target_session_attrs=read-write` finds the primary among them",
    )
    dsn_password_file: str = setting(
        "", help="a file whose first line is the database password, if the DSN contains none"
    )
    publish_dsn: str = setting(
        "",
        secret=True,
        help="PostgreSQL for publishing, with a role of its own; empty: as in dsn",
    )
    publish_dsn_password_file: str = setting(
        "", help="a file whose first line is the password of publish_dsn, if that contains none"
    )
    broker: tuple[str, ...] = setting(
        (),
        secret=True,
        help="where batches come from: amqp:// or amqps:// addresses of one RabbitMQ cluster, "
        "tried in turn, or one `spool:DIR`, the folder of a sensor's spools on this host; in a "
        "password write # as %23, / as %2F, ? as %3F, @ as %40 and % as %25",
    )
    broker_password_file: str = setting(
        "", help="a file whose first line is the broker password, if the address contains none"
    )
    broker_ca_file: str = setting(
        "",
        help="PEM file: the certificates that sign the broker's; empty: the system's certificates",
    )
    queue: str = setting(
        QUEUE,
        help="the queue to consume; set another name for a shard that the operator has created",
    )
    seal_interval_s: float = setting(
        1.0,
        unit="seconds",
        minimum=0.05,
        maximum=60,
        help="with `spool:DIR`: how often the sensor's events are sealed",
    )
    feeds_dir: str = setting(
        "", help="publish the feeds below this directory; empty: this aggregator only ingests"
    )
    formats: tuple[str, ...] = setting(
        _DEFAULT_FORMATS,
        choices=FEED_FORMATS,
        help="formats of the published feeds; `txt` cannot be left out",
    )
    publish_interval_s: int = setting(
        3600,
        unit="seconds",
        minimum=1,
        maximum=86_400,
        help="publish at every multiple of this since midnight UTC",
    )
    publish_timeout_s: float = setting(
        1800,
        minimum=1,
        maximum=86_400,
        unit="seconds",
        help="end a scheduled publication that takes longer; the last good feeds stay, and the "
        "next multiple of publish_interval_s starts another",
    )
    publish_non_global: bool = setting(
        False,
        help="also publish addresses that IANA's special-purpose registries keep off the Internet",
    )
    publish_exact_counts: bool = setting(
        False,
        help="publish exact numbers of events, sensors and their addresses in place of lower "
        "bounds in steps; with exact numbers a scanner can find the sensors by probing in a "
        "pattern",
    )
    publish_max_drop_percent: float = setting(
        50,
        minimum=0,
        maximum=100,
        unit="percent",
        help="refuse to publish a feed of a hundred addresses or more that fell by more since the "
        "previous edition, or became empty, unless that edition is older than the feeds' 7 "
        "days",
    )
    publish_max_rise_percent: float = setting(
        1000,
        minimum=0,
        maximum=1_000_000,
        unit="percent",
        help="refuse to publish such a feed if it rose by more",
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
    archive_days: int = setting(
        30,
        minimum=0,
        maximum=3650,
        unit="days",
        help="editions kept in `archive/`, the last of each UTC day; 0: none",
    )
    misp_days: int = setting(
        30, minimum=9, maximum=3650, unit="days", help="past days kept in the MISP feed `misp/`"
    )
    signing_key_file: str = setting(
        "",
        help="sign each edition with this secret key of minisign, which `smtpfeeds publish keygen` "
        "creates; empty: editions are not signed",
    )
    generations_kept: int = setting(
        3, minimum=2, maximum=1000, help="published generations kept on disk"
    )
    origin_dir: str = setting(
        "",
        help="directory of origin tables that `smtpfeeds origin refresh` maintains; the newest is "
        "used",
    )
    origin_table: str = setting(
        "", help="a pyasn routeview table, plain or .gz, in place of origin_dir"
    )
    as_names: str = setting(
        "",
        help="AS names for origin_table: pyasn's JSON or RIPE's asn.txt, plain or .gz",
    )
    origin_index_dir: str = setting(
        "",
        help="directory for the index compiled from origin_table, which the next start and the "
        "commands use; empty: compile it each time",
    )
    origin_watch_s: int = setting(
        10,
        minimum=1,
        maximum=86_400,
        unit="seconds",
        help="how often a running aggregator checks for a new origin table",
    )
    origin_refresh_interval_s: int = setting(
        86_400,
        minimum=0,
        maximum=31_536_000,
        unit="seconds",
        help="fetch a new table into origin_dir this often (at least 3600); 0: only by command",
    )
    origin_refresh_jitter_s: int = setting(
        1800,
        minimum=0,
        maximum=86_400,
        unit="seconds",
        help="add a random delay of up to this, so that not all hosts fetch at once",
    )
    origin_rib_urls: tuple[str, ...] = setting(
        ("https://archive.routeviews.org/route-views4/bgpdata",),
        help="collectors' archives or mirrors of them, tried in turn; below each: YYYY.MM/RIBS/",
    )
    origin_names_urls: tuple[str, ...] = setting(
        (
            "https://ftp.ripe.net/ripe/asnames/asn.txt",
            "https://bgp.potaroo.net/cidr/autnums.html",
        ),
        help="lists of AS names, tried in turn: asn.txt, autnums.html or pyasn's JSON",
    )
    origin_user_agent: str = setting(
        "", help="User-Agent of a refresh; empty: smtpfeeds and its version"
    )
    origin_allow_http: bool = setting(
        False, help="also fetch over plain http:// from other hosts than this one"
    )
    origin_max_download_bytes: int = setting(
        2_000_000_000, minimum=1000, unit="bytes", help="a RIB may be this large"
    )
    origin_max_unpacked_bytes: int = setting(
        40_000_000_000, minimum=1000, unit="bytes", help="a RIB may unpack to this much"
    )
    origin_stall_timeout_s: int = setting(
        60,
        minimum=1,
        maximum=3600,
        unit="seconds",
        help="give up a fetch that receives nothing for this long",
    )
    origin_fetch_timeout_s: int = setting(
        3600, minimum=1, maximum=86_400, unit="seconds", help="a fetch may take this long"
    )
    origin_convert_timeout_s: int = setting(
        7200, minimum=1, maximum=86_400, unit="seconds", help="converting a RIB may take this long"
    )
    origin_max_bad_records: int = setting(
        1000,
        minimum=0,
        maximum=1_000_000,
        unit="records",
        help="refuse a RIB with more records than this without a prefix and an origin",
    )
    origin_min_prefixes_ipv4: int = setting(
        500_000, minimum=0, unit="prefixes", help="refuse a new table with fewer IPv4 prefixes"
    )
    origin_min_prefixes_ipv6: int = setting(
        100_000, minimum=0, unit="prefixes", help="refuse a new table with fewer IPv6 prefixes"
    )
    origin_min_origins: int = setting(
        50_000, minimum=0, unit="ASNs", help="refuse a new table with fewer origin ASNs"
    )
    origin_min_names: int = setting(
        50_000, minimum=0, unit="names", help="refuse a fetched list with fewer AS names"
    )
    origin_max_change_percent: float = setting(
        10.0,
        minimum=0,
        maximum=1_000_000,
        unit="percent",
        help="refuse a new table whose counts differ by more from the table in use",
    )
    origin_max_moved_percent: float = setting(
        5.0,
        minimum=0,
        maximum=100,
        unit="percent",
        help="refuse a new table that changes the origin of more of a fixed sample",
    )
    origin_max_age_days: int = setting(
        14, minimum=1, maximum=36_500, unit="days", help="refuse a new table that is older"
    )
    origin_known_answers: tuple[str, ...] = setting(
        (
            "8.8.8.8=15169",
            "1.1.1.1=13335",
            "193.0.6.139=3333",
            "2001:4860:4860::8888=15169",
        ),
        help="ADDRESS=ASN pairs that a new table must contain",
    )
    origin_allow_reserved: bool = setting(
        False,
        help="keep special-purpose prefixes and ASNs in refreshed tables, for a private network",
    )
    origin_load_timeout_s: int = setting(
        300,
        minimum=5,
        maximum=86_400,
        unit="seconds",
        help="compiling an origin table may take this long",
    )
    lists_dir: str = setting(
        "",
        help="directory of lists of scanners and mailers that `smtpfeeds lists refresh` "
        "maintains; empty: use the packaged lists and lists_files from memory",
    )
    lists_packaged: bool = setting(
        True, help="use the MISP warning lists of scanners and mailers that are installed"
    )
    lists_files: tuple[str, ...] = setting(
        (), help="files of your own lists: text with one prefix per line, or a MISP warning list"
    )
    lists_misp_url: str = setting(
        "", help="URL of newer MISP warning lists; below it: NAME/list.json"
    )
    lists_openfilters_url: str = setting(
        "", help="URL of OpenFilters' lists of scanners; below it: NAME_v4.txt, NAME_v6.txt"
    )
    lists_urls: tuple[str, ...] = setting((), help="URLs of further lists")
    lists_allow_http: bool = setting(
        False, help="also fetch lists over plain http:// from other hosts than this one"
    )
    lists_refresh_interval_s: int = setting(
        86_400,
        minimum=0,
        maximum=31_536_000,
        unit="seconds",
        help="refresh lists_dir this often (at least 3600); 0: only by command",
    )
    lists_refresh_jitter_s: int = setting(
        1800,
        minimum=0,
        maximum=86_400,
        unit="seconds",
        help="add a random delay of up to this, so that not all hosts fetch at once",
    )
    lists_fetch_timeout_s: int = setting(
        1800,
        minimum=10,
        maximum=86_400,
        unit="seconds",
        help="fetching all lists may take this long",
    )
    ingest_batch_messages: int = setting(
        50, minimum=1, maximum=1000, unit="messages", help="collect at most this many for a commit"
    )
    ingest_batch_rows: int = setting(
        25_000,
        minimum=1,
        maximum=1_000_000,
        unit="rows",
        help="collect at most about this many rows, of all kinds, for a commit",
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
        help="delete rows that were not seen for longer, once a day; longer than the feeds' 7 days",
    )
    database_timeout_s: float = setting(
        60,
        minimum=1,
        maximum=240,
        unit="seconds",
        help="give up a transaction that takes longer, with its connection, and try again; "
        "statements of publishing, `feed show` and `sensors purge` may take ten times as long",
    )
    addresses_per_prefix64: int = setting(
        64,
        minimum=1,
        maximum=1_000_000,
        unit="addresses",
        help="distinct addresses of an IPv6 /64 stored in a day; more are counted under the prefix",
    )
    addresses_per_prefix48: int = setting(
        1_024,
        minimum=1,
        maximum=16_777_216,
        unit="addresses",
        help="about how many distinct addresses of an IPv6 /48 are stored in a day; more are "
        "counted under it",
    )
    addresses_per_prefix32: int = setting(
        16_384,
        minimum=1,
        maximum=1_073_741_824,
        unit="addresses",
        help="about how many distinct addresses of an IPv6 /32 are stored in a day; more are "
        "counted under it",
    )
    new_addresses_per_day: int = setting(
        100_000,
        minimum=1_000,
        maximum=1_000_000_000,
        unit="addresses",
        help="how many addresses that no sensor reported before are stored for a sensor in a day, "
        "on average, and at most three times as many at once; more are counted under its "
        "account",
    )
    flood_messages_per_s: float = setting(
        50,
        minimum=1,
        maximum=1_000_000,
        unit="messages a second",
        help="report an account as flooding, without stopping it, when it sends more over ten "
        "seconds, or more than one refused message per second",
    )
    flood_bytes_per_s: float = setting(
        5_000_000,
        minimum=1000,
        maximum=10_000_000_000,
        unit="bytes a second",
        help="report an account as flooding when it sends more than this",
    )
    metrics_listen: str = setting(
        "", help="HOST:PORT of the Prometheus endpoint and of /health; empty: none"
    )
    log_level: str = setting("info", choices=LEVELS, help="lowest level that is logged")
    log_format: str = setting(
        "text", choices=FORMATS, help="log each event as a line of text or of JSON"
    )

    def __post_init__(self) -> None:
        """Check fields against each other."""
        if self.origin_dir and self.origin_table:
            raise SettingsError("give either origin_dir or origin_table, not both")
        if "txt" not in self.formats:
            raise SettingsError("formats: `txt` cannot be left out; add it to the list")
        if self.metrics_listen:
            parse_host_port(self.metrics_listen, setting="metrics_listen", example="127.0.0.1:9126")
        spools = [url for url in self.broker if url.startswith("spool:")]
        if spools and len(self.broker) > 1:
            raise SettingsError(
                "broker: `spool:DIR` must be the only entry; give one folder and no broker"
            )
        for number, url in enumerate(self.broker, 1):
            if not url.startswith(("amqp://", "amqps://", "spool:")):
                raise SettingsError(
                    f"broker: address {number} of {len(self.broker)} is neither amqp://…, "
                    "amqps://… nor spool:DIR"
                )

    @property
    def for_publishing(self) -> "AggregatorSettings":
        """These settings with the database as the part that publishes uses it."""
        if not self.publish_dsn:
            return self
        return replace(self, dsn=self.publish_dsn, dsn_password_file=self.publish_dsn_password_file)


def missing(name: str, purpose: str) -> SettingsError:
    """Return the error of a command that needs a setting of the aggregator."""
    return common.missing(name, purpose, program=PROGRAM)


def load(
    file: Path | None, *, database_file: Path | None = None, **flags: object
) -> AggregatorSettings:
    """Read the file, the environment and the flags.

    Args:
        file: the settings.
        database_file: a file whose dsn and dsn_password_file replace those of the first.
        flags: values from the command line.

    Raises:
        SettingsError: as `smtpfeeds_common.settings.load`; or database_file names no database.
    """
    settings = common.load(AggregatorSettings, program=PROGRAM, file=file, flags=flags)
    if database_file is None:
        return settings
    other = common.load(AggregatorSettings, program=PROGRAM, file=database_file, flags=flags)
    if not other.dsn:
        raise SettingsError(
            f"{database_file}: the setting 'dsn' is missing (which PostgreSQL to use): set it "
            "there, or remove the file to use that of the aggregator's settings"
        )
    return replace(settings, dsn=other.dsn, dsn_password_file=other.dsn_password_file)
