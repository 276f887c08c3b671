"""Let a command of root write into a folder as the folder's owner."""

import sys
from pathlib import Path

import click

from smtpfeeds_common.users import become_owner


def write_as_owner(folder: str, content: str) -> None:
    """As root, become the owner of what the aggregator has in the folder of a setting.

    `smtpfeeds up` of root may use a folder of another user, so the content counts, if there is any.

    Args:
        folder: the setting; empty if it is not set.
        content: the name of the folder in it that the aggregator creates.

    Raises:
        SettingsError: root may not become the owner, or the owner cannot run this program.
    """
    name = become_owner(Path(folder, content)) if folder else ""
    if name and sys.stderr.isatty():
        click.echo(f"smtpfeeds: working as user {name}, the owner of {folder}", err=True)
