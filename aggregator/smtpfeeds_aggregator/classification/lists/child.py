"""The child process that fetches and reads all lists, and writes a generation's file.

It is a separate process because dozens of downloads need one overall time limit, and parsing
other people's data must not delay ingest.
"""

import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

from ...datasets.child_process import Command, report_progress, serve
from .content import MAX_BYTES
from .sources import Fetch, Reader, Source, read_lists, write_lists

_VALIDATORS: Final = ("etag", "last_modified")


def read_all(arguments: dict[str, Any]) -> dict[str, Any]:
    """Read all sources, and write their state.

    Args:
        arguments: `sources`; `before`, the file of the previous state, or empty; `out`; `today`;
            `force`; `fetch`: empty, or the `folder` to fetch into and arguments of `fetch.fetch`.

    Returns:
        The state's name, its lists and entries, the refused places, and how many URLs
        answered.
    """
    before = read_lists(Path(arguments["before"])) if arguments["before"] else ()
    options = arguments["fetch"]
    reader = Reader(
        {each.name: each for each in before},
        date.fromisoformat(arguments["today"]),
        fetch=_fetcher(Path(options.pop("folder")), options) if options else None,
        force=arguments["force"],
    )
    state = reader.read(map(Source.from_json, arguments["sources"]))
    write_lists(state, Path(arguments["out"]))
    return {
        "generation": state.generation,
        "lists": len(state.lists),
        "entries": sum(len(each.prefixes) for each in state.lists),
        "refused": state.refused,
        "answered": state.answered,
    }


def _fetcher(folder: Path, options: dict[str, Any]) -> Fetch:
    from ...datasets.fetch import fetch

    def fetch_list(url: str, known: Mapping[str, str]) -> tuple[bytes | None, dict[str, str]]:
        report_progress(f"fetching {url}")
        target = folder / "list"
        for stale in folder.glob("list*"):
            stale.unlink(missing_ok=True)
        validators = {key: known[key] for key in _VALIDATORS if known.get(key)}
        facts = fetch(url, target, max_bytes=MAX_BYTES, validators=validators, **options)
        if facts["unchanged"]:
            return None, {}
        return target.read_bytes(), {key: facts[key] for key in _VALIDATORS}

    return fetch_list


COMMANDS: Final[dict[str, Command]] = {"read": read_all}


if __name__ == "__main__":
    sys.exit(serve(COMMANDS, "lists"))
