"""The `recorder` command: finds the command that is meant, loads it alone, and ends with its code.

Exit codes: 0 fine, 1 failed, 2 bad input, 130 interrupted, 141 the reader of stdout went away.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from services.cli.terminal import (
    BAD_INPUT,
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    CommandError,
    new_app,
    say,
)

USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises when the command line cannot be understood."""


class Commands(TyperGroup):
    """The commands by name; the module of one is imported when it is the one that runs."""

    modules: ClassVar[dict[str, tuple[str, str]]] = {
        "up": ("up", "Start scheduler, query and capture on this machine."),
        "jobs": ("jobs", "Create, list, watch, stop, extend, pin and delete recording jobs."),
        "ask": ("ask", "Ask recordings: entries that match a KFL statement."),
        "top": ("figures:top", "Show the most frequent values of a field."),
        "map": ("figures:service_map", "Show who calls whom."),
        "histogram": ("figures:histogram", "Show entries by time."),
        "connections": ("figures:connections", "Show streams: octets, rates, state, duration."),
        "diff": ("figures:diff", "Show what is different between two recordings or runs."),
        "entry": ("lookups:entry", "Show one entry with all that belongs to it."),
        "stream": ("lookups:stream", "Show a stream and its calls."),
        "export": ("export", "Write the packets of matching streams as a pcapng file."),
        "import": ("importing", "Put a capture file into a recording."),
        "dissect": ("dissect", "Show the API calls in a capture file; needs no service."),
        "verify": ("verify", "Compare a recording on disk with its checksums; needs no service."),
        "kfl": ("language", "Check, explain and try out KFL statements; needs no service."),
        "capture": ("services:capture", "Run a capture agent: one on each node."),
        "scheduler": ("services:scheduler", "Run the scheduler: jobs, and what they record."),
        "query": ("services:query", "Run the query service: answers about recordings."),
        "gateway": ("services:gateway", "Run the gateway: the same over HTTP."),
    }

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, as the help lists them."""
        del ctx
        return list(self.modules)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what the help needs of a command: its name and one line."""
        del ctx
        if cmd_name not in self.modules:
            return None
        return TyperCommand(cmd_name, help=self.modules[cmd_name][1], rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that runs, from its module."""
        # The group suggests names from here when there is no such command.
        self.commands = {name: self.get_command(ctx, name) for name in self.modules}
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.modules:
            module, _, attribute = self.modules[name][0].partition(":")
            found = importlib.import_module(f"services.cli.{module}")
            command = typer.main.get_command(getattr(found, attribute or "app"))
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises ReaderGone, since typer makes an exit code 1 of that."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error


class ReaderGone(Exception):  # noqa: N818 - no error: `head` has seen enough
    """Who reads stdout went away."""


app = new_app(cls=Commands, no_args_is_help=True)


@app.callback()
def recorder() -> None:
    """Record the L4 streams in which a behaviour shows up, and ask about them.

    To begin: `recorder up`, then `recorder jobs create errors --kfl 'response.status == 500'`,
    then `recorder ask 'record("errors")'`.
    """


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        # What is still in the buffer has nowhere to go, and must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Raises ReaderGone only."""
    try:
        return int(app(arguments, prog_name="recorder", standalone_mode=False) or 0)
    except CommandError as error:
        say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except USAGE_ERROR as error:
        return _usage(error)
    except ReaderGone:
        raise
    except Exception as error:
        return _unexpected(error)


def _usage(error: Any) -> int:
    """Say in one line what is wrong with the command line, or show the help if it is empty."""
    where = error.ctx.command_path if error.ctx is not None else "recorder"
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        say(message)
    else:
        say(f"{message.rstrip('.')}. See `{where} --help`.")
    return BAD_INPUT


def _unexpected(error: Exception) -> int:
    """Say in a line what failed; return the exit code."""
    from services.runtime.errors import UserError

    if isinstance(error, UserError):
        say(str(error))
        return BAD_INPUT
    if os.environ.get("RECORDER_TRACEBACK"):
        raise error
    if isinstance(error, OSError) and error.strerror:
        say(f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
    elif isinstance(error, OSError):
        say(str(error))
    else:
        say(f"recorder failed: {type(error).__name__}: {error}. RECORDER_TRACEBACK=1 shows where.")
    return FAILED


if __name__ == "__main__":
    main()
