"""`--sort FIELD`: sort rows in memory, within a bound."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from smtpfeeds_common.columns import Column, Record, select
from smtpfeeds_common.errors import SettingsError

if TYPE_CHECKING:
    from ..query.rows import FeedRow

#: Rows held for sorting, some 500 MB. With --limit, only that number.
SORTED_MAX: Final = 1_000_000


class Order:
    """An order of rows, or none."""

    def __init__(self, name: str | None, *, largest_first: bool = False) -> None:
        self._name, self._largest_first = name, largest_first

    @classmethod
    def of(cls, text: str | None, columns: Sequence[Column]) -> "Order":
        """Parse the order.

        Raises:
            SettingsError: the field does not exist, or there are several.
        """
        if text is None:
            return cls(None)
        column, *others = select(columns, text.removeprefix("-"), option="--sort")
        if others:
            raise SettingsError("--sort: give one field; a minus before it puts the largest first")
        return cls(column.name, largest_first=text.startswith("-"))

    def records(self, records: Iterable[Record], limit: int | None) -> Iterator[Record]:
        """Return records in this order, unknown values last; with a limit, one record more than
        that.
        """
        name = self._name
        return self._sorted(records, limit, lambda record: record[name or ""])

    def rows(self, rows: "Iterable[FeedRow]", limit: int | None) -> "Iterator[FeedRow]":
        """Return rows of the feeds in this order, by column name."""
        from .feed_rows import value_of

        name = self._name
        return self._sorted(rows, limit, lambda row: value_of(row, name or ""))

    def _sorted(
        self, rows: Iterable[Any], limit: int | None, value: Callable[[Any], Any]
    ) -> Iterator[Any]:
        if self._name is None:
            return iter(rows)
        largest_first = self._largest_first

        def key(row: Any) -> tuple[bool, Any]:
            known = value(row)
            # Unknown values are last in a reversed order too.
            return ((known is None) != largest_first, "" if known is None else known)

        if limit is not None and limit < SORTED_MAX:
            import heapq

            pick = heapq.nlargest if largest_first else heapq.nsmallest
            return iter(pick(limit + 1, rows, key=key))
        held: list[Any] = []
        for row in rows:
            held.append(row)
            if len(held) > SORTED_MAX:
                raise SettingsError(
                    f"--sort: more than {SORTED_MAX:,} rows; give --limit, or narrow the query"
                )
        return iter(sorted(held, key=key, reverse=largest_first))
