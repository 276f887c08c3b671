"""A known-good batch, which tells a bad batch from a fault that affects every batch.

Before ingest refuses a batch for an error, it sends this one through the same code: check,
fold, and every statement of a transaction that it rolls back. If this one fails too, the
batch is not the cause.
"""

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from smtpfeeds_common.history import DAY_MS
from smtpfeeds_common.topology import routing_key
from smtpfeeds_common.wire import Batch, HourCount, Observation, PrefixOverflow, encode

from ..sources import Delivery
from ..store.rows import Folded
from .check import check
from .fold import fold

#: An account of this name is harmless: everything written under it here is rolled back.
_SENSOR: Final = "known-good"
#: Documentation prefixes (RFC 5737, RFC 3849). With over a hundred addresses each part of a
#: table that is partitioned by address gets a row.
_IPV4: Final = tuple(f"198.51.100.{host}" for host in range(128))
#: Three new addresses of one /64. With the IPv4 addresses they exceed, by one each, the bucket
#: of a sensor in ``IngestStore.probe`` and the bound of a /64.
_IPV6: Final = ("2001:db8::1", "2001:db8::2", "2001:db8::3")
_OLD: Final = timedelta(days=3650)


class _OneOrigin:
    """An origin table in which one AS, with a name, announces every address."""

    generation = _SENSOR

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        return [64_496 for _ in addresses]

    def name(self, asn: int) -> str | None:
        return f"AS {asn}"


def probe_batch() -> Folded:
    """Fold a batch that has rows of every kind, encoded as a sensor sends it."""
    now_ms = int(time.time() * 1000)
    old_ms = now_ms - int(_OLD.total_seconds() * 1000)
    greets = [Observation("smtpgreet", ip, now_ms, now_ms, 1, 1, 1) for ip in (*_IPV4, *_IPV6)]
    data = [Observation("smtpdata", ip, now_ms, now_ms, 1) for ip in (_IPV4[0], _IPV6[0])]
    expired = [Observation("smtpgreet", "192.0.2.1", old_ms, old_ms, 1)]
    batch = Batch(
        spool=uuid.uuid4(),
        seq=1,
        sensor=_SENSOR,
        sealed_ms=now_ms,
        version=_SENSOR,
        counters={"connections": 1},
        observations=greets + data + expired,
        hours=[HourCount("smtpgreet", now_ms, 1)],
        overflows=[PrefixOverflow("smtpgreet", "2001:db8:1::/64", now_ms, now_ms, 1)],
    )
    key = routing_key(_SENSOR)
    delivery = Delivery(encode(batch), _SENSOR, key, redelivered=False, token=None)
    return fold((check(delivery),), _OneOrigin(), now_ms // DAY_MS)
