"""The delivery's interface to a broker; ``publisher`` has the real one."""

from typing import Protocol

from smtpfeeds_common.spool import SealedBatch


class Link(Protocol):
    """A connection to a broker that can be opened repeatedly."""

    @property
    def is_open(self) -> bool:
        """Return whether it is open."""
        ...

    def open(self) -> None:
        """Connect to one of the brokers.

        Raises:
            BrokerError: no broker accepts the connection.
        """

    def publish(self, batch: SealedBatch) -> None:
        """Publish a batch; after the return the broker has it.

        Raises:
            BatchTooLarge, BrokerRefused, BrokerUnavailable: the broker does not have it.
        """

    def idle(self, wait_s: float) -> None:
        """Wait, and keep the connection alive.

        Raises:
            BrokerUnavailable: the connection broke.
        """

    def close(self) -> None:
        """Disconnect; never raises."""

    def interrupt(self) -> None:
        """Interrupt a wait for the broker, from another thread."""
