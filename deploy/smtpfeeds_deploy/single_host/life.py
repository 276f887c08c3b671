"""How `smtpfeeds up` shows that it is alive: a line that changes, or a plain one each minute.

On a terminal one line at the bottom is drawn again as things change; whatever else is reported is
printed above it. Elsewhere (a file, systemd's journal) a plain line is printed each minute; it
names the last client's AS and not its address, which no log of ours holds.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from smtpfeeds_common.printable import printable

_DRAW_EVERY_S: Final = 0.5
_PRINT_EVERY_S: Final = 60.0
_ERASE: Final = "\r\x1b[K"
#: Between two pieces of the line.
_GAP: Final = "  "
#: At the end of the line: a terminal may begin another one there, and Ctrl-C is shown as ^C.
_FREE_COLUMNS: Final = 3
_USUAL_COLUMNS: Final = 80
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Facts:
    """What is shown."""

    greets: int = 0
    datas: int = 0
    #: Of the last client; empty: none yet, no AS known.
    client: str = ""
    origin: str = ""
    client_s: float = 0.0
    #: Unix time of the last publication; 0: none yet.
    published_s: float = 0.0
    faults: Sequence[str] = ()


@dataclass(slots=True)
class FactsOfTheRun:
    """Gathers facts from what the two programs report; counts go on when one starts again."""

    _earlier: dict[str, int] = field(default_factory=dict)
    _now: dict[str, int] = field(default_factory=dict)
    _client: Mapping[str, Any] = field(default_factory=dict)
    _published_s: float = 0.0

    def gather(
        self, sensor: Mapping[str, Any], aggregator: Mapping[str, Any], faults: Sequence[str]
    ) -> Facts:
        """The facts now.

        Args:
            sensor: what the sensor last reported; empty: nothing in this run of it.
            aggregator: the same of the aggregator.
            faults: what `up` itself knows to be wrong.
        """
        self._client = aggregator.get("client") or self._client
        self._published_s = aggregator.get("published_s") or self._published_s
        client = self._client
        asn, name = client.get("asn"), client.get("name")
        return Facts(
            greets=self._total("greets", sensor),
            datas=self._total("datas", sensor),
            client=str(client.get("ip", "")),
            origin="" if asn is None else f"AS{asn} {printable(name or '')}".rstrip(),
            client_s=float(client.get("seen_s", 0.0)),
            published_s=self._published_s,
            faults=(*faults, *map(printable, aggregator.get("troubles", ()))),
        )

    def _total(self, name: str, reported: Mapping[str, Any]) -> int:
        count = int(reported.get(name, 0))
        if count < self._now.get(name, 0):  # it was started again
            self._earlier[name] = self._earlier.get(name, 0) + self._now[name]
        self._now[name] = count
        return self._earlier.get(name, 0) + count


def line(facts: Facts, now_s: float, width: int) -> str:
    """The line that changes, no longer than the terminal is wide.

    What is wrong stands first; what does not fit is cut at the end.
    """
    pieces = [f"! {fault}" for fault in facts.faults]
    pieces += [f"greets {facts.greets:,}", f"data {facts.datas:,}", _published(facts)]
    if facts.client:
        client = f"{facts.client} {facts.origin}".rstrip()
        pieces.append(f"last {client}, {_ago(now_s - facts.client_s)}")
    text = _GAP.join(pieces)
    room = width - _FREE_COLUMNS
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


def plain(facts: Facts, now_s: float) -> str:
    """The line for a log."""
    parts = [f"greets {facts.greets:,}, data {facts.datas:,}"]
    if facts.client:
        origin = f", {facts.origin}" if facts.origin else ""
        parts.append(f"last client {_ago(now_s - facts.client_s)}{origin}")
    parts.append(_published(facts))
    parts += [f"trouble: {fault}" for fault in facts.faults]
    return "; ".join(parts)


class Life:
    """Draws or prints; also all else that `up` has to say, so that lines do not mix."""

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        environ: Mapping[str, str] = os.environ,
        width: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is shown yet; ``quiet``: only what `say` is given."""
        self._stream, self._quiet = stream, quiet
        self._draws = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
        self._width = width or self._columns
        self._monotonic, self._clock = monotonic, clock
        self._line = ""
        self._due_s: float | None = None

    def say(self, text: str) -> None:
        """Tell the operator what happens, above the line."""
        drawn, self._line = self._line, ""
        self._write((_ERASE if drawn else "") + f"smtpfeeds up: {text}\n" + drawn)
        self._line = drawn

    def show(self, facts: Callable[[], Facts]) -> None:
        """Show how it goes, where that is due; to be called several times a second."""
        now_s = self._monotonic()
        every_s = _DRAW_EVERY_S if self._draws else _PRINT_EVERY_S
        if self._due_s is None:
            # The first line of a log would say nothing yet.
            self._due_s = now_s if self._draws else now_s + every_s
        if self._quiet or now_s < self._due_s:
            return
        self._due_s = now_s + every_s
        if not self._draws:
            self.say(plain(facts(), self._clock()))
            return
        drawn = line(facts(), self._clock(), self._width())
        if drawn != self._line:
            self._line = drawn
            self._write(_ERASE + drawn)

    def end(self) -> None:
        """Remove the line."""
        if self._line:
            self._line = ""
            self._write(_ERASE)

    def _columns(self) -> int:
        """How wide the terminal is: this one's, for stdout may be a file."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            return _USUAL_COLUMNS

    def _write(self, text: str) -> None:
        # A terminal that is gone, a full disk: no reason to end.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def _published(facts: Facts) -> str:
    if not facts.published_s:
        return "not published yet"
    return f"published {datetime.fromtimestamp(facts.published_s, UTC):%H:%M:%S}Z"


def _ago(seconds: float) -> str:
    """How long ago, in one unit."""
    if seconds < _MINUTE_S:
        return f"{max(0, int(seconds))} s ago"
    if seconds < _HOUR_S:
        return f"{int(seconds / _MINUTE_S)} min ago"
    if seconds < _DAY_S:
        return f"{int(seconds / _HOUR_S)} h ago"
    return f"{int(seconds / _DAY_S)} d ago"
