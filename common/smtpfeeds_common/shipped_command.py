"""`smtpfeeds shipped`: list and write out the units, scripts and examples of this version.

An installation without a checkout has them inside the wheel. The command is separate from
``shipped`` because programs use that module without a command line.
"""

from pathlib import Path
from typing import Final

import click

from .answers import Form, format_options, write_records
from .columns import Column
from .shipped import shipped_file, shipped_names, write_shipped

_COLUMNS: Final = (
    Column("file", help="as `shipped write` takes it"),
    Column("bytes", "integer"),
)


@click.group()
def shipped() -> None:
    """Units, broker scripts and examples of this version."""


@shipped.command("list")
@format_options(_COLUMNS)
def list_(form: Form) -> None:
    """List the files.

    \b
    Example:
      smtpfeeds shipped list
    """
    records = ({"file": name, "bytes": len(shipped_file(name))} for name in shipped_names())
    write_records(records, form, "nothing is shipped with this installation")


@shipped.command()
@click.argument("target", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", nargs=-1)
def write(target: Path, names: tuple[str, ...]) -> None:
    """Write all files, or those with these names, below FOLDER.

    The name of a folder selects all files in it. The command never overwrites a file that differs
    from this version's.

    \b
    Examples:
      smtpfeeds shipped write /tmp/smtpfeeds-files
      smtpfeeds shipped write /tmp/smtpfeeds-files systemd
    """
    known = shipped_names()
    chosen = known if not names else [each for each in known if _is_named(each, names)]
    for name in names:
        if not any(_is_named(each, (name,)) for each in known):
            raise click.BadParameter(f"nothing that is shipped has the name {name!r}")
    for each in chosen:
        click.echo(write_shipped(target, each))


def _is_named(file: str, names: tuple[str, ...]) -> bool:
    return any(file == name or file.startswith(f"{name.rstrip('/')}/") for name in names)
