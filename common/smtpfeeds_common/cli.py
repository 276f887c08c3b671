"""The `smtpfeeds` command.

Each group is part of its own program. This module imports a group only when it is called, so
`--help` takes no longer than click itself, and a sensor host works without the aggregator's
packages. One table names each group, the extra that it needs and its line of help.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from . import __version__
from .command_end import (
    ended_by_output,
    exit_now,
    flush,
    open_missing_outputs,
    print_error,
    report_bug,
    report_usage_error,
)
from .errors import FAILED, SmtpfeedsError
from .garbage import no_garbage

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """The import path of a command, the extra that it needs, and its line of help."""

    target: str
    extra: str
    help: str


COMMANDS: Final = {
    "sensor": Entry("smtpfeeds_sensor.cli:sensor", "sensor", "Run an SMTP sensor."),
    "aggregator": Entry(
        "smtpfeeds_aggregator.cli.aggregator:aggregator",
        "aggregator",
        "Run the central aggregator.",
    ),
    "feed": Entry(
        "smtpfeeds_aggregator.cli.feed:feed",
        "aggregator",
        "List, show, compare, serve and verify the feeds.",
    ),
    "query": Entry(
        "smtpfeeds_aggregator.cli.query:query",
        "aggregator",
        "Show what is stored about addresses, prefixes and ASNs.",
    ),
    "filter": Entry(
        "smtpfeeds_aggregator.cli.filter:filter_lines",
        "aggregator",
        "Print the lines of a log that contain an address of the feeds.",
    ),
    "stats": Entry(
        "smtpfeeds_aggregator.cli.stats:stats",
        "aggregator",
        "Show the week in numbers.",
    ),
    "sensors": Entry(
        "smtpfeeds_aggregator.cli.sensors:sensors", "aggregator", "List and purge sensors."
    ),
    "fleet": Entry(
        "smtpfeeds_aggregator.cli.fleet:fleet",
        "aggregator",
        "Enrol, rotate and revoke sensors.",
    ),
    "publish": Entry(
        "smtpfeeds_aggregator.cli.publish:publish",
        "aggregator",
        "Publish the feeds now, show the last publications, create a key.",
    ),
    "exclude": Entry(
        "smtpfeeds_aggregator.cli.exclusions:exclude",
        "aggregator",
        "Keep prefixes out of the published files.",
    ),
    "forget": Entry(
        "smtpfeeds_aggregator.cli.exclusions:forget",
        "aggregator",
        "Delete what is stored about an address or a prefix.",
    ),
    "origin": Entry(
        "smtpfeeds_aggregator.cli.origin:origin", "aggregator", "Origin tables: ASN and AS name."
    ),
    "lists": Entry(
        "smtpfeeds_aggregator.cli.lists:lists",
        "aggregator",
        "Lists of known scanners and large mailers.",
    ),
    "up": Entry("smtpfeeds_deploy.cli:up", "single-host", "Run everything on one host."),
    "demo": Entry(
        "smtpfeeds_deploy.cli:demo", "single-host", "Try the whole pipeline with simulated clients."
    ),
    "shipped": Entry(
        "smtpfeeds_common.shipped_command:shipped",
        "",
        "List and write out units, broker scripts and examples.",
    ),
    "completion": Entry(
        "smtpfeeds_common.completion:completion", "", "Let the shell complete commands and options."
    ),
    "man": Entry("smtpfeeds_common.manual:man", "", "Write manual pages of all commands."),
}


#: numpy's linear algebra is not used; without this each start creates a thread for each further
#: core, and a buffer for each thread.
_ONE_THREAD: Final = ("OPENBLAS_NUM_THREADS", "1")


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command.

        Raises:
            click.ClickException: the extra that it needs is not installed.
        """
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        try:
            with no_garbage():
                command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            _report_not_installed(cmd_name, exc)
            raise
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.

        Raises:
            click.UsageError: there is no such command; the message names the nearest one.
        """
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f". Did you mean `smtpfeeds {near[0]}`?" if near else ""
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands; imports none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the commands and options that begin with a text; imports no command."""
        from click.shell_completion import CompletionItem

        return [
            *(
                CompletionItem(name, help=entry.help)
                for name, entry in COMMANDS.items()
                if name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and exit with its code (see ``command_end``)."""
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        open_missing_outputs()
        try:
            # In this mode click returns the exit code and raises errors instead of printing them.
            ended = super().main(*args, **{**extra, "standalone_mode": False})
            code = ended if isinstance(ended, int) else 0
        except click.ClickException as exc:
            code = report_usage_error(exc)
        except click.Abort as exc:
            # Without an answer the question has no line end yet.
            line_end = "" if exc.__context__ is None else "\n"
            hint = "; --yes confirms it" if isinstance(exc.__context__, EOFError) else ""
            print_error(f"{line_end}smtpfeeds: not confirmed{hint}; nothing was changed")
            code = 1
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except Exception as exc:  # noqa: BLE001 - printed, and exits with 3 instead of Python's 1
            code = report_bug(exc)
        code = flush(code)
        exit_now(code)
        sys.exit(code)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments; click prints ``--help`` here."""
        with ended_by_output():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an ``SmtpfeedsError`` becomes a message on stderr and an exit code."""
        os.environ.setdefault(*_ONE_THREAD)
        try:
            with ended_by_output():
                return super().invoke(ctx)
        except SmtpfeedsError as exc:
            print_error(f"smtpfeeds: {exc.message}")
            ctx.exit(exc.exit_code)
        except ModuleNotFoundError as exc:
            # A command may import a package of its extra only when it runs.
            _report_not_installed(ctx.invoked_subcommand or "", exc)
            raise


class _NotInstalled(click.ClickException):
    exit_code = FAILED


def _report_not_installed(command: str, exc: ModuleNotFoundError) -> None:
    """Say which extra installs a missing package; return if the module is part of smtpfeeds.

    Raises:
        click.ClickException: the extra that the command needs is not installed.
    """
    entry = COMMANDS.get(command)
    if entry is None or not exc.name or exc.name.startswith("smtpfeeds_"):
        return
    from .extras import how_to_install

    raise _NotInstalled(
        f"`smtpfeeds {command}` needs the package {exc.name!r}, which is not installed; "
        + how_to_install(entry.extra)
    ) from exc


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="smtpfeeds")
def main() -> None:
    """SMTP sensors and the public feeds smtpgreet and smtpdata.

    The feeds say who spoke SMTP to a host that nobody advertises. They are not
    block lists.
    """


if __name__ == "__main__":
    sys.exit(main())
