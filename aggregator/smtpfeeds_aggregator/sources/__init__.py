"""Where batches come from: a broker, or a sensor's spools on this host.

A source runs in its own thread and puts deliveries into a queue; the ingest worker,
in another thread, acknowledges or refuses each. A source promises to deliver again
what is neither acknowledged nor refused.
"""

from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from smtpfeeds_common.errors import WireError

from ..accounts import RefusalCode


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, with the sender that the source vouches for."""

    body: bytes
    #: The broker account that sent it, or the spool's sensor; None if the broker names no account.
    account: str | None
    routing_key: str
    redelivered: bool
    #: Identifies it for its source.
    token: Any
    #: Why it is not a batch, if only the source can know.
    problem: WireError | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is refused, and why."""

    #: Refusals are counted by this code.
    code: RefusalCode
    #: What is wrong, for the operator.
    reason: str
    #: The message as received, or the refused rows as JSON.
    body: bytes

    @property
    def kind(self) -> str:
        """The kind of body: a `message`, a `batch` that the database refuses, or refused `rows`."""
        return {RefusalCode.ROWS: "rows", RefusalCode.DATABASE: "batch"}.get(self.code, "message")


class Source(Protocol):
    """What the ingest worker needs of a source; thread-safe."""

    def run(self, stop: Event) -> None:
        """Deliver until stopped; runs in its own thread."""
        ...

    def get(self, timeout_s: float) -> Delivery | None:
        """Return the next delivery, or None if none arrives within the time."""
        ...

    def is_current(self, delivery: Delivery) -> bool:
        """Return whether it can still be acknowledged; otherwise it is delivered again."""
        ...

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Note that these are committed, and never deliver them again."""
        ...

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Count a refused delivery, keep it if it is a sample, then acknowledge it."""
        ...

    def pause(self) -> None:
        """Give back unacknowledged deliveries, and deliver nothing until `resume`."""
        ...

    def resume(self) -> None:
        """Deliver again."""
        ...

    @property
    def more_can_come(self) -> bool:
        """Whether more deliveries can arrive before one is acknowledged."""
        ...

    @property
    def consuming(self) -> bool:
        """Whether deliveries can arrive now."""
        ...
