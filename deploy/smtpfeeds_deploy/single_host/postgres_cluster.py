"""Creates a cluster and the aggregator's account in it, with initdb and psql."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host.postgres_binaries import Binaries
from smtpfeeds_deploy.single_host.unprivileged import Identity

SUPERUSER = "postgres"

_INITDB_LIMIT_S = 120.0
_PSQL_LIMIT_S = 30.0
_OUTPUT_LINES = 15


def make_cluster(data: Path, binaries: Binaries, identity: Identity, *, durable: bool) -> None:
    """Run initdb in another folder, then rename it, so that a data folder is always complete.

    Raises:
        SingleHostError: initdb failed; the message contains its output.
    """
    partial = data.with_name(f"{data.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        *identity.prefix,
        binaries.path("initdb"),
        f"--pgdata={partial}",
        f"--username={SUPERUSER}",
        "--encoding=UTF8",
        "--locale=C",
        # Only the owner can enter the folder of the socket. TCP connections are rejected.
        "--auth-local=trust",
        "--auth-host=reject",
        "--data-checksums",
        "--no-instructions",
    ]
    if not durable:
        command.append("--no-sync")
    _run(command, data.parent, limit_s=_INITDB_LIMIT_S)
    partial.rename(data)
    parent = os.open(data.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def make_accounts(folder: Path, binaries: Binaries, superuser_dsn: str) -> None:
    """Create the aggregator's role and database if they are missing.

    Raises:
        SingleHostError: psql failed; the message contains its output.
    """
    command = [
        binaries.path("psql"),
        f"--dbname={superuser_dsn}",
        f"--file={Path(__file__).with_name('postgres_accounts.sql')}",
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
    ]
    _run(command, folder, limit_s=_PSQL_LIMIT_S)


def environment() -> dict[str, str]:
    """Return the environment without variables that change what PostgreSQL's programs do."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_", "LANG"))
    }
    return {**variables, "LC_ALL": "C"}


def _run(command: list[str], folder: Path, *, limit_s: float) -> None:
    """Run a program to its end in ``folder``, which an error message names."""
    program = next(Path(word).name for word in command if word.endswith(("initdb", "psql")))
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
            # Ctrl-C in a terminal reaches only `smtpfeeds up`, which stops when this has ended.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"{program} in {folder} did not end within {limit_s:g} s"
        raise SingleHostError(msg) from exc
    if result.returncode != 0:
        output = "\n".join((result.stdout + result.stderr).splitlines()[-_OUTPUT_LINES:])
        msg = f"{program} failed in {folder}:\n{output}"
        raise SingleHostError(msg)
