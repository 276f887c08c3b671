"""Whether each part of the aggregator works, for `/health` and the watchdog."""

import threading
import time
from collections.abc import Callable


class Health:
    """The troubles that parts report, and the parts that no longer report; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._troubles: dict[str, str] = {}
        self._beats: dict[str, tuple[float, float]] = {}

    def beat(self, part: str, *, within_s: float) -> None:
        """Report that this part is alive; it calls again within the time or counts as stuck."""
        with self._lock:
            self._beats[part] = (self._clock(), within_s)

    def trouble(self, part: str, reason: str) -> None:
        """Report that this part cannot do its work now."""
        with self._lock:
            self._troubles[part] = reason

    def well(self, part: str) -> None:
        """Report that this part can do its work."""
        with self._lock:
            self._troubles.pop(part, None)

    def problems(self) -> list[str]:
        """Return what is wrong now, one line for each trouble and each silent part."""
        with self._lock:
            now = self._clock()
            silent = [
                f"{part}: silent for {now - at:.0f} s"
                for part, (at, within_s) in sorted(self._beats.items())
                if now - at > within_s
            ]
            return [f"{part}: {why}" for part, why in sorted(self._troubles.items())] + silent

    def stuck(self) -> list[str]:
        """Return the silent parts; while there are any, the watchdog restarts the program."""
        with self._lock:
            now = self._clock()
            return [part for part, (at, within_s) in self._beats.items() if now - at > within_s]
