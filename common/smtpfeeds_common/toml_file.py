"""Reads a settings file; an error names the file and the reason."""

import tomllib
from pathlib import Path
from typing import Any

from .errors import SettingsError


def read_toml(file: Path) -> dict[str, Any]:
    """Return the top level of a TOML file.

    Raises:
        SettingsError: the file cannot be read, or is not TOML.
    """
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as exc:
        raise SettingsError(f"cannot read the settings file {file}: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{file} is not TOML: {exc}") from exc
    except UnicodeDecodeError:
        # Python's message quotes octets of the file, which may be part of a secret.
        raise SettingsError(f"{file} is not TOML: it is not text in UTF-8") from None
