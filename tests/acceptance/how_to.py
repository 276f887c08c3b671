"""Runs the commands of a how-to exactly as written.

A fenced block says where it is run, and how: `sh centre` to its end, `sh centre runs` for as long
as the story lasts, `sh centre check` when the story says so. The first block of a place, which says
what differs from site to site, is not run: each of its variables must be given.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from servers.processes import bound_to_parent, end

_BLOCK = re.compile(r"^```sh ([a-z]+)(?: ([a-z]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export ([A-Z_]+)=", re.MULTILINE)
_COMMAND_LIMIT_S = 600


class Block(NamedTuple):
    """One block of commands."""

    place: str
    how: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return all blocks that say where they run."""
    return [Block(*match.groups("")) for match in _BLOCK.finditer(page.read_text("utf-8"))]


@dataclass
class Place:
    """One host: its environment is kept from block to block."""

    #: The folder of its commands.
    cwd: Path
    log: Path
    environ: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log.touch()

    def set_variables(self, block: Block, values: dict[str, str]) -> None:
        """Set exactly the variables of the first block to the test's values."""
        assert set(_EXPORT.findall(block.text)) == set(values)
        self.environ |= values

    def run(self, block: Block) -> str:
        """Run a block to its end and return its output."""
        kept = self.log.with_suffix(".environment")
        script = f"{block.text}\nenv -0 >'{kept}'\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.cwd,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
        pairs = os.fsdecode(kept.read_bytes()).rstrip("\0").split("\0")
        self.environ = dict(pair.split("=", 1) for pair in pairs)
        return done.stdout

    def keep_running(self, block: Block) -> None:
        """Start a block's only command, which runs until the test ends."""
        with self.log.open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    bound_to_parent(["bash", "-euc", f"exec {block.text}"]),
                    cwd=self.cwd,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def has_logged(self, text: str) -> bool:
        """Return whether the running command has logged this; it must still run."""
        log = self.log.read_text(errors="replace")
        assert all(process.poll() is None for process in self.running), log
        return text in log

    def stop(self) -> None:
        for process in reversed(self.running):
            end(process, limit_s=15)
