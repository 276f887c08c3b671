"""At SIGHUP a real sensor reads lists, certificates and passwords again, without a restart."""

import os
import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest

from sensor_support import SensorProcess, running
from servers.certificates import Certificates
from servers.processes import HANG_LIMIT_S, wait_until


def hang_up(sensor: SensorProcess, line: str, *, times: int = 1) -> None:
    """Send SIGHUP, and wait until each process has logged the line."""
    assert sensor.process is not None
    before = sensor.log.read_text().count(line)
    sensor.process.send_signal(signal.SIGHUP)
    wait_until(lambda: sensor.log.read_text().count(line) >= before + times, what=line)


def certificate_of(sensor: SensorProcess, authority: Path) -> bytes | None:
    """Return the certificate that STARTTLS presents, if that authority signed it."""
    context = ssl.create_default_context(cafile=str(authority))
    with sensor.connect() as client:
        client.reply()
        client.say(b"EHLO client.example\r\n")
        assert client.say(b"STARTTLS\r\n") == 220
        try:
            with context.wrap_socket(client.socket, server_hostname="localhost") as wrapped:
                return wrapped.getpeercert(binary_form=True)
        except ssl.SSLCertVerificationError:
            return None


@pytest.mark.parametrize("workers", [1, 2])
def test_reload_uses_renewed_certificate_and_changed_lists(tmp_path: Path, workers: int) -> None:
    old, new = Certificates.make(tmp_path / "old"), Certificates.make(tmp_path / "new")
    # One process of workers reads again, then each of them.
    read, processes = "files read again", 1 if workers == 1 else 1 + workers
    with running(
        tmp_path,
        workers=workers,
        tls="files",
        tls_certificate=str(old.certificate),
        tls_key=str(old.key),
        state_interval_s=1,
    ) as sensor:
        assert sensor.process is not None
        pid = sensor.process.pid
        assert certificate_of(sensor, old.authority)
        for fresh, in_use in ((new.certificate, old.certificate), (new.key, old.key)):
            shutil.copyfile(fresh, in_use)
        sensor.settings["ignore"] = ["127.7.0.0/16"]
        sensor.write_config()
        hang_up(sensor, read, times=processes)
        for _ in range(4):
            assert certificate_of(sensor, new.authority)
            assert not certificate_of(sensor, old.authority)
            with sensor.connect(0, "127.7.0.1") as client:
                assert client.reply() == 220
                assert client.say(b"EHLO monitor.example\r\n") == 250
        assert sensor.process.pid == pid
        assert sensor.stop() == 0
    names = [sensor.name] if workers == 1 else [f"{sensor.name}.{n}" for n in (1, 2)]
    for name in names:
        sensor.settings["name"] = name
        assert sensor.query("SELECT 1 FROM observation WHERE ip = x'7f070001'") == []


def test_later_worker_uses_the_reloaded_files(tmp_path: Path) -> None:
    """This holds for a reload by SIGHUP, and for files that change later without a signal."""
    old, new = Certificates.make(tmp_path / "old"), Certificates.make(tmp_path / "new")
    newest = Certificates.make(tmp_path / "newest")
    with running(
        tmp_path,
        workers=2,
        tls="files",
        tls_certificate=str(old.certificate),
        tls_key=str(old.key),
    ) as sensor:
        assert sensor.process is not None
        sensor.settings |= {"tls_certificate": str(new.certificate), "tls_key": str(new.key)}
        sensor.write_config()
        hang_up(sensor, "files read again", times=3)
        task = Path(f"/proc/{sensor.process.pid}/task/{sensor.process.pid}/children")
        for worker in task.read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        wait_until(lambda: sensor.log.read_text().count("worker runs again") == 2, what="they")
        for _ in range(4):
            assert certificate_of(sensor, new.authority)
        for fresh, in_use in ((newest.certificate, new.certificate), (newest.key, new.key)):
            shutil.copyfile(fresh, in_use)
        # Parent and workers, even if one reads between the writes of the two files.
        good = "certificates and passwords read again changed="
        wait_until(lambda: sensor.log.read_text().count(good) >= 3, what="all look")
        for _ in range(4):
            assert certificate_of(sensor, newest.authority)


def test_unusable_file_at_a_reload_changes_nothing(tmp_path: Path) -> None:
    """After half a certificate, or a mistake in the file, it continues and logs the reason."""
    certificates = Certificates.make(tmp_path / "certificates")
    with running(
        tmp_path,
        tls="files",
        tls_certificate=str(certificates.certificate),
        tls_key=str(certificates.key),
    ) as sensor:
        whole = certificates.certificate.read_bytes()
        certificates.certificate.write_bytes(whole[: len(whole) // 2])
        hang_up(sensor, "certificates and passwords cannot be read again")
        certificates.certificate.unlink()
        hang_up(sensor, "certificates and passwords cannot be read again")
        certificates.certificate.write_bytes(whole)
        assert certificate_of(sensor, certificates.authority)
        good = sensor.config.read_text()
        sensor.config.write_text(good + "ignroe = []\n")
        hang_up(sensor, "settings cannot be read again")
        assert "did you mean 'ignore'" in sensor.log.read_text()
        assert certificate_of(sensor, certificates.authority)
        assert sensor.stop() == 0


def test_settings_that_need_a_restart_are_named(tmp_path: Path) -> None:
    with running(tmp_path) as sensor:
        sensor.settings |= {"persona": "postfix", "max_line_bytes": 4096, "ignore": ["::1/128"]}
        sensor.write_config()
        hang_up(sensor, "changed=ignore")
        assert "need a restart settings=max_line_bytes,persona" in sensor.log.read_text()
        # Once, because the same warning is not repeated.
        hang_up(sensor, "changed=none")
        assert sensor.log.read_text().count("need a restart") == 1
        with sensor.connect() as client:
            assert client.reply() == 220


def test_systemd_is_notified_of_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(HANG_LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(tmp_path) as sensor:
            assert notify.recv(200) == b"READY=1"
            hang_up(sensor, "files read again")
            assert notify.recv(200).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert notify.recv(200) == b"READY=1"
            assert sensor.stop() == 0
