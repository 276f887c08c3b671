"""Columns of an answer about addresses, and the records of summaries."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from smtpfeeds_common.columns import Column, Record
from smtpfeeds_common.feeds import DATA, GREET
from smtpfeeds_common.history import marks

from .entry_columns import class_colour

if TYPE_CHECKING:
    from ..query.summary import Summary

_KNOWN: Final = (
    Column("class", help="what it is, by its behaviours and lists", colour=class_colour),
    Column("last_seen", "time", rank=1),
    Column("days", help="the last 7 days, the oldest first: # seen, . not", rank=4),
    Column("greet", "integer", "events in smtpgreet", rank=3),
    Column("data", "integer", "events in smtpdata; null: it is not in it", rank=3),
    Column("sensors", "integer", "sensors that saw it", rank=5),
    Column("ASN", "integer", "origin; null where none is known", rank=6),
    Column("ASname", help="its name", title="AS name", least=10, rank=2),
    Column("actor", help="who runs it, by the lists", least=8, rank=7),
    Column("why", "texts", "the reasons for the class", least=12, rank=8),
    Column("first_seen", "time", rank=9),
    Column("new", "boolean", "first seen within 24 hours", rank=10),
)
ADDRESS: Final = (
    Column("address", help="as RFC 5952 writes it", least=20, middle=True),
    *_KNOWN,
)
ANSWER: Final = (
    Column("term", help="as it was given", least=20, middle=True),
    Column("seen", "boolean", "whether anything of it is stored, by these options"),
    Column("addresses", "integer", "how many of its addresses are", rank=5),
    *_KNOWN,
)


def address_record(summary: "Summary") -> Record:
    """Return the record of one address."""
    return {"address": summary.ip, **_known(summary)}


def answer_record(text: str, summary: "Summary") -> Record:
    """Return the record of one term; values of a single address are null if there are more."""
    is_seen = summary.addresses > 0
    return {
        "term": text,
        "seen": is_seen,
        "addresses": summary.addresses,
        **(_known(summary) if is_seen else _UNKNOWN),
    }


_UNKNOWN: Final[Record] = {column.name: None for column in _KNOWN}


def _known(summary: "Summary") -> Record:
    judgement = summary.one
    is_one = judgement is not None
    return {
        "class": judgement.cls if is_one else None,
        "last_seen": datetime.fromtimestamp(summary.last_s, UTC),
        "days": marks(summary.days),
        "greet": summary.hits.get(GREET.name),
        "data": summary.hits.get(DATA.name),
        "sensors": summary.sensors,
        "ASN": summary.asn if is_one else None,
        "ASname": summary.name if is_one else None,
        "actor": judgement.actor if is_one else None,
        "why": judgement.why if is_one else (),
        "first_seen": datetime.fromtimestamp(summary.first_s, UTC),
        "new": summary.new,
    }
