"""The published folder is complete at every moment, and current through a mount."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ingest_support import until
from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from publish_support import NOW, Origins, dying
from recorded import FIRST, command_of, environment_of
from servers.processes import bound_to_parent, end
from smtpfeeds_aggregator.publish import layout
from smtpfeeds_aggregator.publish.generation import FeedsDirectory
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_common.errors import PublishError

# ruff: noqa: F811 - fixtures are imported by name and used by name

DYING = Path(dying.__file__)


class Reader:
    """Reads below a directory that it opens once, like a bind mount or a container."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, path: str) -> bytes:
        with os.fdopen(os.open(path, os.O_RDONLY, dir_fd=self._folder), "rb") as stream:
            return stream.read()

    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self.read("manifest.json"))
        return manifest

    def take_all(self, pause: Callable[[], object]) -> str:
        """Read the manifest and, some time later, the files of the same generation."""
        manifest = self.manifest()
        pause()
        for name, file in manifest["files"].items():
            assert sha256(self.read(manifest["base"] + name)).hexdigest() == file["sha256"]
        return str(manifest["generated"])

    def close(self) -> None:
        os.close(self._folder)


def settings_of(dsn: str, folder: Path, **more: Any) -> AggregatorSettings:
    return AggregatorSettings(
        dsn=dsn,
        feeds_dir=str(folder),
        publish_non_global=True,
        **{"generations_kept": 1000, **more},
    )


def test_reader_takes_manifest_and_files_of_one_generation_while_others_are_published(
    dsn: str, tmp_path: Path
) -> None:
    """A directory that is opened once, as by a mount, stays current."""
    settings = settings_of(dsn, tmp_path)
    switched, stop = threading.Event(), threading.Event()
    taken: list[str] = []
    with connect(settings, "test", autocommit=True) as connection:
        publish_once(settings, Origins(), connection, now=NOW)
        reader = Reader(tmp_path / "feeds")

        def wait_for_a_switch() -> None:
            switched.clear()
            switched.wait(60)

        def read_on() -> None:
            while not stop.is_set():
                taken.append(reader.take_all(wait_for_a_switch))

        thread = threading.Thread(target=read_on)
        thread.start()
        number = 0
        while len(set(taken)) < 10 and thread.is_alive():
            number += 1
            publish_once(settings, Origins(), connection, now=NOW + timedelta(minutes=number))
            switched.set()
        stop.set()
        publish_once(settings, Origins(), connection, now=NOW + timedelta(days=1))
        switched.set()
        thread.join(60)
    assert len(set(taken)) >= 10
    assert reader.manifest()["generated"] == "2026-11-24T10:59:30Z"
    reader.close()


def test_published_folder_is_complete_after_a_kill_at_any_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DYING, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@pytest.fixture
def first_layout(dsn: str, tmp_path: Path) -> Path:
    """A folder as an aggregator of 0.1.0 publishes it."""
    folder, spools = tmp_path / "first", tmp_path / "spools"
    spools.mkdir()
    config = tmp_path / "aggregator.toml"
    config.write_text(
        f'dsn = "{dsn}"\nbroker = ["spool:{spools}"]\nfeeds_dir = "{folder}"\n'
        "publish_interval_s = 86400\n"
    )
    with (tmp_path / "log").open("wb") as log:
        program = subprocess.Popen(
            bound_to_parent([*command_of("aggregator", "run", "--config", str(config))]),
            env=environment_of(FIRST),
            stderr=log,
        )
    try:
        until((folder / "feeds" / "manifest.json").exists, "0.1.0 has published", 60)
    finally:
        end(program, limit_s=60)
    return folder


def test_layout_of_the_first_version_is_converted(
    dsn: str, first_layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files have their old names before and after the one step that switches."""
    feeds = first_layout / "feeds"
    assert feeds.is_symlink()
    manifest = (feeds / "manifest.json").read_bytes()
    exchanged: list[bytes] = []

    def exchange(one: Path, other: Path) -> None:
        exchanged.append((one / "manifest.json").read_bytes())
        exchanged.append((other / "manifest.json").read_bytes())
        layout_exchange(one, other)
        exchanged.append((other / "manifest.json").read_bytes())

    layout_exchange = layout.exchange
    monkeypatch.setattr(layout, "exchange", exchange)
    settings = settings_of(dsn, first_layout)
    with connect(settings, "test", autocommit=True) as connection:
        assert publish_once(settings, Origins(), connection) is not None
    assert exchanged == [manifest] * 3
    assert not feeds.is_symlink()
    assert (feeds / "manifest.json").read_bytes() != manifest
    assert len(list((feeds / "generations").iterdir())) == 2, "the old one is kept beside the new"
    assert not (first_layout / "generations").exists()


def test_kill_at_any_step_of_the_conversion_is_repaired(first_layout: Path, tmp_path: Path) -> None:
    manifest = json.loads((first_layout / "feeds" / "manifest.json").read_text())
    manifest["files"] = {name: file["sha256"] for name, file in manifest["files"].items()}
    target = (first_layout / "feeds").resolve() / "manifest.json"
    target.write_text(json.dumps(manifest))
    folder = tmp_path / "deaths"
    done = subprocess.run(
        [sys.executable, DYING, folder, first_layout], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_paths_are_exchanged_on_every_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "no such flag here")

    for name in ("can", "cannot"):
        folder, link = tmp_path / f"folder-{name}", tmp_path / f"link-{name}"
        folder.mkdir()
        (folder / "file").touch()
        link.symlink_to("nowhere")
        if name == "cannot":
            monkeypatch.setattr(layout, "_rename_exchange", cannot)
        layout.exchange(folder, link)
        assert not link.is_symlink()
        assert (link / "file").exists()


def test_kill_between_the_two_steps_of_an_exchange_is_repaired(
    first_layout: Path,
) -> None:
    """At that point the symlink is removed, and the directory does not exist yet."""
    manifest = (first_layout / "feeds" / "manifest.json").read_bytes()
    (first_layout / "feeds").unlink()
    directory = FeedsDirectory(first_layout)
    directory.check()
    directory.prepare()
    assert (first_layout / "feeds" / "manifest.json").read_bytes() == manifest


def test_first_version_refuses_the_new_layout_and_changes_nothing(
    dsn: str, first_layout: Path, tmp_path: Path
) -> None:
    """Hosts are upgraded one by one, so an old one may publish into the same directory."""
    settings = settings_of(dsn, first_layout)
    with connect(settings, "test", autocommit=True) as connection:
        publish_once(settings, Origins(), connection)
    before = (first_layout / "feeds" / "manifest.json").read_bytes()
    config = tmp_path / "aggregator.toml"
    text = config.read_text().replace("86400", "1")
    config.write_text(text)
    log = tmp_path / "again"
    with log.open("wb") as stream:
        program = subprocess.Popen(
            bound_to_parent([*command_of("aggregator", "run", "--config", str(config))]),
            env=environment_of(FIRST),
            stderr=stream,
        )
    try:
        until(lambda: "is not a symlink made by smtpfeeds" in log.read_text(), "it refuses", 60)
        assert program.poll() is None, "it goes on with everything else"
    finally:
        end(program, limit_s=60)
    assert (first_layout / "feeds" / "manifest.json").read_bytes() == before


def test_other_folders_of_the_old_name_stay(tmp_path: Path) -> None:
    """If feeds_dir is also origin_dir, `generations` contains origin tables."""
    kept = tmp_path / "generations" / "20261123T061500Z-2518d6efcace-117e44bfd736"
    kept.mkdir(parents=True)
    dying.publish(tmp_path, "one")
    dying.publish(tmp_path, "two")
    assert kept.is_dir()


def test_other_content_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feeds").write_text("precious")
    with pytest.raises(PublishError, match="was not created by smtpfeeds"):
        FeedsDirectory(tmp_path).check()


def test_folder_that_was_copied_without_its_links_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    """`cp -rL` and `scp -r` follow links; a publication could never replace `current` then."""
    directory = FeedsDirectory(tmp_path)
    directory.check()
    directory.prepare()
    with directory.new_generation(NOW) as generation:
        (generation.partial / "a.txt").write_text("a")
        directory.switch(generation)
    current = directory.served / "current"
    kept = current.readlink()
    current.unlink()
    current.mkdir()
    with pytest.raises(PublishError, match=r"copied without its links. Copy it again with `cp -a`"):
        directory.check()
    current.rmdir()
    current.symlink_to(kept)
    file = directory.served / "a.txt"
    file.unlink()
    file.write_text("in the way")
    with pytest.raises(PublishError, match=r"a\.txt is not a link of smtpfeeds; move it away"):
        directory.prepare()
    file.unlink()
    file.symlink_to("/etc/hostname")
    directory.prepare()
    assert file.read_text() == "a"
