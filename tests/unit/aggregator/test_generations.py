"""Generations on disk are complete or absent; one is current; the newest are kept."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smtpfeeds_aggregator.classification.lists.refresh import KIND as LISTS
from smtpfeeds_aggregator.datasets.directory import DatasetDirectory, Kind
from smtpfeeds_aggregator.datasets.generations import Generations
from smtpfeeds_aggregator.origin.generation import KIND as ORIGIN_TABLES

NOW = datetime(2026, 11, 23, 11, tzinfo=UTC)


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    generations = Generations(tmp_path / "root", tmp_path / "unfinished", public=True)
    generations.prepare()
    return generations


def put(generations: Generations, content: str, now: datetime = NOW) -> str:
    name = f"{generations.next_stamp(now)}-{content}"
    with generations.new(name) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "file").write_text(content)
        generations.add(partial, name)
    generations.switch(name)
    return name


def test_switch_moves_one_relative_link(generations: Generations) -> None:
    names = [put(generations, content) for content in ("first", "second")]
    link = generations.root / "current"
    assert link.readlink() == Path("generations") / names[1]
    assert (link / "sub" / "file").read_text() == "second"
    assert generations.current() == generations.path(names[1])
    assert list(generations.unfinished.iterdir()) == []


def test_names_keep_the_order_if_the_clock_goes_back(generations: Generations) -> None:
    times = [NOW, NOW, NOW - timedelta(days=3650), NOW + timedelta(hours=1)]
    names = [put(generations, f"{4 - place}", at) for place, at in enumerate(times)]
    assert generations.names() == names[::-1]
    assert names[3].startswith("20261123T120000Z")


def test_failed_generation_leaves_nothing_and_the_current_one_stays(
    generations: Generations,
) -> None:
    name = put(generations, "good")

    def fail() -> None:
        with generations.new("bad") as partial:
            (partial / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert generations.names() == [name]
    assert list(generations.unfinished.iterdir()) == []


@pytest.mark.parametrize(
    ("kept", "current", "left"),
    [
        (3, 4, [4, 3, 2]),
        (2, 4, [4, 3]),
        (2, 0, [4, 0]),  # rolled back: the current one stays, and the newest beside it
        (1, 4, [4]),
        (9, 4, [4, 3, 2, 1, 0]),
    ],
)
def test_prune_keeps_the_current_and_the_newest(
    generations: Generations, kept: int, current: int, left: list[int]
) -> None:
    names = [put(generations, str(number)) for number in range(5)]
    generations.switch(names[current])
    generations.prune(kept)
    assert generations.names() == [names[number] for number in left]
    assert list(generations.unfinished.iterdir()) == []


def test_clean_deletes_folders_and_links_of_a_killed_run_only(
    generations: Generations,
) -> None:
    (generations.unfinished / "20261101T000000Z-dead").mkdir()
    (generations.unfinished / ".current-dead").symlink_to("nowhere")
    (generations.unfinished / "fetched").write_text("kept")
    assert generations.clean() == 1
    assert [path.name for path in generations.unfinished.iterdir()] == ["fetched"]


def test_public_generation_is_readable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        generations = Generations(tmp_path / "root", tmp_path / "unfinished", public=True)
        generations.prepare()
        current = generations.path(put(generations, "seen"))
    finally:
        os.umask(before)
    for path in (generations.root, current.parent, current, current / "sub"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE((current / "sub" / "file").stat().st_mode) == 0o644


def test_private_generation_keeps_its_permissions(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "root", tmp_path / "unfinished")
    generations.prepare()
    with generations.new("20261123T110000Z-x") as partial:
        (partial / "file").touch(0o600)
        final = generations.add(partial, "20261123T110000Z-x")
    assert stat.S_IMODE((final / "file").stat().st_mode) == 0o600


def test_nothing_is_current_before_the_first_switch(generations: Generations) -> None:
    assert generations.current() is None
    assert generations.names() == []


@pytest.mark.parametrize("kind", [ORIGIN_TABLES, LISTS])
def test_directory_copied_without_its_links_is_refused_with_the_remedy(
    tmp_path: Path, kind: Kind
) -> None:
    directory = DatasetDirectory(kind, tmp_path / "copy")
    with directory.locked():
        pass
    (directory.directory / "current").mkdir()
    for use in (directory.current, directory.roll_back, directory.locked().__enter__):
        with pytest.raises(kind.error, match="is not a link: .* copied without its links") as error:
            use()
        assert f"and run `{kind.command} refresh`" in error.value.message
    assert directory.readable_current() is None
