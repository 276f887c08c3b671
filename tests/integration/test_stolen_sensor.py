"""The commands of the page about a stolen sensor leave exactly the honest counts."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from acceptance.harness import clean_environment
from acceptance.how_to import Place, blocks
from faults.rotation import BundledSensor, Fleet
from ingest_support import DAY_MS, Publisher, Table, data, greet, made_batch, now_ms, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.certificates import Certificates
from servers.rabbitmq import RabbitNode, scripts_folder

# ruff: noqa: F811 - fixtures are imported by name and used by name

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "stolen-sensor.md"
VHOST = "smtpfeeds"
MADE_UP = ("203.0.113.7", "203.0.113.8")


@pytest.mark.timeout(900)  # it starts some thirty programs, one after the other
def test_steps_after_a_theft_restore_exact_counts(
    rabbitmq: RabbitNode, certificates: Certificates, dsn: str, table: Table, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        fleet = Fleet(
            stack, rabbitmq, certificates, dsn, tmp_path, vhost=VHOST, sensors=2, rate_per_s=40
        )
        stolen = fleet.sensors[0]
        _steal(rabbitmq, stolen, table)
        centre = Place(
            tmp_path / "centre", tmp_path / "page.log", _administrator(rabbitmq, tmp_path)
        )
        host = Place(stolen.folder, tmp_path / "host.log", _administrator(rabbitmq, tmp_path))
        host.environ["SMTPFEEDS_SETTINGS"] = str(stolen.folder)
        variables, *commands = blocks(PAGE)
        centre.set_variables(variables, _values(fleet, stolen, rabbitmq, certificates, tmp_path))
        for block in commands:
            if block.how == "host":
                stolen.install(restart=False)
            else:
                (centre if block.place == "centre" else host).run(block)
        fleet.settle()
        fleet.assert_exact(1)
        assert table.one("SELECT epoch FROM sensor WHERE name = %s", stolen.name) == 2
        assert table("SELECT FROM observation WHERE host(ip) = ANY(%s)", list(MADE_UP)) == []
    published = (tmp_path / "www" / "feeds" / "smtpgreet.txt").read_text()
    assert not any(address in published for address in MADE_UP)
    assert "198.18." in published


def _steal(node: RabbitNode, stolen: BundledSensor, table: Table) -> None:
    """Report with the stolen password: invented addresses, and an honest one a week early."""
    until(lambda: bool(_honest(table)), "another sensor has heard of somebody")
    password = (stolen.folder / "broker-password").read_text().strip()
    thief = Publisher(node.url(VHOST, stolen.name, password), stolen.name)
    first_ms = now_ms() - 7 * DAY_MS
    rows = [greet(MADE_UP[0]), greet(MADE_UP[1]), data(MADE_UP[1])]
    rows += [greet(_honest(table)[0], first_ms=first_ms, hits=1_000)]
    thief.publish(made_batch(*rows, sensor=stolen.name))
    thief.close()
    asked = "SELECT count(*) FROM observation WHERE host(ip) = ANY(%s)"
    until(lambda: table.one(asked, list(MADE_UP)) == 3, "what the thief reported is stored")


def _honest(table: Table) -> list[str]:
    rows = table("SELECT host(ip) FROM sighting WHERE sensor = 'edge-2' ORDER BY ip LIMIT 1")
    return [address for (address,) in rows]


def _administrator(node: RabbitNode, folder: Path) -> dict[str, str]:
    """Return a shell with this checkout's `smtpfeeds`, and `rabbitmqctl` for the test's node."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    environ = "".join(f"export {k}='{v}'\n" for k, v in node.environment().items())
    wrapper = tools / "rabbitmqctl"
    wrapper.write_text(f"#!/bin/sh\n{environ}exec '{scripts_folder()}/rabbitmqctl' \"$@\"\n")
    wrapper.chmod(0o755)
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join((str(tools), programs, os.environ["PATH"]))
    return {**clean_environment(), "PATH": path}


def _values(
    fleet: Fleet,
    stolen: BundledSensor,
    node: RabbitNode,
    certificates: Certificates,
    folder: Path,
) -> dict[str, str]:
    settings = {"dsn": fleet.dsn, "feeds_dir": str(folder / "www"), "publish_non_global": True}
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (folder / "aggregator.toml").write_text("".join(lines))
    (folder / "owner.toml").write_text(f"dsn = {json.dumps(fleet.dsn)}\n")
    (package,) = (folder / "centre").glob("*.whl")
    return {
        "SENSOR": stolen.name,
        "EPOCH": "1",
        "SMTPFEEDS_SETTINGS": str(folder),
        "BROKER": f"amqps://{node.host}:{node.tls_port}/{VHOST}",
        "BROKER_CA": str(certificates.authority),
        "PACKAGE": str(package),
        "SMTPFEEDS_MANAGEMENT": f"http://{node.home.user}@{node.host}:{node.admin_port}",
        "SMTPFEEDS_MANAGEMENT_PASSWORD_FILE": str(folder / "centre" / "management"),
        "RUN_AS": "",
    }
