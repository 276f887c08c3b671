"""The way to a broker, as the delivery sees it; the real one is in ``publisher``."""

from typing import Protocol

from smtpfeeds_common.spool import SealedBatch


class Link(Protocol):
    """A connection to a broker that can be opened again and again."""

    @property
    def is_open(self) -> bool:
        """Whether something can be published."""
        ...

    def open(self) -> None:
        """Connect to one of the brokers.

        Raises:
            BrokerError: to none of them.
        """

    def publish(self, batch: SealedBatch) -> None:
        """Publish; returning means that the broker has it.

        Raises:
            BatchTooLarge, BrokerRefused, BrokerUnavailable: it has not.
        """

    def idle(self, wait_s: float) -> None:
        """Wait while keeping the connection alive.

        Raises:
            BrokerUnavailable: it broke.
        """

    def close(self) -> None:
        """Disconnect; never raises."""

    def interrupt(self) -> None:
        """Break off, from another thread, whatever waits for the broker."""
