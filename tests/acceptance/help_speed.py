"""A benchmark: `smtpfeeds --help` beside `python -c "import click"`.

    PYTHONPATH=tests .venv/bin/python -m acceptance.help_speed

The commands' own modules are imported only when they are called, so help should cost little more
than click itself; the aim is at most twice. Alternating runs, medians.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 21


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    beside = shutil.which("smtpfeeds", path=str(Path(sys.executable).parent))
    assert beside, "smtpfeeds is not installed beside this Python"
    commands = {
        "smtpfeeds --help": [beside, "--help"],
        'python -c "import click"': [sys.executable, "-c", "import click"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            taken[name].append(seconds(command))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name:<28} {median * 1000:7.1f} ms")
    ours, theirs = medians.values()
    print(f"{'ratio':<28} {ours / theirs:7.2f}")


if __name__ == "__main__":
    main()
