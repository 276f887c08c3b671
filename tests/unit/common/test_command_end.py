"""A command's exit code shows its outcome, for every way in which it can end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from smtpfeeds_common.cli import COMMANDS, LazyGroup, main

PROGRAM = [sys.executable, "-m", "smtpfeeds_common.cli"]
#: A group with a command for each way to end.
ODD = """
import sys, click
from smtpfeeds_common.cli import LazyGroup
from smtpfeeds_common.errors import DatabaseUnavailable

@click.command(cls=LazyGroup)
def group(): pass

@click.command()
@click.argument("what")
def odd(what):
    if what == "fault": raise ZeroDivisionError("ours")
    if what == "error": raise DatabaseUnavailable("away")
    if what == "interrupt": raise KeyboardInterrupt
    if what == "forbidden": raise PermissionError(13, "Permission denied", "/root/x")
    if what == "outputs":
        sys.stdout.isatty(), sys.stderr.isatty(); print("row")
        file = open(sys.argv[0] or "/dev/null", "rb"); assert file.fileno() not in (1, 2)
        raise click.exceptions.Exit(5)
    if what == "pipe": raise BrokenPipeError(32, "Broken pipe")
    if what == "nothing":
        print("header"); raise click.exceptions.Exit(1)
    print("row\\n" * 200_000)

LazyGroup.get_command = lambda self, ctx, name: odd
group(prog_name="odd")
"""


def run(*arguments: str, code: str | None = None, stdout: int = subprocess.PIPE) -> tuple[int, str]:
    command = PROGRAM if code is None else [sys.executable, "-c", code]
    done = subprocess.run(
        [*command, *arguments],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.decode()


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """Open a pipe whose reader is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def leaves(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield every command with its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            leaf = command.get_command(context, name)
            assert leaf is not None
            yield from leaves(leaf, *path, name)
    else:
        yield path


def test_fault_of_ours_is_never_taken_for_an_answer() -> None:
    code, text = run("odd", "fault", code=ODD)
    assert code == 3
    assert text.rstrip().endswith("ZeroDivisionError: ours")


def test_error_ctrl_c_and_no_answer_have_codes_of_their_own() -> None:
    assert run("odd", "error", code=ODD) == (3, "smtpfeeds: away\n")
    assert run("odd", "interrupt", code=ODD) == (130, "")
    forbidden = "smtpfeeds: this user may not use /root/x: Permission denied\n"
    assert run("odd", "forbidden", code=ODD) == (3, forbidden)
    assert run("odd", "nothing", code=ODD) == (1, "")


def test_reader_that_has_read_enough_is_no_error(closed_pipe: int) -> None:
    assert run("odd", "rows", code=ODD, stdout=closed_pipe) == (0, "")
    assert run("odd", "nothing", code=ODD, stdout=closed_pipe) == (1, "")
    assert run("odd", "error", code=ODD, stdout=closed_pipe) == (3, "smtpfeeds: away\n")


def test_broken_connection_is_not_taken_for_a_reader_that_left() -> None:
    code, text = run("odd", "pipe", code=ODD)
    assert code == 3
    assert "a connection or pipe of the program broke" in text


def test_message_that_nobody_reads_changes_no_exit_code(closed_pipe: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ODD, "odd", "error"],
        stdout=closed_pipe,
        stderr=closed_pipe,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&-"])
def test_command_without_an_output_has_one_and_no_file_takes_its_place(
    tmp_path: Path, closed: str
) -> None:
    script = tmp_path / "odd.py"
    script.write_text(ODD)
    command = f'exec "{sys.executable}" {script} odd outputs {closed}'
    assert subprocess.run(["sh", "-c", command], timeout=60, check=False).returncode == 5


def test_command_without_an_output_ends_as_it_should() -> None:
    script = f'exec "{sys.executable}" -m smtpfeeds_common.cli --version >&-'
    assert subprocess.run(["sh", "-c", script], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("words", list(leaves(main)), ids=" ".join)
def test_every_command_has_these_ends(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands run through the group that handles their end."""
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        leaf = command.get_command(click.Context(command), word)
        assert leaf is not None
        command = leaf

    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "invoke", fault)
    monkeypatch.setattr(command, "params", [])
    with pytest.raises(SystemExit) as end:
        main([*words], prog_name="smtpfeeds")
    assert end.value.code == 3


@pytest.mark.parametrize("name", COMMANDS)
def test_help_for_a_reader_that_left(name: str, closed_pipe: int) -> None:
    assert run(name, "--help", stdout=closed_pipe) == (0, "")


def test_group_is_the_programs() -> None:
    assert isinstance(main, LazyGroup)
