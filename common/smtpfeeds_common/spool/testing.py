"""A spool without a file, whose troubles a test turns on and off.

Beside the real one, so that both stay alike: one contract test runs on both.
"""

from pathlib import Path

from ..clock import Reading
from ..errors import SpoolBusy, SpoolDamaged, SpoolUnwritable
from .fold import Bounds, Event


class FakeSpool:
    """Takes events as ``Spool`` does, and fails as it does."""

    def __init__(self, path: Path, *, sensor: str, bounds: Bounds | None = None) -> None:
        self.path, self.sensor, self.bounds = path, sensor, bounds or Bounds()
        # Troubles
        self.is_locked = self.is_full = self.is_damaged = self.has_no_place = False
        self._has_file = True
        self._folded: list[Event] = []
        self._rows: set[tuple[int, bytes]] = set()
        #: Events of each commit that wrote some.
        self.commits: list[list[Event]] = []
        #: Behaviours that followed their event, not written and written.
        self._later: list[tuple[Event, int]] = []
        self.later: list[tuple[Event, int]] = []
        #: How often a commit was tried.
        self.tries = 0
        #: Days that have begun since the start.
        self.days = 0
        #: What the last notes were.
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
        """A day has passed."""
        self.days += 1

    @property
    def unwritten(self) -> int:
        """Events that are not in the file."""
        return len(self._folded)

    def commit(self) -> None:
        """Write what was folded, unless there is trouble."""
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
        """Leave the sensor's state, unless there is trouble."""
        self._open()
        self._check()
        self.noted_ms, self.notes = reading.utc_ms, notes

    def replace(self) -> None:
        """Quarantine the damaged file, and go on with a new one."""
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
        """As where the disk is full at the start."""
        self._has_file, self.unopened = False, "disk full"

    def close(self) -> None:
        """Nothing is open."""
