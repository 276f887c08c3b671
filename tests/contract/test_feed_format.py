"""Every rule of the text format, and how every known consumer reads it.

Each consumer's parser is reproduced here in a few lines, independently of the formats' code. A
change that breaks a consumer fails the test with its name.
"""

from __future__ import annotations

import csv
import html
import re
from ipaddress import ip_address
from pathlib import Path

import pytest

from publish_support import HOSTILE_NAMES, NOW, Seen, hostile_rows, make_feed
from smtpfeeds_aggregator.names import clean_name, short_name
from smtpfeeds_common.addresses import normalise_address
from smtpfeeds_common.feeds import FEED_NAMES

GOLDEN = Path(__file__).parent / "golden"
ROW = re.compile(
    r"(NA|[1-9][0-9]*) *  \|  (\S(?:.*\S)?) *  \|  ([0-9a-f.:]+) *  \|  "
    r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})  \|  (smtpgreet|smtpdata)"
)


@pytest.fixture(scope="module", params=FEED_NAMES)
def feed(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(feed: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(feed)
    make_feed(folder, feed, hostile_rows(feed))
    return folder


@pytest.fixture(scope="module")
def text(feed: str, folder: Path) -> str:
    return (folder / f"{feed}.txt").read_bytes().decode("ascii")


@pytest.fixture(scope="module")
def rows(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def expected(feed: str) -> dict[str, tuple[str, str]]:
    """Return ASN and name by address."""
    return {
        normalise_address(row.ip): (
            str(row.asn or "NA"),
            short_name(clean_name(HOSTILE_NAMES.get(row.asn or 0, ""), has_country=False)),
        )
        for row in hostile_rows(feed)
    }


class TestRows:
    def test_fields_are_padded_to_the_columns(self, text: str, feed: str) -> None:
        wanted = "%-11s  |  %-30s  |  %-15s  |  %s  |  %s\n"
        for values in (
            ("64496", "COGENT-174", "192.0.2.0", "2026-11-23 10:58:30", feed),
            ("NA", "NA", "192.0.2.200", "2026-11-23 10:58:30", feed),
            ("64496", "COGENT-174", "2001:db8::1", "2026-11-23 10:58:30", feed),
        ):
            assert wanted % values in text

    def test_every_row_is_complete_and_unique(
        self, rows: list[str], expected: dict[str, tuple[str, str]], feed: str
    ) -> None:
        assert len(rows) == len(expected)
        for row in rows:
            match = ROW.fullmatch(row)
            assert match is not None, row
            assert expected[match[3]] == (match[1], match[2])
            assert match[4] == "2026-11-23 10:58:30"
            assert match[5] == feed

    def test_asn_is_never_zero_and_name_never_empty(self, rows: list[str]) -> None:
        for row in rows:
            asn, name = row.split("  |  ")[:2]
            assert asn.strip() != "0"
            assert 1 <= len(name.strip()) <= 30

    def test_addresses_are_in_canonical_form(self, rows: list[str]) -> None:
        for row in rows:
            address = row.split("  |  ")[2].strip()
            assert str(ip_address(address)) == address

    def test_mapped_address_is_written_as_ipv4(self, text: str) -> None:
        assert "198.51.100.9 " in text
        assert "::ffff" not in text.replace("db8::ffff", "")

    def test_order_is_asn_then_family_then_address(self, rows: list[str]) -> None:
        keys = []
        for row in rows:
            asn, _, address, *_ = row.split("  |  ")
            parsed = ip_address(address.strip())
            keys.append((0 if asn.strip() == "NA" else int(asn), parsed.version, int(parsed)))
        assert keys == sorted(set(keys))

    def test_times_are_truncated_to_seconds(self, tmp_path: Path) -> None:
        late = NOW.replace(second=59, microsecond=999_999)
        make_feed(tmp_path, "smtpdata", [Seen("192.0.2.1", feed="smtpdata", last_seen=late)])
        assert "  |  2026-11-23 10:59:59  |  " in (tmp_path / "smtpdata.txt").read_text()


class TestFrame:
    def test_header_has_68_lines_and_footer_4(self, text: str, rows: list[str]) -> None:
        lines = text.split("\n")
        assert lines.pop() == ""  # a final newline
        assert all(line.startswith("#") for line in lines[:68])
        assert lines[68 : 68 + len(rows)] == rows
        asns = {row.split()[0] for row in rows} - {"NA"}
        assert lines[68 + len(rows) :] == [
            "#",
            "# Statistics",
            f"#        ASNs: {len(asns)}",
            f"#   Addresses: {len(rows)}",
        ]

    def test_header_has_every_statement(self, text: str, feed: str) -> None:
        header = text.split("\n")[:68]
        assert "# ASN  |  ASname  |  ipaddr  |  lastseen  |  category" in header
        together = " ".join(line.lstrip("# ") for line in header)
        for sentence in (
            "2026-11-16 11:00 - 2026-11-23 11:00 (UTC)",
            feed,
            "Example Watch",
            "feeds@example.net",
            "CC0-1.0",
            "Generated: 2026-11-23 10:59:30 (UTC)",
            "Expires: 2026-11-23 12:59:30 (UTC)",
            "NOT A BLOCK LIST",
            "innocent mail client",
            "Dataplane.org",
            "DataPlane.org",
        ):
            assert sentence in re.sub(r" +", " ", together), sentence

    def test_no_comment_has_an_address_or_a_quote(self, text: str) -> None:
        for line in text.split("\n"):
            if line.startswith("#"):
                assert not re.search(r"\d+\.\d+\.\d+\.\d+", line)
                assert '"' not in line

    def test_no_blank_line_and_no_carriage_return(self, text: str) -> None:
        assert "\n\n" not in text
        assert "\r" not in text

    def test_each_row_is_in_one_family_file(self, folder: Path, feed: str, rows: list[str]) -> None:
        parts = {
            family: (folder / f"{feed}-{family}.txt").read_text().splitlines()[68:-4]
            for family in ("ipv4", "ipv6")
        }
        assert parts["ipv4"] == [row for row in rows if ":" not in row.split("|")[2]]
        assert parts["ipv6"] == [row for row in rows if ":" in row.split("|")[2]]

    def test_empty_feed_is_header_and_footer(self, tmp_path: Path) -> None:
        make_feed(tmp_path, "smtpgreet", [])
        lines = (tmp_path / "smtpgreet.txt").read_text().splitlines()
        assert len(lines) == 72
        assert lines[-2:] == ["#        ASNs: 0", "#   Addresses: 0"]


@pytest.mark.parametrize("suffix", ["txt", "csv", "ndjson"])
def test_files_match_the_golden_files(suffix: str, tmp_path: Path) -> None:
    """A change of the layout changes a golden file, and is a new version for consumers."""
    make_feed(tmp_path, "smtpgreet", hostile_rows("smtpgreet"))
    text = (tmp_path / f"smtpgreet.{suffix}").read_text(encoding="utf-8")
    assert text == (GOLDEN / f"smtpgreet.{suffix}").read_text(encoding="utf-8")


class TestConsumers:
    """Each consumer reads every row of a file, and nothing else."""

    def test_intelmq(self, text: str, expected: dict[str, tuple[str, str]]) -> None:
        parsed = {}
        for line in map(str.strip, text.splitlines()):
            if not line or line.startswith("#"):
                continue
            asn, name, address, seen, category = line.split("  |  ")
            assert category.strip() in {"smtpgreet", "smtpdata"}
            assert len(seen) == 19
            parsed[address.strip()] = (asn.strip(), name.strip())
        assert parsed == expected

    def test_cif(self, text: str, expected: dict[str, tuple[str, str]]) -> None:
        parsed = {}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            assert line.count(",") <= 2  # else it is read as CSV
            assert "eval(" not in line
            values = [value.strip() for value in re.split(r"\s*\|\s*", line)]
            assert len(values) == 5
            parsed[values[2]] = (values[0], values[1])
        assert parsed == expected

    @pytest.mark.parametrize("consumer", ["misp", "n6"])
    def test_csv_readers_with_a_pipe_as_delimiter(
        self, consumer: str, text: str, expected: dict[str, tuple[str, str]]
    ) -> None:
        """In MISP a quoted field can span lines; n6 stops at the first row without five fields."""
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        parsed = {}
        for fields in csv.reader(lines, delimiter="|", strict=consumer == "n6"):
            assert len(fields) == 5
            asn, name, address, _, _ = map(str.strip, fields)
            parsed[address] = (asn, name)
        assert parsed == expected

    def test_firehol(self, text: str, expected: dict[str, tuple[str, str]]) -> None:
        parsed = set()
        for line in text.splitlines():
            kept = line.split("#", 1)[0]
            if kept.strip():
                parsed.add(kept.split("|")[2].strip())
        assert parsed == set(expected)

    def test_yeti(self, text: str, expected: dict[str, tuple[str, str]]) -> None:
        parsed = {line.split("|")[2].strip() for line in text.split("\n")[68:-5]}
        assert parsed == set(expected)

    @pytest.mark.parametrize("word", ["Dataplane.org", "DataPlane.org"])
    def test_maltrail(self, word: str, text: str, expected: dict[str, tuple[str, str]]) -> None:
        """Maltrail reads only rows with a dot, which are IPv4."""
        assert word in text
        parsed = set()
        for line in text.splitlines():
            if line.startswith("#") or "." not in line.split("|")[2]:
                continue
            parsed.add(line.split("|")[2].strip())
        assert parsed == {address for address in expected if "." in address}

    def test_nerd(self, text: str, expected: dict[str, tuple[str, str]]) -> None:
        """NERD takes the first token that looks like an address from every line, also from
        comments.
        """
        token = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
        parsed = [match[0] for line in text.splitlines() if (match := token.search(line))]
        assert sorted(parsed) == sorted(address for address in expected if "." in address)

    def test_names_have_no_html_entities(self, text: str) -> None:
        """Names contain no HTML entities, so a page that escapes them shows the real name."""
        assert html.unescape(text) == text
