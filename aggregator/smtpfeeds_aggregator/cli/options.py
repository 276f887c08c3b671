"""Options that the centre's commands share: settings, database, times."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from smtpfeeds_common.config_option import config_option
from smtpfeeds_common.errors import DatabaseUnavailable, DsnError, SettingsError

from .database import NoDatabase
from .settings_files import SettingsFiles, about_owner, no_database, settings_files

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from .access import Access

F = TypeVar("F", bound=Callable[..., Any])

CONFIG: Final = config_option("aggregator")
FOLDER: Final = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of `smtpfeeds up`, instead of --config.",
)
DSN: Final = click.option("--dsn", help="The database: a libpq connection string or URL.")

#: The end of the help of each command that queries.
EXIT_CODES: Final = (
    "Exit codes: 0 found, 1 nothing found, 2 wrong use, 3 no answer, such as when the database "
    "cannot be reached."
)


def load(config: Path | None, folder: Path | None = None) -> "AggregatorSettings":
    """Read the aggregator's own settings and set up the logs as they say."""
    from smtpfeeds_common import logs

    settings = _settings(settings_files(config, folder, operator=False), None)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def database_options(command: F) -> F:
    """Add the options that select the database, and pass the command the `settings`.

    It is a command of an operator or an analyst: see ``settings_files``.
    """
    return _with_options(command, "settings", _settings, operator=True)


def access_options(command: F) -> F:
    """Do the same for a command that must answer fast: it gets `access` only."""
    return _with_options(command, "access", _access, operator=True)


def own_options(command: F) -> F:
    """The same as ``database_options`` for a command that works as the aggregator."""
    return _with_options(command, "settings", _settings, operator=False)


def _with_options(command: F, name: str, read: Callable[..., Any], *, operator: bool) -> F:
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
        with _read(read, config, dsn, folder, operator=operator) as value:
            return command(*args, **{name: value}, **kwargs)

    return with_settings  # type: ignore[return-value]  # click's options change the signature


def refuse_database(config: Path | None, dsn: str | None, folder: Path | None) -> None:
    """Refuse database options together with `--from`.

    Raises:
        SettingsError: one of them is given.
    """
    if (config, dsn, folder) != (None, None, None):
        raise SettingsError(
            "--from reads published files and no database; remove --config, --dsn and --dir"
        )


@contextmanager
def database_settings(
    config: Path | None, dsn: str | None, folder: Path | None
) -> "Iterator[AggregatorSettings]":
    """Return the settings for the options of an operator's command.

    Raises:
        DatabaseUnavailable: what used the settings cannot use the database; the message names what
            the database is from.
    """
    with _read(_settings, config, dsn, folder, operator=True) as settings:
        yield settings


@contextmanager
def _read(
    read: Callable[..., Any],
    config: Path | None,
    dsn: str | None,
    folder: Path | None,
    *,
    operator: bool,
) -> Iterator[Any]:
    config, dsn, folder = _given(config, dsn, folder)
    files = settings_files(config, folder, dsn, operator=operator)
    source = files.database_from
    try:
        yield read(files, dsn)
    except NoDatabase as exc:
        raise no_database(files) from exc
    except DsnError as exc:
        raise SettingsError(f"{source}: {exc.message}" if source else exc.message) from exc
    except DatabaseUnavailable as exc:
        if files.folder is not None:
            words = f"is `smtpfeeds up --dir {files.folder}` running? {exc.message}"
            raise DatabaseUnavailable(words) from exc
        facts = [f"dsn from {source}"] if source else []
        if operator and _is_privilege(exc):
            facts += filter(None, [about_owner(files)])
        raise DatabaseUnavailable(
            f"{exc.message} ({'; '.join(facts)})" if facts else exc.message
        ) from exc


def _is_privilege(exc: DatabaseUnavailable) -> bool:
    from ..store.errors import MissingPrivilege

    return isinstance(exc, MissingPrivilege)


def _given(
    config: Path | None, dsn: str | None, folder: Path | None
) -> tuple[Path | None, str | None, Path | None]:
    """Return the options of this command, or those given to its group."""
    parent = click.get_current_context().parent
    if parent is not None and (config, dsn, folder) == (None, None, None):
        config, dsn, folder = map(parent.params.get, ("config", "dsn", "folder"))
    return config, dsn, folder


def _settings(files: SettingsFiles, dsn: str | None) -> "AggregatorSettings":
    from ..settings import load as load_settings

    return load_settings(files.config, database_file=files.owner, dsn=dsn)


def _access(files: SettingsFiles, dsn: str | None) -> "Access":
    from .access import read_access

    return read_access(files, dsn)


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
    """Parse a time, or a duration before now."""
    from ..query.times import parse_time

    return None if text is None else parse_time(text, datetime.now(UTC))
