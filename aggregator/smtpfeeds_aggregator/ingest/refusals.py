"""Refusing: the source counts what is refused, logs it, and keeps samples with their reason."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from ..accounts import RefusalCode
from ..metrics import Metrics
from ..sources import Delivery, Refusal, Source
from .check import CheckedBatch

logger = logging.getLogger(__name__)

#: Octets of a batch's refused rows that are kept, as JSON.
_REFUSED_ROWS_BYTES: Final = 4 * 1024 * 1024
#: Characters of an unexpected error's text.
_REASON_MAX: Final = 300


def describe(exc: Exception) -> str:
    """An error that nobody expected, for a reason: its class, and a bounded part of its text."""
    return f"{type(exc).__name__}: {exc}"[:_REASON_MAX]


def refuse(source: Source, metrics: Metrics, delivery: Delivery, refusal: Refusal) -> None:
    """Count it in the metrics, and have the source count and keep it."""
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

    The one that is refused can still be acknowledged. Of any other the source keeps nothing, as it
    is delivered again; but with its repeats acknowledged it would not be.
    """
    deliveries = [batch.delivery, *(again.delivery for again in repeats)]
    kept = next(filter(source.is_current, deliveries), batch.delivery)
    refuse(source, metrics, kept, refusal)
    source.acknowledge([delivery for delivery in deliveries if delivery is not kept])


def refused_rows(batch: CheckedBatch) -> Refusal:
    """The refused rows of a batch; they are lost to a fault of ours in writing them down alone."""
    try:
        reason = f"{len(batch.refused)} rows: {batch.refused[0].reason}"
        return Refusal(RefusalCode.ROWS, reason, refused_rows_body(batch))
    except Exception as exc:
        logger.exception("refused rows not written down")
        reason = f"{len(batch.refused)} rows: {describe(exc)}"
        return Refusal(RefusalCode.ROWS, reason, b"{}")


def refused_rows_body(batch: CheckedBatch) -> bytes:
    """The refused rows of a batch as one JSON message, each as it came; past a bound only counted.

    JSON within JSON may be many times as long: a message that the broker calls too large would
    be tried for ever.
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
