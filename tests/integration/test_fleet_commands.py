"""`smtpfeeds fleet` at a real RabbitMQ: set up, enrol, deliver with the bundle, rotate, revoke."""

from __future__ import annotations

import io
import json
import re
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from click.testing import CliRunner, Result
from pika.exceptions import AMQPError

from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.processes import wait_until
from servers.rabbitmq import RabbitNode
from smtpfeeds_aggregator.cli.fleet import CENTRE, CENTRE_RIGHTS, fleet
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_common import __version__
from smtpfeeds_common.topology import EXCHANGE, routing_key

# ruff: noqa: F811 - fixtures are imported by name and asked for by name

VHOST = "smtpfeeds-fleet-commands"


class Fleet:
    """The commands, with the options that say which broker."""

    def __init__(self, rabbitmq: RabbitNode, folder: Path) -> None:
        self.rabbitmq, self.folder = rabbitmq, folder
        self.url = f"http://{rabbitmq.home.user}@{rabbitmq.host}:{rabbitmq.admin_port}"
        (folder / "management").write_text(rabbitmq.home.password + "\n")

    def run(self, command: str, *words: str, bundles: bool = False) -> Result:
        options = ["--management", self.url, "--vhost", VHOST]
        options += ["--management-password-file", str(self.folder / "management")]
        if bundles:
            broker = f"amqp://{self.rabbitmq.host}:{self.rabbitmq.port}/{VHOST}"
            package = self.folder / f"smtpfeeds-{__version__}-py3-none-any.whl"
            package.write_bytes(b"the wheel")
            options += ["--broker", broker, "--output", str(self.folder)]
            options += ["--package", str(package)]
        return CliRunner().invoke(fleet, [command, *options, *words])

    def password(self, name: str) -> str:
        """What the bundle of a sensor says; its settings name the same account."""
        with tarfile.open(self.folder / f"{name}.tar.gz") as tar:
            files = {
                member.name.rpartition("/")[2]: tar.extractfile(member)
                for member in tar.getmembers()
                if member.isfile()
            }
            settings, secret = files["sensor.toml"], files["broker-password"]
            assert isinstance(settings, io.BufferedReader)
            assert isinstance(secret, io.BufferedReader)
            loaded = tomllib.loads(settings.read().decode())
            assert loaded["name"] == name
            assert f"//{name}@" in loaded["broker"][0]
            return secret.read().decode().strip()

    def connect(self, name: str, password: str) -> pika.BlockingConnection:
        credentials = pika.PlainCredentials(name, password)
        where = (self.rabbitmq.host, self.rabbitmq.port, VHOST, credentials)
        return pika.BlockingConnection(pika.ConnectionParameters(*where))


@pytest.fixture
def site(rabbitmq: RabbitNode, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(rabbitmq, tmp_path)
    management = Management(made.url, rabbitmq.home.password, vhost=VHOST)
    management.add_vhost()
    yield made
    for name in [*management.sensors(), CENTRE]:
        management.delete(name)
    management.close()
    rabbitmq.admin.delete_vhost(VHOST)


def publish(connection: pika.BlockingConnection, name: str) -> None:
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(
        EXCHANGE, routing_key(name), b"{}", pika.BasicProperties(user_id=name), mandatory=False
    )


def test_without_a_management_api_it_says_how_to_name_one() -> None:
    done = CliRunner().invoke(fleet, ["list"])
    assert done.exit_code == 2
    assert "--management and" in done.stderr


def test_a_fleet_is_set_up_enrolled_rotated_and_revoked(
    site: Fleet,
    dsn: str,
) -> None:
    centre = site.folder / "centre"
    centre.write_text("[a password of its own]\n")
    for _ in range(2):
        done = site.run("set-up", "--password-file", str(centre))
        assert (done.exit_code, done.stdout) == (0, f"the account {CENTRE} is ready\n")
    aggregator = site.connect(CENTRE, "[a password of its own]")
    aggregator.channel().exchange_declare(EXCHANGE, "topic", durable=True)

    names = site.folder / "names"
    names.write_text("acme-1\nacme-2\n\nother\n")
    done = site.run("enroll", "--file", str(names), bundles=True)
    assert (done.exit_code, done.stdout) == (0, "enrolled 3 of 3\n")
    first = site.password("acme-1")
    sensor = site.connect("acme-1", first)
    publish(sensor, "acme-1")

    # Again, without harm: the one that exists keeps its password and its bundle.
    done = site.run("enroll", "acme-1", "acme-3", bundles=True)
    assert (done.exit_code, site.password("acme-1")) == (0, first)
    assert "acme-1 has an account already" in done.stderr
    publish(sensor, "acme-1")

    def listed(*words: str) -> dict[str, int]:
        done = site.run("list", "--json", *words)
        return {row["name"]: row["connections"] for row in json.loads(done.stdout)}

    assert set(listed()) == {"acme-1", "acme-2", "acme-3", "other"}
    wait_until(
        lambda: listed("--operator", "acme-")["acme-1"] == 1, limit_s=60, what="it is listed"
    )
    assert set(listed("--operator", "oth")) == {"other"}

    done = site.run("rotate", "acme-1", "--dsn", dsn, bundles=True)
    assert done.exit_code == 0, done.output
    second = site.password("acme-1")
    assert second != first
    with pytest.raises(AMQPError):
        publish(sensor, "acme-1")
    with pytest.raises(AMQPError):
        site.connect("acme-1", first)
    again = site.connect("acme-1", second)
    publish(again, "acme-1")

    # An account that was made and not limited, because that run broke off, is limited by the next.
    management = Management(site.url, site.rabbitmq.home.password, vhost=VHOST)
    site.rabbitmq.admin.call("DELETE", "user-limits", "acme-2", "max-connections")
    assert management.workers("acme-2") is None
    assert site.run("enroll", "acme-2", "--workers", "3", bundles=True).exit_code == 0
    assert management.workers("acme-2") == 3
    assert site.run("rotate", "acme-2", "--dsn", dsn, bundles=True).exit_code == 0
    assert management.workers("acme-2") == 3, "as many as before"
    management.close()

    assert site.run("revoke", "acme-1").stdout == "acme-1: revoked\n"
    with pytest.raises(AMQPError):
        publish(again, "acme-1")
    with pytest.raises(AMQPError):
        site.connect("acme-1", second)
    assert "acme-1" not in listed()
    aggregator.close()


def test_the_script_without_the_plugin_gives_the_centre_the_same_rights() -> None:
    script = (Path(__file__).parents[2] / "deploy" / "rabbitmq" / "set-up-centre.sh").read_text()
    values = dict(re.findall(r"^([A-Z_]+)='?([^'\n]*)'?$", script, re.MULTILINE))
    assert values["ACCOUNT"] == CENTRE
    assert {
        "configure": values["OWN"],
        "write": values["OWN_AND_DEFAULT"],
        "read": values["OWN"],
    } == CENTRE_RIGHTS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enroll", "Berlin"), "1 to 63 of a-z"),
        (("enroll", CENTRE), "the aggregator's account"),
        (("enroll", "{admin}"), "is no sensor's: choose another name"),
        (("revoke", "nobody"), "no sensor has the account nobody"),
        (("enroll",), "name a sensor, or give --file"),
    ],
)
def test_what_would_harm_another_account_is_refused(
    site: Fleet, words: tuple[str, ...], said: str
) -> None:
    command, *rest = words
    rest = [word.format(admin=site.rabbitmq.home.user) for word in rest]
    done = site.run(command, *rest, bundles=command == "enroll")
    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"
    assert list(site.folder.glob("*.tar.gz")) == []
