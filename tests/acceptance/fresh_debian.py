"""Follows docs/how-to/two-hosts.md on two freshly booted Debian machines; adds nothing of its own.

    make acceptance-two-hosts SUITE=trixie

As root, with debootstrap and systemd-nspawn. Both machines boot from one new root, each with its
own layer in memory, and share a network of their own that reaches nothing; commands that install
packages use this host's network. The page's values stay, but for the broker's name, origin data,
and how often the feeds are published.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from acceptance.how_to import Block, blocks

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "how-to" / "two-hosts.md"
#: Packages of a server after Debian's installer.
STOCK = "ca-certificates,dbus,iproute2,procps,python3,sudo,systemd,systemd-sysv"
#: The values of this site that differ from the page.
SITE = {
    "BROKER": "localhost",
    "ORIGIN_TABLE": "/srv/ipasn.dat",
    "AS_NAMES": "/srv/names.json",
    "PUBLISH_EVERY_S": "5",
}
_NEEDS_PACKAGES = re.compile(r"apt-get|/pip\b|install\.sh")
_LIMIT_S = 1800
_START = time.monotonic()
_CLIENT = "127.0.0.11"
_EHLO = f"""\
import socket
with socket.create_connection(("127.0.0.1", 25), 10, source_address=("{_CLIENT}", 0)) as client:
    assert client.recv(1000).startswith(b"220"), "no banner"
    client.sendall(b"EHLO client.example\\r\\n")
    assert client.recv(1000).startswith(b"250"), "no answer"
"""


def make_root(root: Path, suite: str, mirror: str) -> None:
    """Create a root file system of that release, with this host's access to packages."""
    mirrors = [mirror] if mirror else []
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={STOCK}", suite, root, *mirrors],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for name in ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).exists():
            (root / name).unlink(missing_ok=True)
            (root / name).write_bytes(Path("/", name).read_bytes())
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    for file in Path("/etc/apt/apt.conf.d").iterdir():
        target = root / "etc/apt/apt.conf.d" / file.name
        if not file.name.startswith("docker") and not target.exists():
            target.write_bytes(file.read_bytes())
    subprocess.run(["chroot", root, "apt-get", "update", "--quiet=2"], check=True)


@contextmanager
def network() -> Iterator[str]:
    """Create a network namespace with only loopback."""
    name = f"smtpfeeds-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


class Machine:
    """A booted machine, and the shell that runs the page's commands there."""

    def __init__(self, name: str, root: Path, network_path: str, log: Path) -> None:
        self.name, self.log = name, log
        environ = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        with log.open("wb") as stream:
            self._nspawn = subprocess.Popen(
                [
                    "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
                    "--volatile=overlay", f"--network-namespace-path={network_path}",
                    f"--machine={name}", f"--directory={root}", "--console=read-only",
                ],
                env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip
        self.environ = {
            "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        self.cwd = "/root"

    @property
    def pid(self) -> int:
        """The process id of the machine's process 1 on this host."""
        own = self._nspawn.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        if not children:
            raise OSError("it has not booted")
        return int(children[0])

    def inside(self, *command: str, outer_network: bool = False) -> list[str]:
        """Return a command line that runs inside."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", *([] if outer_network else ["--net"])]
        pairs = [f"{key}={value}" for key, value in self.environ.items()]
        enter = ["nsenter", f"--target={self.pid}", *spaces, "env", "-i", *pairs]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', self.cwd, *command]

    def call(self, *command: str, text: str | None = None) -> str:
        """Run a command to its end and return its output."""
        return self._end(self.inside(*command), text)

    def _end(self, command: list[str], text: str | None = None) -> str:
        done = subprocess.run(
            command, input=text if text is not None else "", capture_output=True, text=True,
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(
                f"{self.name}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def put(self, path: str, content: str) -> None:
        """Write a file inside."""
        self.call("sh", "-c", 'mkdir -p "$(dirname "$0")"; cat >"$0"', path, text=content)

    def take(self, path: str, there: "Machine", target: str) -> None:
        """Copy a file from another machine to this one."""
        with subprocess.Popen(there.inside("cat", path), stdout=subprocess.PIPE) as reading:
            writing = self.inside("sh", "-c", 'umask 077; cat >"$0"', target)
            subprocess.run(writing, stdin=reading.stdout, check=True)

    def follow(self, block: Block) -> str:
        """Run a block to its end, as typed into one shell."""
        print(f"--- {self.name}\n{block.text}", flush=True)
        script = f"{block.text}\nenv -0 >/run/environment\n"
        shell = ("bash", "-euo", "pipefail", "-c", script)
        needs_packages = bool(_NEEDS_PACKAGES.search(block.text))
        printed = self._end(self.inside(*shell, outer_network=needs_packages))
        print(printed, flush=True)
        pairs = self.call("cat", "/run/environment").rstrip("\0").split("\0")
        self.environ = dict(pair.split("=", 1) for pair in pairs)
        return printed

    def ask(self, block: Block) -> str:
        """Return the current output of a block; commands without an answer yet exit with 1."""
        asked = subprocess.run(
            self.inside("bash", "-uc", block.text), capture_output=True, text=True, check=False
        )
        return asked.stdout

    def power_off(self) -> None:
        """End it at once; nothing is kept."""
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        self._nspawn.wait()


def wait_for(holds: Callable[[], bool], what: str, log: Path | None = None) -> None:
    """Wait until it holds."""
    until = time.monotonic() + 180
    while not holds():
        if time.monotonic() > until:
            raise SystemExit(f"not within 3 minutes: {what}\n{log.read_text() if log else ''}")
        time.sleep(0.5)


def boots(machine: Machine) -> bool:
    """Return whether its services run; units that need hardware do not matter."""
    try:
        state = subprocess.run(
            machine.inside("systemctl", "is-system-running"),
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
    except OSError:
        return False
    return state in {"running", "degraded"}


def prepare(centre: Machine) -> None:
    """Put the site's checkout and origin data there."""
    centre.put("/srv/ipasn.dat", "127.0.0.0/8\t64500\n")
    centre.put("/srv/names.json", '{"64500": "University of Examples"}')
    safe = f"safe.directory={CHECKOUT}"
    archive = subprocess.Popen(
        ["git", "-c", safe, "-C", CHECKOUT, "archive", "--format=tar", "HEAD"],
        stdout=subprocess.PIPE,
    )
    unpack = centre.inside("sh", "-c", "mkdir smtpfeeds && tar -x -C smtpfeeds")
    subprocess.run(unpack, stdin=archive.stdout, check=True)
    archive.wait()
    centre.cwd = "/root/smtpfeeds"


def follow_page(centre: Machine, sensor: Machine) -> None:
    """Run every block of the page in order, then a client, and the page's checks."""
    machines = {"centre": centre, "sensor": sensor}
    checks: list[tuple[Machine, Block]] = []
    site = dict(SITE)
    for block in blocks(PAGE):
        machine = machines[block.place]
        if block.how == "check":
            checks.append((machine, block))
            continue
        if machine is sensor and "BUNDLES" in centre.environ:
            carry_bundle(centre, sensor)
        machine.follow(block)
        if block.how == "" and site:
            assert machine.environ.keys() >= site.keys()
            machine.environ |= site
            site = {}
    for machine, unit in ((centre, "smtpfeeds-aggregator"), (sensor, "smtpfeeds-sensor")):
        assert machine.call("systemctl", "is-active", unit).strip() == "active", unit
    see_it_works(centre, sensor, checks)
    wait_for(
        lambda: "smtpgreet" in centre.call("sh", "-c", "ls /var/lib/smtpfeeds/feeds || true"),
        "the feeds are published",
    )


def carry_bundle(centre: Machine, sensor: Machine) -> None:
    """Copy the bundle to the sensor host, as the page says."""
    bundle = f"{centre.environ['SENSOR']}.tar.gz"
    path = f"{centre.environ['BUNDLES']}/{bundle}"
    sensor.take(path, centre, bundle)
    centre.call("rm", path)


def see_it_works(centre: Machine, sensor: Machine, checks: list[tuple[Machine, Block]]) -> None:
    """Send EHLO, and wait until the page's checks show it."""
    sensor.call("python3", "-c", _EHLO)
    about = next(block for machine, block in checks if machine is centre)
    wait_for(lambda: _CLIENT in centre.ask(about), f"the centre knows {_CLIENT}")
    print(f"first event at the centre {_since_start()} after the start", flush=True)
    for machine, block in checks:
        machine.follow(block)


def _since_start() -> str:
    minutes, seconds = divmod(round(time.monotonic() - _START), 60)
    return f"{minutes} min {seconds} s"


def main() -> None:
    """Boot, follow, remove."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("suite", nargs="?", default="trixie")
    options.add_argument("--mirror", default="", help="where debootstrap fetches packages")
    options.add_argument("--root", type=Path, help="a root that is there: it is not changed")
    given = options.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root: it boots machines")
    # Its machines end with it, even if it was started in the background.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        root = given.root or folder / "root"
        if given.root is None:
            print(f"making a root of {given.suite} ...", flush=True)
            make_root(root, given.suite, given.mirror)
        path = stack.enter_context(network())
        centre, sensor = (
            Machine(each, root, path, folder / f"{each}.log") for each in ("centre", "sensor")
        )
        for machine in (centre, sensor):
            stack.callback(machine.power_off)
            wait_for(partial(boots, machine), f"{machine.name} boots", machine.log)
        print(f"both machines run {_since_start()} after the start", flush=True)
        prepare(centre)
        follow_page(centre, sensor)
    print(f"{PAGE.name} is right to the letter on {given.suite}")


if __name__ == "__main__":
    main()
