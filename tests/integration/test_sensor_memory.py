"""After clients have left, no memory of the sensor, not even freed memory, has what they sent.

The sensor writes its own memory to a file on a signal, because reading another process needs rights
that a container may not give.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from sensor_support import Client, SensorProcess, started
from servers.processes import wait_until

#: As docs/explanation/privacy.md states.
FURTHER_CLIENTS = 1
#: The installed command, with a signal handler that writes its memory to a file.
WITNESS = """\
import os, pathlib, signal, sys
def write_memory(*_):
    to = pathlib.Path(sys.argv[-1]).with_name("memory")
    buffer = bytearray(1 << 20)
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        with to.with_suffix(".part").open("wb", 0) as file:
            for line in maps.read().splitlines():
                place, rights, *_ = line.split()
                if "w" not in rights:
                    continue
                at, end = (int(number, 16) for number in place.split("-"))
                while at < end:
                    memory.seek(at)
                    try:
                        size = memory.readinto(memoryview(buffer)[: end - at])
                    except OSError:
                        # A guard page of a stack, which holds nothing.
                        at += os.sysconf("SC_PAGESIZE")
                        continue
                    file.write(memoryview(buffer)[:size])
                    at += size
    to.with_suffix(".part").rename(to)
signal.signal(signal.SIGUSR2, write_memory)
from smtpfeeds_common.cli import main
main()
"""


class Witness(SensorProcess):
    """A sensor that writes its memory to a file on request."""

    def command(self, *words: str) -> list[str]:
        self.write_config()
        return [sys.executable, "-c", WITNESS, "sensor", *words, "--config", str(self.config)]

    def memory(self) -> bytes:
        file = self.folder / "memory"
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGUSR2)
        wait_until(file.exists, what="the sensor's memory is written")
        octets = file.read_bytes()
        file.unlink()
        return octets


class Markers:
    """Words that only occur in what a client sends."""

    def __init__(self) -> None:
        self.words: dict[str, bytes] = {}

    def new(self, place: str, length: int = 0) -> bytes:
        """Create a new word for a place, repeated up to a length."""
        word = b"zq%dx%sy" % (len(self.words), os.urandom(4).hex().encode())
        self.words[f"{place}, {length} octets"] = word
        return b".".join([word] * (1 + length // len(word)))

    def places_in(self, octets: bytes) -> list[str]:
        """Return the places of the words that are found, regardless of case."""
        octets = octets.lower()
        return [place for place, word in self.words.items() if word in octets]


def _go_to_tls(client: Client) -> None:
    client.say(b"EHLO tls.example\r\n")
    assert client.say(b"STARTTLS\r\n") == 220
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client.stream.close()
    client.socket = context.wrap_socket(client.socket)
    client.stream = client.socket.makefile("rb")


def _talk(client: Client, markers: Markers, length: int) -> None:
    def marked(place: str) -> bytes:
        return markers.new(place, length)

    expected = [250, 535, 334, 334, 535, 250, 250, 252, 500, 354, 554, 221]
    codes = [
        client.say(b"EHLO %s.example\r\n" % marked("EHLO")),
        client.say(b"AUTH PLAIN %s\r\n" % marked("AUTH PLAIN")),
        client.say(b"AUTH LOGIN\r\n"),
        client.say(marked("login") + b"\r\n"),
        client.say(marked("password") + b"\r\n"),
        client.say(b"MAIL FROM:<%s@a.example> SIZE=9\r\n" % marked("MAIL")),
        client.say(b"rcpt to: <%s@b.example>\r\n" % marked("RCPT")),
        client.say(b"VRFY %s\r\n" % marked("VRFY")),
        client.say(b"%s\r\n" % marked("unknown command")),
        client.say(b"DATA\r\n"),
        client.say((marked("content") + b"\r\n") * 40 + b".\r\n"),
        client.say(b"QUIT\r\n"),
    ]
    assert codes == expected


def _leave_amid_line(client: Client, markers: Markers) -> None:
    client.say(b"EHLO leaves.example\r\n")
    client.send(b"MAIL FROM:<%s" % markers.new("half a line", 400))


def _leave_amid_content(client: Client, markers: Markers) -> None:
    for line in (b"EHLO leaves.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>"):
        assert client.say(line + b"\r\n") == 250
    assert client.say(b"DATA\r\n") == 354
    client.send(markers.new("half a message", 5000))


@pytest.mark.parametrize("tls", ["off", "made"])
def test_memory_and_files_hold_nothing_that_a_client_sent(tmp_path: Path, tls: str) -> None:
    markers = Markers()
    settings = {"data_policy": "drain", "offer_auth": True, "log_level": "debug", "tls": tls}
    with started(Witness(tmp_path, **settings)) as sensor:
        assert isinstance(sensor, Witness)

        def connect() -> Client:
            client = sensor.connect()
            assert client.reply() == 220
            if tls != "off":
                _go_to_tls(client)
            return client

        for length in (0, 300, 1500):
            with connect() as client:
                _talk(client, markers, length)
        for leave in (_leave_amid_line, _leave_amid_content):
            with connect() as client:
                leave(client, markers)
                if leave is _leave_amid_line:
                    # A partial line is in memory and is found, so the test can find what is there.
                    wait_until(
                        lambda: "half a line, 400 octets" in markers.places_in(sensor.memory()),
                        what="the line that is held is in the memory",
                    )
                client.socket.shutdown(socket.SHUT_WR)
        for _ in range(FURTHER_CLIENTS):
            with connect() as client:
                assert client.say(b"EHLO further.example\r\n") == 250
                assert client.say(b"QUIT\r\n") == 221
        assert markers.places_in(sensor.memory()) == []
        assert _in_files(tmp_path, markers) == []
        assert sensor.stop() == 0
    assert _in_files(tmp_path, markers) == []


def _in_files(folder: Path, markers: Markers) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".spool" for path in files)
    return [place for path in files for place in markers.places_in(path.read_bytes())]
