"""Real programs as clients. Each function is one visit; a refusal is expected."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from sensor_support.postfix import postfix
from servers.processes import wait_until

from .kinds import Visit

#: Where deploy/setup/truth-clients.sh unpacks the programs.
CLIENTS = Path(__file__).parents[2] / "build" / "truth"
_ROOT = CLIENTS / "root"
_LIMIT_S = 90
_MESSAGE = "From: one@{domain}\nTo: two@stray.example\nSubject: {subject}\n\n{body}\n"


def _libraries() -> str:
    return str(next((_ROOT / "usr" / "lib").glob("*-linux-gnu")))


def _program(name: str) -> str:
    """A program of those that were unpacked, else one that is installed."""
    for folder in ("usr/bin", "usr/sbin", "usr/lib/nullmailer"):
        if (_ROOT / folder / name).exists():
            return str(_ROOT / folder / name)
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: run deploy/setup/test-programs.sh")
    return path


def _run(
    *command: str, text: str = "", folder: str | None = None, unpacked: bool = False, **more: str
) -> None:
    environment = {**os.environ, **more}
    if unpacked:
        environment["LD_LIBRARY_PATH"] = _libraries()
    subprocess.run(
        command,
        input=text.encode(),
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_LIMIT_S,
        check=False,
    )


def domain(visit: Visit) -> str:
    """The client's own domain."""
    return f"office{visit.number}.example.net"


def _message(visit: Visit) -> str:
    body = "\n".join(["A few words about our order."] * visit.random.randint(1, 400))
    return _MESSAGE.format(domain=domain(visit), subject=f"order {visit.number}", body=body)


def swaks(*words: str) -> Callable[[Visit], None]:
    """swaks with these options."""

    def visit_once(visit: Visit) -> None:
        host, port = visit.place
        _run(
            _program("swaks"), "--server", f"{host}:{port}", "--helo", f"mail.{domain(visit)}",
            "--from", f"one@{domain(visit)}", "--to", "two@stray.example", *words,
        )  # fmt: skip

    return visit_once


def nmap(*scripts: str) -> Callable[[Visit], None]:
    """nmap with these scripts."""

    def visit_once(visit: Visit) -> None:
        host, port = visit.place
        names = ",".join(f"+{script}" for script in scripts)
        _run(_program("nmap"), "-Pn", "-n", "-sT", "-p", str(port), "--script", names, host)

    return visit_once


def nmap_version(visit: Visit) -> None:
    """nmap's version scan."""
    host, port = visit.place
    _run(_program("nmap"), "-Pn", "-n", "-sT", "-sV", "-p", str(port), host)


def smtp_source(visit: Visit) -> None:
    """Postfix's load generator, with a real sender's name."""
    host, port = visit.place
    _run(
        _program("smtp-source"), "-A", "-m", "1", "-f", f"one@{domain(visit)}",
        "-t", "two@stray.example", "-M", f"mail.{domain(visit)}", f"inet:{host}:{port}",
    )  # fmt: skip


def smtplib_message(visit: Visit) -> None:
    """Python's smtplib, as a script of somebody's application."""
    with (
        contextlib.suppress(smtplib.SMTPException, OSError),
        smtplib.SMTP(*visit.place, local_hostname=f"app.{domain(visit)}", timeout=30) as smtp,
    ):
        smtp.sendmail(f"one@{domain(visit)}", ["two@stray.example"], _message(visit))


def smtplib_login(visit: Visit) -> None:
    """Python's smtplib with a saved login, over STARTTLS where it is offered."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        contextlib.suppress(smtplib.SMTPException, OSError),
        smtplib.SMTP(*visit.place, local_hostname=f"app.{domain(visit)}", timeout=30) as smtp,
    ):
        smtp.ehlo()
        if smtp.has_extn("starttls"):
            smtp.starttls(context=context)
        smtp.login("one", "a password of its own")


def curl(visit: Visit) -> None:
    """curl's SMTP."""
    host, port = visit.place
    _run(
        _program("curl"), "--silent", f"smtp://{host}:{port}/mail.{domain(visit)}",
        "--mail-from", f"one@{domain(visit)}", "--mail-rcpt", "two@stray.example",
        "--upload-file", "-", text=_message(visit),
    )  # fmt: skip


def net_smtp(visit: Visit) -> None:
    """Perl's Net::SMTP."""
    host, port = visit.place
    script = (
        "use Net::SMTP; my ($host, $port, $hello, $from) = @ARGV;"
        " my $smtp = Net::SMTP->new($host, Port => $port, Hello => $hello) or exit 1;"
        " $smtp->mail($from) and $smtp->to('two@stray.example') and $smtp->data()"
        " and $smtp->datasend('Subject: order') and $smtp->dataend(); $smtp->quit;"
    )
    words = (host, str(port), f"mail.{domain(visit)}", f"one@{domain(visit)}")
    _run(_program("perl"), "-e", script, *words)


def msmtp(*words: str) -> Callable[[Visit], None]:
    """msmtp with these options."""

    def visit_once(visit: Visit) -> None:
        host, port = visit.place
        _run(
            _program("msmtp"), "--file=/dev/null", f"--host={host}", f"--port={port}",
            f"--domain=mail.{domain(visit)}", f"--from=one@{domain(visit)}", *words,
            "two@stray.example", text=_message(visit), unpacked=True,
        )  # fmt: skip

    return visit_once


def s_nail(visit: Visit) -> None:
    """s-nail, as a person's mail program."""
    host, port = visit.place
    _run(
        _program("s-nail"), "-n", "-S", "v15-compat", "-S", f"mta=smtp://{host}:{port}",
        "-S", "smtp-config=-all,ehlo", "-S", "smtp-auth=none", "-S", f"from=one@{domain(visit)}",
        "-S", f"smtp-hostname=mail.{domain(visit)}", "-s", "order", "two@stray.example",
        text=_message(visit), MAILRC="/dev/null",
    )  # fmt: skip


def esmtp(visit: Visit) -> None:
    """esmtp, a relay-only client."""
    host, port = visit.place
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "esmtprc"
        settings.write_text(f"hostname = {host}:{port}\nhelo = mail.{domain(visit)}\n")
        _run(
            _program("esmtp"), "-C", str(settings), "-f", f"one@{domain(visit)}",
            "two@stray.example", text=_message(visit), unpacked=True,
        )  # fmt: skip


def ssmtp(visit: Visit) -> None:
    """Ssmtp, a relay-only client."""
    host, port = visit.place
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "ssmtp.conf"
        settings.write_text(
            f"mailhub={host}:{port}\nhostname=mail.{domain(visit)}\nFromLineOverride=YES\n"
        )
        _run(
            _program("ssmtp"), "-C", str(settings), f"-fone@{domain(visit)}", "two@stray.example",
            text=_message(visit),
        )  # fmt: skip


def nullmailer(visit: Visit) -> None:
    """Nullmailer's SMTP sender."""
    host, port = visit.place
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "message"
        message.write_text(f"one@{domain(visit)}\ntwo@stray.example\n\n{_message(visit)}")
        options = f"host={host}\nport={port}\n\n"
        subprocess.run(
            ["sh", "-c", 'exec "$0" 3<"$1"', _program("smtp"), str(message)],
            input=options.encode(),
            env={**os.environ, "HELOHOST": f"mail.{domain(visit)}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=False,
        )


def hydra(visit: Visit) -> None:
    """Hydra guesses four passwords."""
    host, port = visit.place
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words"
        words.write_text("123456\nletmein\nadmin\nsummer2026\n")
        _run(
            _program("hydra"), "-I", "-t", "1", "-l", "info", "-P", str(words),
            "-s", str(port), host, "smtp", folder=folder, unpacked=True,
        )  # fmt: skip


def postfix_message(visit: Visit) -> None:
    """Postfix delivers one message from a queue of its own, and bounces it."""
    with postfix(visit.place) as server:
        server.send("\r\n".join(_message(visit).splitlines()))
        box = server.folder / "mail" / "box"
        wait_until(box.exists, limit_s=_LIMIT_S, what="the bounce")


_EXIM = """
exim_path = {folder}/exim
exim_user = {user}
exim_group = {group}
primary_hostname = mail.{domain}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
keep_environment =
disable_ipv6
trusted_users = root:nobody
begin routers
own:
  driver = accept
  domains = {domain}
  transport = nowhere
sensor:
  driver = manualroute
  route_list = * {host}
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {port}
  allow_localhost
  tls_try_verify_hosts =
nowhere:
  driver = appendfile
  file = /dev/null
"""
_EXIM_START = """#!/bin/sh
export LD_PRELOAD={libraries}/libnss_wrapper.so LD_LIBRARY_PATH={libraries}
export NSS_WRAPPER_PASSWD={folder}/passwd NSS_WRAPPER_GROUP={folder}/group
exec {exim} "$@"
"""


def exim(visit: Visit) -> None:
    """Exim delivers one message from a queue of its own."""
    nobody = pwd.getpwnam("nobody")
    user, group = (
        (nobody.pw_uid, nobody.pw_gid) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    )
    with tempfile.TemporaryDirectory(prefix="smtpfeeds-exim-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "passwd").write_text(
            Path("/etc/passwd").read_text() + f"Debian-exim:x:{user}:{group}::/:/bin/false\n"
        )
        (folder / "group").write_text(Path("/etc/group").read_text() + f"Debian-exim:x:{group}:\n")
        places = {
            "folder": folder, "user": user, "group": group, "domain": domain(visit),
            "host": visit.place[0], "port": visit.place[1], "libraries": _libraries(),
            "exim": _program("exim4"),
        }  # fmt: skip
        (folder / "conf").write_text(_EXIM.format(**places))
        start = folder / "exim"
        start.write_text(_EXIM_START.format(**places))
        start.chmod(0o755)
        for below in ("spool", "log"):
            (folder / below).mkdir()
            os.chown(folder / below, user, group)
        _run(
            str(start), "-C", str(folder / "conf"), "-odf", "-f", f"one@{domain(visit)}",
            "two@stray.example", text=_message(visit),
        )  # fmt: skip


def openssl(visit: Visit) -> None:
    """`openssl s_client -starttls smtp`, as certificate checkers run it."""
    host, port = visit.place
    _run(
        _program("openssl"), "s_client", "-starttls", "smtp", "-connect", f"{host}:{port}",
        "-name", f"check.{domain(visit)}", text="QUIT\r\n",
    )  # fmt: skip
