"""What can be said of the settings without a connection."""

from collections.abc import Iterator
from pathlib import Path

from smtpfeeds_common.errors import SettingsError

from .settings import AggregatorSettings


def check(settings: AggregatorSettings) -> Iterator[str]:
    """Check each setting that `run` needs; a line for each that is good.

    Raises:
        SettingsError: what is wrong, and what to do.
    """
    from .store.connection import connection_parameters

    where = connection_parameters(settings, "check")
    yield f"dsn: host {where.get('host', 'the local socket')}, database {where.get('dbname', '-')}"
    yield _broker(settings)
    if settings.feeds_dir:
        yield f"feeds_dir: {settings.feeds_dir}, every {settings.publish_interval_s} s"
    else:
        yield "feeds_dir: none; this aggregator only ingests"
    for name in ("origin_dir", "origin_table", "as_names"):
        value = getattr(settings, name)
        if value and not Path(value).exists():
            raise SettingsError(f"{name}: there is no {value}")
    yield "the settings are good"


def _broker(settings: AggregatorSettings) -> str:
    if not settings.broker:
        raise SettingsError(
            "the setting 'broker' is missing: give amqps://… addresses, or spool:DIR on one host"
        )
    if settings.broker[0].startswith("spool:"):
        return f"broker: none; spools in {settings.broker[0].removeprefix('spool:')}"
    from .sources.broker import parameters

    nodes = [f"{one.host}:{one.port}" for one in parameters(settings, "check")]
    return f"broker: {', '.join(nodes)}, queue {settings.queue}"
