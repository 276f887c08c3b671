"""`smtpfeeds feed verify`: check that published files are those that their publisher signed."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.existing_path import ExistingPath
from smtpfeeds_common.times import iso_utc

if TYPE_CHECKING:
    from ..publish.edition import Edition

#: A time and a line end.
_MAX_OCTETS: Final = 64


@click.command(short_help="Verify published files against their signature.")
@click.argument("path", type=ExistingPath(), metavar="FOLDER|FILE")
@click.option("--key", help="The publisher's public key: RW…, or the file that holds it.")
@click.option("--no-signature", is_flag=True, help="Check hashes and expiry alone.")
@click.option(
    "--newest-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the time of the newest edition in this file, and refuse older ones.",
)
def verify(path: Path, key: str | None, newest_file: Path | None, *, no_signature: bool) -> None:
    """Verify a folder of feeds, or one file of it: signature, size and SHA-256, and expiry.

    FOLDER is a served folder, one generation, or a copy with manifest.json in it. For a FILE, the
    command verifies the manifest beside it, then the file. An expired edition is not valid; with
    --newest-file, an edition that is older than one accepted before is not valid either.
    Exit code 1: not valid; the message gives the reason. Examples:

    \b
      smtpfeeds feed verify feeds/ --key RWQ…
      smtpfeeds feed verify smtpgreet.ndjson.gz --key feeds.pub --newest-file newest
    """
    from ..publish.signing import PublicKey
    from ..publish.verify import open_edition, open_edition_of

    if (key is None) != no_signature:
        raise SettingsError("give --key with the publisher's public key, or --no-signature")
    public = None if key is None else PublicKey.parse(key)
    now, newest = datetime.now(UTC), _newest(newest_file)
    if path.is_dir():
        folder = open_edition(path, public, now=now, newest=newest)
        count = folder.verify_all()
        files = f"{count} files"
    else:
        folder, name = open_edition_of(path, public, now=now, newest=newest)
        folder.verify(name)
        files = name
    if newest_file is not None:
        _note(newest_file, folder.edition)
    edition = folder.edition
    signature = "signature not checked" if public is None else "signature good"
    click.echo(
        f"{files}: good; edition of {iso_utc(edition.generated)}, "
        f"expires {iso_utc(edition.expires)}; {signature}"
    )


def _newest(file: Path | None) -> datetime | None:
    """Return the time in the file; None if there is no file yet."""
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_OCTETS).decode("ascii", "replace").strip()
        newest = datetime.fromisoformat(text)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SettingsError(f"--newest-file: cannot read {file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingsError(f"--newest-file: {file} does not contain a time") from exc
    if newest.tzinfo is None:
        raise SettingsError(f"--newest-file: {file} contains a time without a time zone")
    return newest


def _note(file: Path, edition: "Edition") -> None:
    aside = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        aside.write_text(f"{iso_utc(edition.generated)}\n", encoding="ascii")
        aside.replace(file)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise SettingsError(f"--newest-file: cannot write {file}: {exc.strerror}") from exc
