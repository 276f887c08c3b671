"""Classify every address of a window, as a column.

Most of a million addresses behave like a few thousand others. So `judge` runs once for each
combination of its input, and each address has the number of its combination.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..classification.classes import (
    BREADTH_SENSORS,
    GUESSES_SENSORS,
    HITS_FROM,
    Class,
    Evidence,
    Judgement,
    Listing,
    judge,
)
from .columns import Numbers, Rows, Window

if TYPE_CHECKING:
    # Statistics of published files use this module without a database client.
    from ..store.listed import ListedRange

_SENSORS: Final = GUESSES_SENSORS
_FLAG_BITS: Final = 31
_HITS_BITS: Final = 2


class ListLookup(Protocol):
    """Finds the list entries that contain each address of a window."""

    def of_window(
        self, ipv4: Rows, high: Rows, low: Rows, /
    ) -> tuple[npt.NDArray[np.uint32], Sequence[tuple[Listing, ...]]]:
        """Return a number for each address, IPv4 first, and the listings of each number."""
        ...


class DatedLists(Protocol):
    """Lists whose entries age; `classification.lists` has the real ones."""

    @property
    def generation(self) -> str:
        """Return the stable name of their content."""
        ...

    def on(self, today: date, /) -> ListLookup:
        """Return the lookup for one day."""
        ...

    def ranges(self) -> "Iterable[ListedRange]":
        """Yield every range of an entry, to store them for queries."""
        ...


class NoLists:
    """Lists without entries."""

    generation = "none"

    def on(self, today: date, /) -> "NoLists":  # noqa: ARG002 - the protocol's
        """Return itself, on every day."""
        return self

    def ranges(self) -> "tuple[ListedRange, ...]":
        """Yield nothing."""
        return ()

    def of_window(
        self,
        ipv4: Rows,
        high: Rows,
        low: Rows,  # noqa: ARG002 - the protocol's
        /,
    ) -> tuple[npt.NDArray[np.uint32], Sequence[tuple[Listing, ...]]]:
        """Return 0 for each address."""
        return np.zeros(len(ipv4) + len(high), np.uint32), ((),)


@dataclass(frozen=True, slots=True)
class Judgements:
    """A judgement for each address: ``which`` is its number in ``kinds``."""

    which: npt.NDArray[np.intp]
    kinds: tuple[Judgement, ...]

    def count(self, addresses: Numbers) -> dict[str, int]:
        """Count some addresses by class; all classes, in order."""
        counts = np.bincount(self.which[addresses], minlength=len(self.kinds)).tolist()
        classes = {str(cls): 0 for cls in Class}
        for kind, count in zip(self.kinds, counts, strict=True):
            classes[kind.cls] += count
        return classes


def judge_window(window: Window, sensors_alive: int, lists: ListLookup) -> Judgements:
    """Classify every address of a window."""
    greet, data = window.feeds
    flags = _both(window, "flags").astype(np.int64)
    hits = np.maximum(window.of_addresses(greet, "hits"), window.of_addresses(data, "hits"))
    sensors = np.maximum(
        window.of_addresses(greet, "sensors"), window.of_addresses(data, "sensors")
    )
    listed, entries = lists.of_window(window.ipv4, window.high, window.low)
    hits_range = np.searchsorted(HITS_FROM, hits, side="right") - 1
    combined = flags
    combined |= hits_range.astype(np.int64) << _FLAG_BITS
    combined |= (sensors >= _SENSORS).astype(np.int64) << (_FLAG_BITS + _HITS_BITS)
    combined |= listed.astype(np.int64) << (_FLAG_BITS + _HITS_BITS + 1)
    kinds, which = np.unique(combined, return_inverse=True)
    # Many combinations have the same judgement.
    judgements: dict[Judgement, int] = {}
    numbers = [
        judgements.setdefault(_judged(kind, sensors_alive, entries), len(judgements))
        for kind in kinds.tolist()
    ]
    return Judgements(np.array(numbers or [0], np.intp)[which], tuple(judgements))


def _both(window: Window, name: str) -> Rows:
    greet, data = (window.of_addresses(feed, name) for feed in window.feeds)
    both: npt.NDArray[Any] = greet | data
    return both


def _judged(combined: int, sensors_alive: int, entries: Sequence[tuple[Listing, ...]]) -> Judgement:
    rest = combined >> _FLAG_BITS
    many_sensors = rest >> _HITS_BITS & 1
    return judge(
        Evidence(
            flags=combined & (1 << _FLAG_BITS) - 1,
            hits=HITS_FROM[rest & (1 << _HITS_BITS) - 1],
            sensors=_SENSORS if many_sensors else 1,
            sensors_alive=min(sensors_alive, BREADTH_SENSORS),
            listings=entries[rest >> _HITS_BITS + 1],
        )
    )
