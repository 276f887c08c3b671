"""Check the settings without a connection.

The check tries to use folders and files, because permissions are not enough: a file system can be
read-only, and root may do everything. It leaves nothing behind.
"""

import os
import tempfile
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path
from typing import Final

from smtpfeeds_common.certificates import iso_day
from smtpfeeds_common.errors import ListsError, SettingsError
from smtpfeeds_common.service_address import parse_brokers
from smtpfeeds_common.users import only_root_reads

from ..certificates import expiries
from ..settings import AggregatorSettings, missing
from ..sources.broker import parameters
from ..store.connection import connection_parameters
from ..store.dsn import describe_dsn

#: Settings whose files hold a secret.
_SECRET_FILES: Final = (
    *("dsn_password_file", "publish_dsn_password_file", "broker_password_file", "signing_key_file"),
)


def check(settings: AggregatorSettings) -> Iterator[str]:
    """Check each setting that `run` needs; return a line for each valid one.

    Raises:
        SettingsError: a setting is not valid; the message says what to do.
    """
    yield from _databases(settings)
    yield _broker(settings)
    yield from _certificates(settings)
    if settings.feeds_dir:
        _check_writable("feeds_dir", Path(settings.feeds_dir))
        yield f"feeds_dir: {settings.feeds_dir}, every {settings.publish_interval_s} s"
    else:
        yield "feeds_dir: none; this aggregator only ingests"
    if settings.signing_key_file:
        yield f"signing_key_file: public key {_public_key(settings.signing_key_file)}"
    if settings.origin_dir:
        _check_folder("origin_dir", Path(settings.origin_dir))
        if settings.origin_refresh_interval_s:
            _check_writable("origin_dir", Path(settings.origin_dir))
    for name in ("origin_table", "as_names"):
        if value := getattr(settings, name):
            _check_file(name, Path(value))
    yield from _lists(settings)
    if os.geteuid() == 0:
        for name in _SECRET_FILES:
            if (value := getattr(settings, name)) and only_root_reads(value):
                yield (
                    f"note: {name}: only root may read {value}; the unit starts the aggregator as "
                    "another user: `--as smtpfeeds` checks as that user"
                )
    yield "the settings are good"


def _certificates(settings: AggregatorSettings) -> Iterator[str]:
    for name, expires_s in expiries(settings).items():
        yield f"{name}: expires {iso_day(expires_s)}"


def _databases(settings: AggregatorSettings) -> Iterator[str]:
    yield f"dsn: {describe_dsn(connection_parameters(settings, 'check'))}"
    if settings.publish_dsn:
        where = connection_parameters(settings.for_publishing, "check")
        yield f"publish_dsn: {describe_dsn(where)}"


def _public_key(file: str) -> str:
    from ..publish.signing import Signer

    return Signer.from_file(Path(file)).public_key


def _lists(settings: AggregatorSettings) -> Iterator[str]:
    from ..classification.lists.sources import sources_of

    for path in settings.lists_files:
        _check_file("lists_files", Path(path))
    if settings.lists_dir:
        _check_writable("lists_dir", Path(settings.lists_dir))
    try:
        sources = sources_of(settings)
    except ListsError as exc:
        raise SettingsError(exc.message) from exc
    yield f"lists: {len(sources)} of scanners and mailers"


def _broker(settings: AggregatorSettings) -> str:
    if not settings.broker:
        raise missing("broker", "amqps://… addresses, or spool:DIR on one host")
    if settings.broker[0].startswith("spool:"):
        folder = Path(settings.broker[0].removeprefix("spool:"))
        _check_folder("broker", folder)
        _check_writable("broker", folder)
        return f"broker: none; spools in {folder}"
    parameters(settings, "check")
    nodes = [str(address) for address in parse_brokers(settings.broker)]
    return f"broker: {', '.join(nodes)}, queue {settings.queue}"


def _check_folder(name: str, folder: Path) -> None:
    try:
        next(folder.iterdir(), None)
    except OSError as exc:
        raise SettingsError(f"{name}: cannot read the folder {folder}: {_why(exc)}") from exc


def _check_file(name: str, file: Path) -> None:
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError as exc:
        raise SettingsError(f"{name}: cannot read the file {file}: {_why(exc)}") from exc


def _check_writable(name: str, folder: Path) -> None:
    """Create and delete a folder in it, or in the nearest existing parent."""
    from ..publish.layout import is_there

    there = folder.absolute()
    try:
        while not is_there(there) and there != there.parent:
            there = there.parent
        with tempfile.TemporaryDirectory(prefix=".smtpfeeds-check-", dir=there):
            pass
    except OSError as exc:
        consequence = "" if there == folder.absolute() else f", so {folder} cannot be made"
        raise SettingsError(f"{name}: cannot write in {there}{consequence}: {_why(exc)}") from exc


def _why(exc: OSError) -> str:
    """Return the reason, and for a missing right the user who lacks it."""
    if isinstance(exc, PermissionError):
        return f"{exc.strerror} (tried as {_user()}; the aggregator's own user is what counts)"
    return exc.strerror or type(exc).__name__


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a user id without a name
        return "this user"
