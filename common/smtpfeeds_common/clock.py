"""The host's clocks: the time of an event, and whether the wall clock can be trusted.

``Clock`` reads two clocks together. The monotonic clock (``CLOCK_BOOTTIME``, milliseconds since
the host booted) advances evenly, even when someone sets the time. The wall clock (UTC) gives an
event its time and can be wrong: a host without a battery starts in 1970, an operator mistypes a
date, a time service corrects it. The wall clock is *in doubt*

* while it shows an impossible time: before this program was written, or after 2100;
* after a step of more than a minute against the monotonic clock, until it has been steady for
  some time.

While the wall clock is in doubt, events carry the monotonic time instead. Once the wall clock is
trusted again, each event gets a UTC time at the same distance from now.
"""

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

#: 2025-01-01 UTC. This program was written later, so none of its events can be earlier.
EARLIEST_MS: Final = 1_735_689_600_000
#: 2100-01-01 UTC.
LATEST_MS: Final = 4_102_444_800_000
#: A wall clock that moves further than this against the monotonic clock has been stepped. Time
#: services slew by less than half a second in 15 minutes; a healthy one steps by less than this.
STEP_MS: Final = 60_000
#: How long a clock that was stepped must be steady before it is trusted.
STEADY_S: Final = 120.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Reading(NamedTuple):
    """Both clocks at one moment."""

    #: UTC, milliseconds since 1970-01-01; None while the wall clock is in doubt.
    utc_ms: int | None
    #: Milliseconds since the host booted.
    elapsed_ms: int
    #: The boot that ``elapsed_ms`` counts from; times of two boots do not compare.
    boot: str


class Clock:
    """Reads both clocks; safe to call from any thread."""

    def __init__(
        self,
        *,
        steady_s: float = STEADY_S,
        utc_ms: Callable[[], int] | None = None,
        elapsed_ms: Callable[[], int] | None = None,
        boot: str | None = None,
    ) -> None:
        """Believe the wall clock from the start, unless it shows an impossible time."""
        self._steady_ms = int(steady_s * 1000)
        self._utc_ms = utc_ms or _utc_ms
        self._elapsed_ms = elapsed_ms or _elapsed_ms
        self._boot = _boot_id() if boot is None else boot
        self._lock = threading.Lock()
        self._ahead_ms = self._utc_ms() - self._elapsed_ms()
        #: When the last step was noticed, on the monotonic clock; None once the clock is steady.
        self._stepped_ms: int | None = None
        self._step_ms = 0

    def read(self) -> Reading:
        """Read both clocks."""
        with self._lock:
            elapsed_ms, utc_ms = self._elapsed_ms(), self._utc_ms()
            moved_ms = utc_ms - elapsed_ms - self._ahead_ms
            self._ahead_ms += moved_ms
            if not -STEP_MS <= moved_ms <= STEP_MS:
                self._stepped_ms, self._step_ms = elapsed_ms, moved_ms
            if self._stepped_ms is not None and elapsed_ms - self._stepped_ms >= self._steady_ms:
                self._stepped_ms = None
            trusted = self._stepped_ms is None and EARLIEST_MS <= utc_ms < LATEST_MS
            return Reading(utc_ms if trusted else None, elapsed_ms, self._boot)

    def compare(self, noted_ms: int | None) -> None:
        """Treat the wall clock as stepped if it is behind a time noted in an earlier run.

        Args:
            noted_ms: the newest UTC time that was noted while the wall clock was trusted.
        """
        with self._lock:
            elapsed_ms, utc_ms = self._elapsed_ms(), self._utc_ms()
            if noted_ms is not None and utc_ms < noted_ms - STEP_MS and self._steady_ms:
                self._stepped_ms, self._step_ms = elapsed_ms, utc_ms - noted_ms

    @property
    def doubt(self) -> str:
        """Why the wall clock is in doubt, for an operator; empty while it is trusted."""
        if self.read().utc_ms is not None:
            return ""
        utc_ms = self._utc_ms()
        if not EARLIEST_MS <= utc_ms < LATEST_MS:
            shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_ms // 1000))
            return f"the host's clock shows an impossible time, {shown}"
        return (
            f"the host's clock was stepped by {self._step_ms / 1000:+.0f} s; it is trusted when "
            f"it has been steady for {self._steady_ms / 1000:g} s"
        )


def _utc_ms() -> int:
    return time.time_ns() // 1_000_000


def _elapsed_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _boot_id() -> str:
    """Return the kernel's id of this boot, or a random one where the kernel gives none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())
