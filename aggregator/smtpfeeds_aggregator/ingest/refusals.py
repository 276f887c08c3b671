"""Refuses messages: the source counts and logs each one, and keeps samples with the reason."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from ..accounts import RefusalCode
from ..metrics import Metrics
from ..sources import Delivery, Refusal, Source
from .check import CheckedBatch

logger = logging.getLogger(__name__)

#: Octets kept of a batch's refused rows, as JSON.
_REFUSED_ROWS_BYTES: Final = 4 * 1024 * 1024
#: Characters kept of an unexpected error's text.
_REASON_MAX: Final = 300


def describe(exc: Exception) -> str:
    """Describe an unexpected error: its class and a bounded part of its text."""
    return f"{type(exc).__name__}: {exc}"[:_REASON_MAX]


def refuse(source: Source, metrics: Metrics, delivery: Delivery, refusal: Refusal) -> None:
    """Count a refused message in the metrics, and let the source count and keep it."""
    metrics.refused.labels(refusal.kind).inc()
    source.refuse(delivery, refusal)


def refuse_batch(
    source: Source,
    metrics: Metrics,
    batch: CheckedBatch,
    repeats: Sequence[CheckedBatch],
    refusal: Refusal,
) -> None:
    """Refuse one delivery of a batch, and acknowledge the others.

    The refused delivery must be one that can still be acknowledged. The source keeps no other,
    because it will be redelivered; and it would not be once its repeats are acknowledged.
    """
    deliveries = [batch.delivery, *(again.delivery for again in repeats)]
    kept = next(filter(source.is_current, deliveries), batch.delivery)
    refuse(source, metrics, kept, refusal)
    source.acknowledge([delivery for delivery in deliveries if delivery is not kept])


def refused_rows(batch: CheckedBatch) -> Refusal:
    """Return the refused rows of a batch; if encoding them fails, only their number is kept."""
    try:
        reason = f"{len(batch.refused)} rows: {batch.refused[0].reason}"
        return Refusal(RefusalCode.ROWS, reason, refused_rows_body(batch))
    except Exception as exc:
        logger.exception("refused rows not encoded")
        reason = f"{len(batch.refused)} rows: {describe(exc)}"
        return Refusal(RefusalCode.ROWS, reason, b"{}")


def refused_rows_body(batch: CheckedBatch) -> bytes:
    """Encode the refused rows of a batch, as received; past a bound they are only counted.

    JSON within JSON may be many times as long, and a message that is too large for the broker
    would be retried for ever.
    """
    rows: list[dict[str, str]] = []
    room = _REFUSED_ROWS_BYTES
    for row in batch.refused:
        entry = {"kind": row.kind, "reason": row.reason, "row": row.raw.decode(errors="replace")}
        room -= len(msgspec.json.encode(entry))
        if room < 0:
            break
        rows.append(entry)
    return msgspec.json.encode(
        {
            "sensor": batch.key.sensor,
            "spool": str(batch.key.spool),
            "seq": batch.key.seq,
            "rows": rows,
            "not_kept": len(batch.refused) - len(rows),
        }
    )
