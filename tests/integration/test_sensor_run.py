"""A real sensor process: listening, PROXY, TLS, personas, limits, workers, stop, kill -9.

The module is long because most tests share one process that is started once.
"""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from sensor_support import Client, SensorProcess, memory_bytes, running, settle, started
from servers.certificates import Certificates
from servers.processes import HANG_LIMIT_S, free_port, wait_until
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_deploy.single_host.readiness import Readiness
from smtpfeeds_sensor.edge.listen import target_bit

#: The folder of this module and its support, for a child that needs them.
TESTS = Path(__file__).parent.parent

SESSION = (b"EHLO c.example.org\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b>\r\n", b"DATA\r\n")


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorProcess]:
    """A sensor that many tests share, each as another client by the PROXY protocol."""
    with running(
        tmp_path_factory.mktemp("sensor"),
        listen=["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"],
        trusted_proxies=["127.0.0.2/32"],
        ignore=["198.51.100.0/24"],
        tls="made",
        state_interval_s=1.0,
    ) as sensor:
        yield sensor


def proxied(sensor: SensorProcess, source: str, destination: str = "203.0.113.1") -> Client:
    client = sensor.connect(0, "127.0.0.2")
    client.send(f"PROXY TCP4 {source} {destination} 1 25\r\n".encode())
    return client


def wrapped(client: Client) -> ssl.SSLSocket:
    """Start TLS on a connection that got 220 for STARTTLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(client.socket)


def target(address: str) -> int:
    """Return the bit of a sensor's own address in ``targets``."""
    return 1 << target_bit(pack_address(address))


def in_tls(client: Client) -> ssl.SSLSocket:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert client.reply() == 220
    assert client.say(b"STARTTLS\r\n") == 220
    return wrapped(client)


def test_session_is_in_the_spool_when_it_is_answered(sensor: SensorProcess) -> None:
    with proxied(sensor, "192.0.2.1") as client:
        assert client.reply() == 220
        assert client.say(SESSION[0]) == 250
        assert sensor.rows()["smtpgreet", "192.0.2.1"][:2] == (1, Flags.FULL_HOST_NAME)
        assert [client.say(line) for line in SESSION[1:]] == [250, 250, 554]
        assert sensor.rows()["smtpdata", "192.0.2.1"][0] == 1
        assert client.say(b"QUIT\r\n") == 221
        assert client.is_closed()
    # Behaviours after its events are noted with both, and count no event.
    wait_until(
        lambda: all(
            sensor.rows()[feed, "192.0.2.1"][1] & Flags.QUIT for feed in ("smtpgreet", "smtpdata")
        ),
        what="the notes",
    )
    assert [sensor.rows()[feed, "192.0.2.1"][0] for feed in ("smtpgreet", "smtpdata")] == [1, 1]


def test_ipv4_and_ipv6_side_by_side_each_with_its_address(sensor: SensorProcess) -> None:
    """Twisted's endpoints would fail with EADDRINUSE or report ::ffff:a.b.c.d."""
    with sensor.connect(0) as four, sensor.connect(2) as six:
        assert (four.reply(), six.reply()) == (220, 220)
        assert (four.say(b"HELO x\n"), six.say(b"HELO x\r\n")) == (250, 250)
    rows = sensor.rows()
    helo = Flags.HELO | Flags.SHORT_NAME
    assert rows["smtpgreet", "127.0.0.1"] == (1, helo | Flags.BARE_LF, target("127.0.0.1"))
    assert rows["smtpgreet", "::1"] == (1, helo, target("::1"))


def test_proxy_header_in_two_segments(sensor: SensorProcess) -> None:
    """Twisted's wrapper would drop it, and send the banner before it knows the client."""
    with sensor.connect(0, "127.0.0.2") as client:
        client.send(b"PROXY TCP6 2001:db8::7 2001")
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(HANG_LIMIT_S)
        client.send(b":db8::1 1 25\r\nEHLO x\r\n")
    with sensor.connect(0, "127.0.0.2") as client:
        client.send(b"PROXY TCP6 2001:db8::8 2001:db8::1 1 25\r\nEHLO x\r\n")
        assert [client.reply(), client.reply()] == [220, 250]
    assert ("smtpgreet", "2001:db8::8") in sensor.rows()


def test_proxy_v2_header(sensor: SensorProcess) -> None:
    addresses = socket.inet_aton("192.0.2.22") + socket.inet_aton("203.0.113.9") + b"\0\1\0\x19"
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(addresses).to_bytes(2) + addresses
    with sensor.connect(0, "127.0.0.2") as client:
        assert client.say(header) == 220
        assert client.say(b"EHLO x\r\n") == 250
    assert ("smtpgreet", "192.0.2.22") in sensor.rows()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"])
def test_health_check_of_a_proxy_is_answered_and_not_counted(
    sensor: SensorProcess, header: bytes
) -> None:
    before = sensor.rows()
    with sensor.connect(0, "127.0.0.2") as client:
        assert client.say(header) == 220
        assert [client.say(line) for line in SESSION] == [250, 250, 250, 554]
        assert client.say(b"QUIT\r\n") == 221
    assert sensor.rows() == before


def test_proxy_v2_header_of_some_kilobytes(sensor: SensorProcess) -> None:
    """It contains a cloud's identifiers and a client's certificate, which the sensor skips."""
    addresses = socket.inet_aton("192.0.2.23") + socket.inet_aton("203.0.113.9") + b"\0\1\0\x19"
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + (12 + 9000).to_bytes(2) + addresses
    with sensor.connect(0, "127.0.0.2") as client:
        client.send(header + b"\x20" * 4000)
        settle()
        client.send(b"\x20" * 5000)
        assert client.reply() == 220
        assert client.say(b"EHLO x\r\n") == 250
    assert ("smtpgreet", "192.0.2.23") in sensor.rows()


def test_trusted_proxy_without_a_header_is_closed(sensor: SensorProcess) -> None:
    with sensor.connect(0, "127.0.0.2") as client:
        client.send(b"EHLO x\r\n")
        assert client.is_closed()
    assert ("smtpgreet", "127.0.0.2") not in sensor.rows()


def test_proxy_header_from_anyone_else_is_not_smtp(sensor: SensorProcess) -> None:
    with sensor.connect(0, "127.0.0.3") as client:
        assert client.reply() == 220
        assert client.say(b"PROXY TCP4 192.0.2.99 203.0.113.1 1 25\r\n") == 500
    assert ("smtpgreet", "192.0.2.99") not in sensor.rows()


def test_ignored_monitor_is_answered_and_not_counted(sensor: SensorProcess) -> None:
    with proxied(sensor, "198.51.100.7") as client:
        assert client.reply() == 220
        assert client.say(b"EHLO monitor\r\n") == 250
    assert ("smtpgreet", "198.51.100.7") not in sensor.rows()


def test_client_that_disconnects_before_its_reply_counts(sensor: SensorProcess) -> None:
    for number in range(20):
        client = proxied(sensor, f"192.0.2.{100 + number}")
        client.send(b"EHLO x\r\n")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(client.was_read, what="the greeting is read")
        client.close()
    wait_until(
        lambda: all(("smtpgreet", f"192.0.2.{100 + n}") in sensor.rows() for n in range(20)),
        what="the greets",
    )


def test_starttls_with_a_certificate_created_at_the_start(sensor: SensorProcess) -> None:
    """Plaintext after STARTTLS is discarded; DATA without a new EHLO is a data event."""
    with proxied(sensor, "192.0.2.50") as client:
        assert client.reply() == 220
        assert client.say(b"EHLO x\r\n") == 250
        assert client.say(b"STARTTLS\r\n") == 220
        with wrapped(client) as secured:
            secured.sendall(b"DATA\r\nQUIT\r\n")
            reply = b""
            while piece := secured.recv(1000):
                reply += piece
    assert [line[:3] for line in reply.split(b"\r\n")[:-1]] == [b"503", b"221"]
    assert sensor.rows()["smtpgreet", "192.0.2.50"][0] == 1
    assert sensor.rows()["smtpdata", "192.0.2.50"][0] == 1


def test_tls_handshake_that_fails_is_closed(sensor: SensorProcess) -> None:
    with proxied(sensor, "192.0.2.51") as client:
        client.reply()
        assert client.say(b"STARTTLS\r\n") == 220
        client.send(b"EHLO not tls\r\n")
        client.socket.settimeout(HANG_LIMIT_S)
        while client.socket.recv(1000):
            pass
    assert ("smtpgreet", "192.0.2.51") not in sensor.rows()


def test_status_works_without_a_running_sensor(sensor: SensorProcess) -> None:
    result = sensor.call("status", "--json")
    assert result.returncode == 0, result.stderr
    status = json.loads(result.stdout)
    assert status["sensor"] == "s1"
    assert status["version"], "noted at the start: the first batch carries it"
    assert status["spool"] == str(sensor.spool)
    assert set(status["rows"]) == {"smtpgreet", "smtpdata"}
    assert status["batches_waiting"] == status["batches_too_large"] == status["drops"] == 0
    text = sensor.call("status").stdout
    assert text.splitlines()[0] == str(sensor.spool)
    for word in ("sensor", "waits", "batches", "size", "events dropped"):
        assert re.search(rf"^  {word} ", text, re.MULTILINE), text


def test_replay_prints_number_and_time(sensor: SensorProcess) -> None:
    result = sensor.call("replay", "--since", "2026-01-02T03:04:05")
    assert result.stdout.startswith("0 batches sealed since 2026-01-02"), result.stderr
    assert "03:04:05" in result.stdout
    assert result.stdout.endswith(" will be delivered again\n")
    result = sensor.call("replay", "--since", "yesterday")
    assert result.returncode == 2
    assert "yesterday" in result.stderr
    assert "Traceback" not in result.stderr


def test_second_sensor_on_the_spool_is_refused(sensor: SensorProcess) -> None:
    result = sensor.call("run")
    assert result.returncode == 3
    assert "in use by another sensor" in result.stderr
    assert "Traceback" not in result.stderr


def test_clean_stop_replies_421_and_keeps_the_spool(tmp_path: Path) -> None:
    with running(tmp_path) as sensor:
        clients = [sensor.connect() for _ in range(3)]
        assert [client.reply() for client in clients] == [220] * 3
        assert clients[0].say(b"EHLO x\r\n") == 250
        assert sensor.stop() == 0
        assert [client.reply() for client in clients] == [421] * 3
        for client in clients:
            client.close()
        assert sensor.rows()["smtpgreet", "127.0.0.1"][0] == 1
        assert not re.search(r"\b421\b", sensor.log.read_text())
        sensor.start()
        assert sensor.stop() == 0
        assert sensor.rows()["smtpgreet", "127.0.0.1"][0] == 1


def test_limits_per_source_and_in_total(tmp_path: Path) -> None:
    with running(tmp_path, max_connections_per_source=2, max_connections=4) as sensor:
        held = [sensor.connect(0, "127.0.0.5") for _ in range(2)]
        assert [client.reply() for client in held] == [220, 220]
        with sensor.connect(0, "127.0.0.5") as third:
            assert third.reply() == 421
            assert third.is_closed()
        held += [sensor.connect(0, f"127.0.0.{6 + number}") for number in range(2)]
        assert held[-1].reply() == 220
        with sensor.connect(0, "127.0.0.9") as fifth:
            assert fifth.reply() == 421
        held.pop().close()

        def is_let_in() -> bool:
            with sensor.connect(0, "127.0.0.9") as now:
                return now.reply() == 220

        wait_until(is_let_in, what="there is room again")
        for client in held:
            client.close()
        sensor.stop()
        counters = sensor.counters()
        assert counters["refused_source"] == 1
        assert counters["refused_total"] >= 1


def test_idle_and_slow_clients_are_disconnected(tmp_path: Path) -> None:
    """One octet a second does not keep a connection open; only whole lines do."""
    with running(tmp_path, idle_timeout_s=2, session_timeout_s=4) as sensor:
        began = time.monotonic()
        idle, slow, busy = (sensor.connect() for _ in range(3))
        assert [client.reply() for client in (idle, slow, busy)] == [220] * 3
        for _ in range(6):
            assert busy.say(b"NOOP\r\n") == 250
            slow.send(b"E")
            time.sleep(0.25)
        while busy.say(b"NOOP\r\n") == 250:
            time.sleep(0.2)
        assert [idle.reply(), slow.reply()] == [421, 421]
        assert time.monotonic() - began > 3
        for client in (idle, slow, busy):
            client.close()
        sensor.stop()
        counters = sensor.counters()
        assert (counters["limit_idle"], counters["limit_session"]) == (2, 1)


def test_client_that_never_reads_is_dropped_and_memory_is_bounded(tmp_path: Path) -> None:
    with running(tmp_path, max_commands=100_000, max_unsent_bytes=4096) as sensor:
        assert sensor.process is not None
        before = memory_bytes(sensor.process.pid)
        with sensor.connect() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    client.send(b"EHLO x\r\n" * 500)
        assert memory_bytes(sensor.process.pid) - before < 8_000_000
        with sensor.connect() as honest:
            assert honest.reply() == 220
        sensor.stop()
        assert sensor.counters()["limit_unsent"] == 1


def test_client_that_never_reads_in_tls_is_dropped_too(tmp_path: Path) -> None:
    with running(tmp_path, max_commands=100_000, max_unsent_bytes=4096, tls="made") as sensor:
        assert sensor.process is not None
        with in_tls(sensor.connect()) as client:
            before = memory_bytes(sensor.process.pid)
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    client.sendall(b"EHLO x\r\n" * 500)
            assert memory_bytes(sensor.process.pid) - before < 8_000_000
        sensor.stop()
        assert sensor.counters()["limit_unsent"] == 1


@pytest.mark.parametrize("tls", [False, True])
def test_replies_that_were_read_are_no_longer_unsent(tmp_path: Path, *, tls: bool) -> None:
    """A client that reads all replies is never dropped, regardless of their total size."""
    with running(tmp_path, max_commands=100_000, max_unsent_bytes=2000, tls="made") as sensor:
        connected = sensor.connect()
        client = in_tls(connected) if tls else connected.socket
        if not tls:
            assert connected.reply() == 220
        with client:
            for _ in range(30):
                client.sendall(b"NOOP\r\n" * 400)
                awaited = 400 * len(b"250 2.0.0 OK\r\n")
                while awaited:
                    awaited -= len(client.recv(awaited))
        connected.close()
        sensor.stop()
        assert sensor.counters()["limit_unsent"] == 0


def test_early_starttls_gets_banner_and_replies_before_the_handshake(tmp_path: Path) -> None:
    with running(tmp_path, banner_delay_s=0.3, tls="made") as sensor:
        with sensor.connect() as client:
            client.send(b"EHLO x\r\nSTARTTLS\r\n")
            assert [client.reply() for _ in range(3)] == [220, 250, 220]
            with wrapped(client) as secured:
                secured.sendall(b"QUIT\r\n")
                assert secured.recv(100).startswith(b"221")
        with sensor.connect() as client:
            client.send(b"EHLO x\r\nQUIT\r\n")
            assert [client.reply() for _ in range(3)] == [220, 250, 221]
            assert client.is_closed()
        hits, flags, _ = sensor.rows()["smtpgreet", "127.0.0.1"]
        early = Flags.BANNER_DELAYED | Flags.EARLY_TALKER
        assert (hits, flags & early) == (2, early)


def test_content_past_the_bound_still_gets_its_refusal(tmp_path: Path) -> None:
    """A sender of a large message must get 554 instead of a reset."""
    with (
        running(tmp_path, data_policy="drain", max_content_bytes=100_000) as sensor,
        sensor.connect() as client,
    ):
        client.reply()
        assert [client.say(line) for line in SESSION] == [250, 250, 250, 354]
        client.send(b"x" * 78 + b"\r\n")
        for _ in range(20):
            client.send((b"y" * 78 + b"\r\n") * 100)
            time.sleep(0.01)
        assert client.reply() == 554


def test_personas_by_local_address(tmp_path: Path) -> None:
    with running(
        tmp_path,
        listen=["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"],
        personas={
            "127.0.0.2": "postfix",
            "127.0.0.3": {"like": "exim", "hostname": "b.example", "banner": "{host} ESMTP hi"},
        },
    ) as sensor:
        banners = []
        for index in range(3):
            with sensor.connect(index) as client:
                banners.append(client.stream.readline())
        assert banners == [
            b"220 mx.example ESMTP\r\n",
            b"220 mx.example ESMTP Postfix\r\n",
            b"220 b.example ESMTP hi\r\n",
        ]


def test_hundreds_of_addresses_from_a_prefix_and_the_wildcard(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, listen=["127.0.4.0/24:0", f"*:{port}"]) as sensor:
        assert len(sensor.addresses) == 258
        dialled = sensor.place(77)[0]
        with sensor.connect(77) as client:
            assert client.reply() == 220
            client.say(b"EHLO x\r\n")
        assert sensor.rows()["smtpgreet", "127.0.0.1"][2] == target(dialled)
        for host in ("127.0.9.1", "::1"):
            with Client((host, port)) as client:
                assert client.reply() == 220
                client.say(b"EHLO x\r\n")
        assert sensor.rows()["smtpgreet", "::1"][2] != 0


def test_workers_share_the_port_each_with_a_spool(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as sensor:
        for number in range(40):
            with sensor.connect(0, f"127.0.5.{1 + number}") as client:
                assert client.reply() == 220
                assert client.say(b"EHLO x\r\n") == 250
        assert sensor.process is not None
        workers = children(sensor.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: "worker runs again" in sensor.log.read_text(), what="its return")
        for number in range(40):
            with sensor.connect(0, f"127.0.6.{1 + number}") as client:
                assert client.reply() == 220
                assert client.say(b"EHLO x\r\n") == 250
        assert sensor.stop() == 0
        addresses: set[bytes] = set()
        for worker in (1, 2):
            sensor.settings["name"] = f"s1.{worker}"
            rows = sensor.query("SELECT ip FROM observation WHERE feed = 0")
            assert rows
            addresses |= {row[0] for row in rows}
        assert len(addresses) == 80


@pytest.mark.parametrize("workers", [1, 2])
def test_child_that_the_sensor_did_not_start_is_reaped_and_ends_nothing(
    tmp_path: Path, workers: int
) -> None:
    """As the first process of a container, the sensor inherits every orphan."""
    sensor = SensorProcess(tmp_path, workers=workers)
    # The shell execs the sensor, which then has a child that it did not start.
    sensor.within = ["sh", "-c", 'sleep 600 & exec "$@"', "sh"]
    with started(sensor):
        assert sensor.process is not None
        pid = sensor.process.pid
        before = children(pid)
        its_own = 0 if workers == 1 else workers
        assert len(before) == its_own + 1
        (orphan,) = (each for each in before if b"sleep" in command_of(each))
        os.kill(orphan, signal.SIGKILL)
        wait_until(lambda: len(children(pid)) == its_own, what="it is reaped")
        with sensor.connect() as client:
            assert client.reply() == 220
        assert set(children(pid)) < set(before)
        assert sensor.stop() == 0
        assert "Traceback" not in sensor.log.read_text()


def test_workers_hold_only_their_own_sockets(tmp_path: Path) -> None:
    """A worker has neither the sockets that Twisted duplicated, nor those of other workers."""
    with running(tmp_path, workers=3, listen=["127.1.0.0/24:0"]) as sensor:
        assert sensor.process is not None
        pid = sensor.process.pid
        assert listeners(pid) == 3 * 256
        assert [listeners(child) for child in children(pid)] == [256] * 3
        assert sensor.stop() == 0
    with running(tmp_path, listen=["127.1.0.0/24:0"]) as sensor:
        assert sensor.process is not None
        assert listeners(sensor.process.pid) == 256


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def listeners(pid: int) -> int:
    """Count the listening TCP sockets of a process."""
    listening = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    held = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # The program may close a file between the two steps.
        with contextlib.suppress(FileNotFoundError):
            held.append(str(entry.readlink()))
    return sum(link.removeprefix("socket:[").removesuffix("]") in listening for link in held)


def test_files_certificate_metrics_and_notify(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path / "certificates")
    port = free_port()
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(HANG_LIMIT_S)
    os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    try:
        with running(
            tmp_path,
            tls="files",
            tls_certificate=str(certificates.certificate),
            tls_key=str(certificates.key),
            metrics_listen=f"127.0.0.1:{port}",
        ) as sensor:
            assert notify.recv(100) == b"READY=1"
            with sensor.connect() as client:
                client.reply()
                client.say(b"EHLO x\r\n")
                client.say(b"STARTTLS\r\n")
                context = ssl.create_default_context(cafile=str(certificates.authority))
                with context.wrap_socket(client.socket, server_hostname="localhost") as secured:
                    assert secured.version() in {"TLSv1.2", "TLSv1.3"}
            address = f"http://127.0.0.1:{port}/metrics"
            wait_until(
                # In TLS 1.3 the client finishes the handshake first.
                lambda: b"tls_handshakes_total 1.0" in urllib.request.urlopen(address).read(),
                what="the handshake is counted",
            )
            text = urllib.request.urlopen(address, timeout=HANG_LIMIT_S).read()
            assert b"smtpfeeds_sensor_greets_total 1.0" in text
            assert b"smtpfeeds_sensor_spool_in_outage 0.0" in text
            assert sensor.stop() == 0
    finally:
        del os.environ["NOTIFY_SOCKET"]
        notify.close()


def test_systemd_sockets_by_index(tmp_path: Path) -> None:
    """Twisted's `systemd:name=` would use the last socket of a repeated name."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    places = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    sensor = SensorProcess(tmp_path, listen=["systemd:1"])
    code = (
        "import os, sys\n"
        "fds = [int(n) for n in sys.argv[1].split(',')]\n"
        "high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]\n"
        "for i, fd in enumerate(high): os.dup2(fd, 3 + i)\n"
        "os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )
    numbers = [one.fileno() for one in sockets]
    command = [sys.executable, "-c", code, ",".join(map(str, numbers))]
    process = subprocess.Popen([*command, *sensor.command("run")], pass_fds=numbers)
    for one in sockets:
        one.close()
    try:
        listening = sensor.spool.with_suffix(".listening")
        wait_until(listening.exists, what="the sensor")
        assert json.loads(listening.read_text())["addresses"] == [places[1]]
        host, _, port = places[1].rpartition(":")
        with Client((host, int(port))) as client:
            assert client.reply() == 220
    finally:
        process.terminate()
        process.wait(60)


def _counts(numbers: dict[str, int], lock: threading.Lock, total: int) -> bool:
    """Return whether the numbers, which other threads raise, amount to so many."""
    with lock:
        return sum(numbers.values()) >= total


@pytest.mark.parametrize("rounds", [2])
def test_kill_9_under_load_loses_no_greet_that_was_answered(tmp_path: Path, rounds: int) -> None:
    """Every greet that was answered is in the spool, and counted once."""
    answered: dict[str, int] = {}
    sent: dict[str, int] = {}
    ledger = threading.Lock()

    def clients(place: tuple[str, int], number: int, until: threading.Event) -> None:
        at = 0
        while not until.is_set():
            at += 1
            source = f"127.1.{number}.{1 + at % 200}"
            try:
                with Client(place, source) as client:
                    if client.reply() != 220:
                        continue
                    with ledger:
                        sent[source] = sent.get(source, 0) + 1
                    if client.say(b"EHLO x\r\n") == 250:
                        with ledger:
                            answered[source] = answered.get(source, 0) + 1
            except OSError:
                continue

    sensor = SensorProcess(tmp_path, max_connections_per_source=1000)
    for number in range(1, rounds + 1):
        sensor.start()
        until = threading.Event()
        threads = [
            threading.Thread(target=clients, args=(sensor.place(), client, until))
            for client in range(8)
        ]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1.5)
            wait_until(partial(_counts, answered, ledger, 160 * number), what="they are answered")
        finally:
            sensor.kill()
            until.set()
            for thread in threads:
                thread.join()
    sensor.start()
    assert sensor.stop() == 0
    rows = {ip: hits for (feed, ip), (hits, _, _) in sensor.rows().items() if feed == "smtpgreet"}
    assert sum(answered.values()) > 300
    for source, number in answered.items():
        assert number <= rows[source] <= sent[source]
    hours = sensor.query("SELECT sum(events) FROM activity WHERE feed = 0")
    assert hours == [(sum(rows.values()),)]


def test_unwritable_spool_does_not_end_the_sensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor keeps answering, folds in memory, logs that once, and recovers.

    It reports the trouble while it lasts, and what a stop at such a time loses.
    """
    readiness = Readiness()
    monkeypatch.setenv("NOTIFY_SOCKET", readiness.address)

    def troubles() -> str:
        readiness.look()
        return "".join(readiness.progress.get("troubles", ()))

    with running(tmp_path, trusted_proxies=["127.0.0.2/32"]) as sensor:
        # Another connection locks the file. For the sensor that looks like a full disk,
        # and it lasts as long as the test needs.
        import sqlite3

        db = sqlite3.connect(sensor.spool, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        with proxied(sensor, "192.0.2.1") as client:
            assert client.reply() == 220
            began = time.monotonic()
            assert client.say(b"EHLO x\r\n") == 250
            assert time.monotonic() - began > 0.5
        for number in range(50):
            with proxied(sensor, f"192.0.3.{number}") as client:
                assert client.reply() == 220
                assert client.say(b"EHLO x\r\n") == 250
        assert sensor.log.read_text().count("kept in memory") == 1
        wait_until(lambda: "events in memory: 51" in troubles(), what="a report of the trouble")
        db.execute("COMMIT")
        wait_until(lambda: len(sensor.rows()) == 51, what="the events in the file")
        assert "spool written again" in sensor.log.read_text()
        wait_until(lambda: not troubles(), what="a report that all is well")
        db.execute("BEGIN IMMEDIATE")
        with proxied(sensor, "192.0.2.2") as client:
            assert client.reply() == 220
            assert client.say(b"EHLO x\r\n") == 250
        assert sensor.stop() == 0
        readiness.look()
        assert readiness.progress["lost"] == 1
        db.close()
        readiness.close()


def test_parent_reports_that_workers_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd accepts reports of the parent alone."""
    readiness = Readiness()
    monkeypatch.setenv("NOTIFY_SOCKET", readiness.address)

    def troubles() -> str:
        readiness.look()
        return "".join(readiness.progress.get("troubles", ()))

    with running(tmp_path, workers=2) as sensor, ExitStack() as stack:
        import sqlite3

        spools = sorted(sensor.spool.parent.glob("*.spool"))
        locked = [
            stack.enter_context(closing(sqlite3.connect(spool, isolation_level=None)))
            for spool in spools
        ]
        assert len(locked) == 2
        for db in locked:
            db.execute("BEGIN IMMEDIATE")
        with sensor.connect() as client:
            assert client.reply() == 220
            assert client.say(b"EHLO x\r\n") == 250
        wait_until(
            lambda: "in memory: 1, lost if it stops now (1 of 2 wor" in troubles(), what="it"
        )
        for db in locked:
            db.execute("COMMIT")
        wait_until(lambda: not troubles(), what="a report that all is well")
        assert readiness.progress["greets"] == 1
    readiness.close()


def without_ipv6(sensor: SensorProcess) -> SensorProcess:
    """Run the sensor as on a kernel without IPv6."""
    sensor.within = ["env", f"PYTHONPATH={TESTS}", sys.executable, "-m", "sensor_support.no_ipv6"]
    return sensor


def test_kernel_without_ipv6_still_listens_on_every_ipv4_address(tmp_path: Path) -> None:
    port = free_port()
    with started(without_ipv6(SensorProcess(tmp_path, listen=[f"*:{port}"]))) as sensor:
        assert sensor.addresses == [f"0.0.0.0:{port}"]
        with Client(("127.0.0.1", port)) as client:
            assert client.reply() == 220
        assert f"no IPv6 address=[::]:{port}" in sensor.log.read_text()


def test_ipv6_address_without_ipv6_in_the_kernel_is_refused_with_the_reason(tmp_path: Path) -> None:
    sensor = without_ipv6(SensorProcess(tmp_path, listen=["127.0.0.1:0", "[::1]:0"]))
    ended = subprocess.run(
        [*sensor.within, *sensor.command("run")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "cannot listen on [::1]:0" in ended.stderr
    assert "no IPv6: leave the address out" in ended.stderr
    assert "Traceback" not in ended.stderr
