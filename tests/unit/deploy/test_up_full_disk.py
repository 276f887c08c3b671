"""`smtpfeeds up` on a full disk runs the sensor, and starts the rest when there is space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.signals import Signals
from smtpfeeds_common.supervision import Child, State
from smtpfeeds_deploy.single_host import up
from smtpfeeds_deploy.single_host.home import Home, Options
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres
from smtpfeeds_deploy.single_host.programs import Program
from smtpfeeds_deploy.single_host.status_line import StatusLine


class Stub:
    """A child that is ready at once."""

    def __init__(self, name: str, started: list[str], start: Callable[[], None]) -> None:
        self.name, self.state, self.exit_code = name, State.DOWN, 0
        self._started, self._start = started, start

    def start(self) -> None:
        self._start()
        self._started.append(self.name)
        self.state = State.STARTING

    def look(self) -> None:
        done = {"migration": State.DOWN}.get(self.name, State.RUNNING)
        self.state = done if self.state is State.STARTING else self.state


class Site:
    """A host whose disk a test fills, and whose time passes only by waiting."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full, self.now_s, self.freed_s = True, 0.0, 20.0
        self.started: list[str] = []
        self.messages: list[str] = []
        self.home = Home(folder)
        monkeypatch.setattr(Home, "is_full", property(lambda _: self.is_full))
        monkeypatch.setattr(
            "smtpfeeds_deploy.single_host.up.time", SimpleNamespace(monotonic=lambda: self.now_s)
        )
        monkeypatch.setattr(PrivatePostgres, "dsn", "")
        self.host = up.SingleHost(
            self.home,
            Options(smtp=("127.0.0.1:0",)),
            signals=cast("Signals", self),
            status_line=cast("StatusLine", SimpleNamespace(say=self.messages.append)),
        )
        self.host._server = cast("Child", Stub("PostgreSQL", self.started, self.start_server))
        for name in ("migration", "sensor", "aggregator"):
            stub = Stub(name, self.started, lambda: None)
            setattr(self.host, f"_{name}", cast("Program", stub))

    def start_server(self) -> None:
        if self.is_full:
            raise SingleHostError("no space left on device")

    # The signals that `up` waits for
    stop = False

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.freed_s:
            self.is_full = False


def test_sensor_starts_before_a_database_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, monkeypatch)
    site.home.sensor_file.write_text("of the run before")
    site.host._start()
    assert site.started == ["sensor", "PostgreSQL", "migration", "aggregator"]
    assert site.now_s >= site.freed_s
    assert sum("trying again" in each for each in site.messages) == 6
    assert "the sensor runs meanwhile" in site.messages


def test_start_that_fails_for_another_reason_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, monkeypatch)
    with pytest.raises(SingleHostError, match="no space"):
        site.host._start()  # without an earlier run, the sensor has no settings
    assert site.started == []
    site.home.sensor_file.write_text("of the run before")
    site.is_full = False
    monkeypatch.setattr(site, "start_server", lambda: None)
    site.host._start()
    assert site.started == ["PostgreSQL", "migration", "sensor", "aggregator"]
