"""A fake link to a broker with queued errors, next to the real one so that both stay alike."""

from collections import deque
from collections.abc import Callable

from smtpfeeds_common.errors import BatchTooLarge, BrokerError, BrokerUnavailable
from smtpfeeds_common.spool import SealedBatch


class FakeLink:
    """Accepts every batch, except for the errors queued in ``fails``."""

    def __init__(self) -> None:
        #: Batches that the broker confirmed, in order.
        self.confirmed: list[SealedBatch] = []
        #: Raised by the next calls of ``publish``; None accepts one.
        self.fails: deque[BrokerError | None] = deque()
        #: A larger batch is refused for its size; None: no limit.
        self.most_bytes: int | None = None
        #: Called by each ``publish`` that confirms, to let time pass.
        self.publish_takes: Callable[[], None] = lambda: None
        #: If set, ``open`` raises it.
        self.away: BrokerError | None = None
        self.is_open = False
        self.opened = 0

    def open(self) -> None:
        """Connect, unless an error is set."""
        if self.away is not None:
            raise self.away
        self.is_open = True
        self.opened += 1

    def publish(self, batch: SealedBatch) -> None:
        """Confirm, or fail with the next queued outcome."""
        if not self.is_open:
            raise BrokerUnavailable
        failure = self.fails.popleft() if self.fails else None
        if self.most_bytes is not None and len(batch.body) > self.most_bytes:
            failure = BatchTooLarge()
        if failure is not None:
            self.is_open = False
            raise failure
        self.publish_takes()
        self.confirmed.append(batch)

    def idle(self, wait_s: float) -> None:
        """Return at once.

        Raises:
            BrokerUnavailable: the connection is closed.
        """
        assert wait_s >= 0
        if not self.is_open:
            raise BrokerUnavailable

    def close(self) -> None:
        """Disconnect."""
        self.is_open = False

    def interrupt(self) -> None:
        """Do nothing: nothing waits."""
