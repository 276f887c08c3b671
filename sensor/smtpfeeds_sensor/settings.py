"""The sensor's settings: one frozen dataclass, from which the reference page is made.

Every bound of the sensor is here with its default. The module has more than 400
lines because the dataclass is the reference of all settings, one field with its
bounds and help for each. Below it are the values that are read from settings, and
``check``, which compares settings with each other and opens and starts nothing.
"""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from smtpfeeds_common import settings as common
from smtpfeeds_common.addresses import pack_address, parse_network
from smtpfeeds_common.errors import AddressError, SettingsError
from smtpfeeds_common.host_port import MAX_PORT, parse_host_port
from smtpfeeds_common.logs import FORMATS, LEVELS
from smtpfeeds_common.settings import About, setting
from smtpfeeds_common.topology import check_sensor_name

#: Part of the names of environment variables: SMTPFEEDS_SENSOR_<SETTING>.
PROGRAM: Final = "sensor"
_MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSettings(common.Loaded):
    """Every setting of `smtpfeeds sensor`."""

    name: str = setting(
        help="the sensor's name, 1 to 63 of a-z, 0-9 and hyphen; also its account at the broker"
    )

    # Where it listens
    listen: tuple[str, ...] = setting(
        ("0.0.0.0:25", "[::]:25"),
        help='addresses to listen on: "192.0.2.1:25", "[2001:db8::1]:25", a prefix such as '
        '"192.0.2.0/28:25", both wildcards as "*:25", or "systemd:0" for a socket that systemd '
        'passes, by index ("systemd:*" for all)',
    )
    listen_free: bool = setting(
        default=False, help="listen also on addresses this host does not have yet (IP_FREEBIND)"
    )
    backlog: int = setting(
        1024,
        unit="connections",
        minimum=1,
        maximum=65_535,
        help="length of the kernel's queue for each listener",
    )
    user: str = setting(
        "", help="when started as root, become this user once the listeners are open"
    )
    workers: int = setting(
        1, unit="processes", minimum=1, maximum=64, help="processes that share the listeners"
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        help="networks whose connections must begin with a PROXY protocol header (v1 or v2); from "
        "everywhere else such a header is not SMTP",
    )
    ignore: tuple[str, ...] = setting(
        (), help="networks of your own monitors: the sensor answers them and counts nothing of them"
    )

    # Banners and replies
    hostname: str = setting(
        "", help="the name in the banner and in replies; empty: this host's own name"
    )
    persona: str = setting(
        "plain",
        help="which server the sensor imitates: plain, postfix, exim, exchange, or your own",
    )
    personas: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "about": About(
                help="by local address, or by a name for `persona`: a persona's name, or a table "
                "with `like`, `hostname`, `banner` (must hold the word ESMTP), `keywords` and "
                "`offer_auth`"
            )
        },
    )
    offer_auth: bool = setting(
        default=False,
        help="offer AUTH PLAIN and LOGIN; the sensor discards every response and answers 535",
    )
    public_addresses: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "about": About(
                help="behind a NAT: by local address, the address to which clients connect; a "
                "client that uses it as a name sets a behaviour"
            )
        },
    )
    data_policy: str = setting(
        "reject",
        choices=("reject", "drain"),
        help="at DATA: `reject` refuses at once; `drain` reads and discards the content and "
        "refuses at its end; a message is never accepted",
    )
    policy_url: str = setting(
        "", help="a URL in the refusal where a person can read the reason; recommended"
    )
    banner_delay_s: float = setting(
        0.0,
        unit="seconds",
        minimum=0,
        maximum=30,
        help="wait this long before the banner; a client that speaks first is an early talker",
    )
    tls: str = setting(
        "off",
        choices=("off", "made", "files"),
        help="STARTTLS: `off`: not offered; `made`: with a self-signed certificate, created at "
        "the start; `files`: with `tls_certificate` and `tls_key`",
    )
    tls_certificate: str = setting(
        "", help="PEM file: the certificate and the certificates that signed it"
    )
    tls_key: str = setting("", help="PEM file: the certificate's private key")

    # Bounds
    idle_timeout_s: int = setting(
        60,
        unit="seconds",
        minimum=1,
        maximum=3600,
        help="close a connection when the client sends nothing for this long",
    )
    session_timeout_s: int = setting(
        180,
        unit="seconds",
        minimum=1,
        maximum=86_400,
        help="close a connection after this long in all",
    )
    max_connections: int = setting(
        10_000, unit="connections", minimum=1, maximum=1_000_000, help="open at once, in all"
    )
    max_connections_per_source: int = setting(
        100,
        unit="connections",
        minimum=1,
        maximum=1_000_000,
        help="open at once from one IPv4 address or one IPv6 /64",
    )
    max_accepts_per_s: int = setting(
        20_000,
        unit="connections a second",
        minimum=1,
        maximum=1_000_000,
        help="new connections accepted per second; more are closed at once",
    )
    max_tls_connections: int = setting(
        1000,
        unit="connections",
        minimum=1,
        maximum=1_000_000,
        help="connections in TLS at once; more get 454",
    )
    max_line_bytes: int = setting(
        2048,
        unit="octets",
        minimum=512,
        maximum=65_536,
        help="length of a command line with its line end",
    )
    max_content_bytes: int = setting(
        10 * _MB,
        unit="octets",
        minimum=1024,
        maximum=1024 * _MB,
        help="content of a connection by DATA (drain) and BDAT that is read and discarded; then "
        "the connection ends",
    )
    max_commands: int = setting(
        500,
        unit="commands",
        minimum=10,
        maximum=100_000,
        help="commands answered in one connection; then it ends",
    )
    max_unknown_commands: int = setting(
        10,
        unit="commands",
        minimum=1,
        maximum=1000,
        help="unknown or empty lines in one connection; then it ends",
    )
    max_unsent_bytes: int = setting(
        16_384,
        unit="octets",
        minimum=0,
        maximum=_MB,
        help="replies that a client leaves unread past the kernel's buffer; then the connection "
        "is dropped",
    )

    # Spool
    spool_dir: str = setting(
        "/var/lib/smtpfeeds/spool", help="folder of the spool, a file for each worker"
    )
    spool_max_mb: int = setting(
        512, unit="MB", minimum=1, maximum=1_000_000, help="size of one spool file"
    )
    spool_memory_rows: int = setting(
        100_000,
        unit="rows",
        minimum=100,
        maximum=10_000_000,
        help="addresses kept in memory while the file cannot be written",
    )
    retention_days: int = setting(
        30,
        unit="days",
        minimum=7,
        maximum=365,
        help="at the bound of the spool, rows that were not seen for longer are deleted first",
    )
    replay_hours: int = setting(
        24,
        unit="hours",
        minimum=0,
        maximum=720,
        help="how long confirmed batches are kept for a replay",
    )

    # Broker
    broker: tuple[str, ...] = setting(
        (),
        secret=True,
        help="amqp:// or amqps:// addresses of one RabbitMQ cluster, tried in turn; in a password "
        "write # as %23, / as %2F, ? as %3F, @ as %40 and % as %25; empty: an aggregator on this "
        "host reads the spool",
    )
    broker_password: str = setting(
        "", secret=True, help="the account's password, if the address contains none"
    )
    broker_password_file: str = setting(
        "", help="a file whose first line is the account's password"
    )
    broker_ca_file: str = setting(
        "",
        help="PEM file: the certificates that sign the broker's; empty: the system's certificates",
    )
    broker_certificate_file: str = setting(
        "",
        help="PEM file: a client certificate for the broker; without a password it is the login, "
        "and its common name is the account",
    )
    broker_key_file: str = setting("", help="PEM file: the client certificate's key")
    seal_interval_s: float = setting(
        1.0, unit="seconds", minimum=0.05, maximum=3600, help="how often a batch is sealed and sent"
    )
    alive_interval_s: float = setting(
        60.0,
        unit="seconds",
        minimum=1,
        maximum=3600,
        help="send an empty batch after this long without an event",
    )
    confirm_timeout_s: float = setting(
        30.0, unit="seconds", minimum=1, maximum=600, help="wait for the broker's confirm"
    )
    heartbeat_s: int = setting(
        30, unit="seconds", minimum=5, maximum=600, help="AMQP heartbeat to request"
    )
    backoff_max_s: float = setting(
        60.0, unit="seconds", minimum=1, maximum=3600, help="longest wait between two attempts"
    )

    # Operation
    clock_steady_s: float = setting(
        120.0,
        unit="seconds",
        minimum=0,
        maximum=86_400,
        help="after a step of the host's clock by more than a minute, keep events without a date "
        "and seal nothing until the clock has run steadily for this long",
    )
    metrics_listen: str = setting(
        "",
        help='Prometheus endpoint, such as "127.0.0.1:9125" (worker N: port + N - 1); empty: off',
    )
    state_interval_s: float = setting(
        10.0,
        unit="seconds",
        minimum=1,
        maximum=600,
        help="how often the counters are written to the spool",
    )
    log_level: str = setting("info", choices=LEVELS, help="lowest level that is logged")
    log_format: str = setting(
        "text", choices=FORMATS, help="log each event as a line of text or of JSON"
    )

    def secret(self) -> str:
        """Return the account's password; empty if the address contains it.

        Raises:
            SettingsError: the password file cannot be read.
        """
        return common.read_secret(
            self.broker_password, self.broker_password_file, name="broker_password_file"
        )


def host_name(settings: SensorSettings) -> str:
    """Return the host name that the sensor shows."""
    return settings.hostname or socket.getfqdn()


def load(
    file: Path | None = None, flags: dict[str, Any] | None = None, *, look_at_files: bool = True
) -> SensorSettings:
    """Read the settings, and check what can be checked without opening a socket.

    Args:
        file: the settings file.
        flags: values of the command line.
        look_at_files: also check that the files they name can be read.

    Raises:
        SettingsError: a setting is unknown, missing, out of range, or contradicts another.
    """
    loaded = common.load(SensorSettings, program=PROGRAM, file=file, flags=flags)
    with common.located(loaded):
        check(loaded)
        if look_at_files:
            check_files(loaded)
    return loaded


def check(settings: SensorSettings) -> None:
    """Check names, prefixes and combinations of settings.

    Raises:
        SettingsError: a setting is wrong; the message names it, the reason, and a correct form.
    """
    try:
        check_sensor_name(settings.name)
    except SettingsError as exc:
        raise SettingsError(f"name: {exc.message}") from exc
    for key in ("trusted_proxies", "ignore"):
        for text in getattr(settings, key):
            try:
                parse_network(text)
            except AddressError as exc:
                raise SettingsError(f"{key}: {exc.message}") from exc
    read_public_addresses(settings)
    if settings.session_timeout_s < settings.idle_timeout_s:
        raise SettingsError(
            "session_timeout_s: it is less than idle_timeout_s, so no session ever reaches it"
        )
    _check_word("hostname", settings.hostname)
    _check_word("policy_url", settings.policy_url)
    _check_metrics_ports(settings)
    if settings.tls == "files":
        for key in ("tls_certificate", "tls_key"):
            if not getattr(settings, key):
                raise SettingsError(f'tls: "files" needs {key}')


def check_files(settings: SensorSettings) -> None:
    """Check that the files that the settings name can be read.

    Raises:
        SettingsError: a file cannot be read; the message names it.
    """
    names = ["broker_ca_file", "broker_certificate_file", "broker_key_file"]
    if settings.tls == "files":
        names += ["tls_certificate", "tls_key"]
    for name in names:
        path = getattr(settings, name)
        if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
            raise SettingsError(f"{name}: cannot read {path}")
    settings.secret()


def _check_metrics_ports(settings: SensorSettings) -> None:
    """Check the ports: worker N listens on the port plus N - 1."""
    if not settings.metrics_listen:
        return
    _, port = parse_host_port(
        settings.metrics_listen, setting="metrics_listen", example="127.0.0.1:9125"
    )
    highest = MAX_PORT - settings.workers + 1
    if port > highest:
        raise SettingsError(
            f"metrics_listen: {settings.workers} workers listen on {port} and the ports behind it; "
            f"the highest possible is {highest}"
        )


def read_public_addresses(settings: SensorSettings) -> dict[bytes, bytes]:
    """Return the setting public_addresses, packed.

    Raises:
        SettingsError: a key or a value is not an address.
    """
    try:
        return {
            pack_address(local): pack_address(str(public))
            for local, public in settings.public_addresses.items()
        }
    except AddressError as exc:
        raise SettingsError(f"public_addresses: {exc.message}") from exc


def _check_word(key: str, text: str) -> None:
    """Check for one printable ASCII word: anything else could end a reply early."""
    if len(text) > 255 or any(not "!" <= char <= "~" for char in text):
        raise SettingsError(f"{key}: {text!r} must be one printable ASCII word, 255 at most")
