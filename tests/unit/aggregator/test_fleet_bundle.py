"""A sensor's bundle contains all that its host needs; only its owner can read the secret."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from bundle_support import Host, unpack
from smtpfeeds_aggregator.fleet.bundle import (
    SETTINGS,
    SensorBundle,
    bundle_bytes,
    check_package,
    sensor_settings,
    write_bundle,
)
from smtpfeeds_aggregator.fleet.packing import SHARED_MAX_BYTES, pack_wheels
from smtpfeeds_aggregator.fleet.wheels import locked_wheels
from smtpfeeds_common import __version__
from smtpfeeds_common.errors import FleetError
from smtpfeeds_sensor import settings as sensor

#: Stands for the project's wheel.
PACKAGE = Path(__file__)
WHEELS = pack_wheels(PACKAGE, ())
BUNDLE = SensorBundle(
    name="lisbon-1",
    wheels=WHEELS,
    brokers=("amqps://broker.example:5671/smtpfeeds", "amqps://[2001:db8::1]/smtpfeeds"),
    password="a-secret",
    authority=b"-----BEGIN CERTIFICATE-----\n",
)


def members(bundle: SensorBundle) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(bundle_bytes(bundle))) as tar:
        return {entry.name.partition("/")[2]: entry for entry in tar.getmembers()}


def test_bundle_contains_what_the_host_needs() -> None:
    assert set(members(BUNDLE)) == {
        *("install.sh", "sensor.toml", "broker-password", "ca.pem", "requirements.txt"),
        *("smtpfeeds-sensor.service", "smtpfeeds.sysusers", f"package/{PACKAGE.name}"),
    }
    # Nothing leaves the bundle's own folder when it is unpacked.
    with tarfile.open(fileobj=io.BytesIO(bundle_bytes(BUNDLE))) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {"smtpfeeds-lisbon-1"}


def test_only_the_secret_is_private() -> None:
    modes = {name: entry.mode for name, entry in members(BUNDLE).items()}
    assert modes.pop("broker-password") == 0o600
    assert modes.pop("install.sh") == 0o755
    assert set(modes.values()) == {0o644}


def test_same_input_gives_the_same_bundle() -> None:
    assert bundle_bytes(BUNDLE) == bundle_bytes(BUNDLE)


def test_settings_are_valid_and_contain_no_secret(tmp_path: Path) -> None:
    text = sensor_settings(BUNDLE)
    assert "a-secret" not in text
    # A sensor looks at once for the files that the install script puts there.
    for name in ("ca.pem", "broker-password"):
        assert f'"{SETTINGS}/{name}"' in text
        (tmp_path / name).write_text("a-secret\n")
    file = tmp_path / "sensor.toml"
    file.write_text(text.replace(SETTINGS, str(tmp_path)))
    loaded = sensor.load(file)
    assert loaded.name == "lisbon-1"
    assert loaded.listen == ("0.0.0.0:25", "[::]:25")
    assert loaded.broker == (
        "amqps://lisbon-1@broker.example:5671/smtpfeeds",
        "amqps://lisbon-1@[2001:db8::1]/smtpfeeds",
    )


def test_special_characters_in_values_survive_toml() -> None:
    odd = SensorBundle(name="x", wheels=WHEELS, brokers=('amqps://h/a"b\\c',), password="p")
    assert tomllib.loads(sensor_settings(odd))["broker"] == ['amqps://x@h/a"b\\c']


def test_client_certificate_replaces_the_password() -> None:
    bundle = SensorBundle(
        name="x", wheels=WHEELS, brokers=("amqps://h/v",), certificate=b"certificate", key=b"key"
    )
    files = members(bundle)
    assert "broker-password" not in files
    assert files["broker.key"].mode == 0o600
    settings = tomllib.loads(sensor_settings(bundle))
    assert settings["broker_certificate_file"] == "/etc/smtpfeeds/broker.pem"


@pytest.mark.parametrize("address", ["amqps://someone@broker.example/v", "broker.example"])
def test_an_address_with_an_account_is_refused(address: str) -> None:
    with pytest.raises(FleetError, match="leave the account out"):
        bundle_bytes(SensorBundle(name="x", wheels=WHEELS, brokers=(address,), password="p"))


def test_install_script_is_valid_shell(tmp_path: Path) -> None:
    write_bundle(BUNDLE, tmp_path / "bundle")
    script = unpack(tmp_path / "bundle", tmp_path / "unpacked") / "install.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    text = script.read_text()
    # The program is the bundle's own file: a package of its name in an index is a stranger's.
    assert f'--force-reinstall "$here/package/{PACKAGE.name}"' in text
    assert text.count("--no-index") == 1
    assert "smtpfeeds==" not in text
    assert "a-secret" not in text
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"wheel")
    offline = SensorBundle(
        name="x",
        wheels=pack_wheels(PACKAGE, [wheel]),
        brokers=("amqps://h/v",),
        password="p",
    )
    with tarfile.open(fileobj=io.BytesIO(bundle_bytes(offline))) as tar:
        packed = tar.extractfile("smtpfeeds-x/install.sh")
        assert packed is not None
        script_text = packed.read().decode()
    assert script_text.count('--no-index --find-links "$here/wheels"') == 1
    assert "wheels/a.whl" in members(offline)


def test_only_its_owner_can_read_a_bundle_and_it_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "bundles" / "lisbon-1.tar.gz"
    write_bundle(BUNDLE, path)
    first = path.read_bytes()
    write_bundle(replace(BUNDLE, password="other"), path)
    assert path.read_bytes() != first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["lisbon-1.tar.gz"]


def test_bundle_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match="cannot write the bundle"):
        write_bundle(BUNDLE, tmp_path / "file" / "x.tar.gz")


def test_wheels_are_read_once_and_are_the_same_in_each_bundle(tmp_path: Path) -> None:
    """Other programs read them too: `tar` reads several gzip members as one."""
    contents = {"a.whl": os.urandom(70_001), "b.whl": b"", "c.whl": bytes(1024)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    wheels = pack_wheels(PACKAGE, [tmp_path / name for name in contents])
    for name in contents:
        (tmp_path / name).unlink()
    for sensor_name in ("lisbon-1", "x" * 63):
        path = tmp_path / "bundle.tar.gz"
        write_bundle(replace(BUNDLE, name=sensor_name, wheels=wheels), path)
        subprocess.run(["tar", "-xzf", path, "-C", tmp_path], check=True)
        unpacked = tmp_path / f"smtpfeeds-{sensor_name}"
        assert {
            file.name: file.read_bytes() for file in (unpacked / "wheels").iterdir()
        } == contents
        assert (unpacked / "package" / PACKAGE.name).read_bytes() == PACKAGE.read_bytes()
        assert len(list(unpacked.iterdir())) == 9


def test_wheels_over_the_bound_are_refused_before_they_are_read(tmp_path: Path) -> None:
    wheel = tmp_path / "large.whl"
    with wheel.open("wb") as stream:
        stream.truncate(SHARED_MAX_BYTES)
    with pytest.raises(FleetError, match="more than 128 MiB together"):
        pack_wheels(PACKAGE, [wheel])
    with pytest.raises(FleetError, match="cannot read the wheel"):
        pack_wheels(PACKAGE, [tmp_path / "none.whl"])


def test_wheel_of_another_version_is_refused() -> None:
    right = Path(f"smtpfeeds-{__version__}-py3-none-any.whl")
    assert check_package(right) == right
    for name in ("smtpfeeds-0.0.1-py3-none-any.whl", f"smtpfeeds-{__version__}.tar.gz", "x.whl"):
        with pytest.raises(FleetError, match="is not the wheel of smtpfeeds"):
            check_package(Path(name))


def install(host: Host, bundle: SensorBundle) -> str:
    path = host.folder / "bundle.tar.gz"
    write_bundle(bundle, path)
    return host.install(path)


def test_reinstallation_keeps_changed_settings_and_deletes_old_secrets(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.without_programs()
    install(host, BUNDLE)
    toml = host.settings / "sensor.toml"
    first = toml.read_text()
    assert host.files() == {"sensor.toml", ".sensor.toml.installed", "broker-password", "ca.pem"}
    assert toml.stat().st_mode & 0o777 == 0o640
    # What nobody changed is replaced.
    assert "note:" not in install(host, replace(BUNDLE, workers=2, password="second"))
    assert toml.read_text() != first
    assert (host.settings / "broker-password").read_text() == "second\n"
    toml.write_text("# ours\n" + toml.read_text())
    ours = toml.read_text()
    certificate = replace(BUNDLE, password=None, certificate=b"certificate", key=b"key")
    printed = install(host, certificate)
    assert f"note: {toml} was changed on this host, and stays" in printed
    assert toml.read_text() == ours
    assert "broker_key_file" in (host.settings / "sensor.toml.new").read_text()
    assert host.files() >= {"broker.pem", "broker.key"}
    assert "broker-password" not in host.files()


def test_wheels_must_be_exactly_the_locked_ones(tmp_path: Path) -> None:
    first, second = tmp_path / "one-1-py3-none-any.whl", tmp_path / "two-2-cp311-cp311-any.whl"
    first.write_bytes(b"one")
    hashes = [hashlib.sha256(octets).hexdigest() for octets in (b"one", b"two", b"win")]
    lock = (
        f"one==1 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{hashes[0]}\n"
        f"two==2 \\\n    --hash=sha256:{hashes[1]}\n"
        f"win==3 ; sys_platform == 'win32' \\\n    --hash=sha256:{hashes[2]}\n"
    )
    with pytest.raises(FleetError, match=r"has no wheel of two==2: fetch it with"):
        locked_wheels(tmp_path, lock)
    second.write_bytes(b"two")
    assert locked_wheels(tmp_path, lock) == (first, second)
    second.write_bytes(b"another's")
    with pytest.raises(FleetError, match=r"two-2-cp311-cp311-any\.whl is not a wheel that"):
        locked_wheels(tmp_path, lock)
    with pytest.raises(FleetError, match=r"has no wheel of attrs==.*twisted=="):
        locked_wheels(tmp_path / "none")
