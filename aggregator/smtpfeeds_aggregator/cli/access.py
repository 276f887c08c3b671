"""The few settings that a question needs, read without all others.

`query` answers in a tenth of a second: converting and checking every setting of the
aggregator would take as long again. `smtpfeeds aggregator check-config` checks them.
"""

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from smtpfeeds_common.errors import SettingsError

from .database import WHICH_DATABASE

_PREFIX: Final = "SMTPFEEDS_AGGREGATOR_"
_TIMEOUT_S: Final = 60.0
_TRUE: Final = frozenset({"true", "1", "yes"})


class Access(NamedTuple):
    """Which database, how long a statement may take, and what is not published."""

    dsn: str
    dsn_password_file: str = ""
    database_timeout_s: float = _TIMEOUT_S
    publish_non_global: bool = False


def read_access(config: Path | None, dsn: str | None) -> Access:
    """Read them: the file, then the environment, then the option.

    Raises:
        SettingsError: the file cannot be read, a value is of another kind, or no database is named.
    """
    values = _file(config) if config is not None else {}
    for name in Access._fields:
        if (text := os.environ.get(_PREFIX + name.upper())) is not None:
            values[name] = text
    if dsn is not None:
        values["dsn"] = dsn
    try:
        access = Access(
            str(values.get("dsn", "")),
            str(values.get("dsn_password_file", "")),
            float(values.get("database_timeout_s", _TIMEOUT_S)),
            str(values.get("publish_non_global", False)).lower() in _TRUE,
        )
    except ValueError:
        raise SettingsError("database_timeout_s: this is not a number of seconds") from None
    if not access.dsn:
        raise SettingsError(WHICH_DATABASE)
    return access


def _file(config: Path) -> dict[str, Any]:
    from smtpfeeds_common.toml_file import read_toml

    return read_toml(config)
