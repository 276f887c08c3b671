"""Each benchmark works without any data of the machine's, and writes its figures as JSON."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
#: Benchmarks, with some of the figures that each must give.
FIGURES = {
    "bench_ingest.py": {
        "ingest_vs_limit", "ingest_vs_limit_two", "limit_rows_per_s", "repeated_events_per_s",
        "queryable_p99_s", "worker_rss_mb",
    },
    "bench_origin.py": {
        "convert_records_per_s", "convert_peak_mb", "lookup_vs_pyasn", "lookup_vs_limit",
        "swap_stall_ms", "reannotate_rows_per_s",
    },
    "bench_small_host.py": {
        "start_mib_plain", "start_mib_tls", "start_s_plain",
        "idle_cpu_percent_plain", "attack_mib_plain", "honest_counted_plain",
    },
    "bench_query.py": {
        "one_address_s", "one_address_floor_s", "one_address_vs_psql", "terms_10000_s",
        "filter_lines_per_s", "filter_vs_grep", "filter_vs_grep_short", "start_vs_python",
    },
    "bench_page.py": {
        "empty_ms", "show_ms_none", "show_vs_empty_300k", "load_ms_300k", "first_answer_ms_300k",
        "first_answer_vs_load_300k", "answer_ms_300k", "index_gzip_mb",
    },
    "bench_publish.py": {
        "text_vs_copy", "all_vs_copy", "peak_mb", "stix_s", "misp_s", "ingest_while_publishing",
    },
    "bench_sensor.py": {
        "sensor_vs_aiosmtpd", "sensor_vs_smtp_sink", "sensor_vs_stock", "sensor_vs_floor",
        "floor_vs_smtp_sink", "idle_connection_bytes",
        "spool_events_per_s", "sessions_per_s_2_workers",
    },
}  # fmt: skip


def make_targets() -> dict[str, str]:
    """Each benchmark target of the Makefile, and the program that it runs."""
    text = (ROOT / "Makefile").read_text()
    return dict(re.findall(r"^(bench-[a-z-]+):.*\n\t\$\(BENCH\)/(\S+)", text, re.MULTILINE))


def test_every_benchmark_has_a_target_and_a_short_form() -> None:
    programs = {path.name for path in HERE.glob("bench_*.py") if "__main__" in path.read_text()}
    programs -= {"bench_servers.py"}  # the peers, one a process
    assert programs == set(FIGURES) == set(make_targets().values())


@pytest.mark.parametrize("program", sorted(FIGURES))
def test_short_form_runs_and_writes_its_figures(program: str, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    environ = {k: v for k, v in os.environ.items() if k != "SMTPFEEDS_ASN_DATA"}
    environ |= {"BENCH_SHORT": "1", "BENCH_OUT": str(out), "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, str(HERE / program)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(out.read_text())
    assert FIGURES[program] <= figures.keys()
    assert all(math.isfinite(value) for value in figures.values())
    for name in figures.keys() & {*FIGURES[program]} - {"swap_stall_ms"}:
        assert figures[name] > 0, name
