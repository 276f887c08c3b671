"""Health and metrics, as service managers and load balancers see them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from servers.processes import HANG_LIMIT_S
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.metrics_http import MetricsServer
from smtpfeeds_common.errors import SettingsError


def test_part_with_trouble_or_without_a_beat_is_unhealthy() -> None:
    now = [100.0]
    health = Health(lambda: now[0])
    health.beat("store", within_s=10)
    health.trouble("database", "away")
    assert health.problems() == ["database: away"]
    assert health.stuck() == []
    health.well("database")
    now[0] += 11
    assert health.problems() == ["store: silent for 11 s"]
    assert health.stuck() == ["store"]
    health.beat("store", within_s=10)
    assert health.problems() == []


@pytest.fixture
def served() -> Iterator[tuple[str, Metrics, Health]]:
    metrics, health = Metrics(), Health()
    server = MetricsServer("127.0.0.1:0", metrics, health)
    stop = Event()
    thread = Thread(target=server.run, args=(stop,))
    thread.start()
    yield f"http://127.0.0.1:{server.port}", metrics, health
    stop.set()
    thread.join(60)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=HANG_LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_metrics_and_health_over_http(served: tuple[str, Metrics, Health]) -> None:
    url, metrics, health = served
    metrics.batches.inc(3)
    metrics.refused.labels("rows").inc()
    status, text = get(url + "/metrics")
    assert status == 200
    assert "smtpfeeds_ingest_batches_total 3.0" in text
    assert 'smtpfeeds_ingest_refused_total{kind="rows"} 1.0' in text
    assert get(url + "/health") == (200, "ok\n")
    health.trouble("database", "away")
    assert get(url + "/health") == (503, "database: away\n")
    assert get(url + "/else")[0] == 404


def test_metrics_are_served_over_ipv6_too() -> None:
    server = MetricsServer("[::1]:0", Metrics(), Health())
    stop = Event()
    thread = Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        assert get(f"http://[::1]:{server.port}/health") == (200, "ok\n")
    finally:
        stop.set()
        thread.join(60)


def test_port_in_use_is_a_settings_error() -> None:
    for listen in ("127.0.0.1:99999", "nonsense", "192.0.2.1:80"):
        with pytest.raises(SettingsError, match="metrics_listen"):
            MetricsServer(listen, Metrics(), Health())
