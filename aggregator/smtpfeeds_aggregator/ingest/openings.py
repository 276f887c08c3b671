"""Bounds how many spool openings an account may name in a day. Pure.

A sensor opens its spool when it starts. Each opening has its own UUID, and the database keeps a
row for it as long as one of its batches may be delivered again. Without this bound, an account
that invents a UUID for every message would fill the table until an operator revokes it.

Each aggregator counts what it receives itself, from its start on.
"""

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from smtpfeeds_common.errors import WireError

#: A sensor that restarts every ten seconds and seals data of both sides each time makes 17,280
#: openings.
OPENINGS_A_DAY: Final = 20_000
_DAY_S: Final = 86_400.0


class Openings:
    """The openings that each account has named since its day began; not thread-safe."""

    def __init__(
        self, *, most: int = OPENINGS_A_DAY, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._monotonic = most, monotonic
        #: By account: when its day began, and the UUIDs since then.
        self._days: dict[str, tuple[float, set[UUID]]] = {}

    def check(self, account: str, spool: UUID) -> None:
        """Count an opening.

        Raises:
            WireError: the account has named too many today.
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
