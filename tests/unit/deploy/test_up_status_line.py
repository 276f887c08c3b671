"""The status line of `smtpfeeds up`."""

from __future__ import annotations

import io

import pytest

from smtpfeeds_deploy.single_host.status_line import Facts, RunFacts, StatusLine, line, plain

NOW_S = 1_795_431_605.0
FACTS = Facts(
    greets=1234,
    datas=567,
    client="192.0.2.7",
    origin="AS64496 EXAMPLE-ONE",
    client_s=NOW_S - 5,
    published_s=NOW_S - 5,
)
WHOLE = "greets 1,234  data 567  published 11:00:00Z  last 192.0.2.7 AS64496 EXAMPLE-ONE, 5 s ago"


class Terminal(io.StringIO):
    """A stream that reports itself as a terminal and shows what a terminal would show."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """The lines on the screen, without erased ones."""
        lines = self.getvalue().split("\n")
        return [each.rpartition("\r\x1b[K")[2] for each in lines]


class Shown:
    """A status line whose time a test moves."""

    def __init__(self, stream: io.StringIO, *, term: str = "xterm", quiet: bool = False) -> None:
        self.now_s, self.columns, self.facts = 0.0, 120, FACTS
        self.stream = stream
        self.status_line = StatusLine(
            stream,
            quiet=quiet,
            environ={"TERM": term},
            width=lambda: self.columns,
            monotonic=lambda: self.now_s,
            clock=lambda: NOW_S,
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a look ten times a second, as `up` does."""
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            self.status_line.show(lambda: self.facts)


def test_line_fits_80_and_120_columns() -> None:
    assert line(FACTS, NOW_S, 120) == WHOLE
    narrow = line(FACTS, NOW_S, 80)
    assert narrow == WHOLE[:76] + "…"
    assert "AS64496 EXAMPLE" in narrow
    assert line(FACTS, NOW_S, 3) == "…"


def test_faults_come_first() -> None:
    facts = Facts(faults=("PostgreSQL is down", "database: away"))
    assert line(facts, NOW_S, 120) == (
        "! PostgreSQL is down  ! database: away  greets 0  data 0  not published yet"
    )


def test_line_for_a_log_names_no_address() -> None:
    assert plain(FACTS, NOW_S) == (
        "greets 1,234, data 567; last client 5 s ago, AS64496 EXAMPLE-ONE; published 11:00:00Z"
    )
    assert plain(Facts(faults=("the sensor is down",)), NOW_S) == (
        "greets 0, data 0; not published yet; trouble: the sensor is down"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s ago"), (59.9, "59 s ago"), (60, "1 min ago"), (7200, "2 h ago"), (2e5, "2 d ago")],
)
def test_age_has_one_unit(seconds: float, words: str) -> None:
    facts = Facts(client="192.0.2.7", client_s=NOW_S - seconds)
    assert line(facts, NOW_S, 120).endswith(f"last 192.0.2.7, {words}")


def test_terminal_shows_one_changing_line_below_the_messages() -> None:
    terminal = Terminal()
    shown = Shown(terminal)
    shown.pass_time(1)
    assert terminal.shown() == [WHOLE]
    shown.facts = Facts(greets=1235)
    shown.pass_time(1)
    assert terminal.shown() == ["greets 1,235  data 0  not published yet"]
    shown.status_line.say("PostgreSQL is back")
    assert terminal.shown() == [
        "smtpfeeds up: PostgreSQL is back",
        "greets 1,235  data 0  not published yet",
    ]
    shown.columns = 20
    shown.pass_time(1)
    assert terminal.shown()[1] == "greets 1,235  da…"
    shown.status_line.end()
    shown.status_line.say("stopping")
    assert terminal.shown()[1:] == ["smtpfeeds up: stopping", ""]


def test_nothing_is_written_while_nothing_changes() -> None:
    terminal = Terminal()
    shown = Shown(terminal)
    shown.pass_time(1)
    before = terminal.getvalue()
    shown.pass_time(10)
    assert terminal.getvalue() == before


@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["a file", "a dumb terminal"])
def test_without_a_terminal_a_plain_line_is_printed_each_minute(stream: type[io.StringIO]) -> None:
    written = stream()
    shown = Shown(written, term="dumb")
    shown.pass_time(59)
    assert written.getvalue() == ""
    shown.pass_time(130)
    lines = written.getvalue().splitlines()
    assert lines == [f"smtpfeeds up: {plain(FACTS, NOW_S)}"] * 3
    assert "\x1b" not in written.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_shows_only_messages(stream: type[io.StringIO]) -> None:
    written = stream()
    shown = Shown(written, quiet=True)
    shown.pass_time(130)
    shown.status_line.say("the sensor is back")
    assert written.getvalue() == "smtpfeeds up: the sensor is back\n"


def test_closed_terminal_ends_nothing() -> None:
    class Gone(Terminal):
        def write(self, text: str, /) -> int:
            raise OSError(5, "Input/output error")

    shown = Shown(Gone())
    shown.pass_time(1)
    shown.status_line.say("stopping")
    assert shown.status_line._line == WHOLE


def test_counts_continue_when_the_sensor_is_started_again() -> None:
    run = RunFacts()
    for reported, total in ((5, 5), (9, 9), (0, 9), (2, 11), (0, 11), (1, 12)):
        assert run.gather({"greets": reported}, {}, ()).greets == total


def test_last_client_stays_while_the_aggregator_is_started_again() -> None:
    run = RunFacts()
    client = {"ip": "192.0.2.7", "asn": 64_496, "name": "EXAMPLE\x1b[31m", "seen_s": NOW_S}
    first = run.gather({}, {"client": client, "published_s": NOW_S}, ())
    assert (first.client, first.origin) == ("192.0.2.7", "AS64496 EXAMPLE?[31m")
    again = run.gather({}, {"client": None}, ())
    assert (again.client, again.published_s) == ("192.0.2.7", NOW_S)


def test_faults_are_those_of_up_then_of_the_sensor_then_of_the_aggregator() -> None:
    """Events in memory are in danger; a database that is away puts none in danger."""
    sensor, aggregator = {"troubles": ["sensor: full\x1b"]}, {"troubles": ["database: away"]}
    faults = RunFacts().gather(sensor, aggregator, ["x is down"]).faults
    assert faults == ("x is down", "sensor: full?", "database: away")


def test_client_without_an_origin_has_none() -> None:
    client = {"ip": "192.0.2.7", "asn": None, "name": None, "seen_s": NOW_S}
    assert RunFacts().gather({}, {"client": client}, ()).origin == ""
