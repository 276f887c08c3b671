"""The Prometheus endpoint: counters and a few gauges. Only this module imports prometheus_client.

It has its own thread, so a slow reader of metrics does not block the reactor.
"""

from collections.abc import Callable, Iterator, Mapping
from threading import Thread
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.host_port import HostPort, parse_host_port
from smtpfeeds_common.small_server import SmallHandler, SmallServer

from .counters import COUNTERS

_PREFIX: Final = "smtpfeeds_sensor_"
GAUGES: Final = {
    "open_connections": "connections open now",
    "open_sources": "addresses and /64s with an open connection",
    "tls_connections": "connections in TLS now",
    "spool_events_in_memory": "events heard and not yet in the spool file",
    "spool_in_outage": "1 while the spool cannot be written",
    "clock_in_doubt": "1 while the host's clock is in doubt, and nothing is sealed",
    "spool_rows": "addresses in the spool that wait to be sealed",
    "spool_age_seconds": "since the oldest batch that waits was sealed",
    "spool_bytes": "octets of the spool in use",
    "batches_waiting": "batches sealed and not yet confirmed",
    "confirm_latency_seconds": "how long the last confirm took",
    "broker_connected": "1 while connected to the broker",
    "broker_refusing": "1 while the broker refuses all that is published",
}
#: One for each certificate in use: `broker` is the broker's, the others are named by settings.
CERTIFICATE_EXPIRY: Final = "certificate_expiry_timestamp_seconds"
_EXPIRY: Final = "when a certificate expires, in Unix time"


class MetricsServer:
    """The endpoint."""

    def __init__(
        self,
        listen: str,
        gauges: Callable[[], Mapping[str, float]],
        count: Mapping[str, int],
        certificates: Callable[[], Mapping[str, float]],
        *,
        worker: int = 0,
    ) -> None:
        """Listen.

        Raises:
            SettingsError: it cannot listen.
        """
        host, port = parse_host_port(listen, setting="metrics_listen")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Sensor(gauges, count, certificates))
        try:
            self._server = SmallServer(
                HostPort(host, port + max(0, worker - 1) if port else 0), _handler_of(registry)
            )
        except OSError as exc:
            raise SettingsError(f"metrics_listen: {listen}: {exc.strerror}") from exc
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port."""
        return int(self._server.server_address[1])

    @property
    def is_alive(self) -> bool:
        """Return whether the endpoint still answers."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1)


def _handler_of(registry: CollectorRegistry) -> type[SmallHandler]:
    class Handler(SmallHandler):
        def do_GET(self) -> None:
            """Answer with all metrics, whatever the path."""
            self.answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))

    return Handler


class _Sensor(Collector):
    def __init__(
        self,
        gauges: Callable[[], Mapping[str, float]],
        count: Mapping[str, int],
        certificates: Callable[[], Mapping[str, float]],
    ) -> None:
        self._gauges, self._count, self._certificates = gauges, count, certificates

    def collect(self) -> Iterator[Metric]:
        for name, value in list(self._count.items()):
            yield CounterMetricFamily(_PREFIX + name, COUNTERS[name], value=value)
        for name, number in self._gauges().items():
            yield GaugeMetricFamily(_PREFIX + name, GAUGES[name], value=number)
        expiry = GaugeMetricFamily(_PREFIX + CERTIFICATE_EXPIRY, _EXPIRY, labels=["certificate"])
        for certificate, expires_s in self._certificates().items():
            expiry.add_metric([certificate], expires_s)
        yield expiry
