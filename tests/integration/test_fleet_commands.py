"""`smtpfeeds fleet` on a real RabbitMQ: set up, enrol, deliver with the bundle, rotate, revoke."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from click.testing import CliRunner, Result
from pika.exceptions import AMQPError

from ingest_support import Table, greet, made_batch
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from ingest_support.storing import apply, ingest_store
from sensor_support import running
from sensor_support.centre import Centre
from servers.certificates import Certificates
from servers.fixtures import Vhost
from servers.processes import wait_until
from servers.rabbitmq import RabbitNode, scripts_folder
from smtpfeeds_aggregator.cli.fleet import CENTRE_RIGHTS, fleet
from smtpfeeds_aggregator.cli.fleet_accounts import CENTRE
from smtpfeeds_aggregator.cli.sensors import sensors
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_aggregator.fleet.rights import (
    SensorAccount,
    new_password,
    wrong_limits,
    wrong_rights,
)
from smtpfeeds_common import __version__
from smtpfeeds_common.errors import BrokerRefused
from smtpfeeds_common.topology import EXCHANGE, routing_key
from smtpfeeds_common.wire import decode
from smtpfeeds_sensor.delivery.publisher import BrokerLink
from smtpfeeds_sensor.settings import SensorSettings

# ruff: noqa: F811 - fixtures are imported by name and used by name

VHOST = "smtpfeeds-fleet-commands"


class Fleet:
    """Runs the commands with the options for broker and database."""

    def __init__(self, rabbitmq: RabbitNode, folder: Path, dsn: str) -> None:
        self.rabbitmq, self.folder, self.dsn = rabbitmq, folder, dsn
        self.url = f"http://{rabbitmq.home.user}@{rabbitmq.host}:{rabbitmq.admin_port}"
        (folder / "management").write_text(rabbitmq.home.password + "\n")
        self.ca = folder / "ca"

    def run(self, command: str, *words: str, bundles: bool = False, tls: bool = False) -> Result:
        options = ["--management", self.url, "--vhost", VHOST]
        options += ["--management-password-file", str(self.folder / "management")]
        if command != "set-up":
            options += ["--dsn", self.dsn]
        if bundles or command in {"show", "check"}:
            options += ["--ca-dir", str(self.ca)]
        if bundles:
            scheme, port = (
                ("amqps", self.rabbitmq.tls_port) if tls else ("amqp", self.rabbitmq.port)
            )
            package = self.folder / f"smtpfeeds-{__version__}-py3-none-any.whl"
            package.write_bytes(b"the wheel")
            options += ["--broker", f"{scheme}://{self.rabbitmq.host}:{port}/{VHOST}"]
            options += ["--output", str(self.folder), "--package", str(package)]
        return CliRunner().invoke(fleet, [command, *options, *words])

    def rows(self, command: str, *words: str) -> Any:
        """Return the JSON output of a command."""
        return json.loads(self.run(command, "--json", *words).stdout)

    def faults(self, *words: str) -> set[tuple[str, str]]:
        """Return the faults that `check` finds, as sensor and fault."""
        done = self.run("check", "--json", *words)
        rows = json.loads(done.stdout)
        assert done.exit_code == (1 if rows else 0), done.output
        return {(row["name"], row["fault"]) for row in rows}

    def password(self, name: str) -> str:
        """Return the password in a sensor's bundle; its settings name the same account."""
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
def site(rabbitmq: RabbitNode, tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    site = Fleet(rabbitmq, tmp_path, dsn)
    management = Management(site.url, rabbitmq.home.password, vhost=VHOST)
    management.add_vhost()
    yield site
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


def test_missing_management_api_is_an_error_with_the_options() -> None:
    done = CliRunner().invoke(fleet, ["list"])
    assert done.exit_code == 2
    assert "--management and" in done.stderr


def test_a_fleet_is_set_up_enrolled_rotated_and_revoked(site: Fleet) -> None:
    centre = site.folder / "centre"
    passwords = set()
    for _ in range(2):
        done = site.run("set-up", "--password-file", str(centre))
        assert (done.exit_code, done.stdout) == (0, f"the account {CENTRE} is ready\n")
        assert done.stderr == "", "it accepts client certificates"
        passwords.add(centre.read_text().strip())
    assert stat.S_IMODE(centre.stat().st_mode) == 0o600
    (password,) = passwords
    assert len(password) > 40, "the first run wrote one, the second kept it"
    aggregator = site.connect(CENTRE, password)
    aggregator.channel().exchange_declare(EXCHANGE, "topic", durable=True)

    names = site.folder / "names"
    names.write_text("acme-1\nacme-2\n\nother\n")
    done = site.run("enroll", "--file", str(names), bundles=True)
    assert (done.exit_code, done.stdout) == (0, "enrolled 3 of 3\n")
    first = site.password("acme-1")
    sensor = site.connect("acme-1", first)
    publish(sensor, "acme-1")

    # A second run changes nothing: the existing account keeps its password and bundle.
    done = site.run("enroll", "acme-1", "acme-3", bundles=True)
    assert (done.exit_code, site.password("acme-1")) == (0, first)
    assert "acme-1 has an account already" in done.stderr
    publish(sensor, "acme-1")

    def listed(*words: str) -> dict[str, int]:
        return {row["name"]: row["connections"] for row in site.rows("list", *words)}

    assert set(listed()) == {"acme-1", "acme-2", "acme-3", "other"}
    wait_until(lambda: listed("--operator", "acme-")["acme-1"] == 1, what="it is listed")
    assert set(listed("--operator", "oth")) == {"other"}

    done = site.run("rotate", "acme-1", bundles=True)
    assert done.exit_code == 0, done.output
    second = site.password("acme-1")
    assert second != first
    with pytest.raises(AMQPError):
        publish(sensor, "acme-1")
    with pytest.raises(AMQPError):
        site.connect("acme-1", first)
    again = site.connect("acme-1", second)
    publish(again, "acme-1")

    # If a run is interrupted between creating and limiting an account, the next run limits it.
    management = Management(site.url, site.rabbitmq.home.password, vhost=VHOST)
    site.rabbitmq.admin.call("DELETE", "user-limits", "acme-2", "max-connections")
    assert management.accounts()["acme-2"].workers is None
    assert site.run("enroll", "acme-2", "--workers", "3", bundles=True).exit_code == 0
    assert management.accounts()["acme-2"].workers == 3
    assert site.run("rotate", "acme-2", bundles=True).exit_code == 0
    assert management.accounts()["acme-2"].workers == 3, "as many as before"
    management.close()

    done = site.run("revoke", "acme-1")
    assert (done.stdout, done.stderr) == ("acme-1: revoked\n", "")
    done = site.run("revoke", "acme-1")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "acme-1: revoked\n", "")
    with pytest.raises(AMQPError):
        publish(again, "acme-1")
    with pytest.raises(AMQPError):
        site.connect("acme-1", second)
    assert {row["name"]: row["state"] for row in site.rows("list")} == {
        "acme-1": "revoked",
        "acme-2": "enrolled",
        "acme-3": "enrolled",
        "other": "enrolled",
    }
    aggregator.close()


def test_state_and_faults_of_a_sensor_are_shown(site: Fleet, table: Table) -> None:
    """Sensors are enrolled, heard, silent, deleted at the broker, retired, or in a new epoch."""
    assert site.run("enroll", "acme-1", "acme-2", bundles=True).exit_code == 0
    assert site.faults() == set(), "an enrolled sensor is installed within a day"
    table.run("UPDATE sensor SET enrolled_at = now() - interval '25 hours'")
    assert site.faults() == {("acme-1", "not_heard"), ("acme-2", "not_heard")}
    assert site.faults("--operator", "acme-2") == {("acme-2", "not_heard")}

    store = ingest_store(site.dsn)
    batch = made_batch(
        greet("192.0.2.1", hits=3),
        sensor="acme-1",
        version="0.2.0",
        depth=7,
        drops=2,
        addresses=16,
        counters={"connections": 5, "refused": 0},
    )
    first = made_batch(sensor="acme-1", sealed_ms=batch.sealed_ms - 1_000)
    assert apply(store, first).new_sensors == ("acme-1",), "it was enrolled, and never heard"
    assert apply(store, batch).new_sensors == ()
    store.close()
    table.run(
        "INSERT INTO refusal (account, hour, reason, messages, octets, kept, kept_octets, detail)"
        " VALUES ('acme-1', date_trunc('hour', now()), 'not_a_batch', 4, 400, 0, 0, '')"
    )
    sensor = site.connect("acme-1", site.password("acme-1"))
    card = site.rows("show", "acme-1")
    assert (card["state"], card["version"], card["epoch"]) == ("alive", "0.2.0", 1)
    assert (card["spool_depth"], card["drops"], card["addresses"]) == (7, 2, 16)
    assert (card["last_client"], card["counters"]) == ("192.0.2.1", {"connections": 5})
    assert (card["refused_24h"], card["refused"]) == (4, {"not_a_batch": 4})
    assert (card["login"], card["rights"]) == ("password", [])
    assert card["limits"] == {"connections": 5, "channels": 10}
    assert card["first_heard"] <= card["last_heard"]
    text = site.run("show", "acme-1").stdout
    assert re.search(r"^last client +192\.0\.2\.1$", text, re.MULTILINE)
    assert "retired" not in text, "a line of which nothing is known is left out"
    assert site.run("show", "nobody").exit_code == 1

    table.run("UPDATE sensor SET heard_at = now() - interval '1 hour', spool_depth = 90000")
    admin = site.rabbitmq.admin
    admin.call("DELETE", "topic-permissions", VHOST, "acme-1")
    admin.call("DELETE", "user-limits", "acme-2", "max-channels")
    by_hand = SensorAccount("by-hand", new_password())
    management = Management(site.url, site.rabbitmq.home.password, vhost=VHOST)
    assert list(management.put_sensors([by_hand])) == [1]
    assert site.faults("--skew-s", "9999999") == {
        *(("acme-1", fault) for fault in ("silent", "rights", "spool", "drops", "refused")),
        *(("acme-2", fault) for fault in ("silent", "limits", "spool")),
        ("by-hand", "no_row"),
    }
    assert ("acme-1", "skew") in site.faults()
    # Enrolled again, each account gets its rights back and keeps its password.
    assert site.run("enroll", "acme-1", "acme-2", "by-hand", bundles=True).exit_code == 0
    left = site.faults("--skew-s", "9999999", "--drops", "2", "--spool-rows", "90000")
    assert left == {("acme-1", "silent"), ("acme-2", "silent"), ("acme-1", "refused")}

    # Its account was deleted at the broker, without `fleet revoke`.
    admin.delete_user("acme-1")
    assert ("acme-1", "no_account") in site.faults()
    assert site.run("retire", "acme-1", "acme-2").stdout == "acme-1: retired\nacme-2: retired\n"
    with pytest.raises(AMQPError):
        publish(sensor, "acme-1")
    assert site.faults() == set()
    assert "silent" not in site.run("list").stdout
    assert {row["name"]: row["state"] for row in site.rows("list")}["acme-1"] == "retired"
    (listed,) = json.loads(sensors_of(site, "list"))
    assert listed["sensor"] == "by-hand"
    assert len(json.loads(sensors_of(site, "list", "--all"))) == 3
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 3}, "its past stays"
    assert list(management.put_sensors([SensorAccount("acme-2", "stolen")])) == [1]
    assert site.faults() == {("acme-2", "revoked_account")}
    management.delete("acme-2")
    management.close()

    assert site.run("enroll", "acme-1", bundles=True).exit_code == 0
    card = site.rows("show", "acme-1")
    assert (card["state"], card["epoch"], card["retired"]) == ("enrolled", 2, None)
    assert site.faults() == {("acme-1", "refused")}, "a day has not passed"


def test_account_that_fills_the_brokers_memory_in_a_transaction_is_named_and_revoked(
    site: Fleet,
) -> None:
    """Its messages reach no queue, so the aggregator cannot name it."""
    assert site.run("enroll", "acme-1", "acme-2", bundles=True).exit_code == 0
    thief, honest = (site.connect(name, site.password(name)) for name in ("acme-1", "acme-2"))
    publish(honest, "acme-2")
    channel = thief.channel()
    channel.tx_select()
    sent = pika.BasicProperties(user_id="acme-1")
    for _ in range(50):
        channel.basic_publish(EXCHANGE, routing_key("acme-1"), bytes(1_000), sent)
    wait_until(
        lambda: "it holds 50 messages in the broker's memory" in site.run("check").stdout,
        what="the account is named",
    )
    assert site.faults() == {("acme-1", "transaction")}
    assert site.run("revoke", "acme-1").exit_code == 0
    wait_until(lambda: site.faults() == set(), what="the broker holds nothing of it")
    with pytest.raises(AMQPError):
        channel.tx_commit()
    publish(honest, "acme-2")
    honest.close()


def unpack(site: Fleet, name: str, to: Path) -> dict[str, Any]:
    """Unpack a bundle into a folder as its install script does; the sensor's settings."""
    to.mkdir()
    with tarfile.open(site.folder / f"{name}.tar.gz") as tar:
        for member in tar.getmembers():
            if member.isfile() and member.name.count("/") == 1:
                file = tar.extractfile(member)
                assert file is not None
                (to / member.name.rpartition("/")[2]).write_bytes(file.read())
    return tomllib.loads((to / "sensor.toml").read_text().replace("/etc/smtpfeeds", str(to)))


def test_sensors_with_client_certificates_deliver_until_they_are_revoked(
    site: Fleet, certificates: Certificates, tmp_path: Path
) -> None:
    """It uses real TLS, `EXTERNAL`, and real sensors with the files of their bundles."""
    site.ca = certificates.fleet
    words = ("--certificate", "--broker-ca", str(certificates.authority))
    refused = site.run("enroll", "tls-1", *words, bundles=True)
    assert "a client certificate needs TLS" in str(refused.exception)
    assert site.rows("list", "--operator", "tls-") == []
    assert site.run("enroll", "tls-1", *words, bundles=True, tls=True).exit_code == 0
    node = site.rabbitmq
    node.admin.permit(node.home.user, VHOST, configure=".*", write=".*", read=".*")
    centre = Centre(Vhost(node, VHOST, node.url(VHOST)))
    centre.declare_queue()
    host = tmp_path / "host"
    settings = unpack(site, "tls-1", host)
    assert not (host / "broker-password").exists()
    assert stat.S_IMODE((site.folder / "tls-1.tar.gz").stat().st_mode) == 0o600
    key = (host / "broker.key").read_bytes()
    kept = [path.read_bytes() for path in site.ca.rglob("*.*")]
    assert not any(key in content for content in kept), "the key is in the bundle alone"

    settings |= {"listen": ["127.0.0.1:0"], "seal_interval_s": 0.1}
    with running(tmp_path / "sensor", **settings) as sensor:
        with sensor.connect() as client:
            client.reply()
            assert client.say(b"EHLO client.example\r\n") == 250
        properties, body = centre.take_events()
        assert (properties.user_id, decode(body).batch.sensor) == ("tls-1", "tls-1")

        management = Management(site.url, node.home.password, vhost=VHOST)
        # The list of an account's connections lacks the mechanism of their login.
        wait_until(
            lambda: (
                [
                    (one.is_tls, one.mechanism)
                    for one in management.connections()
                    if one.account == "tls-1"
                ]
                == [(True, "EXTERNAL")]
            ),
            what="the connection is listed",
        )
        card = site.rows("show", "tls-1")
        assert (card["login"], card["rights"]) == ("certificate", [])
        assert card["certificate_expires"] is not None
        assert site.faults() == set()
        due = site.faults("--certificate-days", "3650")
        assert {fault for _, fault in due} == {"certificate_expires"}

        # The broker only uses the name in a certificate, which is useless without its account.
        assert site.run("revoke", "tls-1").exit_code == 0
        link = BrokerLink.of_settings(SensorSettings(**loaded(settings)))
        with pytest.raises(BrokerRefused, match="tls-1"):
            link.open()
        again = site.run("enroll", "tls-1", *words, bundles=True, tls=True)
        assert "works again with a new account" in str(again.exception)
        with_password = site.run("enroll", "tls-1", bundles=True)
        assert "works again with a new account" in str(with_password.exception)

        # If the key is safe, the sensor continues with its old certificate.
        done = site.run("enroll", "tls-1", "--reuse-name", *words, bundles=True, tls=True)
        assert done.exit_code == 0, done.output
        link.open()
        link.close()
        done = site.run("rotate", "tls-1", *words[1:], bundles=True, tls=True)
        assert done.exit_code == 0, done.output
        assert "an earlier certificate works until" in done.stderr
        renewed = unpack(site, "tls-1", tmp_path / "renewed")
        assert Path(renewed["broker_key_file"]).read_bytes() != key
        link = BrokerLink.of_settings(SensorSettings(**loaded(renewed)))
        link.open()
        link.close()
        management.close()
        centre.connection.close()


def test_a_broker_that_accepts_no_client_certificates_is_named(
    site: Fleet, certificates: Certificates
) -> None:
    """The setting is changed while the broker runs, and set back."""
    site.ca = certificates.fleet
    words = ("--certificate", "--broker-ca", str(certificates.authority))
    assert site.run("enroll", "tls-2", *words, bundles=True, tls=True).exit_code == 0
    assert site.run("enroll", "with-password", bundles=True).exit_code == 0
    node = site.rabbitmq
    put = "application:set_env(rabbit, auth_mechanisms, {})"
    management = Management(site.url, node.home.password, vhost=VHOST)
    every = node.ctl(
        "eval",
        "{ok, All} = application:get_env(rabbit, auth_mechanisms), "
        + put.format("['PLAIN']")
        + ", All.",
    )
    try:
        wait_until(
            lambda: not management.accepts_certificates(), limit_s=60, what="the API shows it"
        )
        assert site.faults() == {("tls-2", "no_external")}
        refused = site.run("enroll", "tls-3", *words, bundles=True, tls=True)
        assert "the broker accepts no client certificates: run" in str(refused.exception)
        centre = site.folder / "centre"
        done = site.run("set-up", "--password-file", str(centre))
        assert (done.exit_code, "accepts no client certificates" in done.stderr) == (0, True)
    finally:
        node.ctl("eval", put.format(every.strip()) + ".")
    wait_until(management.accepts_certificates, limit_s=60, what="the API shows it again")
    management.close()
    assert site.faults() == set()


def loaded(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a file as the program's own."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }


def sensors_of(site: Fleet, *words: str) -> str:
    return CliRunner().invoke(sensors, [*words, "--json", "--dsn", site.dsn]).stdout


def test_account_is_revoked_while_the_database_is_unavailable(site: Fleet) -> None:
    assert site.run("enroll", "acme-1", bundles=True).exit_code == 0
    site.dsn = "host=127.0.0.1 port=1 dbname=nobody"
    done = site.run("revoke", "acme-1")
    assert (done.exit_code, done.stdout) == (0, "acme-1: revoked\n")
    assert "not recorded in the database" in done.stderr
    assert site.run("check").exit_code != 0


def test_scripts_without_the_plugin_give_the_same_rights(rabbitmq: RabbitNode, site: Fleet) -> None:
    """It uses the real `rabbitmqctl`; a password goes to stdin and is never shown."""
    for name in (CENTRE, "by-script"):
        (site.folder / name).write_text("the password\n")
    _script(rabbitmq, "set-up-centre.sh", str(site.folder / CENTRE))
    shown = _script(rabbitmq, "add-sensor.sh", "by-script", str(site.folder / "by-script"), "2")
    assert shown == ""
    management = Management(site.url, rabbitmq.home.password, vhost="smtpfeeds")
    accounts = management.accounts()
    management.close()
    assert accounts[CENTRE].permissions == {"smtpfeeds": CENTRE_RIGHTS}
    assert list(wrong_rights(accounts["by-script"], "smtpfeeds")) == []
    assert list(wrong_limits(accounts["by-script"])) == []
    assert accounts["by-script"].workers == 2
    assert accounts["by-script"].has_password
    credentials = pika.PlainCredentials("by-script", "the password")
    where = (rabbitmq.host, rabbitmq.port, "smtpfeeds", credentials)
    pika.BlockingConnection(pika.ConnectionParameters(*where)).close()
    rabbitmq.admin.delete_user("by-script")
    rabbitmq.admin.delete_vhost("smtpfeeds")


def _script(node: RabbitNode, name: str, *words: str) -> str:
    # RABBITMQ_NODENAME names the node: with --node, rabbitmqctl 4 reads no password from stdin.
    environ = node.environment()
    environ["PATH"] = f"{scripts_folder()}{os.pathsep}{environ['PATH']}"
    script = Path(__file__).parents[2] / "deploy" / "rabbitmq" / name
    done = subprocess.run(
        [script, *words], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("enroll", "Berlin"), "1 to 63 of a-z"),
        (("enroll", CENTRE), "the aggregator's account"),
        (("enroll", "{admin}"), "is not a sensor's: choose another name"),
        (("revoke", "nobody"), "no sensor has the account nobody"),
        (("enroll",), "name a sensor, or give --file"),
    ],
)
def test_command_that_would_affect_another_account_is_refused(
    site: Fleet, words: tuple[str, ...], message: str
) -> None:
    command, *rest = words
    rest = [word.format(admin=site.rabbitmq.home.user) for word in rest]
    done = site.run(command, *rest, bundles=command == "enroll")
    assert done.exit_code != 0
    assert message in f"{done.output}{done.exception}"
    assert list(site.folder.glob("*.tar.gz")) == []
