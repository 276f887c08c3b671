"""An argument that names a file says why the file cannot be used."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from rights import without_rights
from smtpfeeds_common.existing_path import ExistingPath


def test_file_in_a_folder_that_the_user_may_not_enter_is_not_said_to_be_missing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "closed" / "owner.toml"
    with without_rights(file.parent), pytest.raises(click.BadParameter, match="may not enter"):
        ExistingPath().convert(str(file), None, None)


def test_other_reasons_are_clicks(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(click.BadParameter, match="does not exist"):
        ExistingPath().convert(str(file), None, None)
    file.touch()
    with pytest.raises(click.BadParameter, match="is a file"):
        ExistingPath(file_okay=False).convert(str(file), None, None)
    with pytest.raises(click.BadParameter, match="does not exist"):
        ExistingPath().convert(str(file / "below"), None, None)
    assert ExistingPath(dir_okay=False).convert(str(file), None, None) == file
    assert ExistingPath(allow_dash=True).convert("-", None, None) == Path("-")
