"""`smtpfeeds aggregator check-config`: it checks folders and files, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rights import without_rights
from smtpfeeds_aggregator.cli.aggregator import aggregator
from smtpfeeds_aggregator.cli.check_config import _check_writable
from smtpfeeds_aggregator.publish.signing import generate_keys
from smtpfeeds_common.errors import SettingsError


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    for name in ("spools", "origins", "feeds"):
        (tmp_path / name).mkdir()
    (tmp_path / "table").write_text("x")
    return {
        "dsn": "host=127.0.0.1 dbname=x",
        "broker": [f"spool:{tmp_path / 'spools'}"],
        "feeds_dir": str(tmp_path / "feeds"),
        "origin_dir": str(tmp_path / "origins"),
        "as_names": str(tmp_path / "table"),
    }


def checked(tmp_path: Path, values: dict[str, Any]) -> list[str]:
    config = tmp_path / "aggregator.toml"
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    command = ["check-config", "--config", str(config)]
    return CliRunner().invoke(aggregator, command, catch_exceptions=False).output.splitlines()


def test_good_settings_leave_nothing_behind(tmp_path: Path, good: dict[str, Any]) -> None:
    assert checked(tmp_path, good)[-1] == "the settings are good"
    assert not list((tmp_path / "feeds").iterdir())
    good["feeds_dir"] = str(tmp_path / "not" / "yet")
    assert checked(tmp_path, good)[-1] == "the settings are good"
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        # Nobody can make anything in /proc, whatever access(2) says to root.
        (
            {"feeds_dir": "/proc/x"},
            r"toml: feeds_dir: cannot write in /proc, so /proc/x cannot be",
        ),
        ({"feeds_dir": "{}/table"}, r"feeds_dir: cannot write in .*table: Not a directory"),
        ({"feeds_dir": "{}/table/x"}, r"feeds_dir: cannot write in .*table, so"),
        ({"origin_dir": "{}/none"}, r"origin_dir: cannot read the folder .*No such file"),
        ({"origin_dir": "{}/table"}, r"origin_dir: cannot read the folder .*Not a directory"),
        ({"origin_dir": "", "origin_table": "{}/none"}, r"origin_table: .*No such file"),
        ({"origin_dir": "", "origin_table": "{}/feeds"}, r"origin_table: .*Is a directory"),
        ({"as_names": "{}/none"}, r"as_names: cannot read the file .*No such file"),
        ({"broker": ["spool:{}/none"]}, r"broker: cannot read the folder .*No such file"),
        ({"broker": ["amqp://"]}, r"aggregator.toml: broker: address 1 of 1 is not amqp"),
        ({"broker": ["spool:/a", "spool:/b"]}, r"aggregator.toml: broker: .* only entry"),
        ({"broker": []}, "'broker' is missing"),
    ],
)
def test_unusable_files_and_folders_are_named(
    tmp_path: Path, good: dict[str, Any], wrong: dict[str, Any], words: str
) -> None:
    placed = json.loads(json.dumps(wrong).replace("{}", str(tmp_path)))
    with pytest.raises(SettingsError, match=words):
        checked(tmp_path, good | placed)


def test_missing_right_is_reported_with_the_user(
    tmp_path: Path, good: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(SettingsError, match="Permission denied .tried as .*own user is what count"):
        checked(tmp_path, good)


def test_root_is_warned_about_a_password_that_only_root_can_read(
    tmp_path: Path, good: dict[str, Any]
) -> None:
    """The unit starts the aggregator as another user, which cannot read it."""
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text("secret\n")
    values = {**good, "dsn_password_file": str(secret)}

    def noted() -> bool:
        return any("only root may read" in line for line in checked(tmp_path, values))

    assert noted() == (os.geteuid() == 0)
    secret.chmod(0o640)
    assert not noted()


def test_signing_key_is_read(tmp_path: Path, good: dict[str, Any]) -> None:
    secret, public = tmp_path / "feeds.key", tmp_path / "feeds.pub"
    key = generate_keys(secret, public)
    good["signing_key_file"] = str(secret)
    assert f"signing_key_file: public key {key}" in checked(tmp_path, good)
    secret.chmod(0o604)
    with pytest.raises(SettingsError, match="everybody may read"):
        checked(tmp_path, good)
    good["signing_key_file"] = str(public)
    with pytest.raises(SettingsError, match=r"signing_key_file: .*feeds.pub"):
        checked(tmp_path, good)


def test_folder_below_one_that_the_user_may_not_enter_is_named(tmp_path: Path) -> None:
    feeds = tmp_path / "closed" / "feeds"
    with without_rights(feeds.parent), pytest.raises(SettingsError, match=f"in {feeds}: Perm"):
        _check_writable("feeds_dir", feeds)
