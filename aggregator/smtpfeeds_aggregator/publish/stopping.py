"""Ends a publication that is under way when the program stops: it takes seconds to minutes.

Every part calls a `KeepGoing` now and then. Before the switch nothing is lost by
ending; after it the next run does what is left to do.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from smtpfeeds_common.errors import PublishError

T = TypeVar("T")
#: Returns, or raises `PublishStopped`.
KeepGoing = Callable[[], None]


class PublishStopped(PublishError):
    """The program is stopping; nothing was published, the last good feeds stay."""


def go_on() -> None:
    """Never stops."""


def guarded(items: Iterable[T], keep_going: KeepGoing) -> Iterator[T]:
    """The same items, for as long as it goes on; asked once in a few thousand."""
    for number, item in enumerate(items):
        if not number & 0xFFF:
            keep_going()
        yield item


def each_guarded(items: Iterable[T], keep_going: KeepGoing) -> Iterator[T]:
    """The same items, each a piece of work; asked before each."""
    for item in items:
        keep_going()
        yield item
