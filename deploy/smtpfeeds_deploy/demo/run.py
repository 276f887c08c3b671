"""`smtpfeeds demo`: the whole pipeline in half a minute, with simulated clients, checked.

It starts the real `smtpfeeds up` as a child in its own folder and runs clients of every kind
against the sensor, with their addresses in the PROXY protocol. It waits until the feeds match what
the clients did, and shows them. It connects to nothing outside this host and ignores SMTPFEEDS_*
variables of the caller.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.feeds import FEED_NAMES

from ..simulation import synthetic
from ..simulation.ledger import Session, data_without_greet, expected_rows, troubles
from ..simulation.published import NotThatFormat, Rows, feed_disagreements, read_feed
from ..simulation.published_documents import folder_disagreements, read_more, rows_by_feed
from ..simulation.simulate import Target, Visit, simulate
from ..single_host import child
from ..single_host.home import SENSOR, Home
from ..single_host.listening import listening
from .page import AS_NAMES, ORIGIN_TABLE, DemoPage

_MARKER: Final = ".smtpfeeds-demo"
#: Symlink to the published generation. The link changes; a generation never does.
_CURRENT: Final = "current"
_PUBLISH_EVERY_S: Final = 2
#: Sealing, ingest and publishing take about five seconds, and many times longer on a busy machine.
_AGREE_LIMIT_S: Final = 180.0
_STOP_LIMIT_S: Final = 15.0
#: Disagreements to print.
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the demo."""

    sessions: Sequence[Session]
    #: By feed, then by file name.
    feeds: Mapping[str, Mapping[str, Rows]]
    disagreements: Sequence[str]


def run_demo(folder: Path, *, clients: int, seed: int) -> int:
    """Run the demo, show it and return the exit code.

    Raises:
        SingleHostError: the folder cannot be used, or something does not start.
    """
    page = DemoPage()
    began = time.monotonic()
    home = Home(folder)
    _prepare(home.folder)
    page.begin(_as_typed(folder), clients)
    with _running(home):
        plan = synthetic.visits(clients, _targets(home), seed=seed)
        sessions = _run_clients(plan, page)
        outcome = _wait_for_agreement(home, sessions, page)
    page.show(outcome.sessions, outcome.feeds)
    if outcome.disagreements:
        page.failed(outcome.disagreements[:_SHOWN], len(outcome.disagreements))
        return 1
    page.agreed(outcome.sessions, outcome.feeds, time.monotonic() - began)
    page.what_next(_program(), _as_typed(folder))
    return 0


def _prepare(folder: Path) -> None:
    """Create an empty folder; remove an existing one only if it is from an earlier demo.

    Raises:
        SingleHostError: the folder holds something else, is in use, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / _MARKER).exists():
                raise SingleHostError(
                    f"{folder} is not empty and is not from an earlier demo: give another --dir"
                )
            earlier = Home(folder)
            earlier.take()
            earlier.leave()
            shutil.rmtree(folder)
        home = Home(folder)
        home.take()
        home.leave()
        (folder / _MARKER).touch()
        synthetic.write_origin_table(folder / ORIGIN_TABLE)
        synthetic.write_as_names(folder / AS_NAMES)
    except OSError as exc:
        raise SingleHostError(
            f"cannot create an empty folder {folder}: {exc.strerror}: {exc.filename}; "
            "give another --dir, or delete the folder as the user who created it"
        ) from exc


@contextmanager
def _running(home: Home) -> Iterator[None]:
    """Run `smtpfeeds up` in the folder; the block runs while it is ready."""
    process = subprocess.Popen(
        child.command(["up", *_options(home.folder)]),
        env={name: text for name, text in os.environ.items() if not name.startswith("SMTPFEEDS_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        # Keep Ctrl-C in the terminal from it; the demo stops it in order.
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            raise SingleHostError("`smtpfeeds up` did not start; its message above says why")
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        finally:
            process.kill()
            process.communicate()


def _options(folder: Path) -> list[str]:
    options = ["--quiet", "--dir", str(folder), "--publish-every", str(_PUBLISH_EVERY_S)]
    options += ["--publish-non-global", "--publish-exact-counts"]
    options += ["--smtp", "127.0.0.1:0", "--trusted-proxy", "127.0.0.0/8"]
    if _has_ipv6_loopback():
        options += ["--smtp", "[::1]:0", "--trusted-proxy", "::1/128"]
    options += ["--origin-table", str(folder / ORIGIN_TABLE)]
    return [*options, "--as-names", str(folder / AS_NAMES)]


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _targets(home: Home) -> list[Target]:
    return [Target(host, port, SENSOR) for host, port in listening(home.spools)]


def _run_clients(plan: Sequence[Visit], page: DemoPage) -> list[Session]:
    with page.progress(len(plan)) as advance:
        return asyncio.run(simulate(plan, on_done=lambda _: advance()))


def _wait_for_agreement(home: Home, sessions: Sequence[Session], page: DemoPage) -> Outcome:
    """Read each published generation until one matches what the clients did."""
    with page.waiting():
        return _poll(
            lambda: _outcome(home, sessions), time.monotonic() + _AGREE_LIMIT_S, time.monotonic
        )


def _poll(look: Callable[[], Outcome], deadline: float, clock: Callable[[], float]) -> Outcome:
    while True:
        outcome = look()
        if not outcome.disagreements or clock() > deadline:
            return outcome
        time.sleep(0.3)


def _outcome(home: Home, sessions: Sequence[Session]) -> Outcome:
    """Compare the published feeds with the ledger."""
    differences = troubles(sessions)
    feeds: dict[str, Mapping[str, Rows]] = {}
    expected = expected_rows(sessions)
    origins = {key[1]: synthetic.origin_of(key[1]) for key in expected}
    try:
        generation = (home.feeds / _CURRENT).resolve(strict=True)
        for feed in FEED_NAMES:
            feeds[feed] = {**read_feed(generation, feed), **read_more(generation, feed)}
            of_feed = {key: row for key, row in expected.items() if key[0] == feed}
            differences += feed_disagreements(feeds[feed], of_feed, origins, synthetic.AS_NAMES)
        differences += folder_disagreements(generation, rows_by_feed(feeds))
    except FileNotFoundError:
        differences.append(f"nothing is published in {home.feeds}")
    except NotThatFormat as exc:
        differences.append(exc.message)
    keys = {key for files in feeds.values() for rows in files.values() for key in rows}
    return Outcome(sessions, feeds, differences + data_without_greet(keys))


def _program() -> str:
    """Return the shortest way to call this program from the current folder."""
    program = Path(sys.argv[0])
    if program.name != "smtpfeeds":
        return "smtpfeeds"
    on_path = shutil.which("smtpfeeds")
    return "smtpfeeds" if on_path and program.samefile(on_path) else str(_as_typed(program))


def _as_typed(path: Path) -> Path:
    """Return the shortest form of a path from the current folder."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path.absolute()
