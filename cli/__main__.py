"""The `tidings` command. It imports a command's module only when that command is called, so that `--help` answers at once.

A failure is one red line on stderr, with what to do next; TIDINGS_DEBUG=1 shows the traceback too.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from cli.failure import INTERRUPTED, USAGE, CommandError

COMMANDS = {
    "up": ("cli.up", "Start a whole mesh: in one process, or as several."),
    "chat": ("cli.chat", "Talk with someone, or in a group."),
    "send": ("cli.messages", "Send one message; done once it is stored."),
    "tail": ("cli.tail", "Print messages as they come."),
    "history": ("cli.messages", "Print what was said."),
    "group": ("cli.groups", "Make groups and change them."),
    "tag": ("cli.tags", "Tag people, and see whom an expression means."),
    "notify": ("cli.notify", "Send to many, and see and steer what is under way."),
    "token": ("cli.token", "Print a development token."),
    "top": ("cli.top", "Watch all nodes: connections, rates, queues, lag."),
    "drain": ("cli.operate", "Take an edge out of service."),
    "rebalance": ("cli.operate", "Even out the edges."),
    "sessions": ("cli.operate", "List where a user is connected."),
    "deadletter": ("cli.dead_letters", "See, replay and discard work that failed for good."),
    "doctor": ("cli.doctor", "Look at every piece: healthy, or what is wrong and what to do."),
    "certs": ("cli.certs", "Make certificates for mutual TLS among the services."),
    "bench": ("cli.benches", "Measure."),
}
"""Command -> the module that has it in its `app`, and what it does in a few words."""


class _Commands(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=words) for name, (_, words) in COMMANDS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)


@app.callback()
def _tidings() -> None:
    """Tidings carries messages over connections that stay open for hours.

    Begin with [bold]tidings up[/bold], then, in two more terminals:

        tidings chat --as alice bob

        tidings chat --as bob alice
    """


def load(name: str) -> Any:
    """A command, its module imported."""
    module = importlib.import_module(COMMANDS[name][0])
    found = typer.main.get_command(module.app)
    found = getattr(found, "commands", {}).get(name, found)
    found.name = name
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    try:
        _check_text(sys.argv[1:] if arguments is None else arguments)
        status = app(arguments, prog_name="tidings", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, EOFError):
        status = INTERRUPTED
    except Exception as error:  # the last line of defence: whatever it is becomes one line
        status = _tell(_bare(error))
    sys.exit(status if isinstance(status, int) else 0)


def _check_text(words: Sequence[str]) -> None:
    """Refuse what isn't text: bytes that aren't UTF-8 come as lone surrogates."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise CommandError(f"{word!r} is not text in UTF-8", "type it again, or look at the terminal's locale", status=USAGE)


def _bare(error: Exception) -> Exception:
    """The error in a task group that had only one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _tell(error: Exception) -> int:
    """Say what went wrong; gives the exit status."""
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone, as `head` does: nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if os.environ.get("TIDINGS_DEBUG"):
        traceback.print_exception(error)
    text, status = _explain(error)
    if text:
        _print_red(text)
    return status


def _print_red(text: str) -> None:
    from rich.console import Console  # slow to import, and seldom needed
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(text, style="red"))


def _explain(error: Exception) -> tuple[str, int]:
    """What to say in one line, and the exit status."""
    if isinstance(error, CommandError):
        return str(error), error.status
    if isinstance(error, typer.Abort):
        return "", INTERRUPTED
    if hasattr(error, "format_message"):  # a wrong command line, in whichever of its classes typer has it
        return _usage(error), USAGE
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no details")
    if type(error).__module__.startswith(("tidings_client.", "mesh.")):  # their text is for people, and says what to do
        return first, 1
    return f"{type(error).__name__}: {first} (TIDINGS_DEBUG=1 shows where)", 1


def _usage(error: Any) -> str:
    """Empty when help was printed already."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "tidings"
    said = error.format_message().rstrip(".")
    return f"{said}: `{path} --help` shows how" if said else ""


if __name__ == "__main__":
    main()
