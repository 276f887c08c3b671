"""`smtpfeeds publish`: publish now, show the last publications, create a key."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from smtpfeeds_common import logs
from smtpfeeds_common.answers import text_or_json
from smtpfeeds_common.errors import PublishError, SmtpfeedsError
from smtpfeeds_common.times import iso_utc

from .as_owner import write_as_owner
from .database import NoDatabase, connected
from .options import own_options

if TYPE_CHECKING:
    from ..publish.once import Published
    from ..publish.status import Failure
    from ..settings import AggregatorSettings

#: Pause between tries while another process publishes; its edition may lack the newest changes.
_AGAIN_S: Final = 0.5
#: A full disk may keep a run from noting its failure, and an aggregator that is away notes none.
_OVERDUE: Final = (
    "the edition has expired and there is no newer edition: see whether an aggregator runs, its "
    "log, and the space on the disk"
)


@click.group()
def publish() -> None:
    """Publish the feeds now, show the last publications, create a signing key."""


@publish.command(short_help="Publish the feeds now.")
@click.option(
    "--force", is_flag=True, help="Publish numbers that are too far from the previous edition."
)
@click.option(
    "--wait", "wait_s", default=600.0, show_default=True, help="Seconds to wait for another run."
)
@text_or_json
@own_options
def now(settings: "AggregatorSettings", *, force: bool, wait_s: float, as_json: bool) -> None:
    """Publish the feeds now, in addition to the aggregators' schedule.

    It uses the aggregator's settings, and waits while an aggregator publishes. As root it becomes
    the owner of the feeds' folder. It does not publish numbers too far from the previous edition
    (exit code 3): find the cause, then use --force.

    \b
    Examples:
      smtpfeeds publish now
      smtpfeeds publish now --force
    """
    from ..publish.generation import SERVED
    from ..publish.memory import use_one_arena
    from ..publish.status import StatusFile

    use_one_arena()
    feeds_dir = _feeds_dir(settings)
    logs.configure("warning", settings.log_format)
    write_as_owner(settings.feeds_dir, SERVED)
    try:
        published = _publish(settings, force=force, wait_s=wait_s)
    except NoDatabase:
        raise  # nothing ran
    except SmtpfeedsError as exc:
        from ..publish.failures import reason_of

        StatusFile(feeds_dir).failed(exc.message, reason_of(exc))
        raise
    if as_json:
        click.echo(
            msgspec.json.encode(
                {
                    "generation": published.generation.name,
                    "generated": iso_utc(published.generated),
                    "addresses": published.addresses,
                    "left_out": published.left_out,
                    "seconds": round(published.seconds, 3),
                    "not_cleaned": published.not_cleaned,
                }
            ).decode()
        )
        return
    counts = ", ".join(f"{feed} {count}" for feed, count in published.addresses.items())
    click.echo(f"published {published.generation.name} in {published.seconds:.1f} s: {counts}")
    if published.not_cleaned is not None:
        click.echo(f"not cleaned up: {published.not_cleaned}; the next publication tries again")


def _publish(settings: "AggregatorSettings", *, force: bool, wait_s: float) -> "Published":
    from ..classification.lists.in_use import ListSource
    from ..origin import OriginSource
    from ..publish.once import publish_once

    origins, lists = OriginSource(settings), ListSource(settings)
    origins.load()
    lists.load()
    until_s = time.monotonic() + wait_s
    with connected(settings.for_publishing, write=True, long=True) as connection:
        while True:
            published = publish_once(
                settings, origins.current, connection, lists=lists.current, force=force
            )
            if published is not None:
                return published
            if time.monotonic() > until_s:
                raise PublishError(
                    f"another process has been publishing {settings.feeds_dir} for {wait_s:g} s"
                )
            time.sleep(_AGAIN_S)


@publish.command(short_help="Show the last and the next publication.")
@text_or_json
@own_options
def status(settings: "AggregatorSettings", *, as_json: bool) -> None:
    """Show what is published, which host published it, what is left out, and when the next is due.

    While a publication runs, it shows since when, in which process, and its time limit. Where the
    last run failed, was killed or refused, or could not clean up files of past editions, it says
    why; it also shows the last failure before the present edition. It reads the feeds directory
    and needs no database; times are UTC. Exit code 1 if nothing is published, the edition has
    expired, or the last run failed or did not clean up.

    \b
    Examples:
      smtpfeeds publish status
      smtpfeeds publish status --format json
    """
    state = _state(settings)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(state)).decode())
    else:
        width = max(map(len, state))
        for key, value in state.items():
            for part in _parts(value):
                click.echo(f"{key.replace('_', ' '):{width}}  {part}")
    if state["published"] is None or any(
        state[fault] for fault in ("overdue", "last_failure", "not_cleaned")
    ):
        raise click.exceptions.Exit(1)


@publish.command(short_help="Create a key that signs the feeds.")
@click.argument("secret", type=click.Path(path_type=Path, dir_okay=False), metavar="SECRET-FILE")
@click.argument("public", type=click.Path(path_type=Path, dir_okay=False), metavar="PUBLIC-FILE")
def keygen(secret: Path, public: Path) -> None:
    """Create a minisign key pair: a secret key that signs, and a public key for readers.

    The secret key has no password, and only its owner may read it (mode 0600). The command never
    overwrites a file. Example:

    \b
      smtpfeeds publish keygen /etc/smtpfeeds/feeds.key feeds.pub
    """
    from ..publish.signing import generate_keys

    text = generate_keys(secret, public)
    click.echo(f"secret key in {secret}: name it in the setting signing_key_file, and keep a copy")
    click.echo(f"public key in {public}, for readers: {text}")


def _state(settings: "AggregatorSettings") -> dict[str, Any]:
    """Return the status, under stable names."""
    from ..publish.generation import FeedsDirectory
    from ..publish.grid import expiry, next_point
    from ..publish.status import StatusFile

    directory = FeedsDirectory(_feeds_dir(settings))
    file = StatusFile(directory.path)
    noted, running, generated = file.read(), file.read_running(), directory.generated()
    success, now_s = noted.success, time.time()
    interval_s = settings.publish_interval_s
    expires_s = None if generated is None else expiry(generated.timestamp(), interval_s)
    return {
        "feeds_dir": str(directory.served),
        "published": None if generated is None else iso_utc(generated),
        "expires": None if expires_s is None else iso_utc(datetime.fromtimestamp(expires_s, UTC)),
        "overdue": None if expires_s is None or now_s <= expires_s else _OVERDUE,
        "next": iso_utc(datetime.fromtimestamp(next_point(now_s, interval_s), UTC)),
        "published_by": success and success.by,
        "generation": success and success.generation,
        "seconds": success and round(success.seconds, 3),
        "addresses": success and success.addresses,
        "left_out": success and success.left_out,
        "not_written": (success and success.not_written) or None,
        "not_cleaned": file.not_cleaned(),
        "running": running
        and {
            "since": iso_utc(running.since),
            "by": running.by,
            "process_id": running.process_id,
            "timeout_s": running.timeout_s,
        },
        "timeout_s": settings.publish_timeout_s,
        "last_failure": _failure(noted.failure),
        "earlier_failure": _failure(noted.earlier_failure),
    }


def _failure(failure: "Failure | None") -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "time": iso_utc(failure.time),
        "by": failure.by,
        "refused": failure.refused,
        "kind": failure.kind,
        "reason": failure.reason,
    }


def _parts(value: Any) -> Iterator[str]:
    """Format a value as lines of text."""
    if value is None:
        yield "-"
    elif not isinstance(value, dict):
        yield str(value)
    elif "reason" in value:
        kind = "refused" if value["refused"] else f"failed ({value['kind'].replace('_', ' ')})"
        yield f"{value['time']} by {value['by']}: {kind}: {value['reason']}"
    elif "process_id" in value:
        limit = (
            "no time limit" if value["timeout_s"] is None else f"at most {value['timeout_s']:g} s"
        )
        yield f"since {value['since']} by {value['by']}, process {value['process_id']}, {limit}"
    else:
        for feed, counts in value.items():
            yield f"{feed}: {_counts(counts)}"


def _counts(counts: Any) -> str:
    if not isinstance(counts, dict):
        return str(counts)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _feeds_dir(settings: "AggregatorSettings") -> Path:
    if not settings.feeds_dir:
        from ..settings import missing

        raise missing("feeds_dir", "the directory for the feeds")
    return Path(settings.feeds_dir)
