"""Options of several commands of `smtpfeeds fleet`: the broker, and what goes into bundles."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from smtpfeeds_common.existing_path import ExistingPath
from smtpfeeds_common.settings import read_secret

CA_FOLDER: Final = "/etc/smtpfeeds/ca"

F = TypeVar("F", bound=Callable[..., Any])


def management_options(command: F) -> F:
    """Give a command the broker's management API, as ``management``."""

    @functools.wraps(command)
    def with_management(
        *args: Any,
        url: str,
        password_file: Path | None,
        ca_file: Path | None,
        vhost: str,
        **kwargs: Any,
    ) -> Any:
        from ..fleet.management import Management

        if not url or password_file is None:
            raise click.UsageError(
                "say where the broker's management API is: --management and "
                "--management-password-file, or SMTPFEEDS_MANAGEMENT and "
                "SMTPFEEDS_MANAGEMENT_PASSWORD_FILE"
            )
        management = Management(
            url,
            read_secret("", str(password_file), name="--management-password-file"),
            vhost=vhost,
            ca_file=str(ca_file) if ca_file else None,
        )
        try:
            return command(*args, management=management, **kwargs)
        finally:
            management.close()

    for option in (
        click.option(
            "--vhost", default="smtpfeeds", show_default=True, help="The sensors' virtual host."
        ),
        click.option(
            "--management-ca",
            "ca_file",
            type=ExistingPath(dir_okay=False),
            envvar="SMTPFEEDS_MANAGEMENT_CA",
            help="Certificates that sign the broker's; else the system's.",
        ),
        click.option(
            "--management-password-file",
            "password_file",
            type=ExistingPath(dir_okay=False),
            envvar="SMTPFEEDS_MANAGEMENT_PASSWORD_FILE",
            help="A file whose first line is its password.",
        ),
        click.option(
            "--management",
            "url",
            default="",
            metavar="URL",
            envvar="SMTPFEEDS_MANAGEMENT",
            help="The broker's management API: https://ACCOUNT@HOST:15671; the account has the "
            "tag `administrator`.",
        ),
    ):
        with_management = option(with_management)
    return with_management  # type: ignore[return-value] # the same command, with options


def ca_option(command: F) -> F:
    """Give a command the authority's folder, as ``ca_folder``."""
    return click.option(
        "--ca-dir",
        "ca_folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=CA_FOLDER,
        show_default=True,
        help="The authority's folder.",
    )(command)


def bundle_options(command: F) -> F:
    """Give a command what goes into bundles, as ``bundles``."""

    @functools.wraps(command)
    def with_bundles(
        *args: Any,
        brokers: tuple[str, ...],
        broker_ca: Path | None,
        package: Path,
        wheels: Path | None,
        output: Path,
        ca_folder: Path,
        **kwargs: Any,
    ) -> Any:
        from ..fleet.bundle import check_package
        from ..fleet.bundles import Bundles
        from ..fleet.packing import pack_wheels
        from ..fleet.wheels import locked_wheels

        bundles = Bundles(
            output=output,
            wheels=pack_wheels(check_package(package), locked_wheels(wheels) if wheels else ()),
            brokers=brokers,
            broker_ca=broker_ca.read_bytes() if broker_ca else None,
            ca_folder=ca_folder,
        )
        return command(*args, bundles=bundles, **kwargs)

    with_bundles = ca_option(with_bundles)
    for option in (
        click.option(
            "--output",
            required=True,
            type=click.Path(path_type=Path, file_okay=False),
            help="Write NAME.tar.gz into this folder, readable only by its owner.",
        ),
        click.option(
            "--wheels",
            type=ExistingPath(file_okay=False),
            help="Put the wheels of this folder into each bundle, for hosts that reach no package "
            "index: the locked packages, for the hosts' Python and processor.",
        ),
        click.option(
            "--package",
            required=True,
            type=ExistingPath(dir_okay=False),
            help="The wheel of this smtpfeeds, which the host installs: `pip wheel --no-deps .` in "
            "a checkout creates it.",
        ),
        click.option(
            "--broker-ca",
            type=ExistingPath(dir_okay=False),
            help="The authority that sensors trust; else the system's.",
        ),
        click.option(
            "--broker",
            "brokers",
            required=True,
            multiple=True,
            metavar="URL",
            help="Where sensors deliver: amqps://HOST/VHOST, without an account; may be repeated.",
        ),
    ):
        with_bundles = option(with_bundles)
    return with_bundles  # type: ignore[return-value] # the same command, with options
