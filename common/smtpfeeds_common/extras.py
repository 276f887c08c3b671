"""The command line that installs an extra of smtpfeeds.

With the name alone, pip would ask a public registry, where someone else may own that name. pip
records the wheel or checkout that it installed (PEP 610, ``direct_url.json``), so the line names
the same source, and the Python to install for.
"""

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_GUIDE: Final = "docs/how-to/two-hosts.md"
#: In place of the path of a wheel, if it is not known.
_SOME_WHEEL: Final = Path("smtpfeeds-….whl")


def how_to_install(extra: str) -> str:
    """Return how to install a missing extra, with the line to type."""
    place = source_path(_direct_url())
    if place is None or not place.exists():
        line = _pip(f"./{_SOME_WHEEL}[{extra}]")
        return f"install the extra from the wheel of smtpfeeds: {line} (see {_GUIDE})"
    return f"install it with: {install_line(extra, place)}"


def source_path(direct_url: str | None) -> Path | None:
    """Return the wheel or checkout that pip recorded; None if it recorded no local one."""
    try:
        parts = urlsplit(str(json.loads(direct_url or "{}").get("url", "")))
    except (ValueError, AttributeError):
        return None
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.path else None


def install_line(extra: str, place: Path) -> str:
    """Return the line for an extra of a wheel, or of a checkout with its locked packages."""
    locked = place / "deploy" / "requirements" / f"{extra}.txt"
    if locked.is_file():
        return _pip("--require-hashes", "-r", str(locked))
    return _pip(f"{place}[{extra}]")


def _pip(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def _direct_url() -> str | None:
    try:
        return metadata.distribution("smtpfeeds").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
