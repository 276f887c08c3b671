"""Options that the centre's commands share: which settings, which database, which times.

Where the settings come from, the first that is given:

    --config FILE, or --dir DIR of `smtpfeeds up`
    --dsn DSN, or SMTPFEEDS_AGGREGATOR_DSN: no file is looked for
    SMTPFEEDS_DIR, as --dir
    /etc/smtpfeeds/aggregator.toml, or query.toml where the other may not be read
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from smtpfeeds_common.config_option import FOLDER_VARIABLE, config_option, usual_config
from smtpfeeds_common.errors import DatabaseUnavailable, SettingsError

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from .access import Access

#: What `smtpfeeds up` writes into its folder, and the unit of systemd reads.
_AGGREGATOR: Final = "aggregator.toml"
#: Settings of an account that may only read, for analysts.
_READER: Final = "query.toml"
_DSN_VARIABLE: Final = "SMTPFEEDS_AGGREGATOR_DSN"

F = TypeVar("F", bound=Callable[..., Any])

CONFIG: Final = config_option("aggregator")
FOLDER: Final = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of `smtpfeeds up`, instead of --config.",
)
DSN: Final = click.option("--dsn", help="The database: a libpq connection string or URL.")

#: After the help of each command that asks.
EXIT_CODES: Final = (
    "Exit codes: 0 found, 1 nothing found, 2 wrong use, 3 no answer, as where the database cannot "
    "be reached."
)


def load(config: Path | None, dsn: str | None = None) -> "AggregatorSettings":
    """Read the settings and set up the logs as they say."""
    from smtpfeeds_common import logs

    from .. import settings as aggregator_settings

    settings = aggregator_settings.load(config_of(config, None, dsn), dsn=dsn)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def config_of(config: Path | None, folder: Path | None, dsn: str | None = None) -> Path | None:
    """The settings file that the options name, or the one in the usual places.

    Raises:
        SettingsError: two of the options say different things, or the folder is not one of
            `smtpfeeds up`.
    """
    if folder is not None:
        if config is not None or dsn is not None:
            raise SettingsError(
                "--dir already selects settings and database; remove --config and --dsn"
            )
        return single_host_settings(folder)
    if config is not None or dsn is not None or os.environ.get(_DSN_VARIABLE):
        return config
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return single_host_settings(Path(named))
    return usual_config(_AGGREGATOR, _READER)


def single_host_settings(folder: Path) -> Path:
    """The settings file of a folder of `smtpfeeds up`, for a command that asks nothing else.

    The folder's database is private: libpq's variables in the environment (PGHOSTADDR, PGOPTIONS,
    PGSERVICE and others) are about some other one, and are removed from this process.

    Raises:
        SettingsError: there is none in it.
    """
    config = folder / _AGGREGATOR
    if not config.is_file():
        raise SettingsError(f"{folder} is not a folder of `smtpfeeds up`: it has no {config.name}")
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    return config


def database_options(command: F) -> F:
    """Add the options that say which database, and give the command the `settings` they make."""
    return _database_options(command, "settings", _settings)


def access_options(command: F) -> F:
    """The same for a command that answers at once: it gets `access`, and no other setting."""
    return _database_options(command, "access", _access)


def _database_options(command: F, name: str, read: Callable[..., Any]) -> F:
    @CONFIG
    @DSN
    @FOLDER
    @wraps(command)
    def with_settings(
        *args: Any, config: Path | None, dsn: str | None, folder: Path | None, **kwargs: Any
    ) -> Any:
        if kwargs.get("published_in") is not None:
            refuse_database(config, dsn, folder)
            return command(*args, **{name: None}, **kwargs)
        with _read(read, config, dsn, folder) as value:
            return command(*args, **{name: value}, **kwargs)

    return with_settings  # type: ignore[return-value]  # click's options change the signature


def refuse_database(config: Path | None, dsn: str | None, folder: Path | None) -> None:
    """Refuse options of a database beside `--from`.

    Raises:
        SettingsError: one is given.
    """
    if (config, dsn, folder) != (None, None, None):
        raise SettingsError(
            "--from reads published files and no database; remove --config, --dsn and --dir"
        )


@contextmanager
def database_settings(
    config: Path | None, dsn: str | None, folder: Path | None
) -> "Iterator[AggregatorSettings]":
    """The settings that the options make; where the database is away, which program is asked for.

    Raises:
        DatabaseUnavailable: what used the settings found no database.
    """
    with _read(_settings, config, dsn, folder) as settings:
        yield settings


@contextmanager
def _read(
    read: Callable[..., Any], config: Path | None, dsn: str | None, folder: Path | None
) -> Iterator[Any]:
    config, dsn, folder = _given(config, dsn, folder)
    try:
        yield read(config, dsn, folder)
    except DatabaseUnavailable as exc:
        folder = folder or _usual_folder(config, dsn)
        if folder is None:
            raise
        raise DatabaseUnavailable(
            f"is `smtpfeeds up --dir {folder}` running? {exc.message}"
        ) from exc


def _given(
    config: Path | None, dsn: str | None, folder: Path | None
) -> tuple[Path | None, str | None, Path | None]:
    """The options of this command, or those given to its group."""
    parent = click.get_current_context().parent
    if parent is not None and (config, dsn, folder) == (None, None, None):
        config, dsn, folder = map(parent.params.get, ("config", "dsn", "folder"))
    return config, dsn, folder


def _settings(config: Path | None, dsn: str | None, folder: Path | None) -> "AggregatorSettings":
    from ..settings import load as load_settings

    return load_settings(config_of(config, folder, dsn), dsn=dsn)


def _access(config: Path | None, dsn: str | None, folder: Path | None) -> "Access":
    from .access import read_access

    return read_access(config_of(config, folder, dsn), dsn)


def _usual_folder(config: Path | None, dsn: str | None) -> Path | None:
    """The folder that SMTPFEEDS_DIR names, where it is what counts."""
    named = os.environ.get(FOLDER_VARIABLE)
    if config is not None or dsn is not None or os.environ.get(_DSN_VARIABLE) or not named:
        return None
    return Path(named)


def time_options(command: F) -> F:
    """Add `--since` and `--until`, read as times."""

    @click.option("--since", help="Last seen at this time or later: 2026-11-23T11:00Z, or 7d, 12h.")
    @click.option("--until", help="Last seen before this time.")
    @wraps(command)
    def with_times(*args: Any, since: str | None, until: str | None, **kwargs: Any) -> Any:
        begin, end = parsed_time(since), parsed_time(until)
        if begin is not None and end is not None and begin >= end:
            raise SettingsError(f"--since {since} is not before --until {until}")
        return command(*args, since=begin, until=end, **kwargs)

    return with_times  # type: ignore[return-value]  # click's options change the signature


def parsed_time(text: str | None) -> datetime | None:
    """A time or a duration back from now, as people write them."""
    from ..query.times import parse_time

    return None if text is None else parse_time(text, datetime.now(UTC))
