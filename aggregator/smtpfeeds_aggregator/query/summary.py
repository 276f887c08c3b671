"""Sum up the rows of one address, or of all addresses of a term, with both feeds in one row."""

from typing import Any

from ..classification.classes import Judgement
from .rows import FeedRow


class Summary:
    """Sums up rows; it holds none of them."""

    __slots__ = (
        "addresses", "asn", "days", "first_s", "hits", "ip", "judgement", "last_s", "name", "new",
        "sensors",
    )  # fmt: skip

    def __init__(self) -> None:
        self.addresses = 0
        #: The first address.
        self.ip = ""
        self.asn: int | None = None
        self.name: str | None = None
        self.judgement: Judgement | None = None
        self.first_s = self.last_s = 0
        #: Events in each feed.
        self.hits: dict[str, int] = {}
        #: Number of sensors of the address that most sensors saw.
        self.sensors = 0
        self.days = 0
        self.new = False

    def add(self, row: FeedRow) -> None:
        """Add a row; rows of one address must be adjacent."""
        if not self.addresses:
            self.first_s, self.last_s = row.first_s, row.last_s
        if row.ip != self.ip:
            self.addresses += 1
            self.ip = row.ip
            self.asn, self.name, self.judgement = row.asn, row.name, row.judgement
        self.first_s = min(self.first_s, row.first_s)
        self.last_s = max(self.last_s, row.last_s)
        self.hits[row.feed] = self.hits.get(row.feed, 0) + row.hits
        self.sensors = max(self.sensors, row.sensors)
        self.days |= row.days
        self.new = self.new or row.new

    @property
    def one(self) -> Any:
        """Return the judgement if there is only one address, else None."""
        return self.judgement if self.addresses == 1 else None
