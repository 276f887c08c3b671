"""End a running publication when the program stops, because it takes seconds to minutes.

Every part calls a `KeepGoing` now and then. Before the switch nothing is lost; after it the next
run does the rest.
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
    """Return: never stop."""


def guarded(items: Iterable[T], keep_going: KeepGoing) -> Iterator[T]:
    """Yield the items; call ``keep_going`` once in a few thousand."""
    for number, item in enumerate(items):
        if not number & 0xFFF:
            keep_going()
        yield item


def each_guarded(items: Iterable[T], keep_going: KeepGoing) -> Iterator[T]:
    """Yield the items, each a piece of work; call ``keep_going`` before each."""
    for item in items:
        keep_going()
        yield item
