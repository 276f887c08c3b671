"""The aggregator's metrics for Prometheus.

The only module that imports prometheus_client. Each aggregator has its own
registry, so nothing is global and tests do not share counts.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from smtpfeeds_common.certificates import ExpiryNotes

from .accounts import Flood, RefusedMessage

_PREFIX: Final = "smtpfeeds_ingest_"
#: Results of a publisher's run. Refused: its numbers are implausible. Left to another: another
#: process published.
PUBLISH_RESULTS: Final = ("published", "failed", "refused", "left to another")
#: Accounts with their own metrics; the others count under `OTHER_ACCOUNTS`.
_ACCOUNTS_MAX: Final = 1_000
OTHER_ACCOUNTS: Final = "(others)"
#: Seconds from a batch's sealing to its commit.
_LAG_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600, 86_400)
_TIME_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters and gauges; the help says what each counts, the name has its unit."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.batches = self._counter("batches", "Batches counted, each once.")
        self.duplicates = self._counter("duplicates", "Batches that were counted before.")
        self.rows_read = self._counter("rows_read", "Rows in the batches that were counted.")
        self.rows_written = self._counter("rows_written", "Rows written, after the fold.")
        self.rows_expired = self._counter("rows_expired", "Rows older than the retention.")
        self.rows_overflowed = self._counter(
            "rows_overflowed", "Rows counted under a prefix or an account that was at its bound."
        )
        self.rows_refused = self._counter("rows_refused", "Rows that the schema does not allow.")
        self.refused = self._counter("refused", "Messages refused.", ["kind"])
        self.refused_of_account = self._counter(
            "account_refused", "Messages refused, by account and reason.", ["account", "reason"]
        )
        self.past_bucket = self._counter(
            "account_past_bucket_rows",
            "Rows of new addresses beyond the account's bucket, counted under the account.",
            ["account"],
        )
        self.account_flooding = Gauge(
            _PREFIX + "account_flooding",
            "Messages a second of an account that sends too much.",
            ["account", "reason"],
            registry=self.registry,
        )
        self._accounts: set[str] = set()
        self.redelivered = self._counter("redelivered", "Messages that the source delivered again.")
        self.new_sensors = self._counter("new_sensors", "Sensors heard for the first time.")
        self.holds = self._counter("holds", "Times that batches had to wait for the database.")
        self.timeouts = self._counter(
            "timeouts", "Transactions cancelled because they took too long."
        )
        self.conflicts = self._counter("conflicts", "Transactions that ran again after a conflict.")
        self.broker_losses = self._counter("broker_losses", "Connections to the broker lost.")
        self.consumer_losses = self._counter(
            "consumer_losses", "Consumers cancelled or channels closed by the broker."
        )
        self.spool_dropped = self._counter(
            "spool_dropped_events", "Events dropped because a spool on this host was full."
        )
        self.spool_failures = self._counter(
            "spool_failures", "Times that a spool, or their folder, could not be used."
        )
        self.spool_clock_in_doubt = self._gauge(
            "spool_clock_in_doubt",
            "1 while no spool is sealed because this host's clock is in doubt.",
        )
        self.retired_rows = self._counter("retired_rows", "Rows deleted by age.", ["table"])
        self.compacted = self._counter("compacted_batches", "Applied batches moved to ranges.")
        self.lag = self._histogram(
            "lag_seconds", "Time from a batch's sealing to its commit.", _LAG_BUCKETS
        )
        self.database_time = self._histogram(
            "database_seconds", "Time of a transaction.", _TIME_BUCKETS
        )
        self.fold_time = self._histogram(
            "fold_seconds", "Time to fold a collection, with its origins.", _TIME_BUCKETS
        )
        self.origin_time = self._histogram(
            "origin_seconds", "Time to look up a collection's origins.", _TIME_BUCKETS
        )
        self.consuming = self._gauge("consuming", "1 while batches can arrive.")
        self.holding = self._gauge("holding", "1 while batches wait for the database or its clock.")
        self.refusing_all = self._gauge(
            "refusing_all", "1 while the database refuses even a batch that is known to be good."
        )

        self.clock_in_doubt = Gauge(
            "smtpfeeds_clock_in_doubt",
            "1 while the database's clock is in doubt.",
            ["reason"],
            registry=self.registry,
        )
        self.certificates = ExpiryNotes()
        self.certificate_expiry = Gauge(
            "smtpfeeds_certificate_expiry_timestamp_seconds",
            "When a certificate in use expires, in Unix time.",
            ["certificate"],
            registry=self.registry,
        )
        self.published_at = Gauge(
            "smtpfeeds_publish_last_success_timestamp_seconds",
            "When this aggregator last published; 0: never.",
            registry=self.registry,
        )
        self.publish_runs = Gauge(
            "smtpfeeds_publish_runs", "Runs since the start.", ["result"], registry=self.registry
        )
        for result in PUBLISH_RESULTS:
            self.publish_runs.labels(result)
        self.publish_failures = Gauge(
            "smtpfeeds_publish_failures",
            "Runs since the start that failed or were refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.publish_failed_at = Gauge(
            "smtpfeeds_publish_last_failure_timestamp_seconds",
            "When a run of this aggregator last failed or was refused; 0: never.",
            registry=self.registry,
        )
        self.publish_process_id = Gauge(
            "smtpfeeds_publish_process_id",
            "Id of the process that publishes now; 0: none.",
            registry=self.registry,
        )
        self.publish_process_started_at = Gauge(
            "smtpfeeds_publish_process_start_timestamp_seconds",
            "When the process that publishes now was started; 0: none.",
            registry=self.registry,
        )
        self.publish_timeout = Gauge(
            "smtpfeeds_publish_timeout_seconds",
            "A publishing process that runs longer is killed.",
            registry=self.registry,
        )
        self.publish_not_cleaned = Gauge(
            "smtpfeeds_publish_not_cleaned",
            "1 while files of past editions are not cleaned up after the last publication.",
            registry=self.registry,
        )
        self.published_addresses = Gauge(
            "smtpfeeds_publish_addresses",
            "Addresses last published.",
            ["feed"],
            registry=self.registry,
        )

    def note_certificate(self, name: str, expires_s: float | None) -> None:
        """Show when a certificate in use expires; None when that is not known."""
        self.certificates.note(name, expires_s)
        if expires_s is not None:
            self.certificate_expiry.labels(name).set(expires_s)

    def note_refused(self, messages: Sequence[RefusedMessage]) -> None:
        """Count refused messages by account and reason."""
        for message in messages:
            account = self._named(message.account)
            self.refused_of_account.labels(account, str(message.code)).inc()

    def note_past_bucket(self, rows: Mapping[str, int]) -> None:
        """Count rows that are stored under their account for lack of room in its bucket."""
        for account, number in rows.items():
            self.past_bucket.labels(self._named(account)).inc(number)

    def _named(self, account: str) -> str:
        if account not in self._accounts and len(self._accounts) >= _ACCOUNTS_MAX:
            return OTHER_ACCOUNTS
        self._accounts.add(account)
        return account

    def note_floods(self, floods: Sequence[Flood]) -> None:
        """Show only the accounts that flood now."""
        self.account_flooding.clear()
        for flood in floods[:_ACCOUNTS_MAX]:
            self.account_flooding.labels(flood.account, flood.reason).set(flood.messages_per_s)

    @property
    def published_s(self) -> float:
        """Unix time of the last publication; 0 before the first."""
        name = "smtpfeeds_publish_last_success_timestamp_seconds"
        return self.registry.get_sample_value(name) or 0.0

    def _counter(self, name: str, about: str, labels: list[str] | None = None) -> Counter:
        return Counter(_PREFIX + name, about, labels or (), registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(_PREFIX + name, about, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(_PREFIX + name, about, buckets=buckets, registry=self.registry)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)
