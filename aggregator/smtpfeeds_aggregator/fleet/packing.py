"""A gzipped tar whose big files are read and compressed once for many bundles.

gzip allows several members one after another: what unpacks them sees their contents joined
(RFC 1952, section 2.2). So a file's octets are compressed once, and each bundle adds only its own
headers and its own small files around them.

https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import gzip
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import FleetError

#: All packages of a sensor are 5 MB; past this the folder is not one of a sensor's wheels.
SHARED_MAX_BYTES: Final = 128 * 1024 * 1024
_END: Final = bytes(2 * tarfile.BLOCKSIZE)
#: A wheel is compressed already: more effort makes it no smaller.
_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Packed:
    """A file's content, compressed; ready for any bundle."""

    name: str
    size: int
    member: bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> "Packed":
        """Compress a file's content."""
        return cls(name, len(content), _member(content + _padding(len(content))))


def pack_wheels(package: Path, wheels: Iterable[Path]) -> tuple[Packed, ...]:
    """Read and compress the wheels that many bundles hold, once.

    Raises:
        FleetError: one cannot be read, or together they are larger than the bound.
    """
    packed = []
    size = 0
    for folder, path in (("package", package), *(("wheels", wheel) for wheel in wheels)):
        try:
            size += path.stat().st_size
            if size > SHARED_MAX_BYTES:
                raise FleetError(
                    f"the wheels are more than {SHARED_MAX_BYTES // 1024**2} MiB together: give "
                    "a folder with a sensor's locked packages alone"
                )
            packed.append(Packed.of(f"{folder}/{path.name}", path.read_bytes()))
        except OSError as exc:
            raise FleetError(f"cannot read the wheel {path}: {exc.strerror}") from exc
    return tuple(packed)


class Archive:
    """One gzipped tar; the same input gives the same octets."""

    def __init__(self, folder: str) -> None:
        """Create an empty archive; all names are below the folder."""
        self._folder = folder
        self._parts: list[bytes] = []
        #: Headers and small files, not compressed yet.
        self._waiting = bytearray()

    def add(self, name: str, content: bytes, mode: int) -> None:
        """Add a file."""
        self._waiting += self._header(name, len(content), mode) + content + _padding(len(content))

    def add_packed(self, packed: Packed, mode: int) -> None:
        """Add a file whose content is compressed already."""
        self._waiting += self._header(packed.name, packed.size, mode)
        self._compress_waiting()
        self._parts.append(packed.member)

    def octets(self) -> bytes:
        """Return the whole archive; nothing can be added afterwards."""
        self._waiting += _END
        self._compress_waiting()
        return b"".join(self._parts)

    def _header(self, name: str, size: int, mode: int) -> bytes:
        entry = tarfile.TarInfo(f"{self._folder}/{name}")
        entry.size, entry.mode = size, mode
        return entry.tobuf(tarfile.PAX_FORMAT)

    def _compress_waiting(self) -> None:
        self._parts.append(_member(bytes(self._waiting)))
        self._waiting.clear()


def _member(octets: bytes) -> bytes:
    return gzip.compress(octets, _LEVEL, mtime=0)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
