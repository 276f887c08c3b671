"""The fleet's certificate authority: certificates, keys and permissions."""

from __future__ import annotations

import os
import re
import socket
import ssl
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from servers.certificates import is_issued_by
from smtpfeeds_aggregator.fleet.authority import (
    CERTIFICATE,
    ISSUED,
    KEY,
    Authority,
    belong,
    validity,
    write_issued,
)
from smtpfeeds_common.errors import FleetError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "Example fleet")


def test_only_the_owner_can_read_the_private_key(authority: Authority) -> None:
    assert stat.S_IMODE((authority.folder / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    assert b"PRIVATE KEY" not in (authority.folder / CERTIFICATE).read_bytes()


def test_a_second_authority_never_replaces_the_first(authority: Authority) -> None:
    with pytest.raises(FleetError, match="contains an authority already"):
        Authority.create(authority.folder, "Another")


def test_issued_certificate_is_kept_without_its_key(authority: Authority) -> None:
    issued = authority.issue_client("sensor-1")
    copy = (authority.folder / ISSUED / "sensor-1.pem").read_bytes()
    assert copy == issued.certificate
    assert b"PRIVATE KEY" in issued.key
    everything = b"".join(file.read_bytes() for file in (authority.folder / ISSUED).iterdir())
    assert b"PRIVATE KEY" not in everything


def test_validities_name_kind_and_end(authority: Authority) -> None:
    authority.issue_server("broker", ["broker.example", "192.0.2.1", "[2001:db8::1]"], days=10)
    authority.issue_client("sensor-1", days=90)
    kinds = {
        one.name: (one.kind, one.ends_within(datetime.now(UTC))) for one in authority.validities()
    }
    assert kinds == {
        "Example fleet": ("authority", False),
        "broker": ("server", True),
        "sensor-1": ("client", False),
    }


def test_no_certificate_ends_after_its_authority(tmp_path: Path) -> None:
    short = Authority.create(tmp_path, "Short", days=20)
    issued = short.issue_client("sensor-1", days=397)
    assert issued.ends == validity(short.certificate).ends


def test_certificates_stay_valid_after_their_authority_is_renewed(authority: Authority) -> None:
    old = authority.certificate
    issued = authority.issue_client("sensor-1")
    authority.renew(days=5_000)
    assert authority.certificate != old
    assert Authority.load(authority.folder).certificate == authority.certificate
    assert is_issued_by(issued.certificate, authority.certificate)
    fresh = authority.issue_client("sensor-2")
    # A host that still has the old certificate trusts what is issued now.
    assert is_issued_by(fresh.certificate, old)


def test_certificates_are_not_valid_for_another_authority(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority.create(tmp_path / "other", "Example fleet")
    assert not is_issued_by(stranger.issue_client("sensor-1").certificate, authority.certificate)


def test_unreadable_authority_is_named(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="there is no authority in"):
        Authority.load(tmp_path / "nowhere")
    other = Authority.create(tmp_path / "other", "Other")
    (authority.folder / CERTIFICATE).write_bytes(other.certificate)
    with pytest.raises(FleetError, match="does not belong to"):
        Authority.load(authority.folder)
    (authority.folder / KEY).write_bytes(b"nonsense")
    with pytest.raises(FleetError, match="cannot be read"):
        Authority.load(authority.folder)
    copy = authority.folder / ISSUED / "broker.pem"
    copy.write_bytes(b"nonsense")
    for use in (
        lambda: authority.issue_server("broker", ["broker.example"]),
        lambda: list(authority.validities()),
    ):
        with pytest.raises(FleetError, match=re.escape(str(copy))):
            use()


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_length_of_a_name_is_bounded(authority: Authority, name: str) -> None:
    with pytest.raises(FleetError, match="1 to 64 characters"):
        authority.issue_client(name)


def test_a_server_without_a_host_is_refused(authority: Authority) -> None:
    with pytest.raises(FleetError, match="give a host name or an address"):
        authority.issue_server("broker", [])


def test_client_and_server_accept_issued_certificates(authority: Authority, tmp_path: Path) -> None:
    """The test uses a real TLS connection with a client certificate."""
    server = authority.issue_server("broker", ["broker.example"])
    client = authority.issue_client("sensor-1")
    files = {}
    for name, issued in (("server", server), ("client", client)):
        files[name] = tmp_path / f"{name}.pem"
        files[name].write_bytes(issued.certificate + issued.key)
    accepting = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cadata=authority.certificate.decode()
    )
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.load_cert_chain(files["server"])
    asking = ssl.create_default_context(cadata=authority.certificate.decode())
    asking.load_cert_chain(files["client"])
    here, there = socket.socketpair()
    names: list[object] = []

    def accept() -> None:
        with accepting.wrap_socket(there, server_side=True) as connection:
            names.append(connection.getpeercert())
            connection.sendall(b"hello")

    thread = threading.Thread(target=accept)
    thread.start()
    with asking.wrap_socket(here, server_hostname="broker.example") as connection:
        assert connection.recv(5) == b"hello"
    thread.join(60)
    assert "sensor-1" in str(names)


def test_a_certificate_is_valid_for_clocks_a_little_behind(authority: Authority) -> None:
    issued = validity(authority.issue_client("sensor-1").certificate)
    assert issued.begins < datetime.now(UTC) - timedelta(minutes=30)


class Killed(BaseException):
    """The program ends without cleaning up."""


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> bool:
    """Run the action, and end it before the given step that writes to the disk."""
    left = [step]

    def before(real: Callable[..., object]) -> Callable[..., object]:
        def touch(*args: object, **keywords: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **keywords)

        return touch

    with monkeypatch.context() as patched:
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patched.setattr(owner, name, before(getattr(owner, name)))
        try:
            act()
        except Killed:
            return True
    return False


def test_interrupted_creation_leaves_a_whole_authority_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is never a key without its certificate, and never two keys."""
    step = 0
    while killed_at(monkeypatch, step, partial(Authority.create, tmp_path / f"{step}", "First")):
        folder = tmp_path / f"{step}"
        key = (folder / KEY).read_bytes() if (folder / KEY).exists() else None
        try:
            Authority.create(folder, "Second")
        except FleetError:
            assert (folder / KEY).read_bytes() == key, "what others may have is not replaced"
        names = {one.name for one in Authority.load(folder).validities()}
        assert names == {"Second" if key is None else "First"}
        step += 1
    assert step > 8


def test_interrupted_renewal_leaves_the_old_or_the_new_certificate(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 0
    while killed_at(monkeypatch, step, Authority.load(authority.folder).renew):
        Authority.load(authority.folder)
        step += 1
    issued = authority.issue_server("broker", ["broker.example"])
    more = 0
    while True:
        output = tmp_path / f"out-{more}"
        output.mkdir()
        certificate, key = output / "broker.pem", output / "broker.key"
        act = partial(write_issued, issued, certificate, key)
        if not killed_at(monkeypatch, more, act):
            break
        try:
            write_issued(issued, certificate, key)
        except FleetError:
            assert certificate.exists(), "the interrupted run was completed"
        assert belong(certificate.read_bytes(), key.read_bytes())
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        more += 1
    assert min(step, more) > 3


def test_a_certificate_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / CERTIFICATE).write_bytes(b"an operator's own")
    with pytest.raises(FleetError, match="without its key"):
        Authority.create(tmp_path, "Example fleet")
    assert (tmp_path / CERTIFICATE).read_bytes() == b"an operator's own"


def test_a_server_and_a_sensor_never_share_a_name(authority: Authority) -> None:
    """Both are the names of certificates that the broker trusts."""
    authority.issue_server("broker", ["broker.example"])
    with pytest.raises(FleetError, match="the certificate of a server: choose another name"):
        authority.issue_client("broker")
