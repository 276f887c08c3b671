"""The private PostgreSQL of a single host is created, started, killed, found again and removed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from servers.processes import wait_until
from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host.orphans import servers_in
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres
from smtpfeeds_deploy.single_host.unprivileged import Identity, choose_identity, reaching


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivatePostgres]:
    with PrivatePostgres(tmp_path, durable=False) as started:
        yield started


def data_folder(directory: Path) -> Path:
    return directory.resolve() / "postgres" / "data"


def remember(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE greet AS SELECT 1 AS hits")


def remembered(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT hits FROM greet").fetchall() == [(1,)]


def test_data_survive_a_restart_and_no_process_remains(tmp_path: Path) -> None:
    private = PrivatePostgres(tmp_path, durable=False)
    private.start()
    remember(private.dsn)
    private.stop()
    assert servers_in(data_folder(tmp_path)) == []
    private.start()
    assert remembered(private.dsn)
    private.stop()


def test_start_can_be_ended_while_the_server_recovers(tmp_path: Path) -> None:
    """A recovery takes as long as it takes; only an operator who stops `up` ends it."""

    class AskedToStopError(Exception):
        pass

    def stop() -> None:
        raise AskedToStopError

    with PrivatePostgres(tmp_path, durable=False) as private:
        remember(private.dsn)
        assert private.pid is not None
        os.kill(private.pid, signal.SIGKILL)
        wait_until(lambda: private.poll() is not None, what="it is killed")
    with pytest.raises(AskedToStopError):
        PrivatePostgres(tmp_path, durable=False, waiting=stop).start()
    assert servers_in(data_folder(tmp_path)) == []
    with PrivatePostgres(tmp_path, durable=False) as private:
        assert remembered(private.dsn)


def test_production_settings_are_durable_and_no_port_is_open(tmp_path: Path) -> None:
    with (
        PrivatePostgres(tmp_path) as private,
        psycopg.connect(private.dsn) as connection,
    ):
        values = [
            connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses")
        ]
    assert values == [("on",), ("on",), ("on",), ("",)]


OURSELVES = pwd.getpwuid(os.geteuid()).pw_name


def test_only_the_owner_can_enter_the_folder_and_its_parent_is_unchanged(tmp_path: Path) -> None:
    tmp_path.chmod(0o751)
    with PrivatePostgres(tmp_path, durable=False) as private:
        for path in (private.socket_path.parent, data_folder(tmp_path), tmp_path / "postgres"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            # It belongs to root only if user namespaces let root run it.
            assert pwd.getpwuid(path.stat().st_uid).pw_name == (private.another_user or OURSELVES)
    assert tmp_path.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o751


def test_killed_postmaster_is_detected_and_started_again(private: PrivatePostgres) -> None:
    remember(private.dsn)
    dsn, pid = private.dsn, private.pid
    assert pid is not None
    assert private.poll() is None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: private.poll() == -signal.SIGKILL, what="the end is seen")
    assert private.pid is None
    private.start()
    assert private.dsn == dsn
    assert remembered(dsn)


def test_process_id_of_a_dead_postmaster_may_belong_to_another_program(tmp_path: Path) -> None:
    private = PrivatePostgres(tmp_path, durable=False)
    private.start()
    remember(private.dsn)
    assert private.pid is not None
    os.kill(private.pid, signal.SIGKILL)
    pid_file = data_folder(tmp_path) / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    private.stop()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        private.start()
        assert remembered(private.dsn)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        private.stop()


_OWNS_ONE = """
import sys, time
from pathlib import Path
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres
private = PrivatePostgres(Path(sys.argv[1]), durable=False)
private.start()
print(private.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["ends by itself", "must be killed"])
def test_server_of_a_killed_owner_does_not_stop_the_next_start(
    tmp_path: Path, frozen: bool
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNS_ONE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        postmaster = int(owner.stdout.readline())
        if frozen:
            os.kill(postmaster, signal.SIGSTOP)
        owner.kill()
    with PrivatePostgres(tmp_path, durable=False, stop_limit_s=0.5) as private:
        assert private.pid != postmaster
        remember(private.dsn)
        assert postmaster not in servers_in(data_folder(tmp_path))


def test_other_program_in_the_data_folder_is_not_ended(tmp_path: Path) -> None:
    """Such a program is an operator's shell, or one that a shell has started there."""
    with PrivatePostgres(tmp_path, durable=False):
        pass
    bystander = subprocess.Popen(["sleep", "600"], cwd=data_folder(tmp_path))
    try:
        with PrivatePostgres(tmp_path, durable=False, stop_limit_s=0.2) as private:
            remember(private.dsn)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_server_in_another_folder_of_the_same_path_is_not_in_this_one(tmp_path: Path) -> None:
    """A container's server may have such a folder; here it is one that is removed, and made again.

    The kernel shows the first one's path with `(deleted)` after it.
    """
    program = tmp_path / "postgres"
    shutil.copy(shutil.which("sleep") or "sleep", program)
    first, second = tmp_path / "data", tmp_path / "data (deleted)"
    first.mkdir()
    server = subprocess.Popen([program, "600"], cwd=first)
    try:
        assert servers_in(first) == [server.pid]
        first.rmdir()
        second.mkdir()
        assert Path(f"/proc/{server.pid}/cwd").readlink() == second
        assert servers_in(second) == []
    finally:
        server.kill()
        server.wait()


def test_server_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNS_ONE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        owner.kill()
    wait_until(lambda: servers_in(data_folder(tmp_path)) == [], what="the server is gone")


def test_second_owner_is_refused_and_the_first_continues(
    tmp_path: Path, private: PrivatePostgres
) -> None:
    with pytest.raises(SingleHostError, match=f"in use by process {os.getpid()}"):
        PrivatePostgres(tmp_path, durable=False).start()
    remember(private.dsn)


def test_path_too_long_for_a_socket_gets_a_temporary_short_folder(
    tmp_path: Path,
) -> None:
    directory = tmp_path / ("long" * 20) / ("longer, still" * 5)
    directory.mkdir(parents=True)
    private = PrivatePostgres(directory, durable=False)
    private.start()
    try:
        sockets = private.socket_path.parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        remember(private.dsn)
        with pytest.raises(SingleHostError, match="in use"):
            PrivatePostgres(directory, durable=False).start()
        assert remembered(private.dsn), "a refused second owner leaves the first one's socket"
        assert private.pid is not None
        os.kill(private.pid, signal.SIGKILL)
        wait_until(lambda: private.poll() is not None, what="the end is seen")
        private.start()
        assert private.socket_path.parent == sockets, "a restart keeps the connection string"
    finally:
        private.stop()
    assert not sockets.exists()


def test_data_of_another_major_version_are_refused_unchanged(
    tmp_path: Path,
) -> None:
    with PrivatePostgres(tmp_path, durable=False):
        pass
    (data_folder(tmp_path) / "PG_VERSION").write_text("14\n")
    with pytest.raises(SingleHostError, match="created by PostgreSQL 14, and the extra"):
        PrivatePostgres(tmp_path).start()


def test_failed_start_shows_the_servers_message(tmp_path: Path) -> None:
    private = PrivatePostgres(tmp_path, durable=False, settings={"shared_buffers": "many"})
    with pytest.raises(SingleHostError, match='invalid value for parameter "shared_buffers"'):
        private.start()
    assert servers_in(data_folder(tmp_path)) == []


def test_interrupted_initdb_is_run_again(tmp_path: Path) -> None:
    partial = tmp_path / "postgres" / "data.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    with PrivatePostgres(tmp_path, durable=False) as private:
        remember(private.dsn)
    assert not partial.exists()


@pytest.fixture
def folder_for_all(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that every user can reach; only the owner can enter pytest's folders."""
    folder = Path("/var/tmp") / f"smtpfeeds-test-{os.getpid()}-{request.node.name}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


def test_without_user_namespaces_root_runs_it_as_another_user(folder_for_all: Path) -> None:
    """The data then belong to that user; for an ordinary user nothing changes."""
    with PrivatePostgres(folder_for_all, durable=False, user_namespaces=False) as private:
        remember(private.dsn)
        owner = data_folder(folder_for_all).stat().st_uid
        assert owner != 0
        name = pwd.getpwuid(owner).pw_name if os.geteuid() == 0 else ""
        assert private.another_user == name
        assert folder_for_all.stat().st_uid == os.geteuid()
    with PrivatePostgres(folder_for_all, durable=False) as again:
        assert remembered(again.dsn)
        assert data_folder(folder_for_all).stat().st_uid == owner


def test_without_user_namespaces_it_runs_in_a_folder_that_only_root_can_enter(
    tmp_path: Path,
) -> None:
    """Below /root, for example, no file is moved and no folder is opened to others."""
    tmp_path.chmod(0o700)
    with PrivatePostgres(tmp_path, durable=False, user_namespaces=False) as private:
        remember(private.dsn)
        assert data_folder(tmp_path).stat().st_uid != 0
        assert private.pid is not None
        lines = Path(f"/proc/{private.pid}/status").read_text().splitlines()
        held = int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)
        # It has one capability, to pass through folders (CAP_DAC_READ_SEARCH or _OVERRIDE).
        assert held in ({1 << 2, 1 << 1} if os.geteuid() == 0 else {0})
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    with PrivatePostgres(tmp_path, durable=False, user_namespaces=False) as again:
        assert remembered(again.dsn)


def test_missing_capability_is_named(tmp_path: Path) -> None:
    """The process lacks the capability, as in a container without any."""
    tmp_path.chmod(0o700)
    code = (
        "import sys; from pathlib import Path\n"
        "from smtpfeeds_common.errors import SingleHostError\n"
        "from smtpfeeds_deploy.single_host.unprivileged import choose_identity, reaching\n"
        "who = choose_identity(euid=0, data_uid=None, namespaces=False, sudo_uid=None)\n"
        "try: reaching(Path(sys.argv[1]), '/bin/true', who)\n"
        "except SingleHostError as exc: print(exc)\n"
    )
    lost = "-dac_read_search,-dac_override"
    prefix = ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}", "--"]
    # An ordinary user has no such capability, and cannot drop one.
    words = [*(prefix if os.geteuid() == 0 else []), sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"user nobody cannot reach {tmp_path}" in done.stdout
    assert "root lacks the capability for it (CAP_DAC_OVERRIDE)" in done.stdout


def test_folder_that_the_other_user_can_enter_needs_no_capability(folder_for_all: Path) -> None:
    nobody = choose_identity(euid=0, data_uid=None, namespaces=False, sudo_uid=None)
    if os.geteuid() != 0:
        nobody = Identity(prefix=(), uid=os.geteuid(), gid=os.getegid())
    assert reaching(folder_for_all, "/bin/true", nobody) == nobody
