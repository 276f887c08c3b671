"""Bundles for many sensors: creates the secret of each, and one file for its host.

A private key or a password is in the bundle and nowhere else: the broker keeps a hash, and
the authority a copy of the certificate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smtpfeeds_common.answers import note
from smtpfeeds_common.errors import FleetError
from smtpfeeds_common.times import iso_utc

from .authority import Authority, Validity, validities
from .bundle import SensorBundle, write_bundle
from .packing import Packed
from .rights import SensorAccount, new_password


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """What the bundles of several sensors share."""

    output: Path
    #: smtpfeeds itself, then on request every other package.
    wheels: tuple[Packed, ...]
    brokers: tuple[str, ...]
    #: What sensors trust: the authority of the broker's certificate, PEM; None: the system's.
    broker_ca: bytes | None
    #: The folder of the authority that issues client certificates.
    ca_folder: Path

    def path(self, name: str) -> Path:
        """Return the path of a sensor's bundle."""
        return self.output / f"{name}.tar.gz"

    def create(self, name: str, workers: int, *, with_certificate: bool) -> SensorAccount:
        """Write a sensor's bundle with a new secret; returns the account that fits.

        Raises:
            FleetError: no authority, a broker without TLS, or the bundle cannot be written.
        """
        password = certificate = key = None
        if with_certificate:
            if not all(url.startswith("amqps://") for url in self.brokers):
                raise FleetError("a client certificate needs TLS: --broker amqps://HOST/VHOST")
            issued = Authority.load(self.ca_folder).issue_client(name)
            certificate, key = issued.certificate, issued.key
        else:
            password = new_password()
        bundle = SensorBundle(
            name=name,
            wheels=self.wheels,
            brokers=self.brokers,
            workers=workers,
            password=password,
            certificate=certificate,
            key=key,
            authority=self.broker_ca,
        )
        write_bundle(bundle, self.path(name))
        return SensorAccount(name, password, workers)

    def refuse_valid_certificates(self, revoked: Iterable[str]) -> None:
        """Refuse names of revoked sensors whose client certificate is still valid.

        The broker knows a certificate by its name alone: once there is an account of that name,
        the old key opens it again, also an account with a password.

        Raises:
            FleetError: there is such a certificate.
        """
        for one in self._valid_of(set(revoked)):
            raise FleetError(
                f"an earlier certificate of {one.name} is valid until {iso_utc(one.ends)}, "
                "and works again with a new account: if its key may be in other hands, choose "
                "another name; else give --reuse-name"
            )

    def note_valid_certificate(self, name: str) -> None:
        """Write that an earlier certificate works until it ends, if there is one."""
        for one in self._valid_of({name}):
            note(f"{name}: an earlier certificate works until {iso_utc(one.ends)}")

    def _valid_of(self, names: set[str]) -> Iterable[Validity]:
        if not names:
            return []
        now = datetime.now(UTC)
        return [
            one
            for one in validities(self.ca_folder)
            if one.kind == "client" and one.name in names and one.ends > now
        ]
