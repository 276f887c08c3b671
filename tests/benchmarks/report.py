"""What every benchmark prints: the stage that runs, the load, and the figures at the end."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path


def stage(what: str) -> None:
    """Print on stderr what begins now, and the host's load: figures of a busy host mean less."""
    print(
        f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}: {what}",
        file=sys.stderr,
        flush=True,
    )


def report(figures: Mapping[str, float]) -> None:
    """Print the figures, and write them as JSON where BENCH_OUT says."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(
            f"{name:{width}}  {value:,.2f}" if abs(value) < 100 else f"{name:{width}}  {value:,.0f}"
        )
    if out := os.environ.get("BENCH_OUT"):
        rounded = {name: round(value, 4) for name, value in figures.items()}
        Path(out).write_text(json.dumps(rounded, indent=1) + "\n")
