"""The start of `smtpfeeds aggregator run`: waits for the database, then runs the service.

It waits while the database is unavailable, and logs each reason once. A database that
refuses the DSN or has another schema is a mistake of configuration: the program ends with a
message that says what to do. The source waits for the broker, at the start and later.
"""

import logging
from typing import Final

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import DatabaseUnavailable
from smtpfeeds_common.logs import fields
from smtpfeeds_common.service_address import parse_brokers
from smtpfeeds_common.signals import Signals
from smtpfeeds_common.systemd import notify

from .service import Service
from .settings import AggregatorSettings
from .store.connection import connect, discard
from .store.errors import DatabaseRefused
from .store.migrations import check_schema

logger = logging.getLogger(__name__)

_LONGEST_RETRY_S: Final = 5.0
#: At most this many different reasons are logged for one wait.
_LOGGED_REASONS: Final = 10
#: Longer than an attempt (several hosts, each with its connect timeout) and the wait after it.
_EXTEND: Final = "EXTEND_TIMEOUT_USEC=120000000"


def run(settings: AggregatorSettings) -> int:
    """Run until SIGTERM or SIGINT, which also end the wait. Returns the exit code.

    Raises:
        SettingsError, DatabaseError, OriginError: the program cannot start.
    """
    if settings.broker and not settings.broker[0].startswith("spool:"):
        # Check them now: the wait for the database may be long.
        parse_brokers(settings.broker)
    signals = Signals().install()
    if not wait_for_database(settings, signals):
        return 0
    return Service(settings, signals).run()


def wait_for_database(settings: AggregatorSettings, signals: Signals) -> bool:
    """Wait until the database answers and has this program's schema; False when stopped.

    Raises:
        SettingsError: there is no DSN, or it cannot be parsed.
        DatabaseRefused: the server refuses the account, or does not have the database.
        SchemaMismatch: the schema is missing, older or newer.
    """
    logged: set[str] = set()
    backoff = Backoff(_LONGEST_RETRY_S)
    while not signals.stop:
        try:
            _check(settings)
        except DatabaseRefused:
            raise
        except DatabaseUnavailable as exc:
            # Log each reason once: behind a proxy two of them may alternate for hours.
            if exc.message not in logged and len(logged) < _LOGGED_REASONS:
                logged.add(exc.message)
                logger.warning("waiting for the database", extra=fields(reason=exc.message[:300]))
            notify(f"STATUS=waiting for the database\n{_EXTEND}")
            signals.wait(backoff.next_s())
        else:
            if logged:
                logger.info("database available", extra=fields())
            return True
    return False


def _check(settings: AggregatorSettings) -> None:
    connection = connect(settings, "start", autocommit=True, limit_s=settings.database_timeout_s)
    try:
        check_schema(connection)
    finally:
        discard(connection)
