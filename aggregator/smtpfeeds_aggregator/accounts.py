"""What accounts at the broker send: reasons of refusals, and who sends too much. Pure.

An account shares one queue with all others, so a flood of it delays them until the
account is revoked. It is named within seconds by what this counts: messages, octets
and refusals of each account over the last ten seconds, as this aggregator sees them.

It stands alone because the source counts here, the store writes what it counted,
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
    """Why a message was refused; by these few the refusals of an account are counted."""

    #: It carries no ``user_id``: the broker vouches for no account.
    NO_ACCOUNT = "no_account"
    #: It is not a batch of a schema version that is known here.
    NOT_A_BATCH = "not_a_batch"
    #: It has more octets than are read.
    TOO_LARGE = "too_large"
    #: The batch names another sensor than the account.
    OTHER_SENSOR = "other_sensor"
    #: The account has named too many openings of its spool today.
    OPENINGS = "openings"
    #: Some rows of a batch; the others are stored.
    ROWS = "rows"
    #: The database refuses the data of the batch.
    DATABASE = "database"
    #: Reading it failed by a fault of ours.
    FAULT = "fault"


class RefusedMessage(NamedTuple):
    """One refused message, as it is counted."""

    #: Empty: nobody vouches for one.
    account: str
    code: RefusalCode
    octets: int
    #: What is wrong with it, for a person.
    detail: str


class Flood(NamedTuple):
    """An account that sends more than an honest sensor does, with its mean rates."""

    account: str
    messages_per_s: float
    octets_per_s: float
    refused_per_s: float
    #: The commonest code of its refused messages, where those are too many; else
    #: ``messages`` or ``octets``.
    reason: str


#: Seconds that rates are a mean of.
WINDOW_S: Final = 10
#: Refused messages a second that are a flood: an honest sensor sends none.
REFUSED_PER_S: Final = 1.0
#: Accounts that are told apart at one time; more are counted under no name.
_ACCOUNTS_MAX: Final = 10_000


@dataclass(slots=True)
class _Sent:
    """What an account sent in a second."""

    messages: int = 0
    octets: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class AccountWatch:
    """Counts what each account sends; every call from any thread."""

    def __init__(
        self,
        *,
        messages_per_s: float,
        octets_per_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing was sent yet.

        Args:
            messages_per_s: more than that is a flood.
            octets_per_s: so is more than that.
            clock: seconds that never go back.
        """
        self._messages_per_s, self._octets_per_s = messages_per_s, octets_per_s
        self._clock = clock
        self._lock = threading.Lock()
        #: By whole second, then by account.
        self._seconds: dict[int, dict[str, _Sent]] = {}

    def delivered(self, account: str | None, octets: int) -> None:
        """A message of this account came."""
        with self._lock:
            sent = self._sent(account)
            sent.messages += 1
            sent.octets += octets

    def refused(self, account: str | None, code: RefusalCode) -> None:
        """A message of this account was refused."""
        with self._lock:
            self._sent(account).refused[code] += 1

    def floods(self) -> list[Flood]:
        """The accounts that send too much now, the worst first."""
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
