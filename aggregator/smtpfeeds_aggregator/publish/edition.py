"""Read the manifest of an edition: its times, its folder, and the hash of each file.

It also names the files that describe an edition, for the modules that write them and those that
verify them. `manifest` writes the manifest.
"""

import hashlib
from datetime import datetime
from typing import IO, Annotated, Final

import msgspec

from smtpfeeds_common.errors import NotVerified

MANIFEST: Final = "manifest.json"
#: Beside the manifest: every file's SHA-256, also the manifest's.
SUMS: Final = "SHA256SUMS"
#: Added to the name of a signed file for the name of its signature.
SIGNATURE: Final = ".minisig"
#: Increased if a field of the manifest changes its meaning or is removed.
VERSION: Final = 2
_PIECE_BYTES: Final = 1 << 18


class FileRecord(msgspec.Struct, frozen=True):
    """A published file, as the manifest records it."""

    bytes: Annotated[int, msgspec.Meta(ge=0)]
    #: Readers store files under this hash: only a SHA-256 is valid.
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    #: None for a file that belongs to no single feed.
    feed: str | None = None


class Edition(msgspec.Struct, frozen=True):
    """The fields of a manifest by which files are verified; times are UTC."""

    version: int
    #: The generation's path below the served folder: ``generations/NAME/``.
    base: str
    generated: datetime
    expires: datetime
    files: dict[str, FileRecord]

    @property
    def generation(self) -> str:
        """Return the generation's name."""
        return self.base.rstrip("/").rpartition("/")[2]


class _Dated(msgspec.Struct):
    generated: datetime


def read_edition(body: bytes) -> Edition:
    """Read a manifest.

    Raises:
        NotVerified: it is not a manifest, or this program does not know its version.
    """
    try:
        edition = msgspec.json.decode(body, type=Edition)
    except (ValueError, RecursionError) as exc:
        raise NotVerified(f"{MANIFEST} is not a manifest of feeds: {exc}") from exc
    if edition.version != VERSION:
        raise NotVerified(
            f"{MANIFEST} is of version {edition.version}; this program reads version {VERSION}"
        )
    if edition.generated.tzinfo is None or edition.expires.tzinfo is None:
        raise NotVerified(f"{MANIFEST} has a time without a zone")
    return edition


def sha256_of(stream: IO[bytes]) -> str:
    """Return the SHA-256 of a stream from its beginning, and rewind it."""
    stream.seek(0)
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    stream.seek(0)
    return digest.hexdigest()


def generated_at(body: bytes) -> datetime | None:
    """Return the time of an edition of any version; None if the manifest cannot be read."""
    try:
        return msgspec.json.decode(body, type=_Dated).generated
    except ValueError:
        return None
