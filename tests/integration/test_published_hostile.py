"""Damaged or hostile published files and servers are refused, within bounds."""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import os
import shutil
import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from publish_support.editions import GENERATION, entry, write_edition
from servers.certificates import Certificates
from smtpfeeds_aggregator.publish.edition import MANIFEST
from smtpfeeds_aggregator.publish.formats import csv_file
from smtpfeeds_aggregator.query.published import rows as published_rows
from smtpfeeds_aggregator.query.published.places import open_published
from smtpfeeds_aggregator.query.published.remote import Remote
from smtpfeeds_common.cli import main
from smtpfeeds_common.errors import DatasetError, NotVerified
from smtpfeeds_common.feeds import FEED_NAMES

NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
ROWS = [entry("192.0.2.2"), entry("192.0.2.2", "smtpdata"), entry("2001:db8::2", asn=None)]

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as a test sets it, with HTTP/1.0, so that a body may end with the connection."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride] # no other one makes it

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        try:
            self.server.answer(self)
        except OSError:
            self.close_connection = True

    def reply(self, status: int, body: bytes = b"", reason: str = "", **headers: str) -> None:
        self.send_response(status, reason or None)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing; the test records the paths."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer, certificates: Certificates | None = None) -> None:
        self.answer = answer
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.certificate, certificates.key)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/"


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[tuple[Server, threading.Thread]] = []

    def start(answer: Answer, certificates: Certificates | None = None) -> Server:
        server = Server(answer, certificates)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def call(*words: object) -> Result:
        env = {"XDG_CACHE_HOME": str(tmp_path / "user-cache")}
        return CliRunner().invoke(main, [str(word) for word in words], env=env)

    return call


def entries(place: object, remote: Remote) -> list[Any]:
    published = open_published(str(place), None, now=NOW, remote=remote)
    return list(published.entries(FEED_NAMES))


ODD_FIELDS = [
    ("ipaddr", "192.0.2.2\x1b[31m"),
    ("ipaddr", ""),
    ("ipaddr", "192.0.2.0/24"),
    ("lastseen", "yesterday"),
    ("lastseen", "2026-11-26 00:59:59\n"),
    ("lastseen", "9999-12-31 23:59:59"),
    ("first_seen", "0001-01-01 00:00:00"),
    ("hits", 10**30),
    ("hits", -1),
    ("sensors", 2**62),
    ("targets", 2**63),
    ("ASN", 0),
    ("ASN", 2**32),
    ("ASname", "NAME\x1b]0;title\x07"),
    ("actor", "a\x1b[31mb"),
    ("why", ["greet\x1b[31m"]),
    ("category", "smtpgreet\x1b[31m"),
    ("days", "#" * 8),
    ("days", "######\n"),
]


@pytest.mark.parametrize(("field", "value"), ODD_FIELDS)
def test_a_row_with_an_odd_field_is_refused_by_every_command(
    tmp_path: Path, run: Callable[..., Result], field: str, value: Any
) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    row = json.loads((folder / "smtpgreet.ndjson").read_text().splitlines()[0])
    place = tmp_path / "smtpgreet.ndjson"
    place.write_text(json.dumps(row | {field: value}) + "\n")
    log = tmp_path / "mail.log"
    log.write_text("from 192.0.2.2\n")
    for words in (
        ("query", "--all"),
        ("query", "192.0.2.2", "--format", "text", "--per", "feed"),
        ("feed", "show", "smtpgreet", "--format", "ndjson"),
        ("stats",),
        ("filter", "--annotate", log),
        ("filter", log),
    ):
        done = run(*words, "--from", place)
        assert done.exit_code == (2 if words[0] == "filter" else 1), done.output
        assert "line 1: this is not a row of a feed" in done.stderr
        assert "\x1b" not in done.output


def test_csv_has_the_same_rules(tmp_path: Path) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS, kind="csv")
    head, row, *_ = (folder / "smtpgreet.csv").read_text().splitlines()
    place = tmp_path / "smtpgreet.csv"
    for good, odd in ((",3,2,", ",-3,2,"), (",3,2,", ",3,x,"), (",true", ",yes?"), ("2026", "x")):
        assert good in row
        place.write_text(f"{head}\n{row.replace(good, odd, 1)}\n")
        with pytest.raises(NotVerified, match="line 2: this is not a row of a feed"):
            entries(place, Remote(None))
        with pytest.raises(NotVerified, match="line 2: this is not a row of a feed"):
            open_published(str(place), None, now=NOW).addresses(FEED_NAMES)


def test_json_that_is_nested_without_end_is_refused(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    rows = tmp_path / "smtpgreet.ndjson"
    rows.write_text('{"later":' + "[" * 50_000 + "\n")
    (folder / MANIFEST).write_text('{"later":' + "[" * 50_000)
    for place, words in ((rows, "line 1: this is not a row"), (folder, "is not a manifest")):
        for command in ("query", "--all"), ("stats",):
            done = run(*command, "--from", place)
            assert (done.exit_code, words in done.stderr) == (1, True), done.output


def test_what_is_decompressed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    line = (folder / "smtpgreet.ndjson").read_bytes().splitlines(keepends=True)[0]
    rows = tmp_path / "smtpgreet.ndjson.gz"
    rows.write_bytes(gzip.compress(line * 2_000))
    monkeypatch.setattr(published_rows, "FILE_BYTES_MAX", len(line) * 1_000)
    with pytest.raises(NotVerified, match="octets decompressed"):
        entries(rows, Remote(None))
    one_line = tmp_path / "smtpgreet.csv.gz"
    head = ",".join(csv_file.COLUMNS).encode() + b"\n"
    one_line.write_bytes(gzip.compress(head + b"a" * (16 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(NotVerified):
            entries(one_line, Remote(None))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("x" * 5_000, "cannot read"),
        ("http://[::1/", "not a URL"),
        ("https://user:hidden-word@feeds.example.net/", "leave it out"),
        ("https://hidden-word@feeds.example.net/", "leave it out"),
        ("file:///etc/passwd", "neither http"),
    ],
)
def test_a_place_that_cannot_be_one_is_named_without_its_password(
    run: Callable[..., Result], place: str, words: str
) -> None:
    done = run("query", "--all", "--from", place)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "hidden-word" not in done.output


def test_links_in_a_circle_and_pipes_are_named(tmp_path: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "current").symlink_to("current")
    assert "leads back to itself" in run("query", "--all", "--from", tmp_path).stderr
    with closed_pipe() as stream, pytest.raises(NotVerified, match="is a pipe: give a file"):
        list(published_rows.read_entries(stream, "rows"))


def closed_pipe() -> IO[bytes]:
    readable, writable = os.pipe()
    os.close(writable)
    return os.fdopen(readable, "rb")


def test_a_manifest_names_no_place_outside_the_cache(serve: Serve, tmp_path: Path) -> None:
    served, victim = tmp_path / "served", tmp_path / "victim"
    write_edition(served, ROWS)
    victim.write_text("mine")
    files = json.loads((served / MANIFEST).read_text())
    for name in ("../victim", str(victim), "0" * 64 + "\n"):
        for record in files["files"].values():
            record["sha256"] = name
        body = json.dumps(files).encode()
        server = serve(lambda handler, body=body: handler.reply(200, body))
        with pytest.raises(NotVerified, match="is not a manifest"):
            entries(server.url, Remote(tmp_path / "cache"))
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///etc/passwd", "redirects from http to file"),
        ("ftp://feeds.example.net/", "redirects from http to ftp"),
        ("http://[::1/", "redirects to something that is not a URL"),
        ("/again", "redirects more than 5 times"),
    ],
)
def test_redirects_stay_on_the_web_and_are_few(serve: Serve, location: str, words: str) -> None:
    server = serve(lambda handler: handler.reply(302, Location=location))
    with pytest.raises(DatasetError, match=words):
        entries(server.url, Remote(None))
    assert len(server.asked) <= 6


def test_no_redirect_leaves_https(
    serve: Serve, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect over http and back to https is refused too; anyone could change it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    places: list[str] = []
    plain = serve(lambda handler: handler.reply(302, Location=places[0]))

    def answer(handler: Handler) -> None:
        if handler.path == "/good":
            handler.reply(404)
        else:
            handler.reply(302, Location=f"{plain.url}x")

    secure = serve(answer, certificates)
    places.append(f"{secure.url}good")
    with pytest.raises(DatasetError, match="redirects from https to http"):
        entries(secure.url, Remote(None))
    assert plain.asked == []
    with pytest.raises(NotVerified, match=r"has no manifest\.json"):
        entries(plain.url, Remote(None))


def test_a_server_cannot_make_a_reader_wait(serve: Serve) -> None:
    """A slow header or a slow body cannot make it wait."""
    busy = serve(lambda handler: handler.reply(503, Retry_After="86400"))
    with pytest.raises(DatasetError, match="answers 503"):
        entries(busy.url, Remote(None))
    assert len(busy.asked) == 1
    stopped = threading.Event()

    def drip(handler: Handler) -> None:
        if "body" in handler.path:
            handler.reply(200)
        while not stopped.wait(0.01):
            handler.wfile.write(b"x")

    slow = serve(drip)
    try:
        for folder in ("", "body/"):
            with pytest.raises(DatasetError, match=r"not complete after 0\.3 s"):
                entries(f"{slow.url}{folder}", Remote(None, whole_s=0.3))
    finally:
        stopped.set()


def test_control_characters_of_a_server_do_not_reach_the_terminal(
    serve: Serve, run: Callable[..., Result]
) -> None:
    server = serve(lambda handler: handler.reply(500, reason="\x1b[2J\x1b[31mall is well"))
    done = run("query", "--all", "--from", server.url)
    assert done.exit_code == 3
    assert done.stderr.endswith("the server answers 500 ?[2J?[31mall is well\n")


def test_a_proxy_gets_its_password_and_no_message_does(
    serve: Serve, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def answer(handler: Handler) -> None:
        seen.append(handler.headers["Proxy-Authorization"])
        handler.reply(407)

    server = serve(answer)
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.replace("://", "://me:hidden%20word@"))
    done = run("query", "--all", "--from", "http://feeds.example.net/")
    assert server.asked == ["http://feeds.example.net/manifest.json"]
    assert seen == ["Basic " + base64.b64encode(b"me:hidden word").decode()]
    assert (done.exit_code, "answers 407" in done.stderr) == (3, True)
    monkeypatch.setenv("http_proxy", "http://me:hidden%20word@127.0.0.1:1/")
    done = run("query", "--all", "--from", "http://feeds.example.net/")
    assert (done.exit_code, "hidden" in done.output) == (3, False)


def test_stated_sizes_are_checked(serve: Serve, tmp_path: Path) -> None:
    endless = serve(endless_body)
    with pytest.raises(DatasetError, match="has more than the 1000 octets allowed"):
        Remote(tmp_path / "cache").get(endless.url, max_bytes=1_000)
    short = serve(lambda handler: handler.reply(200, b"{}", Content_Length="1000"))
    with pytest.raises(DatasetError, match="cannot be fetched"):
        Remote(tmp_path / "cache").get(short.url, max_bytes=1_000)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("length", [b"-1", b"-5", b"-100000", b"7fffffff", b"f" * 20])
def test_chunk_of_any_length_is_not_held_in_memory(serve: Serve, length: bytes) -> None:
    octets = 16 << 20

    def answer(handler: Handler) -> None:
        handler.reply(200, length + b"\r\n", Transfer_Encoding="chunked")
        for _ in range(octets >> 16):
            handler.wfile.write(bytes(1 << 16))

    server = serve(answer)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="more than the 1000 octets|cannot be fetched"):
            Remote(None).get(server.url, max_bytes=1_000)
        assert tracemalloc.get_traced_memory()[1] < octets >> 2
    finally:
        tracemalloc.stop()


def test_incomplete_chunked_body_is_refused(serve: Serve) -> None:
    body = good = b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
    server = serve(lambda handler: handler.reply(200, body, Transfer_Encoding="chunked"))
    stream = Remote(None).get(server.url, max_bytes=7)
    assert stream is not None
    with stream:
        assert stream.read() == b"abcdefg"
    for cut in range(1, good.index(b"\r\n0")):
        body = good[:cut]
        with pytest.raises(DatasetError, match="cannot be fetched"):
            Remote(None).get(server.url, max_bytes=7)


def endless_body(handler: Handler) -> None:
    handler.reply(200)
    while True:
        handler.wfile.write(b"x" * 1_000)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return write_edition(tmp_path / "served", ROWS)


def from_folder(folder: Path) -> Answer:
    def answer(handler: Handler) -> None:
        path = folder / handler.path.lstrip("/")
        if not path.is_file():
            handler.reply(404)
        elif handler.headers["If-None-Match"] == '"same"':
            handler.reply(304)
        else:
            handler.reply(200, path.read_bytes(), ETag='"same"')

    return answer


def test_another_command_may_empty_the_cache_at_any_time(
    serve: Serve, served: Path, tmp_path: Path
) -> None:
    """Another command empties it between the request and the answer that the copy is current."""
    cache = tmp_path / "cache"
    from_files = from_folder(served)

    def answer(handler: Handler) -> None:
        if handler.headers["If-None-Match"]:
            shutil.rmtree(cache)
        from_files(handler)

    server = serve(answer)
    first = entries(server.url, Remote(cache))
    assert entries(server.url, Remote(cache)) == first


def test_a_copy_that_is_not_what_the_etag_was_given_for_is_not_used(
    serve: Serve, served: Path, tmp_path: Path
) -> None:
    """Two commands may have written it at once, or the file system may have lost its end."""
    cache = tmp_path / "cache"
    server = serve(from_folder(served))
    assert len(entries(server.url, Remote(cache))) == 3
    (note,) = cache.glob("*.json")
    copy = note.with_suffix("")
    copy.write_bytes(copy.read_bytes().replace(b"2036", b"2037"))
    server.asked.clear()
    assert len(entries(server.url, Remote(cache))) == 3
    assert copy.read_bytes() == (served / MANIFEST).read_bytes()


class FullDisk(Remote):
    """A cache on a full file system."""

    def _begin(self, place: Path | None) -> tuple[Path | None, IO[bytes]]:
        if place is None:
            return super()._begin(place)
        return place.with_name("aside"), Path("/dev/full").open("r+b", buffering=0)


def test_full_disk_of_the_cache_loses_only_the_copy(
    serve: Serve, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(from_folder(served))
    assert len(entries(server.url, FullDisk(tmp_path / "cache"))) == 3
    monkeypatch.setattr("tempfile.TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    with pytest.raises(DatasetError, match="there is no space left for it"):
        entries(server.url, FullDisk(tmp_path / "cache"))


def test_a_user_without_a_home_directory_keeps_nothing(
    serve: Serve, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    server = serve(from_folder(served))
    published = open_published(server.url, None, now=NOW)
    assert len(list(published.entries(FEED_NAMES))) == 3


def test_an_edition_that_is_replaced_is_not_mixed(serve: Serve, served: Path) -> None:
    """A mirror without generations can serve the next edition's files with this manifest."""
    server = serve(from_folder(served))
    published = open_published(server.url, None, now=NOW, remote=Remote(None))
    assert f"generations/{GENERATION}" in (served / MANIFEST).read_text()
    write_edition(served, [entry("192.0.2.3"), entry("192.0.2.3", "smtpdata")])
    with pytest.raises((NotVerified, DatasetError), match="another SHA-256|octets allowed"):
        list(published.entries(FEED_NAMES))


def test_terms_that_share_addresses_are_all_seen(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    done = run("query", "192.0.2.2", "192.0.2.0/24", "192.0.3.0/24", "--from", folder)
    assert done.stderr == "not seen: 192.0.3.0/24\n"


@pytest.mark.parametrize("term", ["::/80", "::fffe:0:0/95", "::-::ffff:ffff:ffff"])
def test_a_range_of_ipv6_that_ends_in_mapped_addresses_is_one_of_ipv6(
    tmp_path: Path, run: Callable[..., Result], term: str
) -> None:
    folder = write_edition(tmp_path / "feeds", [*ROWS, entry("::fffe:0:5")])
    done = run("query", term, "--from", folder, "--format", "csv", "--fields", "ipaddr")
    if term.startswith("::-"):
        # Both ends of a range are printed, and one is an IPv4 address.
        assert done.exit_code == 2
    else:
        assert done.stdout == "ipaddr\n::fffe:0:5\n"


def test_a_delimiter_is_written_as_it_was_typed(tmp_path: Path, run: Callable[..., Result]) -> None:
    """Python decodes an octet of the command line that is not UTF-8 to a lone surrogate."""
    folder = write_edition(tmp_path / "feeds", ROWS)
    log = tmp_path / "mail.log"
    log.write_text("from 192.0.2.2\n")
    words = ("--annotate", "--delimiter", "\udcff", "--fields", "class", "--from", folder)
    assert run("filter", log, *words).stdout_bytes == b"from 192.0.2.2\xffprobe\n"


@pytest.mark.parametrize(("number", "code"), [("0", 2), ("x", 2), (str(10**30), 0)])
def test_a_limit_is_any_number_of_rows(
    tmp_path: Path, run: Callable[..., Result], number: str, code: int
) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    log = tmp_path / "mail.log"
    log.write_text("from 192.0.2.2\n")
    for words in (
        ("query", "--all"),
        ("query", "--all", "--sort", "ASN"),
        ("feed", "show", "smtpgreet"),
        ("stats", "--by", "asn"),
        ("filter", "--summary", log),
    ):
        assert run(*words, "--from", folder, "--limit", number).exit_code == code
