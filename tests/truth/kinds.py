"""The kinds of client, the classes that are right for each, and the set each belongs to.

``first``: kinds whose transcripts were at hand while the rules of classes were chosen.
``held-out``: kinds that were added later; no rule was changed after they were run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from smtpfeeds_aggregator.classification.classes import Class, Listing

Where = Literal["first", "held-out"]
Group = Literal["survey", "mail server", "mail program", "hostile", "engine", "looker"]


class Visit(NamedTuple):
    """One connection of a client, or one run of a program that may open several."""

    #: Where to connect.
    place: tuple[str, int]
    #: The sensor's address as the client knows it.
    dialled: str
    #: The sensor's banner name.
    banner: str
    random: Random
    #: The number of the client: each has its own names.
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of client."""

    name: str
    group: Group
    where: Where
    #: The classes that are right; none other is.
    right: frozenset[Class]
    visit: Callable[[Visit], None]
    #: Sensors that one client visits in its week, and how often each.
    sensors: int = 1
    visits: int = 1
    #: Clients of this kind.
    clients: int = 20
    listings: tuple[Listing, ...] = ()
