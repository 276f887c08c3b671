"""`smtpfeeds fleet`: the accounts of sensors at the broker, and a bundle for each."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.errors import FleetError
from smtpfeeds_common.settings import read_secret

from .fleet_accounts import CENTRE, note_external
from .fleet_broker import broker
from .fleet_ca import authority
from .fleet_enroll import enroll, rotate
from .fleet_options import management_options
from .fleet_revoke import retire, revoke
from .fleet_state import check, list_sensors, show

if TYPE_CHECKING:
    from ..fleet.management import Management

#: Its rights: it declares its exchange and both queues, and publishes what it refuses through the
#: default exchange.
_OWN: Final = r"^smtpfeeds(\..*)?$"
CENTRE_RIGHTS: Final = {
    "configure": _OWN,
    "write": r"^(smtpfeeds(\..*)?|amq\.default)$",
    "read": _OWN,
}


@click.group("fleet", short_help="Enrol, check, rotate, revoke and retire sensors.")
def fleet() -> None:
    """Look after the sensors of a fleet: their accounts at the broker, bundles, certificates.

    The broker needs the plugin rabbitmq_management. A name may begin with its operator's, such as
    acme-berlin.
    """


for _command in (authority, broker, enroll, rotate, revoke, retire, list_sensors, show, check):
    fleet.add_command(_command)


@fleet.command("set-up", short_help="Create the virtual host and the centre's account.")
@click.option(
    "--password-file",
    "centre_password",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file with the aggregator's password on its first line; if it "
    "is missing, the command writes it with a new password.",
)
@management_options
def set_up(management: "Management", centre_password: Path) -> None:
    """Create the virtual host and the aggregator's account in it; you can run it again.

    The aggregator declares the exchange and both queues itself when it starts.

    \b
    Example:
      smtpfeeds fleet set-up --password-file /etc/smtpfeeds/broker-password
    """
    from ..fleet.files import PRIVATE, write_whole
    from ..fleet.rights import new_password

    management.add_vhost()
    if not centre_password.exists():
        try:
            write_whole(centre_password, f"{new_password()}\n".encode(), mode=PRIVATE)
        except OSError as exc:
            raise FleetError(f"cannot write {centre_password}: {exc.strerror}") from exc
    password = read_secret("", str(centre_password), name="--password-file")
    management.put_account(CENTRE, password, CENTRE_RIGHTS)
    click.echo(f"the account {CENTRE} is ready")
    note_external(management)
