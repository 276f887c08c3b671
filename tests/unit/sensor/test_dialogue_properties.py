"""Any octets in any segments: the same replies and events, bounded memory, one greet and data."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.dialogue_promises import ALL_RULES, check, split_input

CORPUS = sorted((Path(__file__).parents[2] / "fuzz" / "corpus").iterdir())

#: Pieces of what clients send, so that streams get far into a session.
WORDS = st.one_of(
    st.sampled_from([b"HELO", b"EHLO ", b"ehlo a.example.org", b"MAIL FROM:<a>", b"RCPT TO:<b>"]),
    st.sampled_from([b"DATA", b"data", b"BDAT 7", b"BDAT 3 LAST", b"RSET", b"NOOP", b"QUIT"]),
    st.sampled_from([b"AUTH PLAIN", b"auth login AA==", b"AUTH LOGIN", b"*", b"AA==", b"VRFY x"]),
    st.sampled_from(
        [b"MAIL FROM: <a@192.0.2.1> SIZE=9", b"MAIL FROM:<>", b"RCPT TO:<a%b@mx.example>"]
    ),
    st.sampled_from([b"192.0.2.1", b"x 1.2.0.192.", b"@[192.0.2.1]", b"192.0.2.10", b"mx.example"]),
    st.sampled_from([b"STARTTLS", b"AUTH", b"Subject: x", b"GET / HTTP/1.1", b"hello", b" "]),
    st.sampled_from([b".", b"\r\n.\r\n", b"\n.\n", b"\0", b"\xff", b"\x16\x03\x01", b"x" * 70]),
    st.sampled_from(
        [b" EHLO x", b"\tdata", b"eHLO\t::1", b"DATA\t", b"\r.", b"BDAT\t9", b" \tGET /"]
    ),
)
LINES = st.tuples(WORDS, st.sampled_from([b"\r\n", b"\n", b"", b"\r", b"\n\r"])).map(b"".join)
STREAMS = st.one_of(st.lists(LINES, max_size=30).map(b"".join), st.binary(max_size=300))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    stream=STREAMS,
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    rules=st.sampled_from(ALL_RULES),
)
def test_promises_hold_for_any_octets(stream: bytes, cuts: list[int], rules: object) -> None:
    check(stream, cuts, rules)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_promises_hold_for_the_corpus(path: Path) -> None:
    """The inputs that the fuzz target found are tested again."""
    rules, cuts, stream = split_input(path.read_bytes())
    check(stream, cuts, rules)


def test_corpus_is_not_empty() -> None:
    assert len(CORPUS) >= 30
