"""Find the settings files of a command, and the one that names its database.

The first of these counts:

    --config FILE, or --dir DIR of `smtpfeeds up`
    --dsn DSN, or SMTPFEEDS_AGGREGATOR_DSN: no file is read
    SMTPFEEDS_DIR, as --dir
    in /etc/smtpfeeds, or in the folder that SMTPFEEDS_SETTINGS names:
        aggregator.toml, or query.toml where this user may not read the other
        owner.toml, where this user may read it: the database of an operator's commands

The aggregator's own commands (``own_files``) never read owner.toml, so no service uses the role
that owns the tables.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from smtpfeeds_common.config_option import FOLDER_VARIABLE, usual_config, usual_folder
from smtpfeeds_common.errors import SettingsError

#: What `smtpfeeds up` writes into its folder, and the unit of systemd reads.
_AGGREGATOR: Final = "aggregator.toml"
#: The database role that owns the tables; only operators can read it.
_OWNER: Final = "owner.toml"
#: Settings of an account that may only read, for analysts.
_READER: Final = "query.toml"
_DSN_VARIABLE: Final = "SMTPFEEDS_AGGREGATOR_DSN"


class SettingsFiles(NamedTuple):
    """The files of a command."""

    config: Path | None = None
    #: Names the database in place of `config`; all other settings are those of `config`.
    owner: Path | None = None


def own_files(config: Path | None, folder: Path | None, dsn: str | None = None) -> SettingsFiles:
    """Return the files of a command that works as the aggregator: from the options, or the usual
    one.

    Raises:
        SettingsError: two of the options say different things, or the folder is not one of
            `smtpfeeds up`.
    """
    if folder is not None:
        if config is not None or dsn is not None:
            raise SettingsError(
                "--dir already selects settings and database; remove --config and --dsn"
            )
        return SettingsFiles(_single_host_settings(folder))
    if config is not None or _is_dsn_given(dsn):
        return SettingsFiles(config)
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return SettingsFiles(_single_host_settings(Path(named)))
    return SettingsFiles(usual_config(_AGGREGATOR, _READER))


def operator_files(
    config: Path | None, folder: Path | None, dsn: str | None = None
) -> SettingsFiles:
    """Return the files of a command of an operator or an analyst.

    Raises:
        SettingsError: see ``own_files``.
    """
    files = own_files(config, folder, dsn)
    if _are_usual(config, folder, dsn):
        return files._replace(owner=usual_config(_OWNER))
    return files


def _is_dsn_given(dsn: str | None) -> bool:
    return dsn is not None or bool(os.environ.get(_DSN_VARIABLE))


def _are_usual(config: Path | None, folder: Path | None, dsn: str | None) -> bool:
    named = os.environ.get(FOLDER_VARIABLE)
    return config is None and folder is None and not _is_dsn_given(dsn) and not named


def _single_host_settings(folder: Path) -> Path:
    """Return the settings file of a folder of `smtpfeeds up`, for a command that uses only that.

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


def single_host_folder(config: Path | None, folder: Path | None, dsn: str | None) -> Path | None:
    """Return the folder of `smtpfeeds up` that names the database; None if something else does."""
    named = os.environ.get(FOLDER_VARIABLE)
    if folder is not None or config is not None or _is_dsn_given(dsn) or not named:
        return folder
    return Path(named)


def database_source(files: SettingsFiles, dsn: str | None) -> str:
    """Return the file or variable with the DSN, for an error's text; empty for the option."""
    if dsn is not None:
        return ""
    if os.environ.get(_DSN_VARIABLE):
        return _DSN_VARIABLE
    return str(files.owner or files.config or "")


def about_owner(files: SettingsFiles) -> str:
    """Return where the role that owns the tables is named, if it is not in use; else empty."""
    owner = usual_folder() / _OWNER
    if files.owner is not None or files.config == owner:
        return ""
    if os.access(owner, os.R_OK):
        return f"{owner} names the role that owns the tables"
    if os.access(owner, os.F_OK):
        return f"this user cannot read {owner}, which names the role that owns the tables"
    return f"there is no {owner} that this user can read"
