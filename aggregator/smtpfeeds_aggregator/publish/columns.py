"""The window as columns: one row for each address, with what each feed holds of it.

PostgreSQL sends rows of one length, so a block of them is an array without a loop.
Only what is published is kept, 40 octets for an address of IPv4. Each family is sorted
once by address. A feed's own order (ASN first) is then a stable sort of row numbers by
ASN.

https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from smtpfeeds_common.addresses import IPv4_BYTES
from smtpfeeds_common.history import DAY_S, DAYS_MAX, WEEK_DAYS

#: The columns of ``copy_window`` in store/sql/publication.sql, as PostgreSQL sends them;
#: times are microseconds since 2000-01-01.
_SENT: Final = (
    *(("is_ipv6", "u1"), ("is_data", "u1"), ("high", ">u8"), ("low", ">u8")),
    *(("last_us", ">i8"), ("first_us", ">i8"), ("hits", ">i8"), ("asn", ">i8"), ("day", ">i4")),
    *(("days", ">u8"), ("flags", ">i8"), ("flags_now", ">i8"), ("flags_before", ">i8")),
    *(("sensors", ">i8"), ("targets", ">i8")),
)
_ROW: Final = np.dtype(
    [
        ("fields", ">i2"),
        *(pair for name, kind in _SENT for pair in ((f"{name}_octets", ">i4"), (name, kind))),
    ]
)
#: What is kept beside the address; ``days`` are the past seven, ``flags`` those that have a name.
_KEPT: Final = (
    *(("is_data", "?"), ("asn", "u4"), ("last_s", "u4"), ("first_s", "u4"), ("hits", "i8")),
    *(("flags", "u4"), ("days", "u1"), ("sensors", "u4"), ("targets", "u4")),
)
_IPV4: Final = np.dtype([("low", "u4"), *_KEPT])
_IPV6: Final = np.dtype([("high", "u8"), ("low", "u8"), *_KEPT])
#: Signature, flags, length of an extension; and what stands for the number of fields at the end.
_HEADER_OCTETS: Final = 19
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_END_OCTETS: Final = 2
_BLOCK_OCTETS: Final = 1 << 21
_EPOCH_2000_S: Final = 946_684_800
_US: Final = 1_000_000
_U4_MAX: Final = 0xFFFF_FFFF
_FLAG_BITS: Final = 0x7FFF_FFFF
_MARKS: Final = 0x7F

Rows = npt.NDArray[Any]
Numbers = npt.NDArray[np.intp]


def read_rows(blocks: Iterable[bytes | bytearray | memoryview]) -> Iterator[Rows]:
    """Blocks of rows as they were sent, from a binary COPY that is cut anywhere.

    Raises:
        ValueError: it is not a COPY of the window, or ends in the middle.
    """
    held = bytearray()
    started = False
    for block in blocks:
        held += block
        if len(held) < _BLOCK_OCTETS:
            continue
        if not started:
            started = _skip_header(held)
        whole = len(held) // _ROW.itemsize * _ROW.itemsize
        yield _checked(bytes(held[:whole]))
        del held[:whole]
    if not started:
        _skip_header(held)
    whole = (len(held) - _END_OCTETS) // _ROW.itemsize * _ROW.itemsize
    if len(held) - whole != _END_OCTETS:
        raise ValueError("the COPY ended in the middle of a row")
    yield _checked(bytes(held[:whole]))


def _skip_header(held: bytearray) -> bool:
    if not held.startswith(_SIGNATURE) or len(held) < _HEADER_OCTETS:
        raise ValueError("this is not a binary COPY")
    del held[:_HEADER_OCTETS]
    return True


def _checked(octets: bytes) -> Rows:
    rows = np.frombuffer(octets, _ROW)
    if not (rows["fields"] == len(_SENT)).all():
        raise ValueError("the COPY holds a row of another length")
    return rows


def _kept(rows: Rows, kind: "np.dtype[Any]", now_s: int) -> Rows:
    kept = np.empty(len(rows), kind)
    for name in ("is_data", "low", "asn", "hits"):
        kept[name] = rows[name]
    if "high" in (kind.names or ()):
        kept["high"] = rows["high"]
    for name in ("sensors", "targets"):
        kept[name] = np.minimum(rows[name], _U4_MAX)
    for name in ("last", "first"):
        seconds = rows[f"{name}_us"] // _US + _EPOCH_2000_S
        kept[f"{name}_s"] = np.clip(seconds, 0, _U4_MAX)
    kept["days"], kept["flags"] = _recent(rows, kept["last_s"], kept["first_s"], now_s)
    return kept


def _recent(rows: Rows, last_s: Rows, first_s: Rows, now_s: int) -> tuple[Rows, Rows]:
    """Return the marks of the past seven days, and the flags of this epoch week and the one before.

    The rules of ``history.of_stored``, for columns.
    """
    today = now_s // DAY_S
    last_day = last_s.astype(np.int64) // DAY_S
    first_day = first_s.astype(np.int64) // DAY_S
    day = rows["day"].astype(np.int64)
    one = np.ones(len(rows), np.uint64)
    days = _shifted(rows["days"].astype(np.uint64) & np.uint64((1 << DAYS_MAX) - 1), last_day - day)
    days |= one | _shifted(one, last_day - first_day)
    days &= _shifted(one << np.uint64(1), last_day - first_day) - np.uint64(1)
    days = _shifted(days, today - last_day)
    now, before = rows["flags_now"], rows["flags_before"]
    weeks = today // WEEK_DAYS - day // WEEK_DAYS
    flags = np.where(weeks <= 0, now | before, np.where(weeks == 1, now, 0))
    # Written by a program of 0.1.0 alone.
    of_last_day = rows["flags"] & ~(now | before)
    flags |= np.where(today // WEEK_DAYS - last_day // WEEK_DAYS <= 1, of_last_day, 0)
    return days & np.uint64(_MARKS), flags & _FLAG_BITS


def _shifted(bits: Rows, by: Rows) -> Rows:
    """Shift to the left, or right; past the end nothing is left, as no processor does it."""
    left, right = (np.clip(places, 0, DAYS_MAX).astype(np.uint64) for places in (by, -by))
    return np.where(np.abs(by) > DAYS_MAX, np.uint64(0), bits << left >> right)


@dataclass(frozen=True, slots=True)
class FeedColumns:
    """What one feed holds; a row an address, in the order of addresses."""

    #: Each row's address, as a row number of the window.
    address: Numbers
    #: Seconds since 1970-01-01 UTC.
    last_s: Rows
    first_s: Rows
    hits: Rows
    #: Behaviours of this epoch week and the one before.
    flags: Rows
    #: Bit n: seen n days ago, the past seven.
    days: Rows
    sensors: Rows
    targets: Rows

    def __len__(self) -> int:
        return len(self.address)

    def select(self, wanted: Rows) -> "FeedColumns":
        """Return only the rows for which ``wanted`` is true."""
        return FeedColumns(*(getattr(self, each.name)[wanted] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses with their origins: IPv4 before IPv6, each by the address as a number."""

    #: IPv4 addresses as numbers; they are the first rows.
    ipv4: Rows
    #: The upper and lower 64 bits of IPv6 addresses.
    high: Rows
    low: Rows
    #: The origin of each address; 0: none is known.
    asn: Rows

    def __len__(self) -> int:
        return len(self.ipv4) + len(self.low)

    def packed(self, start: int, end: int) -> list[bytes]:
        """Return the addresses of some rows, 4 or 16 octets each."""
        raw4 = self.ipv4[start:end].astype(">u4").tobytes()
        packed = [raw4[at : at + IPv4_BYTES] for at in range(0, len(raw4), IPv4_BYTES)]
        first6, last6 = max(0, start - len(self.ipv4)), max(0, end - len(self.ipv4))
        if last6 > first6:
            octets = np.empty((min(last6, len(self.low)) - first6, 2), ">u8")
            octets[:, 0], octets[:, 1] = self.high[first6:last6], self.low[first6:last6]
            raw6 = octets.tobytes()
            packed += [raw6[at : at + 16] for at in range(0, len(raw6), 16)]
        return packed

    def addresses(self, wanted: Rows) -> "Addresses":
        """Return only the addresses for which ``wanted`` is true, without the feeds' columns."""
        wanted4, wanted6 = wanted[: len(self.ipv4)], wanted[len(self.ipv4) :]
        return Addresses(
            self.ipv4[wanted4], self.high[wanted6], self.low[wanted6], self.asn[wanted]
        )


@dataclass(frozen=True, slots=True)
class Window(Addresses):
    """All addresses of the window, with what each feed holds of them."""

    #: In the order of ``FEEDS``.
    feeds: tuple[FeedColumns, FeedColumns]

    @classmethod
    def read(
        cls,
        blocks: Iterable[bytes | bytearray | memoryview],
        now_s: int,
        keep_going: Callable[[], None] = lambda: None,
    ) -> "Window":
        """Read a binary COPY of the window.

        Args:
            blocks: what the server sends, cut anywhere.
            now_s: the time that counts as now; days and flags are relative to it.
            keep_going: asked now and then; what it raises ends the reading.
        """
        parts4, parts6 = [np.empty(0, _IPV4)], [np.empty(0, _IPV6)]
        for rows in read_rows(blocks):
            keep_going()
            ipv6 = rows["is_ipv6"] != 0
            # Of whole rows `take` copies ten times as many a second as a mask or an index does.
            parts4.append(_kept(rows.take(np.flatnonzero(~ipv6)), _IPV4, now_s))
            if ipv6.any():
                parts6.append(_kept(rows.take(np.flatnonzero(ipv6)), _IPV6, now_s))
        return cls._of(_sorted(parts4, "low"), _sorted(parts6, "low", "high"))

    @classmethod
    def _of(cls, rows4: Rows, rows6: Rows) -> "Window":
        first4, first6 = _first_of_address(rows4, "low"), _first_of_address(rows6, "low", "high")
        number4 = np.cumsum(first4) - 1
        number6 = np.cumsum(first6) - 1 + first4.sum()
        return cls(
            rows4["low"][first4],
            rows6["high"][first6],
            rows6["low"][first6],
            np.concatenate((rows4["asn"][first4], rows6["asn"][first6])),
            (
                _feed(rows4, rows6, number4, number6, data=False),
                _feed(rows4, rows6, number4, number6, data=True),
            ),
        )

    def select(self, wanted: Rows) -> "Window":
        """Return only the addresses for which ``wanted`` is true."""
        numbers = np.cumsum(wanted) - 1
        greet, data = (
            replace(part, address=numbers[part.address])
            for part in (feed.select(wanted[feed.address]) for feed in self.feeds)
        )
        kept = self.addresses(wanted)
        return Window(kept.ipv4, kept.high, kept.low, kept.asn, (greet, data))

    def of_addresses(self, feed: FeedColumns, name: str) -> Rows:
        """Return a feed's column with a row for each address; 0 if the feed lacks the address."""
        column = getattr(feed, name)
        spread = np.zeros(len(self), column.dtype)
        spread[feed.address] = column
        return spread


def _sorted(parts: list[Rows], *keys: str) -> Rows:
    rows = np.concatenate(parts)
    parts.clear()
    order = (
        np.argsort(rows[keys[0]], kind="stable")
        if len(keys) == 1
        else np.lexsort([rows[key] for key in keys])
    )
    return rows.take(order)


def _first_of_address(rows: Rows, *keys: str) -> Rows:
    """Return which rows are the first of their address; the rows of both feeds are adjacent."""
    first = np.ones(len(rows), bool)
    if len(rows):
        first[1:] = False
        for key in keys:
            first[1:] |= rows[key][1:] != rows[key][:-1]
    return first


def _feed(
    rows4: Rows, rows6: Rows, number4: Numbers, number6: Numbers, *, data: bool
) -> FeedColumns:
    mask4, mask6 = rows4["is_data"] == data, rows6["is_data"] == data
    return FeedColumns(
        np.concatenate((number4[mask4], number6[mask6])).astype(np.intp),
        *(
            np.concatenate((rows4[each.name][mask4], rows6[each.name][mask6]))
            for each in fields(FeedColumns)[1:]
        ),
    )
