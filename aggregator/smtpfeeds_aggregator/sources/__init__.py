"""Where batches come from: a broker, or a sensor's spools on this host.

A source runs in a thread of its own and hands deliveries out by a queue; the
ingest worker, in another thread, acknowledges or refuses each. A source promises
one thing: what is neither acknowledged nor refused is delivered again.
"""

from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from smtpfeeds_common.errors import WireError

from ..accounts import RefusalCode


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, and who the source vouches it is from."""

    body: bytes
    #: The broker account that sent it; on a single host the spool's sensor. None: nobody vouches.
    account: str | None
    routing_key: str
    redelivered: bool
    #: What its source needs to find it again.
    token: Any
    #: Why it is no batch, where the source alone can tell.
    problem: WireError | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is put among the refused, and why."""

    #: By which refusals are counted.
    code: RefusalCode
    #: What is wrong, for a person.
    reason: str
    #: The message as it came, or the refused rows as JSON.
    body: bytes

    @property
    def kind(self) -> str:
        """What the body is: a `message`, a `batch` that the database refuses, or its `rows`."""
        return {RefusalCode.ROWS: "rows", RefusalCode.DATABASE: "batch"}.get(self.code, "message")


class Source(Protocol):
    """What the ingest worker needs of a source; every call from any thread."""

    def run(self, stop: Event) -> None:
        """Deliver until stopped; in a thread of its own."""
        ...

    def get(self, timeout_s: float) -> Delivery | None:
        """The next delivery, or None when none comes within the time."""
        ...

    def is_current(self, delivery: Delivery) -> bool:
        """Whether it can still be acknowledged; else it is delivered again."""
        ...

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """These are committed: never deliver them again."""
        ...

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Count this among the refused, keep what is a sample, then acknowledge the delivery."""
        ...

    def pause(self) -> None:
        """Give back what was delivered and not acknowledged; deliver nothing more."""
        ...

    def resume(self) -> None:
        """Deliver again."""
        ...

    @property
    def more_can_come(self) -> bool:
        """Whether deliveries can come before one that is in hand is acknowledged."""
        ...

    @property
    def consuming(self) -> bool:
        """Whether deliveries can come now."""
        ...
