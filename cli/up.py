"""`tidings up`: a whole mesh from one command, in one process or as several; the same services either way."""

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import aiohttp
import typer

from cli import checkup, fleet, together
from cli.failure import CommandError
from cli.options import DEFAULT_DATA, Data, say
from cli.place import Place, Running
from cli.plan import Plan, http_url, ports, reachable, sqlite_url
from mesh import errors
from mesh.process import stop_signal
from mesh.telemetry import configure_logging

ANSWER_SECONDS = 15.0  # for the first edge to report to the balancer, on a busy machine
POLL_SECONDS = 0.05

app = typer.Typer(rich_markup_mode="rich")

Port = Annotated[int, typer.Option("--port", help="The balancer's port; 0 picks a free one.", min=0, max=65535)]
EdgePort = Annotated[
    int, typer.Option("--edge-port", help="The first edge's port, others take the next; 0 picks free ones.", min=0, max=65535)
]
TagsvcPort = Annotated[int, typer.Option("--tagsvc-port", help="The first tag service's port, as --edge-port.", min=0, max=65535)]
SchedulerPort = Annotated[
    int, typer.Option("--scheduler-port", help="The first scheduler's port, as --edge-port.", min=0, max=65535)
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.", metavar="ADDRESS")]
Advertise = Annotated[
    str, typer.Option("--advertise", help="Host that others reach this machine under; else that of --host.", metavar="HOST")
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store", help="postgresql://… or sqlite:///…; else a file in --data.", envvar="TIDINGS_STORE_DATABASE", metavar="URL"
    ),
]
RegistryUrl = Annotated[
    str,
    typer.Option("--registry", help="memory:// is one process; etcd://host:port[,…] a process for each service.", metavar="URL"),
]
Edges = Annotated[int, typer.Option("--edges", help="How many edges.", min=1, max=64)]
Routers = Annotated[int, typer.Option("--routers", help="How many routers.", min=1, max=64)]
Tagsvcs = Annotated[int, typer.Option("--tagsvcs", help="How many tag services.", min=1, max=64)]
Schedulers = Annotated[int, typer.Option("--schedulers", help="How many schedulers.", min=1, max=64)]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.", metavar="LEVEL")]

EXAMPLES = """Examples: [bold]tidings up[/bold]

[bold]tidings up --store postgresql://tidings@127.0.0.1/tidings --registry etcd://127.0.0.1:2379 --edges 2 --routers 2[/bold]"""


class House(Protocol):
    """A mesh being served, in whichever way."""

    async def ready(self) -> None:
        """Wait until every service says that it is ready."""

    async def death(self) -> str:
        """Wait until one of its processes died; who, and how."""


@app.command(epilog=EXAMPLES)
def up(
    data: Data = DEFAULT_DATA,
    port: Port = 8080,
    edge_port: EdgePort = 8081,
    tagsvc_port: TagsvcPort = 9091,
    scheduler_port: SchedulerPort = 9092,
    host: Host = "127.0.0.1",
    advertise: Advertise = "",
    store: Store = None,
    registry: RegistryUrl = "memory://",
    edges: Edges = 1,
    routers: Routers = 1,
    tagsvcs: Tagsvcs = 1,
    schedulers: Schedulers = 1,
    log_level: LogLevel = "warning",
) -> None:
    """Start a whole mesh and keep it running until Ctrl-C."""
    urls, level = (_store(store, data), _registry(registry)), _level(log_level)
    place = Place(data)
    place.prepare()
    with place.lock():
        plan = Plan(
            data=data,
            secrets=place.make_secrets(),
            host=host,
            advertise=advertise,
            port=ports(host, port, 1, "--port")[0],
            edge_ports=ports(host, edge_port, edges, "--edge-port"),
            tagsvc_ports=ports(host, tagsvc_port, tagsvcs, "--tagsvc-port"),
            scheduler_ports=ports(host, scheduler_port, schedulers, "--scheduler-port"),
            store=urls[0],
            registry=urls[1],
            routers=routers,
            log_level=level,
        )
        asyncio.run(_check_servers(plan))
        configure_logging("tidings", plan.log_level, as_json=False)
        with asyncio.Runner() as runner, _explained():
            runner.run(_run(place, plan))


async def _check_servers(plan: Plan) -> None:
    """See that the servers which the mesh needs and doesn't start are there: better said once here than by every service."""
    checkup.quiet()
    if plan.store.startswith("postgresql:"):
        await checkup.postgresql(plan.store)
    if plan.as_processes:
        await checkup.etcd(plan.registry)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except errors.TidingsError as error:
        raise CommandError(f"the mesh did not start: {error.message}", "`tidings doctor` looks at every piece") from error


def _store(url: str | None, data: Path) -> str:
    if url is None:
        return sqlite_url(data)
    if url.partition("://")[0] in ("sqlite", "postgresql"):
        return url
    raise CommandError(f"the store {url!r} is neither postgresql://… nor sqlite:///…", "give one of these with --store")


def _registry(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme == "memory" or (scheme == "etcd" and rest):
        return url
    raise CommandError(f"the registry {url!r} is neither memory:// nor etcd://host:port", "give one of these with --registry")


def _level(name: str) -> str:
    if name.lower() in ("debug", "info", "warning", "error"):
        return name.lower()
    raise CommandError(f"no log level {name!r}", "use debug, info, warning or error")


async def _run(place: Place, plan: Plan) -> None:
    stop = asyncio.create_task(stop_signal().wait())
    serve = fleet.serve if plan.as_processes else together.serve
    async with serve(plan) as house:
        death, opening = asyncio.create_task(house.death()), asyncio.create_task(_open(house, plan))
        try:
            await asyncio.wait({stop, death, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                with place.announce(_running(plan)):
                    _welcome(plan)
                    await asyncio.wait({stop, death}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if not stop.done():
            raise CommandError(f"{death.result()}; stopped the rest", "its last log lines above say why")
        say("stopping")


async def _open(house: House, plan: Plan) -> None:
    """Wait until the mesh takes clients: until the balancer, which needs an edge for that, and the edges say so."""
    await house.ready()
    waiting_for = ""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), aiohttp.ClientSession() as session:
            for url in (plan.url, *edge_urls(plan)):
                while waiting_for := await _missing(session, f"{url}/readyz"):  # noqa: ASYNC110  (it can only be asked)
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise CommandError(f"not ready within {ANSWER_SECONDS:.0f} s: {waiting_for}", "--log-level info shows more") from error


async def _missing(session: aiohttp.ClientSession, url: str) -> str:
    """Empty when it is ready, else what it says instead."""
    try:
        async with session.get(url) as response:
            return "" if response.status == 200 else f"{url} says: {(await response.text()).strip()[:200]}"
    except (aiohttp.ClientError, OSError) as error:
        return f"{url}: {error}"


def edge_urls(plan: Plan) -> list[str]:
    """The base URLs of the edges' HTTP."""
    return [http_url(plan.host, port) for port in plan.edge_ports]


def _running(plan: Plan) -> Running:
    return Running(
        url=plan.url,
        pid=os.getpid(),
        ports={service: numbers for service, numbers in plan.ports.items() if all(numbers)},
        edges=edge_urls(plan),
        store=plan.store.partition("://")[0],
        registry=plan.registry,
        host=reachable(plan.host),
    )


def _welcome(plan: Plan) -> None:
    chat = f"  {_command()} chat{_where(plan)} --as"
    where = plan.data if plan.store.startswith("sqlite:") else "PostgreSQL"
    say(f"Tidings is up at {plan.url}, its data in {where}. Ctrl-C stops it.")
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
        return f"{sum(map(len, plan.ports.values()))} processes on one machine, started again by nobody"
    where = "one disk" if plan.store.startswith("sqlite") else "one database"
    return f"one process, {where}"


def _command() -> str:
    """How to type `tidings` from here."""
    program = Path(sys.argv[0]).absolute()
    here = program.is_relative_to(Path.cwd()) and program.name == "tidings"
    return shlex.quote(str(program.relative_to(Path.cwd()))) if here else "tidings"


def _where(plan: Plan) -> str:
    return "" if plan.data == DEFAULT_DATA else f" --data {shlex.quote(str(plan.data))}"
