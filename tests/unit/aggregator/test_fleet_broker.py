"""`smtpfeeds fleet broker`: it writes, keeps and renews RabbitMQ's certificate and settings."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from servers.certificates import is_issued_by
from smtpfeeds_aggregator.cli.fleet import fleet
from smtpfeeds_aggregator.fleet import broker
from smtpfeeds_aggregator.fleet.authority import Authority, belong
from smtpfeeds_aggregator.fleet.broker import CERTIFICATE, SETTINGS, TRUSTED, owner_of
from smtpfeeds_common.errors import FleetError

HOSTS = ("broker.example", "2001:db8::1")


class Site:
    """An authority and RabbitMQ's folder."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.folder = folder / "ca", folder / "rabbitmq"
        self.folder.mkdir()
        self.authority = Authority.create(self.ca, "Example fleet")

    def run(self, *words: str) -> Result:
        where = ("--ca-dir", str(self.ca), "--output", str(self.folder))
        return CliRunner().invoke(fleet, ["broker", *where, *words])

    def settings(self) -> dict[str, str]:
        lines = (self.folder / SETTINGS).read_text().splitlines()
        return dict(line.split(" = ") for line in lines if not line.startswith("#"))

    def contents(self) -> dict[str, bytes]:
        return {
            name: (self.folder / name).read_bytes() for name in (CERTIFICATE, SETTINGS, TRUSTED)
        }


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """RabbitMQ's user is the user that runs the test."""
    monkeypatch.setattr(broker, "USER", owner_of(tmp_path) or broker.USER)
    return Site(tmp_path)


def test_writes_the_broker_files_and_the_next_steps(site: Site) -> None:
    before = os.umask(0o077)
    try:
        done = site.run(*HOSTS)
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        str(site.folder / name) for name in (SETTINGS, CERTIFICATE, TRUSTED)
    ]
    assert "rabbitmq-plugins enable rabbitmq_management rabbitmq_auth_mechanism_ssl" in done.stderr
    certificate = (site.folder / CERTIFICATE).read_bytes()
    assert is_issued_by(certificate, (site.folder / TRUSTED).read_bytes())
    assert belong(certificate, certificate), "its key is in the same file"
    assert site.authority.fits(certificate, HOSTS)
    modes = {name: stat.S_IMODE((site.folder / name).stat().st_mode) for name in site.contents()}
    assert modes == {CERTIFICATE: 0o400, SETTINGS: 0o644, TRUSTED: 0o644}
    assert stat.S_IMODE((site.folder / SETTINGS).parent.stat().st_mode) == 0o755
    settings = site.settings()
    assert settings["ssl_options.certfile"] == str(site.folder / CERTIFICATE)
    assert settings["auth_mechanisms.2"] == "EXTERNAL"
    # Other hosts connect by TLS alone.
    assert settings["listeners.tcp.local"] == "127.0.0.1:5672"
    assert settings["management.tcp.ip"] == "127.0.0.1"
    assert broker.log_settings().items() <= settings.items()


def test_second_run_keeps_valid_files_and_renews_others(site: Site) -> None:
    assert site.run(*HOSTS).exit_code == 0
    first = site.contents()
    again = site.run(*HOSTS)
    assert (again.exit_code, again.stderr, site.contents()) == (0, "", first)

    # It ends in 397 days, or it is for other hosts, or of another authority: a new one, no restart.
    for words in ((*HOSTS, "--renew-days", "398"), (HOSTS[0],)):
        old = site.contents()
        renewed = site.run(*words)
        assert (renewed.exit_code, renewed.stderr) == (0, "")
        new = site.contents()
        assert new[CERTIFICATE] != old[CERTIFICATE]
        assert {**new, CERTIFICATE: b""} == {**old, CERTIFICATE: b""}
    other = Authority.create(site.ca.parent / "other", "Another")
    site.ca = other.folder
    assert site.run(HOSTS[0]).exit_code == 0
    assert other.fits(site.contents()[CERTIFICATE], [HOSTS[0]])
    assert site.contents()[TRUSTED] == other.certificate

    # What an operator changed there is written again, and takes a restart.
    (site.folder / SETTINGS).write_text("ssl_options.verify = verify_none\n")
    assert "systemctl restart rabbitmq-server" in site.run(HOSTS[0]).stderr
    assert site.settings()["ssl_options.verify"] == "verify_peer"


@pytest.mark.parametrize("end", [0, 100, -100], ids=["empty", "certificate cut", "key cut"])
def test_a_damaged_certificate_or_key_is_replaced(site: Site, end: int) -> None:
    assert site.run(*HOSTS).exit_code == 0
    path = site.folder / CERTIFICATE
    cut = path.read_bytes()[:end]
    path.chmod(0o600)
    path.write_bytes(cut)
    again = site.run(*HOSTS)
    assert (again.exit_code, again.stderr) == (0, "")
    content = path.read_bytes()
    assert belong(content, content)
    assert site.authority.fits(content, HOSTS)


def test_missing_part_is_named(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ca = tmp_path / "none"
    assert "smtpfeeds fleet ca init" in str(site.run(*HOSTS).exception)
    site.ca = tmp_path / "ca"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(broker, "USER", "not-a-user-of-this-host")
        assert "let the user of RabbitMQ read it" in site.run(*HOSTS).stderr
    shutil.rmtree(site.folder / "conf.d")
    (site.folder / "conf.d").write_text("")
    refused = site.run(*HOSTS)
    assert isinstance(refused.exception, FleetError)
    assert "cannot write the broker's files" in str(refused.exception)
