"""Sign and verify editions with minisign: https://jedisct1.github.io/minisign/

`manifest.json` and `SHA256SUMS` are signed; together they contain the hash of every file. The
trusted comment, which the signature covers, has the file's name, the generation, and its time and
expiry: so an old edition cannot pass for a new one. Only this module uses the library. Signatures
are prehashed, like those of Debian's `minisign`.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import minisign

from smtpfeeds_common.errors import NotVerified, SettingsError
from smtpfeeds_common.times import iso_utc

from .edition import Edition

_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
#: The permissions of others.
_OTHERS: Final = 0o007
_ADVICE: Final = "make one with `smtpfeeds publish keygen`"
#: A key or signature is a few hundred octets.
_MAX_OCTETS: Final = 16_384


def trusted_comment(file: str, generation: str, generated: datetime, expires: datetime) -> str:
    """Return the trusted comment of a file's signature."""
    return (
        f"smtpfeeds file:{file} generation:{generation} "
        f"generated:{iso_utc(generated)} expires:{iso_utc(expires)}"
    )


class Signer:
    """A secret key, ready to sign."""

    def __init__(self, key: "minisign.SecretKey") -> None:
        self._key = key
        #: The public key, for `minisign -P` and `smtpfeeds feed verify --key`.
        self.public_key: str = key.get_public_key().to_base64().decode()

    @classmethod
    def from_file(cls, path: Path) -> "Signer":
        """Read a secret key without a password.

        Raises:
            SettingsError: it cannot be read or used, or others may read it.
        """
        try:
            if path.stat().st_mode & _OTHERS:
                raise SettingsError(
                    f"signing_key_file: everybody may read {path}; run `chmod 600 {path}`"
                )
            key = minisign.SecretKey.from_bytes(path.read_bytes())
            if key.is_encrypted():
                raise SettingsError(
                    f"signing_key_file: {path} needs a password, and the aggregator cannot ask "
                    f"for it; " + _ADVICE
                )
        except OSError as exc:
            raise SettingsError(f"signing_key_file: cannot read {path}: {exc.strerror}") from exc
        except minisign.Error as exc:
            raise SettingsError(
                f"signing_key_file: {path} is not a secret key of minisign ({exc}); {_ADVICE}"
            ) from exc
        return cls(key)

    def sign(self, data: bytes, comment: str) -> bytes:
        """Return the content of a signature's file."""
        signature = self._key.sign(
            data,
            prehash=True,
            untrusted_comment="signature of smtpfeeds",
            trusted_comment=comment,
        )
        return bytes(signature) + b"\n"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A publisher's public key."""

    _key: "minisign.PublicKey"

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Parse a key: its text (``RW…``), or the name of a file with it.

        Raises:
            SettingsError: the text is neither.
        """
        try:
            return cls(minisign.PublicKey.from_base64(text))
        except minisign.Error:
            pass
        try:
            with Path(text).open("rb") as stream:
                return cls(minisign.PublicKey.from_bytes(stream.read(_MAX_OCTETS)))
        except OSError as exc:
            raise SettingsError(
                f"{text} is neither a public key of minisign (RW…) nor a file that can be read: "
                f"{exc.strerror}"
            ) from exc
        except minisign.Error as exc:
            raise SettingsError(f"{text} does not contain a public key of minisign: {exc}") from exc

    def check(self, file: str, data: bytes, signature: bytes, edition: Edition) -> None:
        """Verify that this key signed a file of this edition.

        Args:
            file: its name, as published.
            data: its content.
            signature: the content of its signature's file.
            edition: the edition of the file.

        Raises:
            NotVerified: the signature is not valid, or of another edition.
        """
        try:
            parsed = minisign.Signature.from_bytes(signature[:_MAX_OCTETS])
            self._key.verify(data, parsed)
        except minisign.Error as exc:
            raise NotVerified(f"{file}: the signature is not valid: {exc}") from exc
        expected = trusted_comment(file, edition.generation, edition.generated, edition.expires)
        if parsed.trusted_comment != expected:
            raise NotVerified(
                f"{file}: its signature is of another edition: {parsed.trusted_comment!r}"
            )


def generate_keys(secret: Path, public: Path) -> str:
    """Write a new secret key and its public key; never overwrite a file.

    Returns:
        The public key as text.

    Raises:
        SettingsError: one of the files exists, or cannot be written.
    """
    pair = minisign.KeyPair.generate()
    for path in (secret, public):
        if path.exists() or path.is_symlink():
            raise SettingsError(f"{path} exists already; a key is never overwritten")
    try:
        _write_new(secret, bytes(pair.secret_key) + b"\n", _SECRET_MODE)
        _write_new(public, bytes(pair.public_key) + b"\n", _PUBLIC_MODE)
    except FileExistsError as exc:
        raise SettingsError(f"{exc.filename} exists already; a key is never overwritten") from exc
    except OSError as exc:
        raise SettingsError(f"cannot write {exc.filename}: {exc.strerror}") from exc
    text: str = pair.public_key.to_base64().decode()
    return text


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
