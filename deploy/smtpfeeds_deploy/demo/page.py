"""The demo's output: progress, both feeds by AS and class, the check, commands to try next."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from smtpfeeds_common.feeds import DATA, FEED_NAMES, GREET

from ..simulation.ledger import Session
from ..simulation.published import Rows

#: The origin files in the demo's folder.
ORIGIN_TABLE: Final = "origin-table.txt"
AS_NAMES: Final = "as-names.json"
_NOT_KNOWN: Final = "NA"
#: Width of a pipe, wide enough that no line is wrapped.
_PIPE_WIDTH: Final = 120


@dataclass(slots=True)
class _Part:
    """The part of one AS in one feed."""

    ipv4: int = 0
    ipv6: int = 0
    hits: int = 0


class DemoPage:
    """The demo's terminal."""

    def __init__(self, console: Console | None = None) -> None:
        plain = Console()
        self._console = console or (
            plain if plain.is_terminal else Console(width=_PIPE_WIDTH, no_color=True)
        )

    def begin(self, folder: Path, clients: int) -> None:
        """Print what the demo does."""
        self._console.print(
            f"{clients} simulated SMTP clients of many kinds visit a real sensor on this host; "
            f"then both feeds are compared with what the clients did. Everything is in {folder}/",
            highlight=False,
            markup=False,
        )

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """Show a progress bar while the clients run."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("SMTP clients at work", total=total)
            yield lambda: progress.advance(task)

    def waiting(self) -> AbstractContextManager[object]:
        """Show a spinner until the feeds are published."""
        text = "Waiting until the feeds match what the clients did"
        if self._console.is_terminal:
            return self._console.status(text)
        self._console.print(text)
        return _nothing()

    def show(self, sessions: Sequence[Session], feeds: Mapping[str, Mapping[str, Rows]]) -> None:
        """Show the clients and the feeds."""
        self._console.print(_visitors(sessions))
        self._console.print()
        rows = {feed: files[f"{feed}.ndjson"] for feed, files in feeds.items()}
        if set(rows) == set(FEED_NAMES):
            self._console.print(_by_as(rows))
            self._console.print()
            self._console.print(_by_class(rows))

    def failed(self, disagreements: Sequence[str], total: int) -> None:
        """Report that the feeds differ from what the clients did."""
        print_ = self._console.print
        print_(f"[bold red]The feeds differ from the clients' ledger in {total} points:[/]")
        for disagreement in disagreements:
            print_(f"  {disagreement}", markup=False, highlight=False)
        if total > len(disagreements):
            print_(f"  … and {total - len(disagreements)} more")

    def agreed(
        self,
        sessions: Sequence[Session],
        feeds: Mapping[str, Mapping[str, Rows]],
        took_s: float,
    ) -> None:
        """Report that the feeds match what the clients did."""
        counts = " and ".join(
            f"{len(feeds[feed][f'{feed}.ndjson'])} addresses in {feed}" for feed in FEED_NAMES
        )
        self._console.print(
            f"[bold green]Checked:[/] the feeds match exactly what {len(sessions)} clients did: "
            f"{counts}; every address, first and last second, hit count, origin and AS name, "
            f"in all {sum(map(len, feeds.values()))} forms; changes, archive and hashes "
            f"agree with them. It took {took_s:.0f} s.",
            highlight=False,
        )

    def what_next(self, program: str, folder: Path) -> None:
        """Show where the files are, and commands to try."""
        self._console.print(
            f"\nThe page of the feeds: {folder.resolve()}/feeds/index.html\n"
            "    (it says that the edition has expired, because nothing publishes after the demo)\n"
            f"The published files are in {folder}/feeds/\n"
            f"    less {folder}/feeds/smtpgreet.txt\n"
            f"    head -3 {folder}/feeds/smtpdata.ndjson\n"
            "To run queries, start everything again in the same folder:\n"
            f"    {program} up --dir {folder} --smtp 127.0.0.1:2525 \\\n"
            f"        --origin-table {folder}/{ORIGIN_TABLE} \\\n"
            f"        --as-names {folder}/{AS_NAMES} --publish-non-global\n"
            "Then run queries in another terminal, or connect as a client:\n"
            f"    {program} query AS65536 --dir {folder}\n"
            f"    {program} feed show smtpdata --dir {folder}\n"
            f"    {program} sensors --dir {folder}\n"
            "    swaks --server 127.0.0.1:2525 --to someone@example.org",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _visitors(sessions: Sequence[Session]) -> Table:
    table = Table(title="The clients", title_justify="left")
    table.add_column("kind of client")
    for heading in ("visits", "greets", "data"):
        table.add_column(heading, justify="right")
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for session in sessions:
        row = counts[session.kind]
        row[0] += 1
        row[1] += any(event.feed == GREET.name for event in session.events)
        row[2] += any(event.feed == DATA.name for event in session.events)
    for kind, row in sorted(counts.items(), key=lambda item: -item[1][0]):
        table.add_row(kind.replace("_", " "), *map(str, row))
    totals = [sum(row[column] for row in counts.values()) for column in range(3)]
    table.add_section()
    table.add_row("all", *map(str, totals))
    return table


def _by_as(feeds: Mapping[str, Rows]) -> Table:
    table = Table(title="The feeds, by origin", title_justify="left", padding=(0, 0))
    table.add_column("ASN", justify="right")
    table.add_column("AS name")
    for feed in FEED_NAMES:
        table.add_column(f"{feed}\nIPv4", justify="right", no_wrap=True)
        table.add_column("\nIPv6", justify="right", no_wrap=True)
        table.add_column("\nhits", justify="right", no_wrap=True)
    parts: dict[tuple[int, str], dict[str, _Part]] = {}
    for feed, rows in feeds.items():
        for (_, address), row in rows.items():
            by_feed = parts.setdefault((row.asn or 0, row.name), {})
            part = by_feed.setdefault(feed, _Part())
            part.ipv4 += ":" not in address
            part.ipv6 += ":" in address
            part.hits += row.recorded.hits or 0
    for (asn, name), by_feed in sorted(parts.items()):
        table.add_row(str(asn or _NOT_KNOWN), name, *_cells(by_feed))
    table.add_section()
    table.add_row("", "all", *_cells(_sum(parts.values())))
    return table


def _by_class(feeds: Mapping[str, Rows]) -> Table:
    table = Table(title="The feeds, by class", title_justify="left")
    table.add_column("class")
    for feed in FEED_NAMES:
        table.add_column(feed, justify="right")
    counts = {feed: Counter(row.cls for row in rows.values()) for feed, rows in feeds.items()}
    classes = sorted(
        {cls for count in counts.values() for cls in count},
        key=lambda cls: (-sum(count[cls] for count in counts.values()), cls),
    )
    for cls in classes:
        table.add_row(cls, *(str(counts[feed][cls]) for feed in FEED_NAMES))
    return table


def _cells(by_feed: Mapping[str, _Part]) -> list[str]:
    parts = [by_feed.get(feed, _Part()) for feed in FEED_NAMES]
    return [str(number) for part in parts for number in (part.ipv4, part.ipv6, part.hits)]


def _sum(every: Iterable[Mapping[str, _Part]]) -> dict[str, _Part]:
    total = {feed: _Part() for feed in FEED_NAMES}
    for by_feed in every:
        for feed, part in by_feed.items():
            total[feed].ipv4 += part.ipv4
            total[feed].ipv6 += part.ipv6
            total[feed].hits += part.hits
    return total
