"""Examples in help and docs are valid; shell completion and manual pages work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from smtpfeeds_common.answers import ANSWER
from smtpfeeds_common.cli import COMMANDS, main
from smtpfeeds_common.manual import walk

ROOT = Path(__file__).parents[2]
#: `smtpfeeds` at the begin of a line of an example, or behind a prompt or a path.
EXAMPLE = re.compile(r"^\s*(?:\$ |sudo )?(?:\S*/)?smtpfeeds (?=[a-z])", re.MULTILINE)


def examples_of(text: str) -> list[str]:
    """Return the arguments of `smtpfeeds` in the examples of a text, without shell syntax."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        re.split(r"\s[|<>&;]|\s#\s", joined[match.end() :].split("\n", 1)[0])[0]
        for match in EXAMPLE.finditer(joined)
    ]


def parse(words: list[str]) -> click.Command:
    """Parse the words like the command line, without running them; return the command."""
    command: click.Command = main
    context = click.Context(main, info_name="smtpfeeds")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.get_command(context, words[0])
        assert below is not None, f"there is no command {words[0]}"
        command, words = below, words[1:]
        if isinstance(command, click.Group):
            context = click.Context(command, parent=context)
    try:
        context_of_words = command.make_context(command.name, list(words), parent=context)
    except click.exceptions.Exit:
        pass  # --help
    except click.BadParameter as exc:
        # Its files are the reader's.
        if "does not exist" not in exc.message:
            raise
    else:
        check_fields(command, context_of_words.params.get("fields"))
    return command


def check_fields(command: click.Command, names: str | None) -> None:
    """Check that an answer of the command has the fields."""
    if names is None:
        return
    answers = getattr(command.callback, ANSWER).values()
    known = [{column.name for column in columns} for columns in answers]
    assert any(set(names.split(",")) <= each for each in known), f"--fields {names}"


def help_of(command: click.Command) -> str:
    return f"{command.help or ''}\n{command.epilog or ''}"


def all_examples() -> list[tuple[str, str]]:
    texts = {
        " ".join(path): help_of(command)
        for path, command in walk(("smtpfeeds",), main, click.Context(main))
    }
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if page.name != "commands.md":  # the help again, and usage lines
            blocks = re.findall(r"^(?: {4,}.*|```[\s\S]*?^```)", page.read_text(), re.MULTILINE)
            texts[str(page.relative_to(ROOT))] = "\n".join(blocks)
    return [(where, example) for where, text in texts.items() for example in examples_of(text)]


def test_every_example_in_help_and_docs_is_read_without_an_error() -> None:
    examples = all_examples()
    assert len(examples) > 40
    wrong = []
    for where, example in examples:
        # A shell variable may be a number as well as a name.
        words = shlex.split(re.sub(r"\$[A-Z_]+", "1", example.replace("…", "x")))
        try:
            parse(words)
        except (AssertionError, click.ClickException) as exc:
            wrong.append(f"{where}: smtpfeeds {example}: {exc}")
    assert wrong == []


def test_every_command_has_a_few_examples_of_its_own() -> None:
    """Each command's own help has examples."""
    wrong = []
    for path, command in walk(("smtpfeeds",), main, click.Context(main)):
        if not isinstance(command, click.Group):
            called = [parse(shlex.split(example)) for example in examples_of(help_of(command))]
            if not 1 <= len(called) <= 4 or not all(each is command for each in called):
                wrong.append(f"{' '.join(path)}: {len(called)}")
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("smtpfeeds que", {"query"}),
        ("smtpfeeds ", set(COMMANDS)),
        ("smtpfeeds query --min-", {"--min-hits", "--min-sensors"}),
        ("smtpfeeds sensors rot", {"rotate"}),
    ],
)
def test_shell_completes(words: str, expected: set[str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from smtpfeeds_common.cli import main; main(prog_name='smtpfeeds')",
        ],
        env={
            **os.environ,
            "_SMTPFEEDS_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_the_shell_reads_it(shell: str, tmp_path: Path) -> None:
    places = {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    printed = CliRunner().invoke(main, ["completion", shell])
    assert "_SMTPFEEDS_COMPLETE" in printed.stdout
    # fish: a description with a comma stays whole.
    assert ("string split" in printed.output) == (shell == "fish")
    assert printed.output.count("string split") == printed.output.count("split --max 1")
    done = CliRunner().invoke(main, ["completion", shell, "--install"], env=places)
    assert done.exit_code == 0
    (written,) = [path for path in tmp_path.rglob("*smtpfeeds*") if path.is_file()]
    assert written.read_text() == printed.stdout


def test_a_shell_completes_the_names_of_files() -> None:
    complete = ShellComplete(main, {}, "smtpfeeds", "_SMTPFEEDS_COMPLETE")
    for words in (
        *(["filter"], ["filter", "--from"], ["filter", "--key"], ["query", "--from"]),
        *(["query", "--file"], ["stats", "--from"], ["feed", "show", "smtpgreet", "--from"]),
        *(["feed", "diff"], ["feed", "diff", "before"], ["feed", "verify"]),
    ):
        kinds = {item.type for item in complete.get_completions(words, "x")}
        assert kinds == {"file"}, words


def test_every_command_has_a_manual_page(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["man", "--output", str(tmp_path)])
    assert done.exit_code == 0
    pages = {path.name for path in tmp_path.iterdir()}
    assert {"smtpfeeds.1", "smtpfeeds-query.1", "smtpfeeds-sensors-purge.1"} <= pages
    text = (tmp_path / "smtpfeeds-query.1").read_text()
    assert text.startswith('.TH "SMTPFEEDS-QUERY" "1"')
    assert "\\-\\-min\\-hits" in text
    for page in tmp_path.iterdir():
        assert page.read_bytes().isascii(), "a pager may expect any encoding"
    below_options = (tmp_path / "smtpfeeds-stats.1").read_text().partition(".SH OPTIONS")[2]
    sections = [line for line in below_options.splitlines() if line.startswith(".SH")]
    assert sections == [".SH EXAMPLES", ".SH EXIT STATUS"]
    # No line of the help is taken for a request.
    requests = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".PP", ".TP", ".B", ".nf", ".fi"}


def test_reference_has_valid_json_schemas_of_answers() -> None:
    page = json.loads((ROOT / "docs" / "reference" / "answers.schema.json").read_text())
    assert "smtpfeeds query: a term" in page["$defs"]
    for name, schema in page["$defs"].items():
        assert set(schema["required"]) == set(schema["properties"]), name
