"""A command of root that writes into another user's folder leaves no file of root there."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpfeeds_aggregator.classification.lists.refresh import directory_of
from smtpfeeds_aggregator.cli import as_owner
from smtpfeeds_aggregator.publish.generation import FeedsDirectory
from smtpfeeds_common.cli import main
from smtpfeeds_common.errors import ListsError, PublishError
from smtpfeeds_common.users import become_owner, remedy_for_error, user_name

IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
#: Without a name in this system, and small enough for the user namespace of a container.
NAMELESS = min(set(range(60_000, 65_000)) - {user.pw_uid for user in pwd.getpwall()})

#: Becomes the owner of a folder, writes below it, and prints whom it became, or the error.
PROGRAM = """
import sys
from pathlib import Path
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.users import become_owner
folder = Path(sys.argv[1])
try:
    print(become_owner(folder / "not" / "there", sys.argv[2:]))
    (folder / "file").touch()
except SettingsError as exc:
    print(exc.message)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter; only the owner can enter pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="smtpfeeds-owner-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run(folder: Path, program: Path) -> str:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("uid", [NOBODY.pw_uid, NAMELESS])
def test_root_becomes_the_owner_of_the_folder_and_another_user_stays(
    folder: Path, uid: int
) -> None:
    program = folder / "program"
    program.touch()
    if IS_ROOT:
        os.chown(folder, uid, NOBODY.pw_gid)
    became = run(folder, program)
    assert became == (user_name(uid) if IS_ROOT else "")
    written = (folder / "file").stat()
    assert (written.st_uid, written.st_gid) == (folder.stat().st_uid, folder.stat().st_gid)


def test_owner_who_cannot_read_the_program_is_refused(folder: Path) -> None:
    program = folder / "program"
    program.touch(mode=0o600)
    if IS_ROOT:
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    became = run(folder, program)
    assert ("belongs to user nobody" in became) == IS_ROOT
    assert ("install the programs where every user can read them" in became) == IS_ROOT
    assert (folder / "file").exists() != IS_ROOT


def test_own_folder_changes_nothing(tmp_path: Path) -> None:
    assert become_owner(tmp_path / "not" / "there") == ""


@pytest.mark.parametrize(
    ("words", "setting", "content"),
    [
        ("publish now", "feeds_dir", "feeds"),
        ("origin refresh", "origin_dir", "generations"),
        ("origin rollback", "origin_dir", "generations"),
        ("lists refresh", "lists_dir", "generations"),
        ("lists rollback", "lists_dir", "generations"),
    ],
)
def test_command_becomes_the_owner_before_it_writes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    setting: str,
    content: str,
) -> None:
    became = []

    def stop(folder: Path) -> str:
        became.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(as_owner, "become_owner", stop)
    where = tmp_path / "data"
    config = tmp_path / "aggregator.toml"
    config.write_text(f'dsn = "host=/nowhere"\n{setting} = "{where}"\n')
    CliRunner().invoke(main, [*words.split(), "--config", str(config)])
    assert became == [where / content]
    assert not where.exists()


def test_error_names_the_other_owner_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = user_name(os.geteuid())
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "new" / "file"))
    assert remedy_for_error(denied, tmp_path) == ""
    monkeypatch.setattr(os, "geteuid", lambda: NAMELESS)
    remedy = f"{tmp_path} belongs to user {own}: run `chown -R {NAMELESS}: {tmp_path}` as root"
    assert remedy_for_error(denied, tmp_path) == remedy
    assert remedy_for_error(OSError(errno.ENOSPC, "full", str(tmp_path)), tmp_path) == ""

    def refuse(path: Path, *_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    directory = FeedsDirectory(tmp_path / "www")
    directory.prepare()
    old = directory.served / "generations" / "20261126T120000Z-00000000"
    old.mkdir()
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PublishError, match="cannot remove") as stuck:
        directory.prune(0)
    assert f"{old} belongs to user {own}: run `chown -R" in stuck.value.message
    monkeypatch.setattr(Path, "open", refuse)
    with (
        pytest.raises(ListsError, match="cannot open") as locked,
        directory_of(str(tmp_path)).locked(),
    ):
        pass
    assert f"run `chown -R {NAMELESS}: {tmp_path}` as root" in locked.value.message
