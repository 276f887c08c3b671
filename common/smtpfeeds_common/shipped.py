"""Files other than code that are part of a release: units, requirements, examples.

In a wheel they are in the folder ``shipped`` of this package, in a checkout below ``deploy``.
"""

from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

from .errors import SettingsError

#: The shipped folders below ``deploy``; the build configuration has the same list.
FOLDERS: Final = ("containers", "nginx", "postgresql", "rabbitmq", "requirements", "systemd")
#: Locked packages that only the tests of a checkout need.
_NOT_SHIPPED: Final = frozenset(
    f"requirements/{name}.txt" for name in ("dev", "axe", "intelmq", "readers")
)
#: The folder with the same files in a checkout.
_CHECKOUT: Final = Path(__file__).parents[2] / "deploy"
_RUNNABLE: Final = ".sh"


def shipped_file(name: str) -> bytes:
    """Read one file, such as ``systemd/smtpfeeds-sensor.service``.

    Raises:
        SettingsError: this installation lacks it.
    """
    try:
        return (_root() / name).read_bytes()
    except OSError as exc:
        raise SettingsError(
            f"the file {name} is missing from this installation of smtpfeeds; install it again"
        ) from exc


def shipped_names() -> list[str]:
    """Return the names of all files, sorted."""
    root = _root()
    paths = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    names = {path.relative_to(root).as_posix() for path in paths}
    return sorted(names - _NOT_SHIPPED)


def write_shipped(folder: Path, name: str) -> Path:
    """Write one file below a folder and return its path; never overwrite an existing file.

    Raises:
        SettingsError: it cannot be written, or a different file exists under its name.
    """
    path = folder / PurePosixPath(name)
    content = shipped_file(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() == content:
            return path
        with path.open("xb") as stream:
            stream.write(content)
        path.chmod(0o755 if path.suffix == _RUNNABLE else 0o644)
    except FileExistsError as exc:
        raise SettingsError(
            f"{path} exists and differs from the file of this version; move it away first"
        ) from exc
    except OSError as exc:
        raise SettingsError(f"cannot write {path}: {exc.strerror}") from exc
    return path


def _root() -> Path:
    packaged = Path(str(files("smtpfeeds_common"))) / "shipped"
    return packaged if packaged.is_dir() else _CHECKOUT
