"""Finds the processes of a program that a test started, to prove that none is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """One process; its start time tells it from a later one with the same number."""

    pid: int
    started: str
    command: str


def descendants(pid: int) -> set[Process]:
    """Return all running descendants of a process."""
    parents = {each: parent for each in _pids() if (parent := _parent(each)) is not None}
    processes: set[Process] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for each in [child for child, its in parents.items() if its == parent]:
            process = _process(each)
            if process is not None:
                processes.add(process)
            waiting.append(each)
    return processes


def still_there(processes: set[Process]) -> set[Process]:
    """Return those that still run; a zombie, which only its parent can remove, does not."""
    return {each for each in processes if _process(each.pid) == each}


def only(processes: set[Process], word: str) -> int:
    """Return the id of the only process whose command line contains this word."""
    (pid,) = [each.pid for each in processes if word in each.command]
    return pid


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _parent(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def _process(pid: int) -> Process | None:
    stat = _stat(pid)
    if not stat or stat[0] == "Z":
        return None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return None
    return Process(pid, stat[19], os.fsdecode(command))
