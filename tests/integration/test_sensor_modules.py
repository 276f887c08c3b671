"""A sensor imports only the modules that its settings need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sensor_support import SensorProcess

#: Packages that only some settings need.
OPTIONAL = {"OpenSSL", "cryptography", "service_identity", "pika", "prometheus_client"}
#: Packages that a sensor never needs.
NEVER = {"psycopg", "pyasn", "rich", "numpy", "multiprocessing", "sqlalchemy", "unittest"}
#: The installed command, which at its end writes the packages that it has imported.
WITNESS = """\
import atexit, json, pathlib, sys
def write():
    names = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
    pathlib.Path(sys.argv[-1]).with_suffix(".modules").write_text(json.dumps(sorted(names)))
atexit.register(write)
from smtpfeeds_common.cli import main
main()
"""


class Witness(SensorProcess):
    """A sensor that reports its imported packages."""

    def command(self, *words: str) -> list[str]:
        self.write_config()
        return [sys.executable, "-c", WITNESS, "sensor", *words, "--config", str(self.config)]

    def modules(self) -> set[str]:
        """Return the packages, after it has ended."""
        return set(json.loads(self.config.with_suffix(".modules").read_text()))


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({}, set[str]()),
        # Nothing listens there, so it keeps trying.
        ({"broker": ["amqp://s1:secret@127.0.0.1:1/x"]}, {"pika"}),
        (
            {"tls": "made", "metrics_listen": "127.0.0.1:0"},
            {"OpenSSL", "cryptography", "service_identity", "prometheus_client"},
        ),
    ],
)
def test_sensor_imports_what_its_settings_use_and_nothing_else(
    tmp_path: Path, settings: dict[str, object], used: set[str]
) -> None:
    sensor = Witness(tmp_path, **settings)
    sensor.start()
    try:
        with sensor.connect() as client:
            assert client.reply() == 220
            assert client.say(b"EHLO client.example\r\n") == 250
    finally:
        assert sensor.stop() == 0
    modules = sensor.modules()
    assert modules & OPTIONAL == used
    assert modules & NEVER == set()
    assert sensor.counters()["greets"] == 1


def test_starttls_without_its_packages_names_the_extra(tmp_path: Path) -> None:
    """The start and check-config both report it before they open anything."""
    sensor = SensorProcess(tmp_path, tls="made")
    sensor.write_config()
    absent = (
        "import sys; sys.modules['OpenSSL'] = None; from smtpfeeds_common.cli import main; main()"
    )
    for command in ("run", "check-config"):
        refused = subprocess.run(
            [sys.executable, "-c", absent, "sensor", command, "--config", str(sensor.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert refused.returncode == 2
        assert "tls" in refused.stderr
        assert "sensor-tls" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not sensor.spool.exists()
