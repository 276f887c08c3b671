"""A sensor that starts as root opens its port and then gives up root in every process."""

import os
import pwd
import random
import signal
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor_support import Client, SensorProcess, is_root, running
from servers.certificates import Certificates
from servers.processes import free_port, wait_until

#: The user to become; an ordinary user can only stay the same.
USER = pwd.getpwnam("nobody") if is_root() else pwd.getpwuid(os.geteuid())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that this user may enter; only the owner can enter pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="smtpfeeds-user-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def processes(sensor: SensorProcess) -> list[int]:
    """Return the sensor's processes, with its workers."""
    assert sensor.process is not None
    pid = sensor.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def privileged_port() -> int:
    """Return a port that only root may open, if this is root."""
    if not is_root():
        return free_port()
    # A random one, because tests of another checkout may run at the same time.
    for port in random.sample(range(600, 1024), 424):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port below 1024 is free")


@pytest.mark.parametrize("workers", [1, 2])
def test_root_is_given_up_once_the_port_is_open(folder: Path, workers: int) -> None:
    port = privileged_port()
    settings = {"listen": [f"127.0.0.1:{port}"], "user": USER.pw_name, "workers": workers}
    with running(folder, **settings, spool_dir=str(folder / "var" / "spool")) as sensor:
        pids = processes(sensor)
        assert len(pids) == (1 if workers == 1 else 3)
        for pid in pids:
            report = status(pid)
            # Real, effective, saved and file system ids, so that root cannot be regained.
            assert report["Uid"] == [str(USER.pw_uid)] * 4
            assert report["Gid"] == [str(USER.pw_gid)] * 4
            assert int(report["CapEff"][0], 16) == int(report["CapPrm"][0], 16) == 0
            assert not is_root() or "0" not in report["Groups"]
        for number in range(8):
            with Client(("127.0.0.1", port), f"127.0.9.{1 + number}") as client:
                assert client.reply() == 220
                assert client.say(b"EHLO client.example\r\n") == 250
        spools = list((folder / "var" / "spool").glob("*.spool"))
        assert len(spools) == workers
        for path in spools:
            assert path.stat().st_uid == USER.pw_uid
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sensor.stop() == 0


def test_unknown_user_is_refused_before_anything_is_created(folder: Path) -> None:
    sensor = SensorProcess(folder, user="nobody-of-this-name")
    result = sensor.call("run")
    assert result.returncode == 2
    assert "this host has no user 'nobody-of-this-name'" in result.stderr
    assert not (folder / "spool").exists()


def test_secrets_that_only_root_may_read_are_read_before_root_is_given_up(folder: Path) -> None:
    """A key usually has mode 0600 and belongs to root; at SIGHUP it stays in use."""
    certificates = Certificates.make(folder / "certificates")
    for path in (certificates.key, certificates.certificate):
        path.chmod(0o600)
    with running(
        folder,
        user=USER.pw_name,
        spool_dir=str(folder / "var" / "spool"),
        tls="files",
        tls_certificate=str(certificates.certificate),
        tls_key=str(certificates.key),
    ) as sensor:
        assert sensor.process is not None
        for _ in range(2):
            with sensor.connect() as client:
                client.reply()
                client.say(b"EHLO client.example\r\n")
                assert client.say(b"STARTTLS\r\n") == 220
                context = ssl.create_default_context(cafile=str(certificates.authority))
                context.wrap_socket(client.socket, server_hostname="localhost").close()
            sensor.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "files read again" in sensor.log.read_text(), what="it")
        assert ("cannot be read again" in sensor.log.read_text()) == is_root()
        assert sensor.stop() == 0


def test_check_runs_as_the_user_of_the_sensor(folder: Path) -> None:
    """Root can read all files, but the unit's user cannot."""
    secret = folder / "password"
    secret.touch(0o600)
    secret.write_text("secret\n")
    sensor = SensorProcess(
        folder, broker=["amqps://s1@192.0.2.1"], broker_password_file=str(secret)
    )
    result = sensor.call("check-config")
    assert result.returncode == 0
    assert ("`--as smtpfeeds` checks as that user" in result.stderr) == is_root()
    result = sensor.call("check-config", "--as", USER.pw_name)
    assert result.returncode == (2 if is_root() else 0)
    assert ("Permission denied" in result.stderr) == is_root()
    result = sensor.call("check-config", "--as", "nobody-of-this-name")
    assert result.returncode == 2
    assert "--as: this host has no user" in result.stderr
