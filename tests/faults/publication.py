"""Check the published feeds while their publisher is killed: complete, current and in the end
correct.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from smtpfeeds_aggregator.publish.verify import open_edition
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_deploy.simulation.published import read_feed

from .databases import read_all
from .run import Run

_NEXT_LIMIT_S = 120.0


def generation(run: Run) -> Path | None:
    """Return the generation that is published now."""
    link = run.pipeline.feeds / "feeds" / "current"
    return link.resolve() if link.is_symlink() else None


def kill_publisher(run: Run) -> None:
    """Kill during a publication: both aggregators, because one of them publishes, or the last
    publisher.
    """
    if run.chance.random() < 0.5:
        _wait_for_a_publication(run)
        time.sleep(run.chance.uniform(0, 0.15))
        for name in run.pipeline.aggregators:
            run.pipeline.kill(name)
    else:
        run.pipeline.kill(_last_publisher(run))


def check_whole(published: Path | None) -> None:
    """Check that every file of a generation exists and is complete.

    Raises:
        NotThatFormat: a file is not.
        NotVerified: a file does not match the manifest.
    """
    assert published is not None, "nothing was published"
    open_edition(published, None, now=datetime.min.replace(tzinfo=UTC)).verify_all()
    for feed in FEED_NAMES:
        read_feed(published, feed)


def wait_for_next(run: Run, before: Path | None = None) -> None:
    """Wait for another generation than this one, by default the present one."""
    before = before or generation(run)

    def is_new() -> bool:
        return generation(run) not in {None, before}

    run.pipeline.wait(is_new, "the next generation is published", _NEXT_LIMIT_S)


def published_disagreements(run: Run) -> list[str]:
    """Compare the published feeds with the database, after the load."""
    wait_for_next(run)
    wait_for_next(run)  # the first may have begun before the last event came in
    published = generation(run)
    assert published is not None
    recorded = read_all(run.pipeline.dsn())
    disagreements = []
    for feed in FEED_NAMES:
        want = {key: row.hits for key, row in recorded.observations.items() if key[0] == feed}
        rows = read_feed(published, feed)[f"{feed}.csv"]
        have = {key: row.recorded.hits for key, row in rows.items()}
        if have != want:
            disagreements.append(
                f"{feed}.csv: {len(have)} rows, {len(want)} in the database, or other hits"
            )
    return disagreements


def _wait_for_a_publication(run: Run) -> None:
    deadline = time.monotonic() + 5
    with psycopg.connect(run.pipeline.dsn(), autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'smtpfeeds publish'"
            ).fetchone()
            if row:
                return
            run.pipeline.tend()
            time.sleep(0.005)


def _last_publisher(run: Run) -> str:
    """Return the last publisher, by the logs."""
    last: dict[str, str] = {}
    for name in run.pipeline.aggregators:
        log = run.pipeline.programs[name].log.path
        lines = [line for line in log.read_text().splitlines() if "feeds published" in line]
        last[name] = lines[-1].split(" ", 1)[0] if lines else ""
    return max(last, key=lambda name: last[name])
