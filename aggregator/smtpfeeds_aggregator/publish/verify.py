"""Verify published files: signature, expiry, age, sizes and hashes.

This is for readers of a folder of feeds: a served folder, a generation, or a downloaded copy. The
manifest is verified first, then each file against the manifest.

    edition = open_edition(folder, key, now=datetime.now(UTC))
    path = edition.verify("smtpgreet.ndjson.gz")
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from smtpfeeds_common.errors import NotVerified
from smtpfeeds_common.times import iso_utc

from ..datasets.generations import CURRENT
from .edition import MANIFEST, SIGNATURE, SUMS, Edition, FileRecord, read_edition

if TYPE_CHECKING:
    from .signing import PublicKey

#: Every manifest or list of hashes is smaller.
_MAX_OCTETS: Final = 64 << 20


def check_manifest(
    body: bytes,
    signature: bytes | None,
    key: "PublicKey | None",
    *,
    now: datetime,
    newest: datetime | None = None,
) -> Edition:
    """Verify a manifest from any source.

    Args:
        body: the manifest.
        signature: the content of its signature's file, if any.
        key: the publisher's key; without it only hashes, expiry and age are checked.
        now: the time for the check of the expiry.
        newest: an edition made at that time was accepted before; an older one is refused.

    Raises:
        NotVerified: it is not signed by the key, has expired, or is older.
    """
    edition = read_edition(body)
    if key is not None:
        if signature is None:
            raise NotVerified(f"{MANIFEST} is not signed: {MANIFEST}{SIGNATURE} is missing")
        key.check(MANIFEST, body, signature, edition)
    if now > edition.expires:
        raise NotVerified(
            f"the edition of {iso_utc(edition.generated)} expired at {iso_utc(edition.expires)}: "
            "publishing has stopped, or somebody shows an old edition"
        )
    if newest is not None and edition.generated < newest:
        raise NotVerified(
            f"the edition of {iso_utc(edition.generated)} is older than the one of "
            f"{iso_utc(newest)}, which was accepted before"
        )
    return edition


def record_of(edition: Edition, name: str) -> FileRecord:
    """Return the manifest's record of a file.

    Raises:
        NotVerified: it does not name the file.
    """
    try:
        return edition.files[name]
    except KeyError:
        raise NotVerified(f"{MANIFEST} names no file {name}") from None


@dataclass(frozen=True, slots=True)
class VerifiedFolder:
    """A folder whose manifest is verified; `verify` verifies its files one by one."""

    path: Path
    edition: Edition
    _key: "PublicKey | None"

    def verify(self, name: str) -> Path:
        """Verify one file, and return its path.

        Raises:
            NotVerified: it is missing, or does not match the manifest.
        """
        record = record_of(self.edition, name)
        path = _inside(self.path, name)
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                size = stream.tell()
        except OSError as exc:
            raise NotVerified(f"cannot read {path}: {exc.strerror}") from exc
        if size != record.bytes or digest != record.sha256:
            raise NotVerified(
                f"{name}: {size} octets with another SHA-256 than the {record.bytes} octets that "
                f"{MANIFEST} names"
            )
        return path

    def verify_all(self) -> int:
        """Verify every file of the manifest and of SHA256SUMS.

        Returns:
            The number of different files.

        Raises:
            NotVerified: a file is missing, or does not match them.
        """
        for name in self.edition.files:
            self.verify(name)
        body = _read(self.path / SUMS)
        if self._key is not None:
            signature = _read(self.path / f"{SUMS}{SIGNATURE}")
            self._key.check(SUMS, body, signature, self.edition)
        sums = _read_sums(body)
        for name, digest in sums.items():
            if name in self.edition.files:
                if digest != self.edition.files[name].sha256:
                    raise NotVerified(f"{name}: {SUMS} and {MANIFEST} differ")
                continue
            path = _inside(self.path, name)
            if hashlib.sha256(_read(path)).hexdigest() != digest:
                raise NotVerified(f"{name}: it does not match {SUMS}")
        return len(sums.keys() | self.edition.files.keys())


def open_edition(
    folder: Path,
    key: "PublicKey | None",
    *,
    now: datetime,
    newest: datetime | None = None,
) -> VerifiedFolder:
    """Verify the manifest of a folder of feeds.

    A served folder can change while it is read, so its current generation is looked up once.

    Args:
        folder: a served folder, a generation, or a copy of one.
        key: see `check_manifest`.
        now: likewise.
        newest: likewise.

    Raises:
        NotVerified: see `check_manifest`; or the folder has no readable manifest.
    """
    current = folder / CURRENT
    path = current.resolve() if current.is_symlink() else folder.resolve()
    body = _read(path / MANIFEST)
    signature = None
    if key is not None and (path / f"{MANIFEST}{SIGNATURE}").exists():
        signature = _read(path / f"{MANIFEST}{SIGNATURE}")
    edition = check_manifest(body, signature, key, now=now, newest=newest)
    return VerifiedFolder(path, edition, key)


def open_edition_of(
    file: Path,
    key: "PublicKey | None",
    *,
    now: datetime,
    newest: datetime | None = None,
) -> tuple[VerifiedFolder, str]:
    """Verify the manifest beside a published file, or above it.

    Returns:
        The folder, and the file's name in it.

    Raises:
        NotVerified: see `open_edition`.
    """
    path = file.resolve()
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        if (folder / MANIFEST).is_file() and not _is_misp(folder):
            verified = open_edition(folder, key, now=now, newest=newest)
            return verified, path.relative_to(folder).as_posix()
    raise NotVerified(f"{file}: there is no {MANIFEST} beside it")


def _is_misp(folder: Path) -> bool:
    """Return whether this is the MISP feed's folder, which has another file of that name."""
    return folder.name == "misp"


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in the manifest; it must not lead out of the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise NotVerified(f"{name!r} leads out of the folder")
    return folder / pure


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            octets = stream.read(_MAX_OCTETS + 1)
    except OSError as exc:
        raise NotVerified(f"cannot read {path}: {exc.strerror}") from exc
    if len(octets) > _MAX_OCTETS:
        raise NotVerified(f"{path} is larger than {_MAX_OCTETS} octets")
    return octets


def _read_sums(body: bytes) -> dict[str, str]:
    sums = {}
    for line in body.decode("ascii", "replace").splitlines():
        digest, divider, name = line.partition("  ")
        if not divider:
            raise NotVerified(f"{SUMS}: this is not a line of sha256sum: {line[:100]!r}")
        sums[name] = digest
    return sums
