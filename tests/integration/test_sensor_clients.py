"""Real clients talk to a sensor, and are recorded in the right feeds."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor_support import SensorProcess, running

#: By local address: the persona, and its name in nmap's database.
LOOKS = {
    "127.0.0.2": ("postfix", "Postfix smtpd"),
    "127.0.0.3": ("exim", "Exim smtpd"),
}
#: Text that would reveal the sensor.
GIVE_AWAYS = ("twisted", "python", "smtpfeeds", "honeypot")


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorProcess]:
    folder: Path = tmp_path_factory.mktemp("clients")
    with running(
        folder,
        listen=["127.0.0.1:0", "[::1]:0", *(f"{local}:0" for local in LOOKS)],
        personas={local: persona for local, (persona, _) in LOOKS.items()},
        tls="made",
        policy_url="https://example.org/why",
    ) as sensor:
        yield sensor


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL
    )


def test_swaks_gets_the_refusal(sensor: SensorProcess) -> None:
    host, port = sensor.place()
    done = run(
        *("swaks", "--server", host, "--port", str(port), "--local-interface", "127.0.1.1"),
        *("--to", "a@mx.example", "--from", "b@client.example", "--helo", "client.example"),
    )
    assert "554 5.7.1 This host takes no mail; see https://example.org/why" in done.stdout
    # swaks' exit code for a refused DATA.
    assert done.returncode == 25
    assert sensor.rows()["smtpgreet", "127.0.1.1"][0] == 1
    assert sensor.rows()["smtpdata", "127.0.1.1"][0] == 1


def test_swaks_with_starttls_is_one_client(sensor: SensorProcess) -> None:
    """EHLO, STARTTLS and EHLO again make one greet and one data event, with the same refusal."""
    host, port = sensor.place()
    done = run(
        *("swaks", "--server", host, "--port", str(port), "--local-interface", "127.0.1.2"),
        *("--to", "a@mx.example", "--from", "b@client.example", "--helo", "client.example"),
        *("--tls",),
    )
    assert "=== TLS started with cipher TLSv1." in done.stdout, done.stdout + done.stderr
    assert "<~* 554 5.7.1 This host takes no mail" in done.stdout
    # STARTTLS is not offered again within TLS (RFC 3207 section 4.2).
    assert "<~  250 STARTTLS" not in done.stdout
    assert "<~  250-STARTTLS" not in done.stdout
    assert done.returncode == 25
    assert sensor.rows()["smtpgreet", "127.0.1.2"][0] == 1
    assert sensor.rows()["smtpdata", "127.0.1.2"][0] == 1


@pytest.mark.parametrize(("local", "look"), [(key, name) for key, (_, name) in LOOKS.items()])
def test_nmap_recognises_a_persona(sensor: SensorProcess, local: str, look: str) -> None:
    index = next(i for i, place in enumerate(sensor.addresses) if place.startswith(local))
    host, port = sensor.place(index)
    done = run("nmap", "-Pn", "-n", "-sV", "-sC", "-p", str(port), host)
    assert look in done.stdout, done.stdout
    assert not [word for word in GIVE_AWAYS if word in done.stdout.lower()], done.stdout


@pytest.mark.large
def test_nmap_does_not_recognise_the_sensor(sensor: SensorProcess) -> None:
    """nmap's database does not know the sensor, so it sends and prints all probes (30 s)."""
    host, port = sensor.place()
    done = run("nmap", "-Pn", "-n", "-sV", "-sC", "-p", str(port), host)
    assert re.search(rf"{port}/tcp open +smtp", done.stdout), done.stdout
    assert "fingerprint-strings" in done.stdout
    assert not [word for word in GIVE_AWAYS if word in done.stdout.lower()], done.stdout


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
    # It judges by RCPT, to which a sensor replies 250; only the content is refused.
    assert "smtp-open-relay" in done.stdout
    assert sensor.rows()["smtpgreet", "127.0.0.1"][0] >= 1


def test_each_session_of_smtp_source_is_counted(sensor: SensorProcess) -> None:
    host, port = sensor.place(1)
    before = sensor.rows().get(("smtpgreet", "::1"), (0, 0, 0))[0]
    run("/usr/sbin/smtp-source", "-A", "-s", "5", "-m", "20", f"[{host}]:{port}")
    assert sensor.rows()["smtpgreet", "::1"][0] == before + 20
    assert sensor.rows()["smtpdata", "::1"][0] >= 20
