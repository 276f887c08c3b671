"""A settings file as it is: read, and named where it cannot be."""

import tomllib
from pathlib import Path
from typing import Any

from .errors import SettingsError


def read_toml(file: Path) -> dict[str, Any]:
    """The file's top level.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as exc:
        raise SettingsError(f"cannot read the settings file {file}: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{file} is not TOML: {exc}") from exc
    except UnicodeDecodeError:
        # Python's words have octets of it, which may be a secret's.
        raise SettingsError(f"{file} is not TOML: it is not text in UTF-8") from None
