"""A spool without a file, for tests, which turn its failures on and off.

It is beside the real one because both must behave alike; one contract test runs on both.
"""

from pathlib import Path

from ..clock import Reading
from ..errors import SpoolBusy, SpoolDamaged, SpoolUnwritable
from .fold import Bounds, Event


class FakeSpool:
    """Takes events and fails in the same way as ``Spool``."""

    def __init__(self, path: Path, *, sensor: str, bounds: Bounds | None = None) -> None:
        self.path, self.sensor, self.bounds = path, sensor, bounds or Bounds()
        # Failures
        self.is_locked = self.is_full = self.is_damaged = self.has_no_place = False
        self._has_file = True
        self._folded: list[Event] = []
        self._rows: set[tuple[int, bytes]] = set()
        #: Events of each commit that wrote any.
        self.commits: list[list[Event]] = []
        #: Behaviours noted after their event: before and after the commit.
        self._later: list[tuple[Event, int]] = []
        self.later: list[tuple[Event, int]] = []
        #: Number of calls of ``commit``.
        self.tries = 0
        #: Number of calls of ``begin_day``.
        self.days = 0
        #: The last notes.
        self.notes: dict[str, object] = {}
        self.drops = self.quarantined = 0
        self.noted_ms: int | None = None
        self.unopened = ""

    def fold(self, event: Event) -> bool:
        """Take one event in memory."""
        self._folded.append(event)
        key = (event.feed, event.ip)
        if key not in self._rows and len(self._rows) >= self.bounds.memory_rows:
            self.drops += 1
            return False
        self._rows.add(key)
        return True

    def note(self, event: Event, flags: int) -> None:
        """Take behaviours that became known after their event."""
        self._later.append((event, flags))

    def begin_day(self) -> None:
        """Count a day."""
        self.days += 1

    @property
    def unwritten(self) -> int:
        """Events that are not in the file."""
        return len(self._folded)

    def commit(self) -> None:
        """Write the folded events, unless a failure is on."""
        self.tries += 1
        self._open()
        if not self._folded and not self._later:
            return
        self._check()
        if self._folded:
            self.commits.append(self._folded)
        self.later += self._later
        self._folded, self._later, self._rows = [], [], set()

    def note_state(self, reading: Reading, **notes: object) -> None:
        """Note the sensor's state, unless a failure is on."""
        self._open()
        self._check()
        self.noted_ms, self.notes = reading.utc_ms, notes

    def check(self) -> None:
        """Check the file."""
        self._open()
        self._check()

    def replace(self) -> None:
        """Quarantine the damaged file and continue with a new one."""
        self._has_file = False
        self._open()

    def _open(self) -> None:
        if self._has_file:
            return
        if self.has_no_place:
            raise SpoolUnwritable
        self.quarantined += self.is_damaged
        self._has_file, self.is_damaged, self.unopened = True, False, ""

    def _check(self) -> None:
        if self.is_damaged:
            raise SpoolDamaged
        if self.is_locked:
            raise SpoolBusy
        if self.is_full:
            raise SpoolUnwritable

    def begin_without_a_file(self) -> None:
        """Start as a spool does while the disk is full."""
        self._has_file, self.unopened = False, "disk full"

    def close(self) -> None:
        """Do nothing, because no file is open."""
