"""Check the settings without opening or starting anything."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smtpfeeds_common.certificates import iso_day
from smtpfeeds_common.users import find_user, only_root_reads

from .edge import listen
from .process.configuration import SECRET_FILES, read_credentials, read_expiries
from .process.descriptors import files_needed, hard_limit
from .process.modules import import_used
from .service import make_personas
from .settings import SensorSettings

#: As in deploy/systemd.
_UNIT_USER: Final = "smtpfeeds"


def check_all(settings: SensorSettings) -> Iterator[str]:
    """Check everything that this user can check.

    Yields:
        Notes about problems that do not prevent a start.

    Raises:
        SettingsError: the sensor could not start.
    """
    places = listen.parse_listen(settings.listen, listen.passed_sockets(os.environ))
    listen.check_overlap(places, settings)
    make_personas(settings)
    import_used(settings)
    find_user(settings.user)
    read_credentials(settings)
    yield from _about_sockets(settings, len(places))
    yield from _about_root(settings)
    yield from _about_spool(Path(settings.spool_dir))
    if settings.tls != "files" and (settings.tls_certificate or settings.tls_key):
        yield f'tls = "{settings.tls}": tls_certificate and tls_key are not used'
    for name, expires_s in read_expiries(settings).items():
        yield f"{name}: expires {iso_day(expires_s)}"
    if not settings.policy_url:
        yield "policy_url is empty: a refused sender cannot read why"
    if not settings.hostname and "." not in socket.getfqdn():
        yield "hostname is empty and this host has no full name: the banner looks odd"


def _about_sockets(settings: SensorSettings, places: int) -> Iterator[str]:
    if listen.passed_sockets(os.environ) is None and any(
        text.startswith("systemd:") for text in settings.listen
    ):
        yield "which sockets systemd passes is only known in its unit: not checked"
    if any(":" in text.rpartition(":")[0] or text[:1] == "*" for text in settings.listen) and (
        not listen.has_ipv6()
    ):
        yield "this kernel has no IPv6: [::] is left out, and any other IPv6 address is refused"
    needed, allowed = files_needed(settings, places), hard_limit()
    yield (
        f"each process needs up to {needed} open files; started from here it may open "
        f"{'any number' if allowed is None else allowed}; in the unit LimitNOFILE is the limit"
    )


def _about_spool(folder: Path) -> Iterator[str]:
    """Look at the rights only: a spool may be open in a sensor that runs."""
    there = folder.absolute()
    while not os.access(there, os.F_OK, effective_ids=True) and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        yield (
            f"spool_dir: this user may not write in {there}; the user that the sensor runs as "
            f"must (`--as {_UNIT_USER}` checks as that user)"
        )


def _about_root(settings: SensorSettings) -> Iterator[str]:
    if os.geteuid() != 0:
        return
    if not settings.user:
        yield "user is not set: the sensor stays root if it starts as root"
    for name in SECRET_FILES:
        path = getattr(settings, name)
        if not path or not only_root_reads(path):
            continue
        if settings.user:
            yield f"{name}: only root may read {path}: SIGHUP cannot read it again"
        else:
            yield (
                f"{name}: only root may read {path}: a unit that starts the sensor as another "
                f"user cannot; `--as {_UNIT_USER}` checks as that user"
            )
