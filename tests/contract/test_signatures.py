"""Debian's minisign verifies what is signed, and files of anyone else are refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from publish_support import Origins
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.publish.signing import PublicKey, Signer, generate_keys
from smtpfeeds_aggregator.publish.verify import check_manifest, open_edition, record_of
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_common.cli import main as command
from smtpfeeds_common.errors import NotVerified, SettingsError

# ruff: noqa: F811 - the fixture is imported by name and used by name

SIGNED = ("manifest.json", "SHA256SUMS")


def smtpfeeds(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    result = smtpfeeds("publish", "keygen", tmp_path / "secret.key", tmp_path / "feeds.pub")
    assert result.exit_code == 0, result.output
    return tmp_path / "secret.key", tmp_path / "feeds.pub"


@pytest.fixture
def feeds(dsn: str, tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    settings = AggregatorSettings(
        dsn=dsn, feeds_dir=str(tmp_path / "www"), signing_key_file=str(keys[0])
    )
    with connect(settings, "test", autocommit=True) as connection:
        assert publish_once(settings, Origins(), connection) is not None
    return tmp_path / "www" / "feeds"


def test_key_is_never_overwritten_and_only_its_owner_can_read_it(
    tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    secret, public = keys
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = secret.read_bytes(), public.read_bytes()
    for pair in ((secret, tmp_path / "other.pub"), (tmp_path / "other.key", public)):
        again = smtpfeeds("publish", "keygen", *pair)
        assert again.exit_code == 2
        assert "exists already" in again.output
    assert (secret.read_bytes(), public.read_bytes()) == before
    assert not (tmp_path / "other.key").exists()
    assert Signer.from_file(secret).public_key in public.read_text()
    secret.chmod(0o644)
    with pytest.raises(SettingsError, match="everybody may read"):
        Signer.from_file(secret)
    with pytest.raises(SettingsError, match="not a secret key of minisign"):
        Signer.from_file(_file(tmp_path / "no.key", public.read_bytes()))


def _file(path: Path, octets: bytes) -> Path:
    path.write_bytes(octets)
    path.chmod(0o600)
    return path


def test_minisign_verifies_what_is_published(feeds: Path, keys: tuple[Path, Path]) -> None:
    manifest = json.loads((feeds / "manifest.json").read_text())
    for name in SIGNED:
        checked = subprocess.run(
            ["minisign", "-V", "-p", keys[1], "-m", feeds / name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr
        generation = manifest["base"].split("/")[1]
        for part in (name, generation, manifest["generated"], manifest["expires"]):
            assert part in checked.stdout
    sums = (feeds / "current" / "SHA256SUMS").read_text()
    assert "manifest.json.minisig" in sums
    assert manifest["public_key"] in keys[1].read_text()
    assert f"--key {manifest['public_key']}" in unescape((feeds / "index.html").read_text())


def test_verify_accepts_folder_generation_copy_and_file(
    feeds: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(feeds / "current", copy)
    current = (feeds / "current").resolve()
    key = Signer.from_file(keys[0]).public_key
    for path in (feeds, current, copy, feeds / "smtpgreet.txt", copy / "smtpdata.ndjson.gz"):
        done = smtpfeeds("feed", "verify", path, "--key", key)
        assert done.exit_code == 0, done.output
        assert "signature good" in done.output
    assert smtpfeeds("feed", "verify", copy, "--no-signature").exit_code == 0
    assert smtpfeeds("feed", "verify", copy).exit_code == 2


def test_verify_refuses_changed_files_and_other_keys(
    feeds: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    def refused(folder: Path, *more: object) -> str:
        done = smtpfeeds("feed", "verify", folder, "--key", keys[1], *more)
        assert done.exit_code == 1, done.output
        return done.output

    def copied(name: str) -> Path:
        return Path(shutil.copytree(feeds / "current", tmp_path / name))

    changed = copied("changed")
    (changed / "smtpgreet.csv").write_text("192.0.2.1\n")
    assert "smtpgreet.csv" in refused(changed)
    assert "smtpgreet.csv" in refused(changed / "smtpgreet.csv")

    gone = copied("gone")
    (gone / "smtpgreet.csv").unlink()
    assert "cannot read" in refused(gone)

    page = copied("page")
    (page / "index.html").write_text("<p>elsewhere</p>")
    assert "index.html" in refused(page)

    forged = copied("forged")
    manifest = (forged / "manifest.json").read_text()
    (forged / "manifest.json").write_text(manifest.replace("CC0-1.0", "none"))
    assert "signature is not valid" in refused(forged)

    unsigned = copied("unsigned")
    (unsigned / "manifest.json.minisig").unlink()
    assert "is not signed" in refused(unsigned)

    stranger = tmp_path / "stranger.pub"
    generate_keys(tmp_path / "stranger.key", stranger)
    done = smtpfeeds("feed", "verify", feeds, "--key", stranger)
    assert done.exit_code == 1
    assert "signature is not valid" in done.output

    # A good signature of one file does not pass for another edition's.
    other = copied("other")
    edition = json.loads(manifest)
    octets = (other / "SHA256SUMS").read_bytes()
    comment = f"smtpfeeds file:SHA256SUMS generation:{edition['base']} generated:then expires:then"
    (other / "SHA256SUMS.minisig").write_bytes(Signer.from_file(keys[0]).sign(octets, comment))
    assert "of another edition" in refused(other)


def test_old_edition_is_refused(feeds: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    newest = tmp_path / "newest"
    for _ in range(2):
        done = smtpfeeds("feed", "verify", feeds, "--key", keys[1], "--newest-file", newest)
        assert done.exit_code == 0, done.output
    key = PublicKey.parse(str(keys[1]))
    generated = datetime.fromisoformat(newest.read_text().strip())
    newest.write_text((generated + timedelta(seconds=1)).isoformat())
    done = smtpfeeds("feed", "verify", feeds, "--key", keys[1], "--newest-file", newest)
    assert done.exit_code == 1
    assert "which was accepted before" in done.output
    late = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(NotVerified, match="expired at"):
        open_edition(feeds, key, now=late)


def test_manifest_cannot_name_a_file_elsewhere(feeds: Path, tmp_path: Path) -> None:
    """Files from the network follow the same rules."""
    folder = Path(shutil.copytree(feeds / "current", tmp_path / "copy"))
    secret = tmp_path / "outside"
    secret.write_text("outside")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("../outside", str(secret)):
        manifest["files"] = {name: {"bytes": 7, "sha256": "0" * 64}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(NotVerified, match="leads out of the folder"):
            open_edition(folder, None, now=datetime.now(UTC)).verify(name)
    body = (feeds / "manifest.json").read_bytes()
    edition = check_manifest(body, None, None, now=datetime.now(UTC))
    octets = (feeds / "smtpgreet.txt").read_bytes()
    assert record_of(edition, "smtpgreet.txt").sha256 == hashlib.sha256(octets).hexdigest()
    with pytest.raises(NotVerified, match="names no file"):
        record_of(edition, os.fspath(secret))
    for broken in (b"{}", b"[]", b"\xff", body.replace(b'"version": 2', b'"version": 3')):
        with pytest.raises(NotVerified):
            check_manifest(broken, None, None, now=datetime.now(UTC))
