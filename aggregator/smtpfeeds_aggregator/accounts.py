"""Counts what each broker account sends, and names the accounts that send too much. Pure.

All accounts share one queue, so a flood from one delays the others until an operator
revokes it. `AccountWatch` names that account within seconds: it counts each account's
messages, octets and refusals over the last ten seconds, as this aggregator sees them.

It is separate because the source counts with it and the store writes the counts,
and neither imports the other.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple


class RefusalCode(StrEnum):
    """Why a message was refused; an account's refusals are counted by code."""

    #: It carries no ``user_id``, so the broker does not say which account sent it.
    NO_ACCOUNT = "no_account"
    #: It is not a batch of a schema version that this aggregator knows.
    NOT_A_BATCH = "not_a_batch"
    #: It has more octets than the aggregator reads.
    TOO_LARGE = "too_large"
    #: The batch names a sensor other than the account.
    OTHER_SENSOR = "other_sensor"
    #: The account has named too many spool openings today.
    OPENINGS = "openings"
    #: Some rows of a batch were refused; the others are stored.
    ROWS = "rows"
    #: The database refuses the data of the batch.
    DATABASE = "database"
    #: A bug in this program stopped it from reading the message.
    FAULT = "fault"


class RefusedMessage(NamedTuple):
    """A refused message, as `RefusalCode` counts it."""

    #: Empty when the broker names no account.
    account: str
    code: RefusalCode
    octets: int
    #: What is wrong with it, for the operator.
    detail: str


class Flood(NamedTuple):
    """An account that sends more than an honest sensor does, with its mean rates."""

    account: str
    messages_per_s: float
    octets_per_s: float
    refused_per_s: float
    #: The most frequent refusal code when too many messages were refused; otherwise
    #: ``messages`` or ``octets``.
    reason: str


#: Rates are means over this window.
WINDOW_S: Final = 10
#: This many refused messages a second are a flood: an honest sensor sends none.
REFUSED_PER_S: Final = 1.0
#: Accounts counted by name in one second; all further ones count under the empty name.
_ACCOUNTS_MAX: Final = 10_000


@dataclass(slots=True)
class _Sent:
    """What an account sent in one second."""

    messages: int = 0
    octets: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class AccountWatch:
    """Counts what each account sends; thread-safe."""

    def __init__(
        self,
        *,
        messages_per_s: float,
        octets_per_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing counted.

        Args:
            messages_per_s: a higher rate is a flood.
            octets_per_s: a higher rate is a flood.
            clock: gives monotonic seconds.
        """
        self._messages_per_s, self._octets_per_s = messages_per_s, octets_per_s
        self._clock = clock
        self._lock = threading.Lock()
        #: By whole second, then by account.
        self._seconds: dict[int, dict[str, _Sent]] = {}

    def delivered(self, account: str | None, octets: int) -> None:
        """Count a message from this account."""
        with self._lock:
            sent = self._sent(account)
            sent.messages += 1
            sent.octets += octets

    def refused(self, account: str | None, code: RefusalCode) -> None:
        """Count a refused message from this account."""
        with self._lock:
            self._sent(account).refused[code] += 1

    def floods(self) -> list[Flood]:
        """Return the accounts that send too much now, most octets first."""
        with self._lock:
            self._forget()
            total: dict[str, _Sent] = {}
            for accounts in self._seconds.values():
                for account, sent in accounts.items():
                    into = total.setdefault(account, _Sent())
                    into.messages += sent.messages
                    into.octets += sent.octets
                    into.refused.update(sent.refused)
        floods = [self._judge(account, sent) for account, sent in total.items()]
        return sorted(filter(None, floods), key=lambda flood: flood.octets_per_s, reverse=True)

    def _judge(self, account: str, sent: _Sent) -> Flood | None:
        messages, octets = sent.messages / WINDOW_S, sent.octets / WINDOW_S
        refused = sent.refused.total() / WINDOW_S
        if refused >= REFUSED_PER_S:
            reason = sent.refused.most_common(1)[0][0]
        elif messages > self._messages_per_s:
            reason = "messages"
        elif octets > self._octets_per_s:
            reason = "octets"
        else:
            return None
        return Flood(account, messages, octets, refused, reason)

    def _sent(self, account: str | None) -> _Sent:
        second = int(self._clock())
        accounts = self._seconds.get(second)
        if accounts is None:
            self._forget()
            accounts = self._seconds[second] = {}
        name = account or ""
        sent = accounts.get(name)
        if sent is None:
            sent = accounts.setdefault("" if len(accounts) >= _ACCOUNTS_MAX else name, _Sent())
        return sent

    def _forget(self) -> None:
        oldest = int(self._clock()) - WINDOW_S
        for second in [second for second in self._seconds if second <= oldest]:
            del self._seconds[second]
