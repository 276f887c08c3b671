"""A batch that is good, by which to tell a bad batch from a fault that hits every batch.

Before a batch is blamed for an error, this one takes the same way: through check
and fold, and through every statement of a transaction that is rolled back. Where
it fails too, no batch is to blame.
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

#: No account at a broker needs to have this name: what is written under it is rolled back.
_SENSOR: Final = "known-good"
#: Documentation prefixes (RFC 5737, RFC 3849). Over a hundred addresses, so that each part of a
#: table that is split by address is written.
_IPV4: Final = tuple(f"198.51.100.{host}" for host in range(128))
#: Three new addresses of one /64: with the IPv4 ones one more than the bucket of a sensor has in
#: ``IngestStore.probe``, and then one more than it admits of a /64.
_IPV6: Final = ("2001:db8::1", "2001:db8::2", "2001:db8::3")
_OLD: Final = timedelta(days=3650)


class _OneOrigin:
    """Every address is announced by one AS, which has a name."""

    generation = _SENSOR

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        return [64_496 for _ in addresses]

    def name(self, asn: int) -> str | None:
        return f"AS {asn}"


def known_good() -> Folded:
    """Rows of every kind, folded from a batch as a sensor sends it."""
    now_ms = int(time.time() * 1000)
    old_ms = now_ms - int(_OLD.total_seconds() * 1000)
    greets = [Observation("smtpgreet", ip, now_ms, now_ms, 1, 1, 1) for ip in (*_IPV4, *_IPV6)]
    data = [Observation("smtpdata", ip, now_ms, now_ms, 1) for ip in (_IPV4[0], _IPV6[0])]
    outlived = [Observation("smtpgreet", "192.0.2.1", old_ms, old_ms, 1)]
    batch = Batch(
        spool=uuid.uuid4(),
        seq=1,
        sensor=_SENSOR,
        sealed_ms=now_ms,
        version=_SENSOR,
        counters={"connections": 1},
        observations=greets + data + outlived,
        hours=[HourCount("smtpgreet", now_ms, 1)],
        overflows=[PrefixOverflow("smtpgreet", "2001:db8:1::/64", now_ms, now_ms, 1)],
    )
    key = routing_key(_SENSOR)
    delivery = Delivery(encode(batch), _SENSOR, key, redelivered=False, token=None)
    return fold((check(delivery),), _OneOrigin(), now_ms // DAY_MS)
