"""`smtpfeeds feed serve`: show a folder of published feeds in a browser."""

import sys
from pathlib import Path
from typing import Final

import click

from smtpfeeds_common.errors import FAILED, SettingsError

_MANIFEST: Final = "manifest.json"


@click.command(short_help="Serve a folder of published feeds on this host.")
@click.argument("feeds", type=click.Path(path_type=Path, file_okay=False), metavar="FEEDS-FOLDER")
@click.option(
    "--listen", default="127.0.0.1:8080", show_default=True, help="HOST:PORT to listen on."
)
def serve(feeds: Path, listen: str) -> None:
    """Serve a folder of published feeds, such as DIR/feeds of `smtpfeeds up`, until Ctrl-C.

    It is for you to look at the page, not for the Internet: there is no TLS and no limit. Example:

    \b
      smtpfeeds feed serve site/feeds --listen 127.0.0.1:8080
    """
    if not (feeds / _MANIFEST).exists():
        raise SettingsError(
            f"{feeds} has no published feeds ({_MANIFEST} is missing): give the folder `feeds` "
            "in the aggregator's feeds_dir"
        )
    from smtpfeeds_common.host_port import parse_host_port

    from ..publish.server import FeedsServer

    host, port = parse_host_port(listen, setting="--listen", example="127.0.0.1:8080")
    try:
        server = FeedsServer((host, port), feeds)
    except OSError as exc:
        click.echo(
            f"smtpfeeds: cannot listen on {listen}: {exc.strerror}; give another --listen",
            err=True,
        )
        raise click.exceptions.Exit(FAILED) from exc
    shown = f"[{host}]" if ":" in host else host
    with server:
        click.echo(
            f"http://{shown}:{server.server_port}/ (to look at the page; not for the Internet)"
        )
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
