"""The datagrams that systemd receives."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from smtpfeeds_common.systemd import notify, notify_reloading, watchdog_interval_s


def test_state_reaches_the_socket_that_systemd_names(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        notify("READY=1", {"NOTIFY_SOCKET": str(path)})
        assert listening.recv(100) == b"READY=1"


def test_state_reaches_a_socket_in_the_abstract_namespace() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses a name
        name = "@" + listening.getsockname()[1:].decode()
        notify("STOPPING=1", {"NOTIFY_SOCKET": name})
        assert listening.recv(100) == b"STOPPING=1"


def test_nothing_happens_without_systemd(caplog: pytest.LogCaptureFixture) -> None:
    notify("READY=1", {})
    assert caplog.messages == []


def test_missing_receiver_is_logged_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert caplog.messages == ["systemd not notified"]


def test_reload_names_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd compares the time with that of its signal (sd_notify(3))."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        notify_reloading()
        first, second = listening.recv(200).split(b"\n")
    assert first == b"RELOADING=1"
    assert second.removeprefix(b"MONOTONIC_USEC=").isdigit()


def test_watchdog_is_notified_at_half_of_its_time() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000"}) == 15
    assert watchdog_interval_s({}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "often"}) is None
