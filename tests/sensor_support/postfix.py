"""A private Postfix, as an honest mail server that sends one message to a sensor.

All its files are in its own folder. It listens on one loopback port, uses no DNS, and knows two
domains: ``stray.example``, which a wrong entry routes to the sensor, and ``sender.example``, whose
mailbox is a file in the folder, where a test reads bounces. Postfix's master requires root and runs
its daemons as the user ``postfix``; for an ordinary user, fakeroot(1) simulates that.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.processes import bound_to_parent, end, free_port, killed_with_parent, wait_until

SENDER = "one@sender.example"
STRAY = "two@stray.example"
DAEMONS = "/usr/lib/postfix/sbin"

#: Postfix's own master.cf, without services that read other mail.
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup  unix n - n - 0 cleanup
qmgr     unix n - n 300 1 qmgr
rewrite  unix - - n - - trivial-rewrite
bounce   unix - - n - 0 bounce
defer    unix - - n - 0 bounce
trace    unix - - n - 0 bounce
verify   unix - - n - 1 verify
tlsmgr   unix - - n 1000? 1 tlsmgr
smtp     unix - - n - - smtp
error    unix - - n - - error
retry    unix - - n - - error
virtual  unix - n n - - virtual
anvil    unix - - n - 1 anvil
scache   unix - - n - 1 scache
postlog  unix-dgram n - n - 1 postlogd
"""

_MAIN = f"""
compatibility_level = 3.6
import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LD_PRELOAD
    LD_LIBRARY_PATH FAKEROOTKEY
config_directory = {{folder}}/etc
queue_directory = {{folder}}/queue
data_directory = {{folder}}/data
daemon_directory = {DAEMONS}
maillog_file = {{folder}}/log
maillog_file_prefixes = {{folder}}
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = mail.sender.example
mydestination =
local_recipient_maps =
alias_maps =
fast_flush_domains =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = may
smtp_tls_loglevel = 1
smtpd_tls_security_level = none
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
transport_maps = inline:{{{{ stray.example=smtp:[{{host}}]:{{sensor_port}} }}}}
virtual_mailbox_domains = sender.example
virtual_mailbox_base = {{folder}}/mail
virtual_mailbox_maps = static:box
virtual_uid_maps = static:{{nobody}}
virtual_gid_maps = static:{{nobody}}
virtual_minimum_uid = 1
strict_mailbox_ownership = no
"""

#: Starts Postfix in a folder that contains ``etc``.
_PREPARE = r"""
set -eu
cd "$1"
mkdir -m 755 queue
cd queue
mkdir -m 700 active bounce corrupt defer deferred flush hold incoming private saved trace
mkdir -m 755 pid
mkdir -m 1730 maildrop
mkdir -m 2710 public
chown postfix active bounce corrupt defer deferred flush hold incoming private saved trace
chown postfix:postdrop maildrop public
chmod 1730 maildrop
chmod 2710 public
mkdir -m 700 ../data && chown postfix ../data
mkdir -m 700 ../mail && chown "$2:$2" ../mail
exec "$3/master" -c "$1/etc" -d
"""


class Postfix:
    """A running Postfix."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    @property
    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def send(self, text: str) -> None:
        """Submit one message to the domain that is routed to the sensor."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.sender.example", 20) as smtp:
            smtp.sendmail(SENDER, [STRAY], text)

    def bounce(self) -> str:
        """Return the content of the sender's mailbox."""
        return (self.folder / "mail" / "box").read_text()


@contextmanager
def postfix(sensor: tuple[str, int]) -> Iterator[Postfix]:
    """Run a Postfix that routes ``stray.example`` to the sensor; delete its folder afterwards."""
    # Not in pytest's folders, which the user `postfix` may not enter.
    folder = Path(tempfile.mkdtemp(prefix="smtpfeeds-postfix-", dir="/var/tmp"))
    folder.chmod(0o755)
    port, nobody = free_port(), pwd.getpwnam("nobody").pw_uid
    host, sensor_port = sensor
    places = {"folder": folder, "host": host, "sensor_port": sensor_port, "nobody": nobody}
    (folder / "etc").mkdir()
    (folder / "etc" / "main.cf").write_text(_MAIN.format(**places))
    (folder / "etc" / "master.cf").write_text(_MASTER.format(port=port))
    command = ["sh", "-c", _PREPARE, "sh", str(folder), str(nobody), DAEMONS]
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            bound_to_parent(_as_root(command)),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    server = Postfix(folder, port)
    try:
        wait_until(lambda: "daemon started" in server.log, what="Postfix is up")
        yield server
    except BaseException:
        print((folder / "console").read_text(), server.log, file=sys.stderr)
        raise
    finally:
        # Under fakeroot the child process is not Postfix's master, but it ends with the master.
        master = folder / "queue" / "pid" / "master.pid"
        if master.exists():
            os.kill(int(master.read_text()), signal.SIGTERM)
            process.wait(10)
        end(process, limit_s=10)
        shutil.rmtree(folder)


def _as_root(command: list[str]) -> list[str]:
    if os.geteuid() == 0:
        return command
    return ["fakeroot", "--", *killed_with_parent(), *command]
