"""Files that are shipped with the programs and are no code: units, requirements, examples.

In a wheel they lie in this package's folder ``shipped``; in a checkout they are where
people read and edit them, below ``deploy``.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from .errors import SettingsError

#: From this file to a checkout's folder of the same files.
_CHECKOUT: Final = Path(__file__).parents[2] / "deploy"


def shipped_file(name: str) -> bytes:
    """One file, such as ``systemd/smtpfeeds-sensor.service``.

    Raises:
        SettingsError: this installation lacks it.
    """
    packaged = files("smtpfeeds_common").joinpath("shipped", *name.split("/"))
    if packaged.is_file():
        return packaged.read_bytes()
    try:
        return (_CHECKOUT / name).read_bytes()
    except OSError as exc:
        raise SettingsError(
            f"the file {name} is missing from this installation of smtpfeeds; install it again"
        ) from exc
