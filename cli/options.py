"""The options that several commands share, and how output is written.

Results go to stdout, everything else to stderr; with --json stdout holds JSON and nothing else.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

As = Annotated[str, typer.Option("--as", help="Who you are: a user id.", metavar="USER")]
Data = Annotated[Path, typer.Option("--data", help="The mesh's data folder.", envvar="TIDINGS_DATA", metavar="DIR")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="The balancers' URL, or several with commas; else the mesh's in --data.", envvar="TIDINGS_URL", metavar="URL"
    ),
]
Secret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        help="What signs tokens; else the one in --data.",
        envvar="TIDINGS_TOKEN_SECRET",
        metavar="SECRET",
        show_envvar=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else there.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.", min=0.1, metavar="SECONDS")]
WhereArgument = Annotated[
    str, typer.Argument(help="The other user, a conversation's id, or one of your groups by name.", metavar="WHERE")
]

DEFAULT_DATA = Path("data")


def say(text: str) -> None:
    """One line to stdout, at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(value: object) -> None:
    """One JSON value on one line to stdout, at once."""
    say(json.dumps(value, ensure_ascii=False))


def note(text: str) -> None:
    """One line to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
