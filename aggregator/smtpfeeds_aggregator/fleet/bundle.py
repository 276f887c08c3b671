"""One bundle for one sensor host: all that it needs, and a script that a person can read.

A gzipped tar with one folder:

    install.sh                 what is done on the host, step by step
    sensor.toml                the sensor's settings
    broker-password            or broker.pem and broker.key, a client certificate
    ca.pem                     the authority of the broker's certificate, if it is the fleet's own
    smtpfeeds-sensor.service   with smtpfeeds.sysusers
    requirements.txt           the locked packages of a sensor
    package/                   the wheel of smtpfeeds itself
    wheels/                    on request: every other package as a file

Only broker-password or broker.key is secret, and no other sensor has the same. The same input
gives the same octets: the tar has no times and no owners.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import FleetError
from smtpfeeds_common.shipped import shipped_file

from .files import PRIVATE, write_whole
from .packing import Archive, Packed

#: Where the unit file expects the settings.
SETTINGS: Final = "/etc/smtpfeeds"
_PRIVATE: Final = frozenset({"broker-password", "broker.key"})
_RUNNABLE: Final = frozenset({"install.sh"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorBundle:
    """What goes into a bundle."""

    name: str
    #: ``package/…``, the wheel of smtpfeeds: what the host installs is this file, never a package
    #: of that name from an index; then ``wheels/…``, every other package, on request.
    wheels: tuple[Packed, ...]
    #: AMQP addresses without account and password, such as ``amqps://broker.example/smtpfeeds``.
    brokers: tuple[str, ...]
    listen: tuple[str, ...] = ("0.0.0.0:25", "[::]:25")
    workers: int = 1
    #: The secret: a password, or a client's certificate and key in PEM.
    password: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    #: The fleet's authority, PEM; None where the broker's certificate is a public one's.
    authority: bytes | None = None

    @property
    def package(self) -> str:
        """The file name of the wheel of smtpfeeds."""
        return self.wheels[0].name.rpartition("/")[2]


def write_bundle(bundle: SensorBundle, path: Path) -> None:
    """Write it for its owner alone, whole or not at all.

    Raises:
        FleetError: it cannot be written.
    """
    content = bundle_bytes(bundle)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, content, mode=PRIVATE)
    except OSError as exc:
        raise FleetError(f"cannot write the bundle {path}: {exc}") from exc


def bundle_bytes(bundle: SensorBundle) -> bytes:
    """Return the bundle as a gzipped tar."""
    archive = Archive(f"smtpfeeds-{bundle.name}")
    for name, content in _files(bundle).items():
        mode = 0o600 if name in _PRIVATE else 0o755 if name in _RUNNABLE else 0o644
        archive.add(name, content, mode)
    for wheel in bundle.wheels:
        archive.add_packed(wheel, 0o644)
    return archive.octets()


def _files(bundle: SensorBundle) -> Mapping[str, bytes]:
    files = {
        "install.sh": _install_script(bundle).encode(),
        "sensor.toml": sensor_settings(bundle).encode(),
        "smtpfeeds-sensor.service": shipped_file("systemd/smtpfeeds-sensor.service"),
        "smtpfeeds.sysusers": shipped_file("systemd/smtpfeeds.sysusers"),
        "requirements.txt": shipped_file("requirements/sensor.txt"),
    }
    if bundle.password is not None:
        files["broker-password"] = bundle.password.encode() + b"\n"
    if bundle.certificate is not None and bundle.key is not None:
        files |= {"broker.pem": bundle.certificate, "broker.key": bundle.key}
    if bundle.authority is not None:
        files["ca.pem"] = bundle.authority
    return files


def check_package(path: Path) -> Path:
    """Return the path.

    Raises:
        FleetError: its name is not that of a wheel of this version.
    """
    if not path.name.startswith(f"smtpfeeds-{__version__}-") or path.suffix != ".whl":
        raise FleetError(
            f"{path} is not the wheel of smtpfeeds {__version__}: make it in a checkout with "
            "`pip wheel --no-deps .`"
        )
    return path


def sensor_settings(bundle: SensorBundle) -> str:
    """Return the sensor's settings file."""
    account = bundle.name
    brokers = tuple(_with_account(url, account) for url in bundle.brokers)
    lines = [
        f"# Settings of the sensor {bundle.name}. Every setting: docs/reference/sensor-settings.md",
        _toml("name", bundle.name),
        _toml("listen", bundle.listen),
        _toml("workers", bundle.workers),
        _toml("broker", brokers),
    ]
    if bundle.password is not None:
        lines.append(_toml("broker_password_file", f"{SETTINGS}/broker-password"))
    if bundle.certificate is not None:
        lines.append(_toml("broker_certificate_file", f"{SETTINGS}/broker.pem"))
        lines.append(_toml("broker_key_file", f"{SETTINGS}/broker.key"))
    if bundle.authority is not None:
        lines.append(_toml("broker_ca_file", f"{SETTINGS}/ca.pem"))
    return "\n".join(lines) + "\n"


def _with_account(url: str, account: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or "@" in rest:
        raise FleetError(
            f"the broker's address {scheme}://… is not of the form amqps://HOST/VHOST: leave "
            "the account out; the bundle gets the sensor's"
        )
    return f"{scheme}://{account}@{rest}"


def _toml(key: str, value: object) -> str:
    """Return a line of TOML: JSON's texts, numbers and lists are also valid TOML."""
    return f"{key} = {msgspec.json.encode(value).decode()}"


def _install_script(bundle: SensorBundle) -> str:
    return _INSTALL.format(
        name=bundle.name,
        package=bundle.package,
        offline='--no-index --find-links "$here/wheels" ' if bundle.wheels[1:] else "",
    )


_INSTALL: Final = """\
#!/bin/sh
# Installs the smtpfeeds sensor "{name}" on this host, or brings it up to date. Run it as root.
# It may be run again: nothing is lost, and the spool stays.
set -eu

SETTINGS=/etc/smtpfeeds
PROGRAMS=/opt/smtpfeeds
here=$(cd "$(dirname "$0")" && pwd)

fail() {{
    echo "error: $*" >&2
    exit 1
}}

[ "$(id -u)" -eq 0 ] || fail "run it as root: it makes a user, a service, $SETTINGS and $PROGRAMS"
command -v systemctl >/dev/null || fail "this host has no systemd: see docs/how-to/containers.md"
python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer with venv is needed (on Debian: apt install python3-venv)"

echo "1 of 4: the user smtpfeeds and the folder $SETTINGS"
install -m 644 "$here/smtpfeeds.sysusers" /usr/lib/sysusers.d/smtpfeeds.conf
systemd-sysusers smtpfeeds.conf
install -d -o root -g smtpfeeds -m 750 "$SETTINGS"

echo "2 of 4: the programs in $PROGRAMS"
[ -x "$PROGRAMS/bin/python" ] || python3 -m venv "$PROGRAMS"
"$PROGRAMS/bin/pip" install --quiet --disable-pip-version-check {offline}\\
    --require-hashes -r "$here/requirements.txt"
"$PROGRAMS/bin/pip" install --quiet --disable-pip-version-check --no-index \\
    --no-deps --force-reinstall "$here/package/{package}"

echo "3 of 4: settings and secret in $SETTINGS"
put() {{
    install -o root -g smtpfeeds -m 640 "$here/$1" "$SETTINGS/$2"
}}
for file in broker-password broker.pem broker.key ca.pem; do
    [ ! -f "$here/$file" ] || put "$file" "$file"
done
# Settings that were changed on this host stay; .sensor.toml.installed is what a bundle brought.
if [ -f "$SETTINGS/sensor.toml" ] && ! cmp -s "$SETTINGS/sensor.toml" "$here/sensor.toml" &&
    ! cmp -s "$SETTINGS/sensor.toml" "$SETTINGS/.sensor.toml.installed"; then
    put sensor.toml sensor.toml.new
    echo "note: $SETTINGS/sensor.toml was changed on this host, and stays;" \
        "the settings of this bundle are in sensor.toml.new: take over what you need"
else
    put sensor.toml sensor.toml
    put sensor.toml .sensor.toml.installed
fi
"$PROGRAMS/bin/smtpfeeds" sensor check-config --config "$SETTINGS/sensor.toml"
# A secret of another kind, of a bundle before this one, opens nothing any more.
for file in broker-password broker.pem broker.key; do
    [ -f "$here/$file" ] || rm -f "$SETTINGS/$file"
done

echo "4 of 4: the service smtpfeeds-sensor"
install -m 644 "$here/smtpfeeds-sensor.service" /etc/systemd/system/smtpfeeds-sensor.service
systemctl daemon-reload
systemctl enable --quiet smtpfeeds-sensor
systemctl restart smtpfeeds-sensor
systemctl --no-pager --lines=0 status smtpfeeds-sensor
echo "done: delete this folder now, it holds the sensor's secret"
"""
