"""`smtpfeeds sensor check-config`: says what is wrong, where, what to do; opens nothing."""

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rights import without_rights
from sensor_support import SensorProcess
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_sensor.check import _about_spool
from smtpfeeds_sensor.cli import sensor


def check(folder: Path, **settings: Any) -> str:
    process = SensorProcess(folder, **settings)
    process.write_config()
    result = CliRunner().invoke(
        sensor, ["check-config", "--config", str(process.config)], catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"listen": ["nowhere"]}, "lacks a port"),
        ({"listen": ["::1:25"]}, "brackets"),
        ({"listen": []}, "at least one address"),
        ({"listen": ["[::1]:1", "[::1]:1"]}, "twice"),
        ({"listen": ["127.0.0.1:25", "*:25"]}, "0.0.0.0:25 includes 127.0.0.1:25"),
        ({"listen": ["[::]:25", "[::1]:25"]}, "[::]:25 includes [::1]:25"),
        ({"listen": ["127.0.0.1:25"], "metrics_listen": "127.0.0.1:25"}, "another port"),
        ({"listen": ["0.0.0.0:25"], "metrics_listen": "127.0.0.1:25"}, "another port"),
        ({"listen": ["127.0.0.1:25"], "metrics_listen": "0.0.0.0:25"}, "another port"),
        ({"listen": ["[::1]:27"], "metrics_listen": "[::1]:25", "workers": 3}, "[::1]:27"),
        ({"listen": ["10.0.0.0/8:25"]}, "more than 4096"),
        ({"listen": ["systemd:x"]}, "by index"),
        ({"name": "Upper"}, "not allowed"),
        ({"nmae": "x"}, "did you mean"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies"),
        ({"ignore": ["x"]}, "ignore"),
        ({"persona": "sendmial"}, "sendmial"),
        ({"personas": {"192.0.2.1": {"banner": "hello"}}}, "ESMTP"),
        ({"personas": {"192.0.2.1": {"banana": "hello"}}}, "personas: 192.0.2.1: unknown banana"),
        ({"personas": {"192.0.2.1": 7}}, "neither a name nor a table"),
        ({"personas": {"192.0.2.1": {"hostname": "a\nb"}}}, "printable"),
        ({"personas": {"192.0.2.1": {"offer_auth": "yes"}}}, "offer_auth"),
        ({"public_addresses": {"10.0.0.5": "mx.example"}}, "public_addresses"),
        ({"public_addresses": {"eth0": "192.0.2.1"}}, "public_addresses"),
        ({"tls": "files"}, "tls_certificate"),
        ({"tls": "files", "tls_certificate": "/none", "tls_key": "/none"}, "cannot read"),
        ({"user": "no-such-user"}, "no user"),
        ({"broker": ["http://x"]}, "amqp"),
        ({"broker": ["amqp://127.0.0.1"]}, "no password"),
        ({"broker_password_file": "/none"}, "cannot read /none"),
        ({"metrics_listen": "9125"}, "metrics_listen"),
        ({"metrics_listen": "127.0.0.1:65535", "workers": 2}, "highest possible is 65534"),
        ({"broker": ["amqp://other:secret@127.0.0.1"]}, "'other' at 127.0.0.1 is not the sensor"),
        ({"idle_timeout_s": 100, "session_timeout_s": 50}, "session_timeout_s"),
        ({"policy_url": "a b"}, "policy_url"),
        ({"data_policy": "accept"}, "data_policy"),
        ({"max_connections": 0}, "too small"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(tmp_path, **wrong)
    assert words in caught.value.message
    assert caught.value.message.startswith(f"{tmp_path / 'sensor.toml'}: ")


def test_packages_that_starttls_needs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "smtpfeeds_sensor.edge.tls", None)
    with pytest.raises(SettingsError, match="which is not installed") as caught:
        check(tmp_path, tls="made")
    assert caught.value.message.startswith(f"{tmp_path / 'sensor.toml'}: tls: ")


def test_good_settings_open_nothing(tmp_path: Path) -> None:
    result = check(
        tmp_path,
        tls="made",
        personas={
            "127.0.0.2": "exim",
            "own": {"like": "postfix", "offer_auth": True},
            "::1": "own",
        },
        public_addresses={"10.0.0.5": "192.0.2.1", "fd00::1": "2001:db8::1"},
        broker=["amqps://s1:secret@127.0.0.1:5671/feeds"],
        metrics_listen="127.0.0.1:0",
    )
    assert "the settings are good" in result
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    "apart",
    [
        {"listen": ["*:25", "127.0.0.1:26"], "metrics_listen": "127.0.0.1:9125"},
        # IPv6 sockets accept only IPv6.
        {"listen": ["0.0.0.0:25", "[::1]:25"]},
        # Workers share their ports.
        {"listen": ["0.0.0.0:25", "127.0.0.1:25"], "workers": 2},
        # The kernel chooses the ports.
        {"listen": ["0.0.0.0:0", "127.0.0.1:0"], "metrics_listen": "127.0.0.1:0"},
        {"listen": ["systemd:0"], "metrics_listen": "127.0.0.1:25"},
    ],
)
def test_addresses_that_do_not_overlap_are_accepted(tmp_path: Path, apart: dict[str, Any]) -> None:
    assert "the settings are good" in check(tmp_path, **apart)


def test_sockets_of_systemd_are_left_to_the_unit(tmp_path: Path) -> None:
    result = check(tmp_path, listen=["systemd:0", "systemd:*"])
    assert "only known in its unit" in result
    assert "the settings are good" in result


def test_certificate_that_is_not_used_is_noted(tmp_path: Path) -> None:
    """Without a note nobody sees why STARTTLS is not offered."""
    note = 'tls = "off": tls_certificate and tls_key are not used'
    assert note in check(tmp_path, tls_certificate="/etc/cert.pem")
    assert note not in check(tmp_path)


def test_spool_folder_that_the_user_may_not_write_is_noted(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    assert list(_about_spool(tmp_path / "made" / "later")) == []
    with without_rights(closed):
        (note,) = _about_spool(closed / "spool")
    assert note.startswith("spool_dir: this user may not write in ")
