"""Clients as they are found in the wild talk to a sensor, and land where they should."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor_support import SensorProcess, running


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorProcess]:
    folder: Path = tmp_path_factory.mktemp("clients")
    with running(folder, tls="made", policy_url="https://example.org/why") as made:
        yield made


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL
    )


def test_swaks_hears_the_refusal(sensor: SensorProcess) -> None:
    host, port = sensor.place()
    done = run(
        *("swaks", "--server", host, "--port", str(port), "--local-interface", "127.0.1.1"),
        *("--to", "a@mx.example", "--from", "b@client.example", "--helo", "client.example"),
    )
    assert "554 5.7.1 This host takes no mail; see https://example.org/why" in done.stdout
    # swaks' own code for a refused DATA.
    assert done.returncode == 25
    assert sensor.rows()["smtpgreet", "127.0.1.1"][0] == 1
    assert sensor.rows()["smtpdata", "127.0.1.1"][0] == 1


def test_openssl_s_client_reaches_tls(sensor: SensorProcess) -> None:
    host, port = sensor.place()
    done = run("openssl", "s_client", "-starttls", "smtp", "-connect", f"{host}:{port}", "-brief")
    assert "CONNECTION ESTABLISHED" in done.stderr
    assert "CN = mx.example" in done.stderr or "CN=mx.example" in done.stderr


def test_nmaps_smtp_scripts_see_a_mail_server(sensor: SensorProcess) -> None:
    host, port = sensor.place()
    done = run(
        *("nmap", "-Pn", "-n", "-p", str(port), "--script", "+smtp-commands,+smtp-open-relay"),
        host,
    )
    assert "smtp-commands" in done.stdout
    assert "PIPELINING" in done.stdout
    # It judges by RCPT, which a sensor answers with 250: what is refused is the content.
    assert "smtp-open-relay" in done.stdout
    assert sensor.rows()["smtpgreet", "127.0.0.1"][0] >= 1


def test_smtp_source_is_heard_session_by_session(sensor: SensorProcess) -> None:
    host, port = sensor.place(1)
    before = sensor.rows().get(("smtpgreet", "::1"), (0, 0, 0))[0]
    run("/usr/sbin/smtp-source", "-A", "-s", "5", "-m", "20", f"[{host}]:{port}")
    assert sensor.rows()["smtpgreet", "::1"][0] == before + 20
    assert sensor.rows()["smtpdata", "::1"][0] >= 20
