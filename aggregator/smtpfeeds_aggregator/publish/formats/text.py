"""The feed as text, in the layout that consumers of Dataplane.org's feeds parse.

68 lines of header, rows of five fields, 4 lines of footer. Consumers count the
lines, split at ``'  |  '`` and take address-looking tokens out of comments, so
nothing here changes without the contract tests.
"""

import re
from typing import Final

from smtpfeeds_common.addresses import MAX_TEXT

from ...names import NOT_KNOWN, clean_name
from ..entries import NOTICE, Columns, Counts, Frame, Piece

HEADER_LINES: Final = 68
FOOTER_LINES: Final = 4
SUFFIX: Final = ".txt"
_ADDRESS_WIDTH: Final = 15
#: By the length of an address: what pads and divides it.
_BEHIND_ADDRESS: Final = tuple(
    " " * (_ADDRESS_WIDTH - length) + "  |  " for length in range(MAX_TEXT + 1)
)
_MAX_SETTING_CHARS: Final = 120

_EVENTS: Final = {
    "smtpgreet": "the client said HELO or EHLO",
    "smtpdata": "the client went on to the DATA command",
}


def pieces(columns: Columns) -> list[Piece]:
    """Rows; an origin's two fields are padded once."""
    return [
        columns.texts("origin", _origin),
        columns.address,
        list(map(_BEHIND_ADDRESS.__getitem__, map(len, columns.address))),
        columns.seen(f"{{last}}  |  {columns.category}"),
        "\n",
    ]


def _origin(origin: tuple[int, str]) -> str:
    asn, name = origin
    return f"{asn or NOT_KNOWN:<11}  |  {name:<30}  |  "


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Return the four lines of statistics."""
    return f"#\n# Statistics\n#        ASNs: {counts.asns}\n#   Addresses: {counts.addresses}\n"


def header(frame: Frame) -> str:
    """Return the 68 lines of the header.

    They contain no address, quote or additional pipe, whatever the settings contain.
    """
    lines = [line.rstrip() for line in _HEADER.format(**_values(frame)).splitlines()]
    assert len(lines) == HEADER_LINES
    return "\n".join(lines) + "\n"


def _values(frame: Frame) -> dict[str, str]:
    families = {None: "IPv4 and IPv6", 4: "IPv4 only", 6: "IPv6 only"}
    notice = NOTICE.split(": ", 1)
    return {
        "feed": frame.feed.name,
        "families": families[frame.family],
        "description": frame.feed.description,
        "event": _EVENTS[frame.feed.name],
        "start": f"{frame.window_start:%Y-%m-%d %H:%M}",
        "end": f"{frame.window_end:%Y-%m-%d %H:%M}",
        "generated": f"{frame.generated:%Y-%m-%d %H:%M:%S}",
        "expires": f"{frame.expires:%Y-%m-%d %H:%M:%S}",
        "publisher": _harmless(frame.publisher),
        "contact": _harmless(frame.contact),
        "licence": _harmless(frame.licence),
        "notice": notice[0],
        "because": notice[1],
    }


def _harmless(setting: str) -> str:
    """Return a setting's text, harmless in a comment."""
    return re.sub(r"\s+", " ", clean_name(setting, has_country=False))[:_MAX_SETTING_CHARS]


_HEADER: Final = """\
# {feed}: {description}
#
# Published by:  {publisher}
# Contact:       {contact}
# Licence:       {licence}
#
# Feed:          {feed}
# Families:      {families}
# Window:        {start} - {end} (UTC)
# Generated:     {generated} (UTC)
# Expires:       {expires} (UTC)
#
# After the time of expiry a newer edition should exist. If none does,
# publishing has stopped, and this edition describes only the past.
#
#
# WHAT THIS FEED REPORTS
#
# SMTP sensors listen on addresses that nobody advertises and that no MX
# record names. They never deliver mail. This feed lists an address if, within
# the window, {event}.
# Each address has one row, however often it came and whichever sensors it met.
#
# The feed leaves out addresses that cannot be routed on the Internet, and
# networks that the publisher excludes.
#
#
# THIS IS NOT A BLOCK LIST
#
# {notice}:
# {because}
# A mistyped MX record, a mail server that has moved, an address that received
# mail before a sensor used it, a survey of the Internet by researchers: each
# of these brings harmless clients to a sensor. Several users may share an
# address, and an address can pass to another user, so its present user may be
# somebody else. Do not refuse traffic because of this feed alone.
#
#
# LAYOUT
#
# The layout is compatible with that of the feeds of Dataplane.org, also
# spelled DataPlane.org, so that the same tools can read it. Neither the
# publisher nor the software is affiliated with them, and this feed contains
# none of their data.
#
# Comment lines begin with a number sign: {lines} before the rows, four after.
# Rows are sorted by origin ASN as a number, unknown origins first, then IPv4
# before IPv6, then by address. All times are UTC. The fields:
#
# ASN  |  ASname  |  ipaddr  |  lastseen  |  category
#
#   ASN       Number of the autonomous system that announces the longest
#             prefix with the address, by a routing table; NA if none does.
#   ASname    Name of that autonomous system in printable ASCII, cut to 30
#             characters; NA if it is not known.
#   ipaddr    The address: IPv4 dotted, IPv6 as RFC 5952 writes it.
#   lastseen  Time of the last such event, YYYY-MM-DD HH:MM:SS, cut to the
#             second.
#   category  The name of the feed, {feed}.
#
#
# OTHER FILES
#
# manifest.json lists the other files of this edition with their checksums:
# each family by itself, and other formats, most of which have more columns.
# Send questions, corrections, and requests to leave a network out to the
# contact above.
#
""".replace("{lines}", str(HEADER_LINES))
