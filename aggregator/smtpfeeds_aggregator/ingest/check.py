"""Checks a message before any of it reaches the database. Pure.

The broker vouches for the account that published (``user_id``), and a batch names
its sensor: the two must be equal. Each address is packed here, once. A row whose
address cannot be packed is refused alone; the other rows of its batch stay.
"""

from typing import Final, NamedTuple

import msgspec

from smtpfeeds_common.addresses import IPv4_BYTES, pack_address
from smtpfeeds_common.errors import AddressError, WireError
from smtpfeeds_common.wire import Batch, Observation, PrefixOverflow, RefusedRow, decode

from ..sources import Delivery
from ..store.rows import BatchKey

#: Characters stored of a ``version`` and of a counter's name; longer ones are cut.
_TEXT_MAX: Final = 64
#: Counters stored of a sensor; more are dropped.
_COUNTERS_MAX: Final = 128


class CheckedBatch(NamedTuple):
    """A batch that can be stored, and those of its rows that cannot."""

    key: BatchKey
    batch: Batch
    #: Each observation with its packed address.
    rows: list[tuple[bytes, Observation]]
    #: Each overflow with its packed prefix.
    overflows: list[tuple[bytes, PrefixOverflow]]
    refused: list[RefusedRow]
    delivery: Delivery

    @property
    def size(self) -> int:
        """Rows of all kinds, refused ones too, as a measure of the batch's memory."""
        return (
            len(self.rows) + len(self.batch.hours) + len(self.batch.overflows) + len(self.refused)
        )


def check(delivery: Delivery) -> CheckedBatch:
    """Decode and check a delivery.

    Raises:
        WireError: it is not a batch from the account that sent it.
    """
    if delivery.problem is not None:
        raise delivery.problem
    if delivery.account is None:
        raise WireError(
            "no user_id: the broker did not check the sending account", code="no_account"
        )
    batch, refused = decode(delivery.body)
    if batch.sensor != delivery.account:
        raise WireError(
            f"the batch names the sensor {batch.sensor!r}, the account {delivery.account!r} sent "
            "it",
            code="other_sensor",
        )
    rows = _pack_rows(batch.observations, refused)
    overflows = _pack_overflows(batch.overflows, refused)
    return CheckedBatch(
        BatchKey(batch.sensor, batch.spool, batch.seq), batch, rows, overflows, refused, delivery
    )


def _pack_rows(
    observations: list[Observation], refused: list[RefusedRow]
) -> list[tuple[bytes, Observation]]:
    rows = []
    for row in observations:
        try:
            packed = pack_address(row.ip)
        except AddressError as exc:
            refused.append(_refuse("observations", row, str(exc)))
            continue
        if row.first_ms > row.last_ms:
            refused.append(_refuse("observations", row, "first_ms is after last_ms"))
            continue
        rows.append((packed, row))
    return rows


def _pack_overflows(
    overflows: list[PrefixOverflow], refused: list[RefusedRow]
) -> list[tuple[bytes, PrefixOverflow]]:
    rows = []
    for row in overflows:
        text, _, length = row.prefix.partition("/")
        try:
            packed = pack_address(text)
        except AddressError as exc:
            refused.append(_refuse("overflows", row, str(exc)))
            continue
        if length != "64" or len(packed) == IPv4_BYTES or packed[8:] != bytes(8):
            refused.append(_refuse("overflows", row, "this is not an IPv6 /64"))
            continue
        if row.first_ms > row.last_ms:
            refused.append(_refuse("overflows", row, "first_ms is after last_ms"))
            continue
        rows.append((packed, row))
    return rows


def _refuse(kind: str, row: Observation | PrefixOverflow, reason: str) -> RefusedRow:
    return RefusedRow(kind, msgspec.json.encode(row), reason)


def printable(text: str) -> str:
    """Cut a sensor's text and drop control characters: NUL harms PostgreSQL, ESC a terminal."""
    return "".join(char for char in text[:_TEXT_MAX] if char.isprintable())


def stored_counters(counters: dict[str, int]) -> dict[str, int]:
    """Return the counters that are stored, with printable names."""
    named = {printable(name): count for name, count in counters.items()}
    return dict(sorted(named.items())[:_COUNTERS_MAX])
