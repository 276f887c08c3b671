"""`filter`: whole lines, in any pieces, compared with an independent parser of addresses."""

from __future__ import annotations

import gzip
import ipaddress
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from publish_support.editions import entry, write_edition
from smtpfeeds_aggregator.classification.classes import Class
from smtpfeeds_aggregator.query.address_set import AddressSet
from smtpfeeds_aggregator.query.annotations import Annotations
from smtpfeeds_aggregator.query.known import known_addresses
from smtpfeeds_aggregator.query.line_blocks import (
    LINE_BYTES_MAX,
    UnreadableInput,
    blocks,
    decompressed,
)
from smtpfeeds_aggregator.query.line_filter import LineFilter
from smtpfeeds_aggregator.query.text_addresses import TextMatcher
from smtpfeeds_common.cli import main
from smtpfeeds_common.columns import Column

SET = [ipaddress.ip_address("192.0.2.0") + n for n in range(0, 16, 2)]
SET += [ipaddress.ip_address("2001:db8::") + n for n in range(0, 16, 2)]
MATCHER = TextMatcher(AddressSet.of(address.packed for address in SET))


def passed(pieces: Iterable[bytes], lines: LineFilter) -> bytes:
    written = [octets for block in blocks(pieces) for octets in lines.take(block)]
    return b"".join([*written, *lines.finish()])


def in_pieces(text: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    before = 0
    for cut in sorted({cut % (len(text) + 1) for cut in cuts} | {len(text)}):
        if cut > before:
            yield text[before:cut]
            before = cut


# What may stand around an address in a log, and what looks like one and is not.

V4 = st.ip_addresses(v=4, network="192.0.2.0/28").map(str)
V6 = st.one_of(
    st.ip_addresses(v=6, network="2001:db8::/124").map(str),
    st.ip_addresses(v=6, network="2001:db8::/124").map(lambda ip: ip.exploded),
    st.ip_addresses(v=6, network="2001:db8::/124").map(lambda ip: str(ip).upper()),
)
V4_WORDS = [
    *(
        "{}",
        "[{}]",
        "unknown[{}]",
        "mail.example.org[{}]:25",
        "{}:25",
        "{}/32",
        "{}.",
        "{},",
        "{}:",
    ),
    *("rip={},", "<{}>", '"{}"', "({})", "client={};", "ip:{}", "::ffff:{}", "[::FFFF:{}]"),
]
V6_WORDS = [
    *("{}", "[{}]", "[IPv6:{}]", "unknown[{}]", "[{}]:25", "{}/64", "{}.", "{},", "rip={},"),
    *("<{}>", '"{}"', "({})", "client={};", "{}%eth0"),
]
DECOYS = [
    *("192.0.2.2.5", "192.0.2.2.example.org", "v192.0.2.2", "192.0.2.256", "1192.0.2.2", "192.0.2"),
    *("192.0.2.2-static.example", "host-192.0.2.2a", "21:03:05", "2026-11-26T01:02:03.456+00:00"),
    *("00:11:22:33:44:55", "std::string", "postfix/smtpd[19202]:", "2001:db8::1::2", "a=", "[::]"),
    *("2001:db8::2g", "from=<a@example.org>", "192.0.2.2x", "1.192.0.2.2"),
]


def defanged(address: str) -> str:
    return address.replace(".", "[.]").replace(":", "[:]")


WORDS = st.one_of(
    st.tuples(st.sampled_from(V4_WORDS), V4).map(lambda pair: pair[0].format(pair[1])),
    st.tuples(st.sampled_from(V6_WORDS), V6).map(lambda pair: pair[0].format(pair[1])),
    st.one_of(V4, V6).map(defanged),
    st.sampled_from(DECOYS),
    st.text(st.characters(codec="utf-8", categories=["L"]), max_size=6),
)
LINES = st.lists(WORDS, max_size=6).map(" ".join)
LOGS = st.lists(LINES, max_size=12).map("\n".join)


def addresses_by_hand(line: str) -> set[bytes]:
    """Return a line's addresses, word by word, with Python's ipaddress and string methods."""
    addresses = set()
    for word in line.split(" "):
        for candidate in _candidates(word):
            try:
                address = ipaddress.ip_address(candidate)
            except ValueError:
                continue
            mapped = getattr(address, "ipv4_mapped", None)
            addresses.add((mapped or address).packed)
            break
    return addresses


def _candidates(word: str) -> Iterator[str]:
    text = word.replace("[.]", ".").replace("[:]", ":").strip(',;.()"<>')
    for opening in ("=", "["):
        if opening in text and not text.startswith("[::]"):
            text = text.partition(opening)[2]
    text = text.partition("]")[0].partition("/")[0].partition("%")[0]
    for name in ("IPv6:", "ip:"):
        text = text.removeprefix(name)
    yield text
    yield text.removesuffix(":")
    if text.count(":") == 1:
        yield text.partition(":")[0]


@given(LOGS, st.lists(st.integers(0, 2000), max_size=6))
def test_matching_lines_are_those_of_an_independent_parser(log: str, cuts: list[int]) -> None:
    known = {address.packed for address in SET}
    expected = [line for line in log.split("\n") if addresses_by_hand(line) & known]
    text = log.encode()
    lines = LineFilter(MATCHER)
    assert passed(in_pieces(text, cuts), lines).decode() == "".join(f"{x}\n" for x in expected)
    assert lines.matching == len(expected)
    counts = Counter[bytes]()
    assert passed(in_pieces(text, cuts), LineFilter(MATCHER, counts=counts)) == b""
    assert counts == Counter(
        packed for line in expected for packed in addresses_by_hand(line) & known
    )


@given(LOGS, st.lists(st.integers(0, 2000), max_size=6))
def test_matching_and_other_lines_are_all_lines(log: str, cuts: list[int]) -> None:
    text = log.encode()
    one = passed(in_pieces(text, cuts), LineFilter(MATCHER)).decode().splitlines()
    other = passed(in_pieces(text, cuts), LineFilter(MATCHER, invert=True)).decode().splitlines()
    ended = text if text.endswith(b"\n") or not text else text + b"\n"
    assert Counter(one) + Counter(other) == Counter(ended.decode().splitlines())


@pytest.mark.parametrize("piece", [1 << 16, LINE_BYTES_MAX, 5 << 20])
def test_very_long_line_is_searched_at_its_beginning_and_printed_whole(piece: int) -> None:
    filler = b"x" * (3 << 20)
    matching, other = b"192.0.2.2 " + filler + b"\n", filler + b" 192.0.2.2\n"
    text = b"192.0.2.2\n" + matching + other + b"none\n192.0.2.4"
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    lines = LineFilter(MATCHER)
    assert passed(pieces, lines) == b"192.0.2.2\n" + matching + b"192.0.2.4\n"
    assert lines.long_lines == 2
    inverted = LineFilter(MATCHER, invert=True)
    assert passed(pieces, inverted) == other + b"none\n"
    assert all(len(block.octets) <= LINE_BYTES_MAX + 2 * piece for block in blocks(pieces))


KNOWN = known_addresses(
    [
        entry("192.0.2.2", cls=Class.PASSWORD_GUESS),
        entry("192.0.2.2", "smtpdata", last_seen="2026-11-26 01:00:00"),
        entry("2001:db8::2", asn=None, name="NA"),
    ]
)
FIELDS = [Column(name) for name in ("ipaddr", "class", "feeds", "lastseen", "ASN", "ASname")]


def annotated(text: bytes, delimiter: str = "\t") -> bytes:
    add = Annotations(KNOWN, FIELDS, delimiter).line
    return passed([text], LineFilter(TextMatcher(AddressSet.of(KNOWN)), annotate=add))


def test_columns_are_added_before_the_line_ends() -> None:
    assert annotated(b"a 192.0.2.2\r\nb 2001:db8::2") == (
        b"a 192.0.2.2\t192.0.2.2\tpassword-guess\tsmtpgreet smtpdata\t2026-11-26 01:00:00"
        b"\t64496\tEXAMPLE-NET, Inc\r\n"
        b"b 2001:db8::2\t2001:db8::2\tprobe\tsmtpgreet\t2026-11-26 00:59:59\tNA\tNA\n"
    )


def test_several_addresses_of_a_line_share_the_columns() -> None:
    fields = annotated(b"192.0.2.2 2001:db8::2 192.0.2.2\n").rstrip(b"\n").split(b"\t")
    assert fields[1:3] == [b"192.0.2.2; 2001:db8::2", b"password-guess; probe"]
    assert len(fields) == 1 + len(FIELDS)


def test_a_comma_as_delimiter_makes_fields_of_csv() -> None:
    assert annotated(b"x,192.0.2.2\n", ",").endswith(b',64496,"EXAMPLE-NET, Inc"\n')


@pytest.mark.parametrize(
    "line",
    [b'{"ip": "192.0.2.2", "n": 1.0}', b'{"ip":"192.0.2.2"} ', b'{"a":{"ip":"::ffff:192.0.2.2"}}'],
)
def test_a_json_object_gets_a_member_and_keeps_its_octets(line: bytes) -> None:
    written = annotated(line + b"\n")
    assert written.startswith(line.rstrip()[:-1])
    content = json.loads(written)
    assert content.pop("smtpfeeds") == [
        {
            "ipaddr": "192.0.2.2",
            "class": "password-guess",
            "feeds": ["smtpgreet", "smtpdata"],
            "lastseen": "2026-11-26 01:00:00",
            "ASN": 64496,
            "ASname": "EXAMPLE-NET, Inc",
        }
    ]
    assert content == json.loads(line)


def test_existing_member_of_an_object_is_replaced() -> None:
    content = json.loads(annotated(b'{"ip":"192.0.2.2","smtpfeeds":null}\n'))
    assert len(content["smtpfeeds"]) == 1


def test_text_that_only_looks_like_json_gets_columns() -> None:
    assert annotated(b'{"ip": 192.0.2.2}\n').startswith(b'{"ip": 192.0.2.2}\t192.0.2.2\t')


def test_address_after_a_json_escape_is_recognised() -> None:
    assert annotated(rb'{"message":"lost\n192.0.2.2\tagain"}' + b"\n") != b""


def test_columns_of_a_long_line_are_at_its_end() -> None:
    text = b"192.0.2.2 " + b"x" * (2 << 20)
    pieces = [text[at : at + (1 << 19)] for at in range(0, len(text), 1 << 19)]
    for end in ([], [b"\n"]):
        add = Annotations(KNOWN, FIELDS[:2]).line
        lines = LineFilter(TextMatcher(AddressSet.of(KNOWN)), annotate=add)
        written = passed([*pieces, *end], lines)
        assert written == text + b"\t192.0.2.2\tpassword-guess\n"


def test_compressed_members_one_after_the_other_are_read() -> None:
    body = gzip.compress(b"one\n" * 200_000) + gzip.compress(b"two\n") + b"\0" * 8
    pieces = (body[at : at + 97] for at in range(0, len(body), 97))
    assert b"".join(decompressed(pieces)) == b"one\n" * 200_000 + b"two\n"


@pytest.mark.parametrize("damage", [lambda body: body[:-5], lambda body: body[:20] + b"\xff" * 20])
def test_a_damaged_compressed_file_is_an_error(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnreadableInput):
        list(decompressed(iter([damage(gzip.compress(b"line\n" * 1000))])))


@pytest.fixture
def feeds(tmp_path: Path) -> Path:
    rows = [
        entry("192.0.2.2", cls=Class.PASSWORD_GUESS),
        entry("192.0.2.2", "smtpdata", Class.PASSWORD_GUESS),
        entry("192.0.2.4"),
        entry("2001:db8:1:2::a", "smtpdata"),
    ]
    return write_edition(tmp_path / "feeds", rows)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text("a 192.0.2.2\nb 192.0.2.4\nc 192.0.2.6\nd 2001:db8:1:2::b\na 192.0.2.2\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["filter", *map(str, arguments)])


def test_options_select_the_addresses(feeds: Path, log: Path) -> None:
    every = run("--from", feeds, log)
    assert (every.exit_code, every.stdout) == (0, "a 192.0.2.2\nb 192.0.2.4\na 192.0.2.2\n")
    assert run("--from", feeds, "--only-class", "probe", log).stdout == "b 192.0.2.4\n"
    assert run("--from", feeds, "--feed", "smtpdata", log).stdout == "a 192.0.2.2\na 192.0.2.2\n"
    by_prefix = run("--from", feeds, "--feed", "smtpdata", "--ipv6-prefix", "64", log)
    assert "d 2001:db8:1:2::b\n" in by_prefix.stdout
    assert run("--from", feeds, "--invert", log).stdout == "c 192.0.2.6\nd 2001:db8:1:2::b\n"


def test_a_summary_counts_lines_by_address_and_class(feeds: Path, log: Path) -> None:
    done = run("--from", feeds, "--summary", "--format", "ndjson", log, log)
    counted = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["ipaddr"], row["class"], row["lines"]) for row in counted] == [
        ("192.0.2.2", "password-guess", 4),
        ("192.0.2.4", "probe", 2),
    ]
    limited = run("--from", feeds, "--summary", "--limit", "1", "--format", "tsv", log)
    assert limited.stdout.count("\n") == 2
    assert "6 of 10 lines contain one of 2 addresses: 4 password-guess, 2 probe" in done.stderr


def test_exit_codes_are_those_of_grep(feeds: Path, log: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.log"
    nothing.write_text("198.51.100.7\n")
    missing = tmp_path / "missing.log"
    assert run("--from", feeds, nothing).exit_code == 1
    assert run("--from", feeds, "--summary", nothing).exit_code == 1
    assert run("--from", feeds, "--invert", log).exit_code == 0
    both = run("--from", feeds, missing, log)
    assert both.exit_code == 2
    assert both.stdout.count("\n") == 3
    assert f"{missing}: No such file or directory" in both.stderr
    assert run("--from", feeds, tmp_path).exit_code == 2
    (feeds / "smtpgreet.ndjson.gz").write_bytes(b"another")
    assert run("--from", feeds, log).exit_code == 2
    assert run("--from", tmp_path, log).exit_code == 2
    assert run("--from", feeds, "--invert", "--summary", log).exit_code == 2
