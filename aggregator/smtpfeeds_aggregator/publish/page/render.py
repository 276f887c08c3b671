"""Render the page from its model, with a template that escapes every value.

The same policy is in the page, for readers who open it from a disk, and in the web server's
example, which adds ``frame-ancestors``, because a meta element cannot.
"""

from datetime import UTC, datetime
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from .model import Page

#: No inline script or style, no frame, no form, no request to other sites.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
PAGE: Final = "index.html"
#: Files that are published unchanged beside the page.
STATIC: Final = ("page.css", "page.js", "icon.svg")
_PACKAGE: Final = "smtpfeeds_aggregator.publish.page"
_UNITS: Final = ("kB", "MB", "GB", "TB")


def render(page: Page) -> bytes:
    """Return the page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"iso": _iso, "minute": _minute, "number": _number, "size": _size}
    source = files(_PACKAGE).joinpath("index.html.j2").read_text(encoding="utf-8")
    template = environment.from_string(source)
    return template.render(page=page, policy_header=CONTENT_SECURITY_POLICY).encode()


def static_file(name: str) -> bytes:
    """Return one of the files beside the page."""
    return files(_PACKAGE).joinpath("static", name).read_bytes()


def _iso(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _minute(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M")


def _number(number: int) -> str:
    return f"{number:,}"


def _size(octets: int) -> str:
    if octets < 1000:
        return f"{octets} B"
    size, unit = octets / 1000, 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if size >= 10 else f"{size:.1f} {_UNITS[unit]}"
