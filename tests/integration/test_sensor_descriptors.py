"""Open files of a sensor: how many it holds and asks for, and what happens at the limit."""

import resource
import subprocess
from pathlib import Path

from sensor_support import Client, SensorProcess, is_root, running, started
from servers.processes import wait_until


def limited(sensor: SensorProcess, soft: int, hard: int) -> SensorProcess:
    """Start the sensor with these limits on open files, without the right to raise them."""
    sensor.within = ["prlimit", f"--nofile={soft}:{hard}", "--"]
    if is_root():
        # Root may raise the hard limit unless it drops that capability. Others do not
        # have it, and may not drop it.
        sensor.within += [
            "setpriv",
            "--bounding-set=-sys_resource",
            "--inh-caps=-sys_resource",
            "--",
        ]
    return sensor


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_soft_limit_is_raised_to_what_addresses_and_workers_need(tmp_path: Path) -> None:
    """Four workers on 256 addresses need 1,024 sockets in the parent and 256 in each worker."""
    sensor = SensorProcess(
        tmp_path, listen=["127.1.0.0/24:0"], workers=4, max_connections=50, name="many"
    )
    with started(limited(sensor, 300, 1200)):
        assert sensor.process is not None
        assert resource.prlimit(sensor.process.pid, resource.RLIMIT_NOFILE)[0] == 1152
        for index in (0, 128, 255):
            with sensor.connect(index) as client:
                assert client.reply() == 220
        assert sensor.stop() == 0


def test_sockets_past_the_hard_limit_refuse_the_start_with_the_number(tmp_path: Path) -> None:
    sensor = limited(SensorProcess(tmp_path, listen=["127.1.0.0/24:0"], workers=4), 300, 900)
    command = [*sensor.within, *sensor.command("run")]
    ended = run(command)
    assert ended.returncode == 2
    assert "256 addresses for 4 workers need 1152 open files" in ended.stderr
    assert "may open 900: raise LimitNOFILE" in ended.stderr
    checked = run([*sensor.within, *sensor.command("check-config")])
    assert checked.returncode == 0
    assert "needs up to 10384 open files; started from here it may open 900" in checked.stderr


def test_connections_past_the_limit_get_a_reply(tmp_path: Path) -> None:
    """The sensor accepts fewer connections, and closes none without a reply."""
    sensor = limited(SensorProcess(tmp_path, listen=["127.0.0.1:0"]), 150, 150)
    with started(sensor):
        assert "max_connections is lowered" in sensor.log.read_text()
        clients = [sensor.connect(0, f"127.0.7.{1 + number}") for number in range(22)]
        codes = [client.reply() for client in clients]
        assert codes == [220] * 21 + [421]
        for client in clients:
            client.close()
        assert sensor.stop() == 0


def test_clients_closed_for_lack_of_files_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, listen=["127.0.0.1:0"], state_interval_s=1) as sensor:
        assert sensor.process is not None
        pid = sensor.process.pid
        with sensor.connect() as before:
            assert before.reply() == 220
            highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
            clients = [Client(sensor.place(), f"127.0.8.{1 + number}") for number in range(30)]
            # The first ones may get lower free numbers.
            closed = [client.reply() for client in clients].count(0)
            for client in clients:
                client.close()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
            assert closed > 20
            assert before.say(b"EHLO client.example\r\n") == 250
        with sensor.connect() as after:
            assert after.reply() == 220
        wait_until(
            lambda: sensor.counters()["refused_files"] == closed,
            what="they are counted",
        )
        assert "no more files can be opened" in sensor.log.read_text()
        assert sensor.stop() == 0
