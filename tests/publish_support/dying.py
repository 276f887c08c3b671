"""Publishes into a folder and exits at each step in turn, without cleaning up, like `kill -9`.

A step is a file system operation below the folder, as reported by Python's audit events. It is a
separate program because it forks: `python dying.py FOLDER [FIRST_LAYOUT]`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from smtpfeeds_aggregator.publish.edition import MANIFEST
from smtpfeeds_aggregator.publish.generation import FeedsDirectory

NAMES = ("smtpgreet.txt", "smtpdata.txt")
DIED = 9


def publish(folder: Path, content: str, names: tuple[str, ...] = NAMES) -> None:
    """Publish once, without a database."""
    directory = FeedsDirectory(folder)
    directory.check()
    directory.prepare()
    with directory.new_generation(datetime.now(UTC)) as generation:
        for name in names:
            (generation.partial / name).write_text(f"{name} {content}")
        files = {name: digest(generation.partial / name) for name in names}
        (generation.partial / MANIFEST).write_text(
            json.dumps(
                {"generated": "2026-11-23T11:00:00Z", "base": generation.base, "files": files}
            )
        )
        directory.sync(generation)
        directory.switch(generation)
    directory.prune(2)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(folder: Path) -> str:
    """Read the published files as a consumer does; return their generation."""
    served = folder / "feeds"
    manifest = json.loads((served / MANIFEST).read_text())
    base = manifest.get("base", "")
    for name, expected in manifest["files"].items():
        assert digest(served / base / name) == expected, name
        assert digest(served / name) == expected, name
    return str(base)


def die_at(step: int, folder: Path) -> None:
    """Make this process exit just before a step."""
    steps = itertools.count()
    below = os.fsencode(folder)

    def look(event: str, values: tuple[object, ...]) -> None:
        if not event.startswith(("os.", "open")):
            return
        paths = [os.fsencode(value) for value in values if isinstance(value, (str, bytes, Path))]
        if any(path.startswith(below) for path in paths) and next(steps) == step:
            os._exit(DIED)

    sys.addaudithook(look)


def publish_and_die(step: int, folder: Path) -> bool:
    """Publish in a child that exits at a step; return whether it reached that step."""
    child = os.fork()
    if child == 0:
        die_at(step, folder)
        publish(folder, f"in {step}")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, DIED}, code
    return code == DIED


def main(folder: Path, first_layout: Path | None) -> None:
    died = 0
    for step in itertools.count():
        work = folder / f"step-{step}"
        if first_layout is None:
            publish(work, "before")
        else:
            shutil.copytree(first_layout, work, symlinks=True)
        before = check(work)
        dead = publish_and_die(step, work)
        after = check(work)
        publish(work, "again")
        assert check(work) not in {before, after}, "the next run publishes"
        assert list((work / ".unfinished").iterdir()) == []
        assert not (work / "generations").exists()
        shutil.rmtree(work)
        if not dead:
            break
        died += 1
    print(died)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
