"""TLS to a broker with IPv6 only, and certificates that are renewed while both ends run."""

from __future__ import annotations

import logging
import shutil
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest

import ingest_support
import sensor_support
from ingest_support import Table, settings_of, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from sensor_support import SensorProcess
from servers import rabbitmq
from servers.certificates import Certificates
from servers.processes import HANG_LIMIT_S
from servers.rabbitmq import RabbitNode
from smtpfeeds_aggregator.cli.check_config import check
from smtpfeeds_common.certificates import file_expiry, iso_day
from smtpfeeds_common.topology import EXCHANGE

# ruff: noqa: F811 - fixtures are imported by name and used by name

VHOST = "smtpfeeds"
#: Makes the broker read its files again and close every connection.
_FORGET_AND_CLOSE = """
    ssl:clear_pem_cache(),
    [rabbit_networking:close_connection(Pid, "renewed") || Pid <- rabbit_networking:connections()].
"""
_AT_CENTRE = "smtpfeeds_certificate_expiry_timestamp_seconds"
#: The state of a listening socket in /proc/net/tcp6.
_LISTEN = "0A"


def test_broker_with_ipv6_only_and_certificates_renewed_at_both_ends_without_a_restart(
    tmp_path: Path, dsn: str, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    """Delivery continues with another authority; both ends show and warn of the expiry."""
    soon = Certificates.make(tmp_path / "soon", timedelta(days=9))
    later = Certificates.make(tmp_path / "later", timedelta(days=90))
    end = file_expiry(str(soon.certificate))
    renewed_end = file_expiry(str(later.certificate))
    assert end is not None
    assert renewed_end is not None
    caplog.set_level(logging.WARNING)
    with rabbitmq.running(tmp_path / "rabbitmq", certificates=soon, host="::1") as node:
        broker = f"[::1]:{node.tls_port}/{VHOST}"
        _accounts(node)
        settings = settings_of(
            dsn,
            f"amqps://{node.home.user}:{node.home.password}@{broker}",
            broker_ca_file=str(soon.authority),
        )
        with (
            ingest_support.running(settings) as service,
            sensor_support.running(
                tmp_path,
                broker=[f"amqps://s1@{broker}"],
                broker_password="[of s1]",
                broker_ca_file=str(soon.authority),
                metrics_listen="[::1]:0",
                seal_interval_s=0.05,
                backoff_max_s=1,
            ) as sensor,
        ):
            _greet(sensor)
            until(lambda: table.one("SELECT sum(hits) FROM observation") == 1, "it is stored")
            until(lambda: _shown(sensor).get("broker") == end, "the sensor shows the broker's")
            until(
                lambda: service.metrics.certificates.all.get("broker") == end, "so does the centre"
            )
            shown = service.metrics.registry.get_sample_value(_AT_CENTRE, {"certificate": "broker"})
            assert shown == end
            expected = f"certificate=broker expires={iso_day(end)}"
            until(lambda: expected in sensor.log.read_text(), "the sensor warns")
            until(lambda: _warned(caplog, "broker", "broker_ca_file"), "the centre warns")
            assert f"broker_ca_file: expires {iso_day(end)}" in sensor.call("check-config").stderr
            assert f"broker_ca_file: expires {iso_day(end)}" in list(check(settings))

            # The broker gets a certificate of another authority.
            for name in ("authority", "certificate", "key"):
                shutil.copyfile(getattr(later, name), getattr(soon, name))
            node.ctl("eval", _FORGET_AND_CLOSE)
            _greet(sensor)
            until(lambda: table.one("SELECT sum(hits) FROM observation") == 2, "it is stored too")
            until(lambda: _shown(sensor).get("broker") == renewed_end, "the sensor shows the new")
            until(lambda: _shown(sensor).get("broker_ca_file") == renewed_end, "and the authority")
            until(
                lambda: service.metrics.certificates.all["broker"] == renewed_end,
                "the centre shows the new",
            )
            assert sensor.stop() == 0
    assert table.one("SELECT count(*) FROM sensor") == 1


def _accounts(node: RabbitNode) -> None:
    node.admin.add_vhost(VHOST)
    node.admin.permit(node.home.user, VHOST, configure=".*", write=".*", read=".*")
    node.admin.add_user("s1", "[of s1]")
    node.admin.permit("s1", VHOST, configure="^$", write=f"^{EXCHANGE}$", read="^$")
    node.admin.permit_topic("s1", VHOST, EXCHANGE, write=r"^observations\.s1$")


def _greet(sensor: SensorProcess) -> None:
    with sensor.connect() as client:
        assert client.reply() == 220
        assert client.say(b"EHLO client.example\r\n") == 250


def _shown(sensor: SensorProcess) -> dict[str, float]:
    """Return when the certificates expire, from the sensor's metrics."""
    port = _metrics_port(sensor)
    with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=HANG_LIMIT_S) as answer:
        lines = answer.read().decode().splitlines()
    prefix = 'smtpfeeds_sensor_certificate_expiry_timestamp_seconds{certificate="'
    pairs = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
    return {name: float(value) for name, value in pairs}


def _metrics_port(sensor: SensorProcess) -> int:
    """Return the port of [::1] on which it listens besides that for SMTP."""
    assert sensor.process is not None
    proc = Path(f"/proc/{sensor.process.pid}")
    sockets = {str(each.readlink()) for each in (proc / "fd").iterdir()}
    rows = [line.split() for line in (proc / "net/tcp6").read_text().splitlines()[1:]]
    ports = {
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[3] == _LISTEN and f"socket:[{row[9]}]" in sockets
    }
    (port,) = ports - {sensor.place(1)[1]}
    return port


def _warned(caplog: pytest.LogCaptureFixture, *names: str) -> bool:
    warned = {
        getattr(record, "fields", {}).get("certificate")
        for record in caplog.records
        if record.message == "certificate expires soon; replace it"
    }
    return set(names) <= warned
