"""RabbitMQ's settings for a fleet: TLS, client certificates, bounds.

It is separate because the file that `smtpfeeds fleet broker` writes is also what the
tests' brokers run with. Three files lie in RabbitMQ's folder:

    smtpfeeds-ca.pem          what clients trust, and the broker trusts of clients
    smtpfeeds-broker.pem      the broker's certificate with its private key
    conf.d/smtpfeeds.conf     its settings; RabbitMQ reads that folder after rabbitmq.conf

Certificate and key are in one file, so that a renewal is one rename: RabbitMQ reads it again by
itself, and never sees one without the other.

https://www.rabbitmq.com/docs/ssl
https://www.rabbitmq.com/docs/configure
"""

import os
import pwd
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import FleetError

from .authority import Authority, belong, validity
from .files import write_whole

#: Its name at the authority.
NAME: Final = "broker"
PLUGINS: Final = ("rabbitmq_management", "rabbitmq_auth_mechanism_ssl")
TRUSTED: Final = "smtpfeeds-ca.pem"
CERTIFICATE: Final = "smtpfeeds-broker.pem"
SETTINGS: Final = "conf.d/smtpfeeds.conf"
#: The user that RabbitMQ runs as, in all packages.
USER: Final = "rabbitmq"
#: For the server alone: the file holds its key.
_SECRET: Final = 0o400
#: Twice what an aggregator accepts, which refuses the rest by itself; RabbitMQ before 4 accepts
#: 128 MiB, with which a stolen account could fill the aggregator's memory.
MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024
#: RabbitMQ logs each connection, also of a stranger, who can open a thousand a second; by default
#: its log has no bound, and a full disk stops all sensors. Older files are numbered.
LOG_MAX_BYTES: Final = 50 * 1024 * 1024
LOG_FILES: Final = 10


def login_settings(trusted: Path, certificate: Path, key: Path) -> dict[str, str]:
    """Settings for TLS, with a password or a client certificate."""
    return {
        "ssl_options.cacertfile": str(trusted),
        "ssl_options.certfile": str(certificate),
        "ssl_options.keyfile": str(key),
        "ssl_options.versions.1": "tlsv1.3",
        "ssl_options.versions.2": "tlsv1.2",
        # A client may show a certificate, and log in with it; one that shows none has a password.
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "false",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "EXTERNAL",
        "ssl_cert_login_from": "common_name",
        "max_message_size": str(MESSAGE_MAX_BYTES),
    }


def log_settings() -> dict[str, str]:
    """Settings that bound RabbitMQ's log."""
    return {
        "log.file.rotation.size": str(LOG_MAX_BYTES),
        "log.file.rotation.count": str(LOG_FILES - 1),
    }


def settings(folder: Path) -> dict[str, str]:
    """Return all settings of a broker whose files are in this folder."""
    certificate = folder / CERTIFICATE
    return {
        # Without TLS, and for its administrators, only programs of this host.
        "listeners.tcp.local": "127.0.0.1:5672",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": "15672",
        "listeners.ssl.default": "5671",
        **login_settings(folder / TRUSTED, certificate, certificate),
        **log_settings(),
    }


def settings_text(values: Mapping[str, str]) -> str:
    """Settings as a file of RabbitMQ's."""
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    return f"# `smtpfeeds fleet broker` wrote this file, and writes it again.\n{lines}"


def write_broker(authority: Authority, hosts: Sequence[str], folder: Path, renew_days: int) -> bool:
    """Write the broker's files; one that is right stays as it is.

    Args:
        authority: issues the certificate.
        hosts: the names and addresses under which clients reach the broker.
        folder: RabbitMQ's own, such as /etc/rabbitmq.
        renew_days: a certificate that expires within this many days is replaced.

    Returns:
        Whether the settings changed, so that the broker must start again.

    Raises:
        FleetError: a file cannot be read or written.
    """
    try:
        _make_readable((folder / SETTINGS).parent)
        _write_changed(folder / TRUSTED, authority.certificate)
        certificate = folder / CERTIFICATE
        if not _is_right(certificate, authority, hosts, renew_days):
            issued = authority.issue_server(NAME, list(hosts))
            content = issued.certificate + issued.key
            write_whole(certificate, content, mode=_SECRET, owner=_reader())
        return _write_changed(folder / SETTINGS, settings_text(settings(folder)).encode())
    except OSError as exc:
        raise FleetError(f"cannot write the broker's files in {folder}: {exc}") from exc


def owner_of(path: Path) -> str:
    """Who owns the file, if that is not RabbitMQ's user; else an empty text."""
    try:
        name = path.owner()
    except KeyError:
        name = str(path.stat().st_uid)
    return "" if name == USER else name


def _is_right(path: Path, authority: Authority, hosts: Sequence[str], renew_days: int) -> bool:
    if not path.exists():
        return False
    content = path.read_bytes()
    # A damaged file is replaced: what it should hold is issued here.
    return (
        belong(content, content)
        and authority.fits(content, hosts)
        and not validity(content).ends_within(datetime.now(UTC), renew_days)
    )


def _make_readable(folder: Path) -> None:
    """Make a folder that RabbitMQ can read, whatever the umask; one that exists keeps its mode."""
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)


def _write_changed(path: Path, content: bytes) -> bool:
    """Write a file that differs; returns whether it did."""
    if path.exists() and path.read_bytes() == content:
        return False
    write_whole(path, content)
    return True


def _reader() -> int | None:
    """RabbitMQ's user, who reads the key; None where we may not give it a file."""
    try:
        return pwd.getpwnam(USER).pw_uid if os.geteuid() == 0 else None
    except KeyError:
        return None
