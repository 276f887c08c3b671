"""The clients' ledger: what they did, and what the sensors must therefore have recorded. Pure.

A client does not know when exactly a sensor heard it. It knows the time before it sent the verb
and the time after it read the reply, so each time is a bracket, and the recorded time must be
within it. Addresses, feeds, hits and sensors are exact. The rules are those of the feeds: at most
one greet and one data event per connection; a data event also moves the last_seen of the greet
row, but not its hits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from smtpfeeds_common.feeds import DATA, GREET

_HOUR_MS: Final = 3_600_000


class Bracket(NamedTuple):
    """The earliest and latest possible time of an event, in milliseconds since 1970-01-01 UTC."""

    lowest: int
    highest: int

    def holds(self, other: "Bracket") -> bool:
        """Return whether both brackets can be of the same event."""
        return other.lowest <= self.highest and self.lowest <= other.highest


class Heard(NamedTuple):
    """An event that a session caused, and when."""

    feed: str
    when: Bracket


@dataclass(slots=True)
class Session:
    """One connection of one client, as the client saw it."""

    kind: str
    source: str
    sensor: str
    #: The sensor's own address that was hit, or that the PROXY header names.
    target: str
    events: list[Heard] = field(default_factory=list)
    #: The reply codes in order of arrival.
    replies: list[int] = field(default_factory=list)
    #: Whether a greet ended with a bare LF, and whether its argument was a full host name.
    bare_lf: bool = False
    full_host_name: bool = False
    #: How the sensor's answers differed from those that this kind of client expects; or empty.
    trouble: str = ""

    def heard(self, feed: str, sent_ms: int, answered_ms: int) -> None:
        """Note an event, at most one per connection and feed, as the feeds count."""
        if all(event.feed != feed for event in self.events):
            self.events.append(Heard(feed, Bracket(sent_ms, answered_ms)))


@dataclass(slots=True)
class Expected:
    """The expected content of a row, or of one sensor's part of it."""

    first: Bracket
    last: Bracket
    hits: int = 0
    sensors: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)
    bare_lf: bool = False
    full_host_name: bool = False


class Recorded(NamedTuple):
    """The content of a row, as read from a file or from the database.

    A time that is cut to the second becomes the bracket of that second. None: not stated there.
    """

    first: Bracket | None
    last: Bracket
    hits: int | None
    sensors: int | None


#: (feed, address) or (feed, address, sensor).
Key = tuple[str, ...]


def expected_rows(sessions: Iterable[Session]) -> dict[Key, Expected]:
    """Return one row per (feed, address)."""
    return _fold(sessions, by_sensor=False)


def expected_sightings(sessions: Iterable[Session]) -> dict[Key, Expected]:
    """Return one row per (feed, address, sensor)."""
    return _fold(sessions, by_sensor=True)


def _fold(sessions: Iterable[Session], *, by_sensor: bool) -> dict[Key, Expected]:
    rows: dict[Key, Expected] = {}
    for session in sessions:
        tail = (session.source, session.sensor) if by_sensor else (session.source,)
        for event in session.events:
            row = rows.get((event.feed, *tail))
            if row is None:
                row = rows[event.feed, *tail] = Expected(event.when, event.when)
            _fold_event(row, session, event)
            if event.feed == DATA.name:
                greet = rows[GREET.name, *tail]
                greet.last = _later(greet.last, event.when)
    return rows


def _fold_event(row: Expected, session: Session, event: Heard) -> None:
    row.first = Bracket(
        min(row.first.lowest, event.when.lowest), min(row.first.highest, event.when.highest)
    )
    row.last = _later(row.last, event.when)
    row.hits += 1
    row.sensors.add(session.sensor)
    row.targets.add(session.target)
    row.bare_lf |= session.bare_lf
    row.full_host_name |= session.full_host_name


def _later(one: Bracket, other: Bracket) -> Bracket:
    return Bracket(max(one.lowest, other.lowest), max(one.highest, other.highest))


def disagreements(expected: Mapping[Key, Expected], recorded: Mapping[Key, Recorded]) -> list[str]:
    """Describe each difference between the recorded rows and what the clients did."""
    differences = [f"{' '.join(key)}: missing" for key in sorted(expected.keys() - recorded.keys())]
    differences += [
        f"{' '.join(key)}: invented" for key in sorted(recorded.keys() - expected.keys())
    ]
    for key in sorted(expected.keys() & recorded.keys()):
        differences += [
            f"{' '.join(key)}: {difference}"
            for difference in _differences(expected[key], recorded[key])
        ]
    return differences


def _differences(expected: Expected, recorded: Recorded) -> list[str]:
    differences: list[str] = []
    if recorded.first is not None and not expected.first.holds(recorded.first):
        differences.append(f"first seen {recorded.first} lies outside {expected.first}")
    if not expected.last.holds(recorded.last):
        differences.append(f"last seen {recorded.last} lies outside {expected.last}")
    if recorded.hits is not None and recorded.hits != expected.hits:
        differences.append(f"{recorded.hits} hits, not {expected.hits}")
    if recorded.sensors is not None and recorded.sensors != len(expected.sensors):
        differences.append(f"{recorded.sensors} sensors, not {len(expected.sensors)}")
    return differences


def activity_disagreements(
    sessions: Iterable[Session], recorded: Mapping[tuple[int, str, str], int]
) -> list[str]:
    """Describe each difference in the number of events per hour.

    Args:
        sessions: what the clients did.
        recorded: events by (hour in ms, feed, sensor).
    """
    sure: dict[tuple[int, str, str], int] = {}
    possible: dict[tuple[int, str, str], int] = {}
    totals: dict[tuple[str, str], int] = {}
    for session in sessions:
        for event in session.events:
            pair = (event.feed, session.sensor)
            totals[pair] = totals.get(pair, 0) + 1
            hours = {_hour(event.when.lowest), _hour(event.when.highest)}
            for hour in hours:
                possible[hour, *pair] = possible.get((hour, *pair), 0) + 1
                if len(hours) == 1:
                    sure[hour, *pair] = sure.get((hour, *pair), 0) + 1
    differences = [
        f"{key}: {recorded.get(key, 0)} events, not {sure.get(key, 0)} to {possible.get(key, 0)}"
        for key in sorted(possible.keys() | recorded.keys())
        if not sure.get(key, 0) <= recorded.get(key, 0) <= possible.get(key, 0)
    ]
    for feed, sensor in sorted(totals):
        events = sum(n for (_, f, s), n in recorded.items() if (f, s) == (feed, sensor))
        if events != totals[feed, sensor]:
            differences.append(
                f"{feed} {sensor}: {events} events in all, not {totals[feed, sensor]}"
            )
    return differences


def _hour(at_ms: int) -> int:
    return at_ms - at_ms % _HOUR_MS


def data_without_greet(keys: Iterable[Key]) -> list[str]:
    """Describe each address that is in smtpdata but not in smtpgreet; there must be none."""
    known = set(keys)
    return [
        f"{' '.join(key)}: in {DATA.name} and not in {GREET.name}"
        for key in sorted(known)
        if key[0] == DATA.name and (GREET.name, *key[1:]) not in known
    ]


def troubles(sessions: Iterable[Session]) -> list[str]:
    """Describe each session whose client got an unexpected answer, one line each."""
    return [
        f"{session.kind} {session.source} at {session.target}: {session.trouble}"
        for session in sessions
        if session.trouble
    ]
