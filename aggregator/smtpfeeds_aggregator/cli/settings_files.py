"""Find the settings files of a command, and what names its database.

The first of these counts:

    --config FILE, or --dir DIR of `smtpfeeds up`
    --dsn DSN, or SMTPFEEDS_AGGREGATOR_DSN: no file is read
    SMTPFEEDS_DIR, as --dir
    in /etc/smtpfeeds, or in the folder that SMTPFEEDS_SETTINGS names:
        aggregator.toml, or query.toml where this user may not read the other
        owner.toml, where this user may read it: the database of an operator's commands

The aggregator's own commands never read owner.toml, so no service uses the role that owns the
tables.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from smtpfeeds_common.config_option import (
    FOLDER_VARIABLE,
    closed_by,
    usual_config,
    usual_folder,
)
from smtpfeeds_common.errors import SettingsError

#: What `smtpfeeds up` writes into its folder, and the unit of systemd reads.
_AGGREGATOR: Final = "aggregator.toml"
#: The database role that owns the tables; only operators can read it.
_OWNER: Final = "owner.toml"
#: Settings of an account that may only read, for analysts.
_READER: Final = "query.toml"
_DSN_VARIABLE: Final = "SMTPFEEDS_AGGREGATOR_DSN"
#: Variables that name another database than that of a folder of `smtpfeeds up`.
_DATABASE_VARIABLES: Final = (
    _DSN_VARIABLE,
    "SMTPFEEDS_AGGREGATOR_DSN_PASSWORD_FILE",
    "SMTPFEEDS_AGGREGATOR_PUBLISH_DSN",
    "SMTPFEEDS_AGGREGATOR_PUBLISH_DSN_PASSWORD_FILE",
)


class SettingsFiles(NamedTuple):
    """The files of a command."""

    config: Path | None = None
    #: Names the database in place of `config`; all other settings are those of `config`.
    owner: Path | None = None
    #: The folder of `smtpfeeds up` that they belong to.
    folder: Path | None = None
    #: The file or variable that names the database, for an error; empty for --dsn.
    database_from: str = ""


def settings_files(
    config: Path | None, folder: Path | None, dsn: str | None = None, *, operator: bool
) -> SettingsFiles:
    """Return the files of a command, from its options, the environment or the usual places.

    Args:
        operator: it is a command of an operator or an analyst; otherwise it works as the
            aggregator.

    Raises:
        SettingsError: two of the options say different things, the folder is not one of
            `smtpfeeds up`, or this user cannot read the usual file.
    """
    variable = _DSN_VARIABLE if os.environ.get(_DSN_VARIABLE) else ""
    named = os.environ.get(FOLDER_VARIABLE)
    if folder is not None:
        if config is not None or dsn is not None:
            raise SettingsError(
                "--dir already selects settings and database; remove --config and --dsn"
            )
        return _of_folder(folder)
    if config is not None:
        return SettingsFiles(config, database_from="" if dsn else variable or str(config))
    if dsn is not None or variable:
        return SettingsFiles(database_from="" if dsn else variable)
    if named:
        return _of_folder(Path(named))
    usual = usual_config(_AGGREGATOR, _READER)
    owner = usual_folder() / _OWNER
    if operator and os.access(owner, os.R_OK):
        return SettingsFiles(usual, owner, database_from=str(owner))
    return SettingsFiles(usual, database_from=str(usual or ""))


def _of_folder(folder: Path) -> SettingsFiles:
    """Return the files of a folder of `smtpfeeds up`, for a command that uses only that.

    The folder's database is private: variables in the environment that are about another one are
    removed from this process, also those of libpq (PGHOSTADDR, PGOPTIONS, PGSERVICE and others).

    Raises:
        SettingsError: there is none in it, or this user cannot read it.
    """
    config = folder / _AGGREGATOR
    if closed := closed_by(config):
        raise SettingsError(
            f"this user cannot read {closed}: start the command as the user that runs "
            "`smtpfeeds up`"
        )
    if not os.access(config, os.R_OK):
        raise SettingsError(f"{folder} is not a folder of `smtpfeeds up`: it has no {config.name}")
    for name in [each for each in os.environ if each.startswith("PG")] + list(_DATABASE_VARIABLES):
        os.environ.pop(name, None)
    return SettingsFiles(config, folder=folder, database_from=str(config))


def no_database(files: SettingsFiles) -> SettingsError:
    """Return the error of a command for which nothing names the database."""
    if files.config is not None:
        fault = f"{files.config} does not set dsn"
    else:
        fault = f"there is no {_OWNER}, {_AGGREGATOR} or {_READER} in {usual_folder()}"
    return SettingsError(
        f"which database? {fault}. Give --dir DIR of `smtpfeeds up`, --config FILE or --dsn DSN, "
        f"or set {FOLDER_VARIABLE} or {_DSN_VARIABLE}"
    )


def about_owner(files: SettingsFiles) -> str:
    """Return where the role that owns the tables is named, if it is not in use; else empty."""
    owner = usual_folder() / _OWNER
    if owner in (files.owner, files.config):
        return ""
    if os.access(owner, os.R_OK):
        return f"{owner} names the role that owns the tables"
    if os.access(owner, os.F_OK):
        return f"this user cannot read {owner}, which names the role that owns the tables"
    return f"there is no {owner} that this user can read"
