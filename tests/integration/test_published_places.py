"""Published files as a source: folders, a day of the archive, files, a server; and a live pipe."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from publish_support.editions import GENERATION, entry, write_edition
from smtpfeeds_aggregator.classification.classes import Class, Judgement
from smtpfeeds_aggregator.publish.edition import MANIFEST
from smtpfeeds_aggregator.publish.signing import Signer, generate_keys
from smtpfeeds_aggregator.query.published.places import open_published
from smtpfeeds_aggregator.query.published.remote import Remote
from smtpfeeds_common.cli import main
from smtpfeeds_common.errors import DatasetError, NotVerified, SettingsError
from smtpfeeds_common.feeds import FEED_NAMES

NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
ROWS = [entry("192.0.2.2"), entry("192.0.2.2", "smtpdata"), entry("2001:db8::2", asn=None)]


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder with ETags, and records the requests."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, int]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride] # no other one makes it

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        status, body = (200, path.read_bytes()) if path.is_file() else (404, b"")
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if status == 200 and self.headers["If-None-Match"] == etag:
            status, body = 304, b""
        self.server.asked.append((self.path, status))
        self.send_response(status)
        if status != 404:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing; the requests are recorded."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of a folder with the files below their generation and the manifest at the top."""
    served = tmp_path / "served"
    write_edition(served / "generations" / GENERATION, ROWS)
    shutil.copy(served / "generations" / GENERATION / MANIFEST, served / MANIFEST)
    server = Server(served)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def entries(place: object, key: Signer | None = None, cache: Path | None = None) -> list[Any]:
    from smtpfeeds_aggregator.publish.signing import PublicKey

    remote = Remote(cache or Path("/dev/null/none"))
    public = None if key is None else PublicKey.parse(key.public_key)
    return list(open_published(str(place), public, now=NOW, remote=remote).entries(FEED_NAMES))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    generate_keys(tmp_path / "key", tmp_path / "key.pub")
    return Signer.from_file(tmp_path / "key")


@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_rows_come_back_as_they_were_published(tmp_path: Path, kind: str) -> None:
    rows = [
        *ROWS,
        entry("192.0.2.3", name="=FORMULA", flags=0, days=0, new=False),
        entry("192.0.2.4", name='QUOTE"D, Inc'),
    ]
    folder = write_edition(tmp_path / "feeds", rows, kind=kind)
    assert entries(folder) == sorted(rows, key=lambda row: row.category != "smtpgreet")
    assert entries(folder / f"smtpdata.{kind}") == [rows[1]]
    assert entries(folder / f"smtpdata.{kind}.gz") == [rows[1]]


def test_a_served_folder_a_generation_and_a_day_are_places(tmp_path: Path) -> None:
    served = tmp_path / "feeds"
    write_edition(served / "generations" / GENERATION, ROWS)
    (served / "current").symlink_to(Path("generations") / GENERATION)
    assert entries(served) == entries(served / "generations" / GENERATION) == ROWS_BY_FEED
    archive = write_edition(tmp_path / "with-archive", ROWS, below="archive/2026-11-25/")
    assert entries(archive / "archive" / "2026-11-25") == ROWS_BY_FEED
    assert len(entries(archive / "archive" / "2026-11-25" / "smtpdata.ndjson.gz")) == 1
    with pytest.raises(NotVerified, match="no NDJSON and no CSV of smtpgreet"):
        entries(archive)


ROWS_BY_FEED = sorted(ROWS, key=lambda row: row.category != "smtpgreet")


def test_file_that_differs_from_the_manifest_is_refused(tmp_path: Path, signer: Signer) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS, signer=signer)
    assert entries(folder, signer) == ROWS_BY_FEED
    generate_keys(tmp_path / "other", tmp_path / "other.pub")
    with pytest.raises(NotVerified, match="signature is not valid"):
        entries(folder, Signer.from_file(tmp_path / "other"))
    with (folder / "smtpdata.ndjson.gz").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(NotVerified, match="another SHA-256"):
        entries(folder, signer)
    (folder / "smtpdata.ndjson.gz").unlink()
    with pytest.raises(NotVerified, match=r"has no smtpdata\.ndjson\.gz"):
        entries(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(NotVerified, match=r"has no manifest\.json"):
        entries(folder)
    assert len(entries(folder / "smtpgreet.ndjson")) == 2
    with pytest.raises(NotVerified, match="no signature either"):
        entries(folder / "smtpgreet.ndjson", signer)
    (folder / "smtpgreet.ndjson").write_text("{}\n")
    with pytest.raises(NotVerified, match="line 1: this is not a row"):
        entries(folder / "smtpgreet.ndjson")
    (folder / "smtpgreet.ndjson").write_text("# text\n")
    with pytest.raises(NotVerified, match="neither NDJSON nor CSV"):
        entries(folder / "smtpgreet.ndjson")
    damaged = bytearray((folder / "smtpgreet.ndjson.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "smtpgreet.ndjson.gz").write_bytes(damaged)
    with pytest.raises(NotVerified, match="cannot be decompressed"):
        entries(folder / "smtpgreet.ndjson.gz")
    with pytest.raises(SettingsError, match="there is no"):
        entries(tmp_path / "nowhere")


def test_a_server_is_asked_once_for_what_has_not_changed(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert entries(server.url, cache=cache) == ROWS_BY_FEED
    base = f"/generations/{GENERATION}"
    assert server.asked == [
        ("/manifest.json", 200),
        (f"{base}/smtpgreet.ndjson.gz", 200),
        (f"{base}/smtpdata.ndjson.gz", 200),
    ]
    server.asked.clear()
    assert entries(f"{server.url}smtpgreet.ndjson.gz", cache=cache) == ROWS_BY_FEED[:2]
    assert server.asked == [("/manifest.json", 304)]
    damaged = max(cache.iterdir(), key=lambda path: path.suffix == "")
    for path in cache.iterdir():
        if path.suffix == "":
            path.write_bytes(b"damaged" if path != damaged else path.read_bytes()[:-1])
    (cache / f"{hashlib.sha256(f'{server.url}{MANIFEST}'.encode()).hexdigest()}.json").unlink()
    assert entries(server.url, cache=cache) == ROWS_BY_FEED
    shutil.rmtree(server.folder / "generations" / GENERATION)
    write_edition(server.folder, ROWS[:1])
    assert entries(server.url, cache=cache) == ROWS[:1]


def test_what_is_kept_is_bounded(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert entries(server.url, cache=cache)
    most = max(path.stat().st_size for path in cache.iterdir())
    for bytes_max in (most, 100):
        remote = Remote(cache, bytes_max=bytes_max)
        server.asked.clear()
        shutil.rmtree(cache)
        assert list(open_published(server.url, None, now=NOW, remote=remote).entries(FEED_NAMES))
        kept = [path.stat().st_size for path in cache.iterdir()]
        assert sum(kept) <= bytes_max
        assert bool(kept) == (bytes_max == most)


def test_a_server_that_does_not_serve_feeds_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(NotVerified, match=r"nothing/ has no manifest\.json"):
        entries(f"{server.url}nothing/")
    late = NOW + timedelta(days=9999)
    with pytest.raises(NotVerified, match="expired"):
        open_published(server.url, None, now=late, remote=Remote(tmp_path))
    with pytest.raises(SettingsError, match="neither http:// nor https://"):
        entries("ftp://feeds.example.net/")
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match="cannot be fetched: "):
        entries(server.url)


PROGRAM = (sys.executable, "-m", "smtpfeeds_common.cli")


def test_a_line_of_a_live_pipe_is_written_while_the_pipe_is_open(tmp_path: Path) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    with subprocess.Popen(
        [*PROGRAM, "filter", "--from", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(b"none\nconnect from unknown[192.0.2.2] %d\nhalf a " % number)
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"unknown[192.0.2.2] %d\n" % number)
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ["filter", "LOG", "--summary"],
        ["query", "192.0.2.2"],
        ["stats"],
        ["feed", "show", "smtpgreet"],
        ["feed", "diff", "FOLDER", "FOLDER"],
    ],
)
def test_nothing_of_the_database_is_imported_where_files_are_read(
    tmp_path: Path, words: list[str]
) -> None:
    folder = write_edition(tmp_path / "feeds", ROWS)
    log = tmp_path / "mail.log"
    log.write_text("192.0.2.2\n")
    places = {"LOG": str(log), "FOLDER": str(folder)}
    words = [places.get(word, word) for word in words]
    if "diff" not in words:
        words += ["--from", str(folder)]
    code = (
        "import sys\nfrom smtpfeeds_common.cli import main\n"
        f"try:\n    main({words!r})\n"
        "finally:\n    names = {name.partition('.')[0] for name in sys.modules}\n"
        "    print(sorted(names & {'psycopg', 'pika', 'pyasn', 'rich', 'jinja2'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ("diff" in words), done.stderr
    assert done.stdout.endswith("[]\n")
    assert "diff" in words or "192.0.2.2" in done.stdout or "smtpgreet" in done.stdout


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_options_of_a_database_and_of_files_exclude_each_other(tmp_path: Path) -> None:
    done = run("filter", "--from", tmp_path, "--dsn", "host=x")
    assert (done.exit_code, "remove --config, --dsn and --dir" in done.stderr) == (2, True)
    assert "give --from too" in run("filter", "--key", "RW").stderr


def test_diff_lists_added_removed_and_changed_entries(tmp_path: Path) -> None:
    before = write_edition(tmp_path / "before", [*ROWS, entry("192.0.2.9", "smtpdata")])
    after = write_edition(
        tmp_path / "after",
        [
            ROWS[0]._replace(judgement=Judgement(Class.RELAY_TEST, ("greet",), None)),
            *ROWS[1:],
            entry("192.0.2.7"),
        ],
        kind="csv",
        generated=NOW,
    )
    done = run("feed", "diff", before, after, "--format", "csv", "--fields", "change,ipaddr,class")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == [
        "gone,192.0.2.9,NA",
        "added,192.0.2.7,probe",
        "class,192.0.2.2,relay-test",
    ]
    assert "2026-11-26T01:00:00Z to 2026-11-26T02:00:00Z" in done.stderr
    assert "1 added, 1 gone, 1 changed their class" in done.stderr
    assert run("feed", "diff", before, before).exit_code == 1
    only = run("feed", "diff", before / "smtpdata.ndjson", after, "--format", "csv")
    assert only.stdout.count("\n") == 2
    assert run("feed", "diff", before, after, "--key", "nowhere").exit_code == 2
