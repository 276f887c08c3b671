"""Columns of the feeds' rows, in the order of the published files. They are in a module of their
own so that a command can declare them without importing the code that writes rows.
"""

from typing import Any, Final

from smtpfeeds_common.columns import Column

#: Hostile classes; `classification/classes.py` has all classes.
_HOSTILE: Final = frozenset({"relay-test", "password-guess", "user-probe", "delivery"})


def class_colour(name: Any) -> str | None:
    """Return red for a hostile class; no colour for the others."""
    return "red" if name in _HOSTILE else None


ENTRY: Final = (
    Column("ASN", "integer", "origin; null where none is known", rank=4),
    Column("ASname", help="its name", title="AS name", least=10, rank=3),
    Column("ipaddr", title="address", help="as RFC 5952 writes it", least=20, middle=True),
    Column("lastseen", title="last seen UTC", help="cut to the second, UTC"),
    Column("category", title="feed", help="the feed"),
    Column("first_seen", title="first seen UTC", help="cut to the second, UTC", rank=7),
    Column("hits", "integer", "events", rank=1),
    Column("sensors", "integer", "sensors that saw it", rank=5),
    Column("tags", "texts", "behaviours of the last two weeks", least=12, rank=9),
    Column("class", help="what it is, by its behaviours and lists", colour=class_colour),
    Column("why", "texts", "the reasons for the class", least=12, rank=6),
    Column("actor", help="who runs it, by the lists", least=10, rank=8),
    Column("days_seen", "integer", "on how many of the last 7 days", rank=10),
    Column("days", help="the last 7 days, the oldest first: # seen, . not", rank=2),
    Column("targets", "integer", "addresses of sensors that it came to", rank=10),
    Column("new", "boolean", "first seen within 24 hours", rank=10),
)
