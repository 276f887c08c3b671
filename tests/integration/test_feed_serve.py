"""`smtpfeeds feed serve`: types, policy, and no file from outside the folder."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.processes import HANG_LIMIT_S

PROGRAM = (sys.executable, "-m", "smtpfeeds_common.cli", "feed", "serve")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with feeds, and beside it a secret and a link to that."""
    feeds = tmp_path / "feeds"
    generation = feeds / "generations" / "one"
    generation.mkdir(parents=True)
    (feeds / "current").symlink_to("generations/one")
    for name in ("smtpgreet.txt", "smtpgreet.ndjson", "index.html", "page.js", "manifest.json"):
        (generation / name).write_text(name)
        (feeds / name).symlink_to(f"current/{name}")
    (tmp_path / "aggregator.toml").write_text("secret")
    (feeds / "leak.txt").symlink_to("../aggregator.toml")
    return feeds


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    command = [*PROGRAM, str(folder), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()


def get(url: str) -> tuple[int, str, str]:
    """Return status, type and body."""
    try:
        with urllib.request.urlopen(url, timeout=HANG_LIMIT_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, "", ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("smtpgreet.txt", "text/plain; charset=utf-8"),
        ("smtpgreet.ndjson", "application/x-ndjson"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("generations/one/smtpgreet.txt", "text/plain; charset=utf-8"),
    ],
)
def test_each_file_has_its_type(url: str, name: str, kind: str) -> None:
    status, content_type, body = get(url + name)
    assert (status, content_type) == (200, kind)
    assert body == (Path(name).name or "index.html")


@pytest.mark.parametrize(
    "path", ["leak.txt", "../aggregator.toml", "%2e%2e/aggregator.toml", "generations/", "none"]
)
def test_nothing_beside_the_feeds_is_served(url: str, path: str) -> None:
    assert get(url + path)[0] == 404


def test_the_policy_is_a_header_too(url: str) -> None:
    with urllib.request.urlopen(url, timeout=HANG_LIMIT_S) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert policy.endswith("frame-ancestors 'none'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_folder_without_feeds_is_refused(tmp_path: Path) -> None:
    result = subprocess.run([*PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "has no published feeds" in result.stderr
