"""No message, log or traceback of either program contains a part of a password."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from servers.processes import free_port
from smtpfeeds_common.cli import main

PROGRAM = str(Path(sys.executable).parent / "smtpfeeds")
#: A password consists of both words and a character between them; no output contains either.
WORDS = ("Qzxvjw", "Wkqypz")
PARTS = ("Qzx", "zxv", "xvj", "vjw", "Wkq", "kqy", "qyp", "ypz")
#: The log event of a program that could not connect and tries again.
TRIED = ("no broker; batches are held", "waiting for the database")
CHARACTERS = "#/?%@:[]\\ ,'\"&=+;!"


def write(folder: Path, settings: dict[str, Any]) -> Path:
    file = folder / "settings.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    return file


def sensor_settings(folder: Path) -> dict[str, Any]:
    return {
        "name": "s1",
        "listen": [f"127.0.0.1:{free_port()}"],
        "spool_dir": str(folder / "spool"),
        "log_level": "debug",
    }


def command(arguments: list[str], environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Return a command's exit code and output; stop one that keeps running after its first try."""
    output: list[str] = []
    with subprocess.Popen(
        [PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environ or {})},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if any(event in line for event in TRIED):
                process.send_signal(signal.SIGTERM)
    return process.returncode, "".join(output)


def check(program: str, config: Path) -> tuple[int, str]:
    """Run `smtpfeeds PROGRAM check-config` in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # the command configures logging itself
    try:
        done = CliRunner().invoke(main, [program, "check-config", "--config", str(config)])
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return done.exit_code, done.output


def tried(program: str, step: str, config: Path) -> tuple[int, str]:
    if step == "check-config":
        return check(program, config)
    return command([program, step, "--config", str(config)])


def assert_secret(output: str) -> None:
    for part in PARTS:
        assert part not in output, output


def passwords() -> list[str]:
    return [character.join(WORDS) for character in CHARACTERS]


@pytest.mark.parametrize("step", ["check-config", "run"])
@pytest.mark.parametrize("program", ["sensor", "aggregator"])
def test_broker_password_is_never_printed(tmp_path: Path, program: str, step: str) -> None:
    """For an invalid address the message says how to write it, and quotes none of it."""
    base = sensor_settings(tmp_path)
    if program == "aggregator":
        base = {"dsn": "host=127.0.0.1 port=1 dbname=x", "log_level": "debug"}
    refused = set()
    for password in passwords():
        if step == "run" and password[len(WORDS[0])] not in "#/?%@":
            continue  # a program's start takes a second
        url = f"amqp://s1:{password}@127.0.0.1:1/feeds"
        config = write(tmp_path, base | {"broker": [url]})
        code, output = tried(program, step, config)
        assert_secret(output)
        assert code in {0, 2}, output
        if code == 2:
            refused.add(password[len(WORDS[0])])
            assert "# as %23" in output
    assert refused == (set("#/? ") if step == "check-config" else set("#/?"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("broker", "amqp://s1:{}@127.0.0.1/"),  # a text instead of a list
        ("broker", ["s1:{}@127.0.0.1"]),
        ("broker", [["{}"]]),
        ("dsn", ["host=x password={}"]),
        ("broker_password", ["{}"]),
    ],
)
@pytest.mark.parametrize("program", ["sensor", "aggregator"])
def test_secret_of_a_wrong_type_is_not_printed(
    tmp_path: Path, program: str, setting: str, value: object
) -> None:
    base = sensor_settings(tmp_path) if program == "sensor" else {"dsn": "dbname=x"}
    text = json.dumps(value).replace("{}", "".join(WORDS))
    config = write(tmp_path, base | {setting: json.loads(text)})
    code, output = check(program, config)
    assert_secret(output)
    assert (code, "Traceback" in output) == (2, False)


@pytest.mark.parametrize("step", ["check-config", "run"])
def test_database_password_is_never_printed(tmp_path: Path, step: str) -> None:
    spools = tmp_path / "spools"
    spools.mkdir()
    forms = ("postgresql://u:{}@127.0.0.1:1/db", "host=127.0.0.1 port=1 user=u password={}")
    for form in forms:
        for password in passwords():
            if step == "run" and password[len(WORDS[0])] not in "#/?%' ":
                continue
            config = write(tmp_path, {"dsn": form.format(password), "broker": [f"spool:{spools}"]})
            code, output = tried("aggregator", step, config)
            assert_secret(output)
            assert code in {0, 2}, output
            if code == 2:
                assert "dsn_password_file" in output
                assert ("% as %25" in output) == form.startswith("postgresql")


def test_secrets_in_the_environment_are_not_printed(tmp_path: Path) -> None:
    """A comma separates addresses there; the message says how to escape one."""
    password = ",".join(WORDS)
    config = write(tmp_path, sensor_settings(tmp_path))
    environ = {"SMTPFEEDS_SENSOR_BROKER": f"amqp://s1:{password}@127.0.0.1/"}
    code, output = command(["sensor", "check-config", "--config", str(config)], environ)
    assert_secret(output)
    assert (code, "a comma as %2C" in output) == (2, True)
    environ = {"SMTPFEEDS_AGGREGATOR_DSN": f"postgresql://u:{'%'.join(WORDS)}@127.0.0.1/db"}
    code, output = command(["query", "192.0.2.1"], environ)
    assert_secret(output)
    assert (code, "% as %25" in output) == (2, True)


def test_password_file_that_is_not_text_is_not_quoted(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes("".join(WORDS).encode("utf-16"))
    config = write(
        tmp_path,
        sensor_settings(tmp_path)
        | {"broker": ["amqp://s1@127.0.0.1"], "broker_password_file": str(secret)},
    )
    code, output = check("sensor", config)
    assert_secret(output)
    assert (code, "is not text in UTF-8" in output, "0xff" in output) == (2, True, False)
