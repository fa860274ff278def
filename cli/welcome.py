"""What `tidings up` says once the mesh is up: where it is, what it is not meant for, and what to type next."""

import shlex
import sys
from pathlib import Path

from cli.options import DEFAULT_DATA, say
from cli.plan import Plan


def welcome(plan: Plan) -> None:
    """Say where it is, what it is not, and what to type."""
    chat = f"  {_command()} chat{_where(plan)} --as"
    where = plan.data if plan.store.startswith("sqlite:") else "PostgreSQL"
    say(f"Tidings is up at {' and '.join(plan.urls)}, its data in {where}. Ctrl-C stops it.")
    say(f"It is for development: {_shape(plan)}, a development secret ({plan.data}/secrets.json), plain ws:// without TLS.")
    say("Next, in another terminal:")
    say(f"{chat} alice bob")
    say("and in one more:")
    say(f"{chat} bob alice")
    say("Or tag people, and notify them: tag people by a file, see whom an expression means, and send:")
    business = f"  {_command()}"
    say(f"{business} tag add{_where(plan)} alice vip")
    say(f"{business} notify{_where(plan)} vip --text 'The doors are open' --watch")


def _shape(plan: Plan) -> str:
    if plan.as_processes:
        fate = ", started again when they die" if plan.restart else ", started again by nobody"
        return f"{sum(map(len, plan.ports.values()))} processes on one machine{fate}"
    where = "one disk" if plan.store.startswith("sqlite") else "one database"
    return f"one process, {where}"


def _command() -> str:
    """How to type `tidings` from here."""
    program = Path(sys.argv[0]).absolute()
    here = program.is_relative_to(Path.cwd()) and program.name == "tidings"
    return shlex.quote(str(program.relative_to(Path.cwd()))) if here else "tidings"


def _where(plan: Plan) -> str:
    return "" if plan.data == DEFAULT_DATA else f" --data {shlex.quote(str(plan.data))}"
