"""The wheel and the source distribution are reproducible, complete, and work without a checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from smtpfeeds_common.shipped import shipped_file, shipped_names

CHECKOUT = Path(__file__).parents[2]
#: Generated files at the top of a checkout.
MADE = (".git", ".venv*", ".cache", ".*_cache", ".hypothesis", "demo", "build", "dist", "site")


def not_copied(folder: str, names: list[str]) -> set[str]:
    """Return the names that a copy of the checkout leaves out."""
    patterns = ("__pycache__", *(MADE if Path(folder) == CHECKOUT else ()))
    return set(shutil.ignore_patterns(*patterns)(folder, names))


def build(tree: Path, into: Path, kind: str, *, umask: int) -> Path:
    """Build a tree's package and return its file."""
    # Without variables that a build could use.
    environ = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    before = os.umask(umask)
    try:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", into],
            cwd=tree,
            env=environ,
            check=True,
            capture_output=True,
        )
    finally:
        os.umask(before)
    (package,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return package


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, whose files have other times and may have other modes."""
    copy = tmp_path_factory.mktemp("packages") / "tree"
    shutil.copytree(CHECKOUT, copy, ignore=not_copied, copy_function=shutil.copyfile)
    return copy


@pytest.fixture(scope="module")
def packages(tree: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution."""
    into = tree.parent / "first"
    wheel = build(tree, into, "wheel", umask=0o022)
    return wheel, build(tree, into, "sdist", umask=0o022)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_have_one_hash_and_the_source_distribution_builds_the_same_wheel(
    tree: Path, packages: tuple[Path, Path]
) -> None:
    """The times of the files, the umask and the folder do not matter."""
    wheel, source = packages
    with tarfile.open(source) as tar:
        # Debian 12's Python 3.11.2 has no filters; later ones warn without one.
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(tree.parent / "unpacked", **filters)  # type: ignore[arg-type]
    (unpacked,) = (tree.parent / "unpacked").iterdir()
    again = tree.parent / "again"
    assert digest(build(unpacked, again, "wheel", umask=0o077)) == digest(wheel)
    for path in tree.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert digest(build(tree, again, "sdist", umask=0o077)) == digest(source)


def test_wheel_has_all_that_is_shipped_and_writes_it_out(
    tmp_path: Path, packages: tuple[Path, Path]
) -> None:
    """It contains the licence, but no tests and no locked packages of the tests."""
    with zipfile.ZipFile(packages[0]) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path / "installed")
    prefix = "smtpfeeds_common/shipped/"
    inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    assert inside == set(shipped_names())
    assert any(name.endswith("/LICENSE") for name in names)
    assert "smtpfeeds_deploy/demo/run.py" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "smtpfeeds_common",
        "smtpfeeds_sensor",
        "smtpfeeds_aggregator",
        "smtpfeeds_deploy",
    }
    written = tmp_path / "written"
    shown = command(tmp_path / "installed", "shipped", "write", str(written), "systemd", "rabbitmq")
    assert shown.returncode == 0, shown.stderr
    unit = written / "systemd" / "smtpfeeds-sensor.service"
    assert unit.read_bytes() == shipped_file("systemd/smtpfeeds-sensor.service")
    script = written / "rabbitmq" / "add-sensor.sh"
    assert script.stat().st_mode & 0o111 == 0o111
    assert not (written / "nginx").exists()
    # A file that an operator has changed stays; an unchanged one is no error.
    unit.write_text("mine")
    refused = command(tmp_path / "installed", "shipped", "write", str(written))
    assert refused.returncode == 2
    assert "differs" in refused.stderr
    assert unit.read_text() == "mine"
    wrong = command(tmp_path / "installed", "shipped", "write", str(written), "systemd/no-such")
    assert wrong.returncode == 2
    listed = command(tmp_path / "installed", "shipped", "list", "--format", "tsv")
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()[1:]] == shipped_names()


def command(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command of an unpacked wheel, with the packages of this environment."""
    code = "import smtpfeeds_common.cli as c; assert 'installed' in c.__file__; c.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("extra", ["sensor", "sensor-tls", "aggregator", "single-host"])
def test_locked_packages_are_all_that_an_extra_needs(extra: str) -> None:
    """`pip install` of the wheel with an extra needs only packages that the lock pins."""
    locked = locked_versions(extra)
    wanted, seen = {f"smtpfeeds[{extra}]"}, set[str]()
    while wanted:
        one = wanted.pop()
        seen.add(one)
        name, _, extras = one.rstrip("]").partition("[")
        chosen = {each for each in extras.split(",") if each}
        if name != "smtpfeeds":
            assert name in locked, f"{extra}: {one} is not locked"
            assert metadata.version(name) in locked[name]
        wanted |= requirements_of(name, chosen) - seen
    assert all(version for version in locked.values())


def locked_versions(extra: str) -> dict[str, set[str]]:
    """Return the locked versions by name; several if they depend on Python's version."""
    versions: dict[str, set[str]] = {}
    for line in shipped_file(f"requirements/{extra}.txt").decode().splitlines():
        if "==" in line and not line.startswith(" "):
            name, _, rest = line.partition("==")
            versions.setdefault(name.strip(), set()).add(rest.split()[0])
    return versions


def requirements_of(name: str, extras: set[str]) -> set[str]:
    """Return the requirements of a package here, as `name` or `name[extra]`."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needed = set()
    for text in metadata.requires(name) or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras or {""}):
            with_extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
            needed.add(canonicalize_name(one.name) + with_extras)
    return needed
