"""Read only the few settings that a query needs.

`query` answers in a tenth of a second: converting and checking every setting of the aggregator
would take as long again. If a value needs more than the simple check here, the settings are read as
for all other commands. `smtpfeeds aggregator check-config` checks every setting.
"""

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from .database import NoDatabase
from .settings_files import SettingsFiles

_PREFIX: Final = "SMTPFEEDS_AGGREGATOR_"
_DSN: Final = f"{_PREFIX}DSN"
#: The types of the settings that need only a check of the type.
_PLAIN: Final = {
    "dsn": str,
    "dsn_password_file": str,
    "publish_non_global": bool,
    "origin_dir": str,
}


class Access(NamedTuple):
    """The settings of a query: database, time limit of a statement, publication, origins."""

    dsn: str
    dsn_password_file: str = ""
    database_timeout_s: float = 60
    publish_non_global: bool = False
    origin_dir: str = ""


def read_access(files: SettingsFiles, dsn: str | None) -> Access:
    """Read the settings: the files, then the environment, then the option.

    Raises:
        SettingsError: a file cannot be read, or a value has another type or is out of range.
        NoDatabase: nothing names the database.
    """
    named = _named(files)
    if _DSN in os.environ:
        named["dsn"] = os.environ[_DSN]
    if dsn is not None:
        named["dsn"] = dsn
    others = (f"{_PREFIX}{name.upper()}" for name in Access._fields if name != "dsn")
    if any(name in os.environ for name in others) or not _is_plain(named):
        from ..settings import load

        every = load(files.config, database_file=files.owner, dsn=dsn)
        named = {name: getattr(every, name) for name in Access._fields}
    if not named.get("dsn"):
        raise NoDatabase
    return Access(**named)


def _named(files: SettingsFiles) -> dict[str, Any]:
    """Return the values of the files, unchecked; without a database in owner.toml its `dsn` is
    None.
    """
    values = _file(files.config)
    if files.owner is not None:
        owner = _file(files.owner)
        values["dsn"] = owner.get("dsn")
        values["dsn_password_file"] = owner.get("dsn_password_file", "")
    return {name: values[name] for name in Access._fields if name in values}


def _is_plain(named: dict[str, Any]) -> bool:
    return all(isinstance(value, _PLAIN.get(name, ())) for name, value in named.items())


def _file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    from smtpfeeds_common.toml_file import read_toml

    return read_toml(file)
