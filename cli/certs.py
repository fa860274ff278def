"""`tidings certs …`: a private authority for the mesh, and a certificate for each service and for its operators."""

import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.certs_folder import AUTHORITY, Entry, Folder
from cli.failure import USAGE, CommandError
from cli.options import Json, say, say_json
from mesh.permissions import ROLES

app = typer.Typer(
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Make certificates for mutual TLS among the services.",
    epilog="Example: [bold]tidings certs init certs[/bold], then start each service with [bold]--mesh-ca certs/ca.pem "
    "--mesh-certificate certs/store.pem --mesh-key certs/store.key[/bold] (its own)",
)

Where = Annotated[Path, typer.Argument(help="The folder of the certificates.", metavar="DIR")]
Days = Annotated[int, typer.Option("--days", help="How long the services' certificates last.", min=1, max=3650, metavar="DAYS")]


@app.command(epilog="Example: [bold]tidings certs init certs --days 90[/bold]")
def init(
    folder: Where,
    days: Days = 365,
    authority_days: Annotated[
        int, typer.Option("--authority-days", help="How long the authority lasts.", min=1, max=36500, metavar="DAYS")
    ] = 3650,
) -> None:
    """Make what is missing: the authority, and a certificate for each role. What is there stays as it is."""
    there = _open(folder)
    if there.make_authority(authority_days):
        say(f"made the authority: give {folder}/ca.pem to every service; keep {folder}/ca.key, and keep it secret")
    authority = there.authority()
    made = [role for role in ROLES if there.make(authority, role, days)]
    say(f"made certificates for {', '.join(made)}, good for {days} days" if made else "every role has its certificate")


@app.command(epilog="Example: [bold]tidings certs renew certs edge[/bold], then restart the edges one after the other")
def renew(
    folder: Where,
    roles: Annotated[list[str], typer.Argument(help="Which; else all.", metavar="[ROLE…]")] = [],  # noqa: B006  (read only)
    days: Days = 365,
) -> None:
    """Make certificates anew, with new keys, by the same authority. Services take them when they are started again."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise CommandError(f"there is no role {unknown[0]!r}", f"one is {', '.join(ROLES)}", status=USAGE)
    there = _open(folder)
    authority = there.authority()
    for role in roles or ROLES:
        there.replace(authority, role, days)
    say(f"renewed {', '.join(roles or ROLES)}, good for {days} days: restart them one after the other")


@app.command(epilog="Example: [bold]tidings certs show certs[/bold]")
def show(folder: Where, as_json: Json = False) -> None:
    """List the certificates: for whom, until when, and what is wrong with them. Status 1 when something is."""
    entries = [_open(folder).entry(role) for role in (AUTHORITY, *ROLES)]
    for entry in entries:
        if as_json:
            say_json(_value(entry))
        else:
            say(_line(entry))
    if any(entry.fault for entry in entries):
        raise typer.Exit(1)


def _open(folder: Path) -> Folder:
    return Folder(folder, datetime.datetime.now(datetime.UTC))


def _line(entry: Entry) -> str:
    ends = f"until {entry.ends:%Y-%m-%d}" if entry.ends else "-"
    return f"{entry.role:<10} {ends:<17} {entry.certificate}{f'  {entry.fault}' if entry.fault else ''}"


def _value(entry: Entry) -> dict[str, Any]:
    ends = entry.ends.isoformat() if entry.ends else None
    return {"role": entry.role, "certificate": str(entry.certificate), "ends": ends, "fault": entry.fault}
