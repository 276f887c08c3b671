"""The readers of published files refuse damaged ones and report each difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpfeeds_deploy.simulation.ledger import Bracket, Expected, Recorded
from smtpfeeds_deploy.simulation.published import (
    NotThatFormat,
    PublishedRow,
    feed_disagreements,
    read_ndjson,
    read_text,
    second,
)

KEY = ("smtpgreet", "192.0.2.7")
FULL_NAME = "Sample Cloud Survey Project for Openly Reachable Hosts"
CUT_NAME = "Sample Cloud Survey Project fo"
SEEN = Bracket(1_000, 1_999)
ROW = PublishedRow(65537, CUT_NAME, Recorded(SEEN, SEEN, 1, 1), ("bare_lf",))
WANT = Expected(Bracket(1_200, 1_300), Bracket(1_200, 1_300), 1, {"one"}, bare_lf=True)


def differences(row: PublishedRow, file: str = "smtpgreet.csv") -> list[str]:
    return feed_disagreements({file: {KEY: row}}, {KEY: WANT}, {KEY[1]: 65537}, {65537: FULL_NAME})


def test_row_of_a_clients_events_agrees() -> None:
    assert differences(ROW) == []
    assert differences(ROW, "smtpgreet-ipv4.txt") == []


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (ROW._replace(asn=65536), "origin 65536"),
        (ROW._replace(asn=None), "origin None"),
        (ROW._replace(name="Sample Cloud"), "origin 65537 'Sample Cloud'"),
        (ROW._replace(tags=()), "tag bare_lf is False"),
        (ROW._replace(tags=("bare_lf", "full_host_name")), "tag full_host_name is True"),
        (ROW._replace(recorded=ROW.recorded._replace(hits=2)), "2 hits"),
        (ROW._replace(recorded=ROW.recorded._replace(last=Bracket(2_000, 2_999))), "last seen"),
    ],
)
def test_row_that_differs_is_reported(row: PublishedRow, what: str) -> None:
    (recorded,) = differences(row)
    assert what in recorded


def test_name_in_the_text_format_has_thirty_characters() -> None:
    whole = ROW._replace(name=FULL_NAME)
    assert differences(whole) == []
    assert len(differences(whole, "smtpgreet.txt")) == 1


def test_ipv4_row_in_the_ipv6_file_is_reported_as_invented() -> None:
    (recorded,) = differences(ROW, "smtpgreet-ipv6.txt")
    assert "invented" in recorded


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    text, ndjson = tmp_path / "cut.txt", tmp_path / "cut.ndjson"
    row = "65537  |  Sample  |  192.0.2.7  |  2026-11-23 11:00:00  |  smtpgreet\n"
    text.write_text("#\n" * 68 + row)
    ndjson.write_text('{"ASN": 1')
    with pytest.raises(NotThatFormat, match="it has not 68 header and 4 footer lines"):
        read_text(text)
    with pytest.raises(NotThatFormat, match="the last line is truncated"):
        read_ndjson(ndjson)


def test_second_is_its_whole_thousand_milliseconds() -> None:
    assert second("1970-01-01 00:00:01") == Bracket(1_000, 1_999)
