"""AS names in each published layout, cleaned once."""

import gzip
import json
from pathlib import Path

import pytest

from smtpfeeds_aggregator.origin.acquire.as_names import parse_names, read_names, write_names
from smtpfeeds_common.errors import OriginError

OLD = b"1 LVLT-1, US\n15169 GOOGLE, US\n"
NEW = (
    b"1 LVLT-1 - Level 3 Parent, LLC, US\n"
    b'64001 NET-HK  # converted for RPSL compliance - The Net|work, "HK", HK\n'
    b"4745 AS4745-138 - , KR\n"
    b"7901 - , NZ\n"
    b"15169 GOOGLE - Google LLC, US\n"
    b"29571 Orange C\xc3\xb4te d'Ivoire - Orange C\xc3\xb4te d'Ivoire, CI\n"
)
PYASN = b'{"15169": "Google, SA", "1": "Level 3", "0": "nobody", "7": 5}'
HTML = (
    b"<html><body><pre>\n"
    b'<a href="/cgi-bin/as-report?as=AS1&view=2.0">AS1    </a> LVLT-1 - Level 3 &amp; Co, US\n'
    b'<a href="/cgi-bin/as-report?as=AS15169">AS15169 </a> GOOGLE - Google LLC, US\n'
    b"</pre></body></html>\n"
)


def test_both_layouts_of_asn_txt_lose_the_country_and_keep_the_name() -> None:
    assert parse_names(OLD, "asn.txt") == {1: "LVLT-1", 15169: "GOOGLE"}
    names = parse_names(NEW, "asn.txt")
    assert names[1] == "LVLT-1 - Level 3 Parent, LLC"
    assert names[15169] == "GOOGLE - Google LLC"
    assert names[29571] == "Orange Cote d'Ivoire - Orange Cote d'Ivoire"
    assert not set(names[64001]) & set('|"#')
    assert 7901 not in names, "a dash and a country are not a name"


def test_pyasn_json_keeps_text_that_looks_like_a_country() -> None:
    assert parse_names(PYASN, "names.json") == {15169: "Google, SA", 1: "Level 3"}


def json_list(names: list[str]) -> bytes:
    return json.dumps({str(64496 + at): name for at, name in enumerate(names)}).encode()


def test_country_is_removed_from_json_if_most_names_have_one() -> None:
    """In pyasn's own asnames.json 99.5 % of the names end with a country."""
    names = [f"NET-{number}, {country}" for number, country in enumerate(("US", "DE") * 100)]
    read = parse_names(json_list(["Odd one", *names, "Acme, SA, ES"]), "asnames.json")
    assert read[64496] == "Odd one"
    assert read[64497] == "NET-0"
    assert read[64496 + 201] == "Acme, SA"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.8])
def test_list_without_countries_keeps_the_end_of_a_company_s_name(share: float) -> None:
    names = [f"Net {n}, SA" if n < share * 200 else f"Net {n}" for n in range(200)]
    assert parse_names(json_list(names), "names.json")[64496] == "Net 0, SA"
    text = "".join(f"{64496 + at} {name}\n" for at, name in enumerate(names)).encode()
    assert parse_names(text, "own-list.txt")[64496] == "Net 0, SA"


def test_reserved_and_private_as_have_no_name() -> None:
    text = b"64512 -Private Use AS-, ZZ\n23456 -Reserved AS-, ZZ\n15169 GOOGLE, US\n"
    assert parse_names(text, "asn.txt") == {15169: "GOOGLE"}
    assert parse_names(b'{"1": "-Reserved AS-", "2": "Two"}', "names.json") == {2: "Two"}


def test_only_the_autnums_page_is_read() -> None:
    assert parse_names(HTML, "autnums") == {
        1: "LVLT-1 - Level 3 & Co",
        15169: "GOOGLE - Google LLC",
    }
    with pytest.raises(OriginError, match="no AS name"):
        parse_names(b"<html>\n<title>404</title>\n</html>\n", "autnums")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"x": "y"}', b'{"1":' * 100_000, b"[1]", b"what\nis\nthis\n" * 9],
    ids=lambda content: repr(content[:20]),
)
def test_file_that_is_not_a_list_of_names_is_refused(content: bytes) -> None:
    with pytest.raises(OriginError):
        parse_names(content, "names")


@pytest.mark.parametrize("content", [OLD, NEW, PYASN, HTML])
def test_list_truncated_within_a_line_is_refused(content: bytes) -> None:
    for cut in range(len(content.rstrip())):
        if content[:cut].endswith(b"\n") and content[:1].isdigit():
            continue
        with pytest.raises(OriginError):
            parse_names(content[:cut], "names")


def test_cleaned_names_are_read_back_unchanged(tmp_path: Path) -> None:
    """Names are not cleaned again: what looks like a country is part of the name."""
    names = {5: "A &amp; B, US", 7: "Seven"}
    write_names(names, tmp_path / "a.gz")
    write_names(dict(reversed(names.items())), tmp_path / "b.gz")
    assert read_names(tmp_path / "a.gz", cleaned=True) == names
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    (tmp_path / "asn.txt").write_bytes(gzip.compress(OLD))
    assert len(read_names(tmp_path / "asn.txt")) == 2
