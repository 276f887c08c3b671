"""The status line of `smtpfeeds up`: redrawn on a terminal, printed each minute elsewhere.

On a terminal the line is at the bottom, and other messages appear above it. In a file or systemd's
journal a plain line is printed each minute. It names the AS of the last client but not its
address, because no log contains addresses of clients.
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
#: Kept free at the end of the line: a full line may wrap, and Ctrl-C prints ^C there.
_FREE_COLUMNS: Final = 3
_USUAL_COLUMNS: Final = 80
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Facts:
    """The content of the status line."""

    greets: int = 0
    datas: int = 0
    #: Address and AS of the last client; empty if there is none yet, or no AS is known.
    client: str = ""
    origin: str = ""
    client_s: float = 0.0
    #: Unix time of the last publication; 0: none yet.
    published_s: float = 0.0
    faults: Sequence[str] = ()


@dataclass(slots=True)
class RunFacts:
    """Gathers facts from the reports of both programs; counts continue when one is restarted."""

    _earlier: dict[str, int] = field(default_factory=dict)
    _now: dict[str, int] = field(default_factory=dict)
    _client: Mapping[str, Any] = field(default_factory=dict)
    _published_s: float = 0.0

    def gather(
        self, sensor: Mapping[str, Any], aggregator: Mapping[str, Any], faults: Sequence[str]
    ) -> Facts:
        """Return the current facts.

        Args:
            sensor: the last report of the sensor; empty if this run has reported nothing.
            aggregator: the last report of the aggregator.
            faults: problems that `up` itself knows of.
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
            faults=(
                *faults,
                *map(printable, sensor.get("troubles", ())),
                *map(printable, aggregator.get("troubles", ())),
            ),
        )

    def _total(self, name: str, reported: Mapping[str, Any]) -> int:
        count = int(reported.get(name, 0))
        if count < self._now.get(name, 0):  # the program was restarted
            self._earlier[name] = self._earlier.get(name, 0) + self._now[name]
        self._now[name] = count
        return self._earlier.get(name, 0) + count


def line(facts: Facts, now_s: float, width: int) -> str:
    """Return the line for a terminal of some width: problems first, cut at the end if too long."""
    pieces = [f"! {fault}" for fault in facts.faults]
    pieces += [f"greets {facts.greets:,}", f"data {facts.datas:,}", _published(facts)]
    if facts.client:
        client = f"{facts.client} {facts.origin}".rstrip()
        pieces.append(f"last {client}, {_ago(now_s - facts.client_s)}")
    text = _GAP.join(pieces)
    room = width - _FREE_COLUMNS
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


def plain(facts: Facts, now_s: float) -> str:
    """Return the line for a log."""
    parts = [f"greets {facts.greets:,}, data {facts.datas:,}"]
    if facts.client:
        origin = f", {facts.origin}" if facts.origin else ""
        parts.append(f"last client {_ago(now_s - facts.client_s)}{origin}")
    parts.append(_published(facts))
    parts += [f"trouble: {fault}" for fault in facts.faults]
    return "; ".join(parts)


class StatusLine:
    """Writes the status line and the messages of `up`, so that they do not mix."""

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
        """Show nothing yet; with ``quiet`` show only messages."""
        self._stream, self._quiet = stream, quiet
        self._draws = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
        self._width = width or self._columns
        self._monotonic, self._clock = monotonic, clock
        self._line = ""
        self._due_s: float | None = None

    def say(self, text: str) -> None:
        """Print a message above the status line."""
        drawn, self._line = self._line, ""
        self._write((_ERASE if drawn else "") + f"smtpfeeds up: {text}\n" + drawn)
        self._line = drawn

    def show(self, facts: Callable[[], Facts]) -> None:
        """Show the status line when it is due; call this several times a second."""
        now_s = self._monotonic()
        every_s = _DRAW_EVERY_S if self._draws else _PRINT_EVERY_S
        if self._due_s is None:
            # At the start there is nothing to report in a log.
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
        """Remove the status line."""
        if self._line:
            self._line = ""
            self._write(_ERASE)

    def _columns(self) -> int:
        """Return the width of this stream's terminal; stdout may be a file."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            return _USUAL_COLUMNS

    def _write(self, text: str) -> None:
        # A closed terminal or a full disk must not end the program.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def _published(facts: Facts) -> str:
    if not facts.published_s:
        return "not published yet"
    return f"published {datetime.fromtimestamp(facts.published_s, UTC):%H:%M:%S}Z"


def _ago(seconds: float) -> str:
    """Write a duration in one unit."""
    if seconds < _MINUTE_S:
        return f"{max(0, int(seconds))} s ago"
    if seconds < _HOUR_S:
        return f"{int(seconds / _MINUTE_S)} min ago"
    if seconds < _DAY_S:
        return f"{int(seconds / _HOUR_S)} h ago"
    return f"{int(seconds / _DAY_S)} d ago"
