"""Programs of earlier versions, to run beside this one: see README.md."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FIRST = Path(__file__).with_name("smtpfeeds-0.1.0-py3-none-any.whl")
_COMMAND = "from smtpfeeds_common.cli import main; main()"


def command_of(*arguments: str) -> Sequence[str]:
    """What starts the command `smtpfeeds`, in the environment that `environment_of` gives."""
    return [sys.executable, "-c", _COMMAND, *arguments]


def environment_of(wheel: Path) -> dict[str, str]:
    """The environment in which Python and its children import from a wheel."""
    return {**os.environ, "PYTHONPATH": str(wheel)}


def run_of(wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a wheel to its end."""
    return subprocess.run(
        command_of(*arguments),
        env=environment_of(wheel),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
