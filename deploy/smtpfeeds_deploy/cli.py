"""The commands `smtpfeeds up` and `smtpfeeds demo`."""

import sys
from pathlib import Path
from typing import Any

import click

from smtpfeeds_common.addresses import parse_network
from smtpfeeds_common.errors import AddressError, SettingsError
from smtpfeeds_common.existing_path import ExistingPath
from smtpfeeds_common.host_port import parse_host_port

_FILE = ExistingPath(dir_okay=False)
_FOLDER = click.Path(file_okay=False, path_type=Path)


def _listen_address(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Any:
    for text in values:
        try:
            host = parse_host_port(text, example="0.0.0.0:25").host
            if host != "*":
                parse_network(host)
        except SettingsError as exc:
            raise click.BadParameter(exc.message) from exc
        except AddressError as exc:
            raise click.BadParameter(f"{text!r}: {exc.message}") from exc
    return values


def _networks(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Any:
    for text in values:
        try:
            parse_network(text)
        except AddressError as exc:
            raise click.BadParameter(exc.message) from exc
    return values


@click.command()
@click.option("--dir", "folder", type=_FOLDER, required=True, metavar="DIR",
              help="Folder for everything; created if it is missing.")  # fmt: skip
@click.option("--smtp", multiple=True, required=True, metavar="HOST:PORT",
              callback=_listen_address,
              help="Address to listen on for SMTP clients, such as 0.0.0.0:25 or [::]:25; can be "
                   "repeated.")  # fmt: skip
@click.option("--trusted-proxy", multiple=True, metavar="CIDR", callback=_networks,
              help="Network whose connections begin with a PROXY protocol header; can be "
                   "repeated.")  # fmt: skip
@click.option("--origin-table", type=_FILE, metavar="FILE",
              help="pyasn routeview table, plain or .gz; without one every ASN is NA.")  # fmt: skip
@click.option("--as-names", type=_FILE, metavar="FILE",
              help="JSON file of AS names, plain or .gz.")  # fmt: skip
@click.option("--publish-every", type=click.IntRange(1, 86_400), default=60, show_default=True,
              metavar="SECONDS",
              help="Publish at every multiple of this since midnight UTC.")  # fmt: skip
@click.option("--publish-non-global", is_flag=True,
              help="Publish also addresses that are not publicly routable.")  # fmt: skip
@click.option("--publish-exact-counts", is_flag=True,
              help="Publish exact numbers of events and sensors, not rounded ones.")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True,
              help="Show no progress line; errors are still reported.")  # fmt: skip
def up(
    folder: Path,
    smtp: tuple[str, ...],
    trusted_proxy: tuple[str, ...],
    origin_table: Path | None,
    as_names: Path | None,
    publish_every: int,
    publish_non_global: bool,  # noqa: FBT001 - click calls by keyword
    publish_exact_counts: bool,  # noqa: FBT001 - click calls by keyword
    quiet: bool,  # noqa: FBT001 - click calls by keyword
) -> None:
    """Run everything on one host, in one folder.

    It starts a private PostgreSQL, the sensor and the aggregator, prints a line that begins with
    "ready" when all of them listen, and runs until SIGINT or SIGTERM. Started again on the same
    folder, it continues with the stored data. A line at the bottom of the terminal shows the number
    of events, the last publication and any problem; without a terminal it prints a line each
    minute.

    The published feeds are in DIR/feeds. To query, run for example `smtpfeeds query 192.0.2.0/24
    --dir DIR`.

    \b
    Example:
      smtpfeeds up --dir ~/smtpfeeds --smtp 0.0.0.0:25 --smtp [::]:25
    """
    from .single_host.home import Home, Options
    from .single_host.status_line import StatusLine
    from .single_host.up import SingleHost, handle_signals, ready_line

    home = Home(folder)
    options = Options(
        smtp=smtp,
        trusted_proxies=trusted_proxy,
        origin_table=origin_table,
        as_names=as_names,
        publish_every_s=publish_every,
        publish_non_global=publish_non_global,
        publish_exact_counts=publish_exact_counts,
    )
    host = SingleHost(
        home, options, signals=handle_signals(), status_line=StatusLine(sys.stderr, quiet=quiet)
    )
    host.run(lambda: click.echo(ready_line(home)))


@click.command()
@click.option("--dir", "folder", type=_FOLDER, default=Path("demo"), show_default=True,
              metavar="DIR",
              help="Folder for the demo; that of an earlier demo is replaced.")  # fmt: skip
@click.option("--clients", type=click.IntRange(50, 20_000), default=400, show_default=True,
              help="Number of SMTP clients.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True,
              help="The same seed gives the same clients.")  # fmt: skip
@click.pass_context
def demo(context: click.Context, folder: Path, clients: int, seed: int) -> None:
    """Try the whole pipeline with simulated clients.

    It starts `smtpfeeds up` in a folder of its own, runs some hundreds of SMTP clients of many
    kinds against it, shows both feeds, and checks that they match exactly what the clients did. It
    connects to nothing outside of this host.

    \b
    Examples:
      smtpfeeds demo
      smtpfeeds demo --clients 1000 --seed 7 --dir /tmp/demo
    """
    from .demo.run import run_demo

    context.exit(run_demo(folder, clients=clients, seed=seed))
