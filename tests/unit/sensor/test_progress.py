"""Reports of one process and of several workers, as systemd and `smtpfeeds up` get them."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpfeeds_sensor.process.progress import Progress, Values, WorkersProgress


class Receiver:
    """The end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def take(self) -> tuple[str, dict[str, Any]]:
        """Return the status line and the values of the next report."""
        status, values = self.socket.recv(65_536).decode().split("\n")
        return status.removeprefix("STATUS="), json.loads(values.partition("=")[2])

    def is_empty(self) -> bool:
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    receiver = Receiver(tmp_path / "notify")
    yield receiver
    receiver.socket.close()


def test_one_process_reports_what_has_changed(receiver: Receiver) -> None:
    progress = Progress()
    for _ in range(2):
        progress.report([Values(3, 1, 2, 0, "disk full" + "x" * 1_000, 7)])
    status, values = receiver.take()
    assert status.startswith("sensor: disk fullxxx")
    assert status.endswith(
        "x; events in memory: 7, lost if it stops now; "
        "3 greets and 1 data events heard, 2 connections open"
    )
    assert len(status) < 350
    assert (values["greets"], values["datas"], values["open_connections"]) == (3, 1, 2)
    assert receiver.is_empty()


def test_parent_reports_the_sum_of_its_workers_and_the_worst_trouble(receiver: Receiver) -> None:
    parent = WorkersProgress()
    workers = {number: copy.copy(parent) for number in (1, 2, 3)}  # as forks do
    parent.read()
    assert receiver.is_empty()
    workers[1].write(1, Values(1, 0, 4, 0))
    workers[2].write(2, Values(10, 5, 0, 0, "disk full", 2))
    workers[3].write(3, Values(100, 0, 0, 1, "read-only \xff" + "\0" * 10_000, 20))
    parent.read()
    status, values = receiver.take()
    assert status.startswith("sensor: read-only")
    assert "events in memory: 22, lost if it stops now (2 of 3 workers); 111 greets" in status
    assert (values["datas"], values["open_connections"], values["lost"]) == (5, 4, 1)
    for number in (2, 3):
        workers[number].write(number, Values(100, 0, 0, 1))
    parent.read()
    status, values = receiver.take()
    assert (values["troubles"], values["greets"]) == ([], 201)
    assert status == "201 greets and 0 data events heard, 4 connections open"


def test_worker_writes_again_what_a_full_pipe_did_not_take(receiver: Receiver) -> None:
    """A parent that a busy host does not run for long must not hold up the workers."""
    parent = WorkersProgress()
    worker = copy.copy(parent)
    for greets in range(10_000):
        worker.write(1, Values(greets, 0, 0, 0))
    for _ in range(3):
        parent.read()
    while not receiver.is_empty():
        pass
    worker.write(1, Values(9_999, 0, 0, 0))
    parent.read()
    assert receiver.take()[1]["greets"] == 9_999
