"""AS names are cleaned in a fixed order, and a cleaned name is harmless."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.names import clean_name, short_name


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("COGENT-174", "COGENT-174"),
        ("AT&amp;T Services", "AT&T Services"),  # HTML entities are what they stand for
        ("A&#124;B &quot;C&quot;", "AB C"),  # ... and what they stand for is dropped like any other
        ("Orange Côte d’Ivoire", "Orange Cote d'Ivoire"),  # noqa: RUF001
        ("BelWü, Łódź, Straße", "BelWu, Lodz, Strasse"),
        ("ТЦ ЮМОС", "TTs YuMOS"),
        ("Lightboard Services ★", "Lightboard Services *"),
        ("中国电信", "ZhongGuoDianXin"),
        ("株式会社", "ZhuShiHuiShe"),
        ("Ελλάδα Τηλεπικοινωνίες", "Ellada Tilepikoinonies"),
        ("شركة الاتصالات", "shrkh ltslt"),
        ("ＮＴＴ　東日本", "NTT DongRiBen"),  # noqa: RUF001 - wide letters, wide space
        ("a\u200bb\u202ec", "abc"),  # nothing to see
        ("-Reserved AS-", ""),
        ("-Private Use AS-", ""),
        ("- CONECTMAIS -", "- CONECTMAIS -"),
        ("Fullwidth ｜ ＃ ＂", "Fullwidth"),  # noqa: RUF001 - compatibility forms of | # "
        ('PJSC "Vimpelcom"', "PJSC Vimpelcom"),
        ("Burlington USD #244", "Burlington USD 244"),
        ("a\x00b\x07c\x7fd\x85e", "abcd e"),  # NEL is white space, the others are nothing
        ("two\r\nlines\tand  spaces\u00a0here ", "two lines and spaces here"),
        ("1.10.10.10 - Indian Public DNS", "1-10-10-10 - Indian Public DNS"),
        ("1.2.3.4.5", "1-2-3-4-5"),
        ("1.#2.|3.4", "1-2-3-4"),  # a quad that only dropping lets appear
        ("1.2.3,,,.4", "1.2.3,, .4"),  # ... and one that surplus commas kept apart
        ("eval(x) EVAL  ((y)", "eval x) EVAL y)"),
        ("e#val(1)", "eval 1)"),
        ("a,b,eval,(x)", "a,b,eval x)"),
        ("a, b, c, d, e", "a, b, c d e"),
        ("a,b,c,d", "a,b,c d"),
        ("Acme, US", "Acme, US"),  # not RIPE's layout: part of the name
        ("", ""),
        (' |#" ', ""),
    ],
)
def test_name_is_cleaned(raw: str, cleaned: str) -> None:
    assert clean_name(raw, has_country=False) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("GOOGLE - Google LLC, US", "GOOGLE - Google LLC"),
        ("LVLT-1 - Level 3 Parent, LLC, US", "LVLT-1 - Level 3 Parent, LLC"),
        ("Deutsches Zentrum e.V., DE ", "Deutsches Zentrum e.V."),
        ("AS4745-138 - , KR", "AS4745-138"),
        ("-Reserved AS-, ZZ", ""),
        ("-Private Use AS-, ZZ", ""),
        ("A, B, C, D, US", "A, B, C D"),  # the country goes before commas are counted
        ("Telefonica, SA, ES", "Telefonica, SA"),  # one country, at the end
        (", US", ""),
        ("Polismyndigheten, se", "Polismyndigheten, se"),  # no country code
    ],
)
def test_country_is_removed_if_the_source_appends_it(raw: str, cleaned: str) -> None:
    assert clean_name(raw, has_country=True) == cleaned


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("x" * 200, "x" * 30),
        ("a" * 29 + " b", "a" * 29),  # what the cut leaves at the end is stripped
        ("", "NA"),
        ("Google LLC", "Google LLC"),
    ],
)
def test_short_name_fits_the_column(name: str, short: str) -> None:
    assert short_name(name) == short


@given(st.text(st.sampled_from('aA1.,|"# (\t\n\0eval&#124;;é\uff02\u200b'), max_size=60))
def test_cleaned_name_is_harmless(raw: str) -> None:
    """Whatever a registry contains, the name is valid in a row of the feed."""
    cleaned = clean_name(raw, has_country=False)
    assert all(" " <= char <= "~" for char in cleaned)
    assert not set('|"#') & set(cleaned)
    assert "eval(" not in cleaned.lower()
    assert cleaned.count(",") <= 2
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", cleaned)
    assert cleaned == " ".join(cleaned.split())
