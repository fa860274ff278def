"""`tidings doctor`: each piece, healthy or what is wrong and what to do.

Exit status: 0 when all is healthy, else that of the first piece that isn't:

    10 Python   11 packages   12 data folder   13 secrets   14 database   15 registry
    16 balancer (or no mesh is running)   17 clock   18 edge   19 router   20 store
    21 tags   22 scheduler   23 etcd members   24 cache   25 certificates
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.text import Text

from cli import checkup, checkup_business, checkup_fleet, checkup_mesh
from cli.checkup import ANSWER_SECONDS, Check, IllError, NotNeededError, Patient
from cli.options import DEFAULT_DATA, Data, Json, Secret, Url, say_json
from cli.place import Place


@dataclass(frozen=True, slots=True)
class Piece:
    """Something to look at.

    Attributes:
        name: what people call it.
        status: the exit status when it is the first that isn't healthy.
        check: looks at it.
        needs: pieces without which looking is of no use.
    """

    name: str
    status: int
    check: Check
    needs: tuple[str, ...] = ()


PIECES = (
    Piece("Python", 10, checkup.python),
    Piece("packages", 11, checkup.packages),
    Piece("data folder", 12, checkup.data_folder),
    Piece("secrets", 13, checkup.development_secrets, ("data folder",)),
    Piece("database", 14, checkup.database),
    Piece("registry", 15, checkup.registry),
    Piece("balancer", 16, checkup_mesh.balancer),
    Piece("clock", 17, checkup_mesh.clock, ("balancer",)),
    Piece("edge", 18, checkup_mesh.edge, ("balancer", "secrets")),
    Piece("router", 19, checkup_mesh.router, ("edge",)),
    Piece("store", 20, checkup_mesh.store, ("router",)),
    Piece("tags", 21, checkup_business.tags, ("balancer",)),
    Piece("scheduler", 22, checkup_business.scheduler, ("balancer",)),
    Piece("etcd members", 23, checkup_fleet.registry_members, ("registry",)),
    Piece("cache", 24, checkup_fleet.cache),
    Piece("certificates", 25, checkup_fleet.certificates),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found: `state` is healthy, ill, not needed or not looked at."""

    piece: Piece
    state: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Servers:
    """What the mesh stands on; empty where nothing is said."""

    store: str
    registry: str
    cache: str
    certs: Path | None

    def completed(self, place: Place) -> "Servers":
        """With what the mesh running there uses in the place of what is empty."""
        running = place.running()
        if running is None:
            return self
        certs = self.certs or (Path(running.certs) if running.certs else None)
        return Servers(self.store, self.registry or running.registry, self.cache or running.cache, certs)


_STATUSES = ", ".join(f"{piece.status} {piece.name}" for piece in PIECES)
EPILOG = (
    f"Example: [bold]tidings doctor && echo all is well[/bold]. Exit status: 0 all healthy, else the first ill piece: {_STATUSES}"
)

app = typer.Typer(rich_markup_mode="rich")


@app.command(epilog=EPILOG)
def doctor(
    as_json: Json = False,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
    store: Annotated[
        str, typer.Option("--store", help="Look at this database too.", envvar="TIDINGS_STORE_DATABASE", metavar="URL")
    ] = "",
    registry: Annotated[
        str, typer.Option("--registry", help="Look at this registry; else the running mesh's.", metavar="URL")
    ] = "",
    cache: Annotated[str, typer.Option("--cache", help="Look at this Redis; else the running mesh's.", metavar="URL")] = "",
    certs: Annotated[
        Path | None, typer.Option("--certs", help="Look at these certificates; else the running mesh's.", metavar="DIR")
    ] = None,
) -> None:
    """Look at every piece: healthy, or the cause and the next step. The exit status says which."""
    checkup.quiet()
    findings = asyncio.run(_examine(Place(data), url, secret, Servers(store, registry, cache, certs)))
    status = next((finding.piece.status for finding in findings if finding.state == "ill"), 0)
    if as_json:
        say_json({"healthy": status == 0, "exit_status": status, "pieces": [_to_json(finding) for finding in findings]})
    else:
        _print(findings)
    raise typer.Exit(status)


async def _examine(place: Place, url: str | None, secret: str | None, given: Servers) -> list[Finding]:
    servers = given.completed(place)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with AsyncExitStack() as stack, aiohttp.ClientSession(timeout=timeout) as session:
        patient = Patient(
            place=place,
            url=place.url(url),
            given_url=url is not None,
            secret=secret,
            store=servers.store,
            registry=servers.registry,
            cache=servers.cache,
            certs=servers.certs,
            session=session,
            stack=stack,
        )
        findings: dict[str, Finding] = {}
        for piece in PIECES:
            findings[piece.name] = await _look(piece, patient, findings)
        return list(findings.values())


async def _look(piece: Piece, patient: Patient, before: dict[str, Finding]) -> Finding:
    missing = [name for name in piece.needs if before[name].state in ("ill", "not looked at")]
    if missing:
        return Finding(piece, "not looked at", f"it needs: {', '.join(missing)}")
    try:
        return Finding(piece, "healthy", await piece.check(patient))
    except NotNeededError as reason:
        return Finding(piece, "not needed", str(reason))
    except IllError as fault:
        return Finding(piece, "ill", fault.what, fault.hint)
    except Exception as error:  # a doctor that falls over is of no use: what a check did not foresee is a finding too
        return Finding(piece, "ill", f"{type(error).__name__}: {error}", "the logs of `tidings up` may say more")


def _to_json(finding: Finding) -> dict[str, Any]:
    return {"piece": finding.piece.name, "state": finding.state, "detail": finding.detail, "next": finding.hint}


_MARKS = {"healthy": ("✓", "green"), "ill": ("✗", "red"), "not needed": ("-", "dim"), "not looked at": ("-", "dim")}


def _print(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        mark, style = _MARKS[finding.state]
        console.print(Text.assemble((f"{mark} {finding.piece.name:<12} ", style), finding.detail))
        if finding.hint:
            console.print(Text(f"  next: {finding.hint}", style="bold"))
