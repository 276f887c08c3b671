"""Bounds how many openings of a spool an account names in a day. Pure.

Each opening of a spool has a UUID of its own, and the database keeps a row for each as long as a
batch of it may come again. A sensor opens its spool when it starts. An account that makes a UUID up
for every message would fill the table for as long as it is not revoked.

An aggregator counts what it sees itself, and begins again when it starts.
"""

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from smtpfeeds_common.errors import WireError

#: A sensor that is started again every ten seconds opens its spool 17,280 times, counting both of
#: its sides where each has sealed something.
OPENINGS_A_DAY: Final = 20_000
_DAY_S: Final = 86_400.0


class Openings:
    """The openings that each account has named since its day began; for one thread."""

    def __init__(
        self, *, most: int = OPENINGS_A_DAY, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._monotonic = most, monotonic
        #: By account: when its day began, and the UUIDs since.
        self._days: dict[str, tuple[float, set[UUID]]] = {}

    def check(self, account: str, spool: UUID) -> None:
        """Count an opening.

        Raises:
            WireError: it is one more than an account may name in a day.
        """
        now_s = self._monotonic()
        began_s, known = self._days.get(account, (now_s, set()))
        if now_s - began_s >= _DAY_S:
            began_s, known = now_s, set()
        if spool not in known:
            if len(known) >= self._most:
                raise WireError(
                    f"the account names more than {self._most:,} openings of its spool in a day",
                    code="openings",
                )
            known.add(spool)
        self._days[account] = began_s, known
