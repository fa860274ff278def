"""`tidings up`: a whole mesh from one command, in one process or as several; the same services either way."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import aiohttp
import typer
import uvloop
from google.protobuf import json_format

from cli import checkup, checkup_fleet, fleet
from cli.failure import CommandError
from cli.options import DEFAULT_DATA, Data, note, say
from cli.place import Place, Running
from cli.plan import Plan, assign, check, reachable, sqlite_url
from cli.welcome import welcome
from mesh import errors
from mesh.process import stop_signal
from mesh.telemetry import configure_logging
from tidings.common.v1.instance_pb2 import Instance

ANSWER_SECONDS = 15.0  # for the first edge to report to the balancer, on a busy machine
POLL_SECONDS = 0.05

app = typer.Typer(rich_markup_mode="rich")

Port = Annotated[
    int, typer.Option("--port", help="The first balancer's port, others take the next; 0 picks free ones.", min=0, max=65535)
]
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
CacheUrl = Annotated[
    str,
    typer.Option("--cache", help="memory:// or redis://host:port: what the services share to be quick.", metavar="URL"),
]
Certificates = Annotated[
    Path | None,
    typer.Option("--certs", help="Speak TLS among the services, with what `tidings certs init` put in DIR.", metavar="DIR"),
]
Stores = Annotated[
    int | None,
    typer.Option("--stores", help="How many stores are processes of their own; else there is one in each router's.", min=1, max=64),
]
Balancers = Annotated[int, typer.Option("--balancers", help="How many balancers.", min=1, max=64)]
Edges = Annotated[int, typer.Option("--edges", help="How many edges.", min=1, max=64)]
Routers = Annotated[int, typer.Option("--routers", help="How many routers.", min=1, max=64)]
Tagsvcs = Annotated[int, typer.Option("--tagsvcs", help="How many tag services.", min=1, max=64)]
Schedulers = Annotated[int, typer.Option("--schedulers", help="How many schedulers.", min=1, max=64)]
Restart = Annotated[bool, typer.Option("--restart/--no-restart", help="Start a process that dies again, or stop them all.")]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.", metavar="LEVEL")]

EXAMPLES = """Examples: [bold]tidings up[/bold]

[bold]tidings up --store postgresql://tidings@127.0.0.1/tidings --registry etcd://127.0.0.1:2379 --cache redis://127.0.0.1 \\
--edges 3 --routers 2 --balancers 2[/bold]"""


class House(Protocol):
    """A mesh being served, in whichever way.

    Attributes:
        instances: who serves, as far as no registry says it to other processes.
        nodes: the processes by name, each with the base URL of its /metrics.
    """

    @property
    def instances(self) -> Sequence[Instance]: ...

    @property
    def nodes(self) -> Mapping[str, str]: ...

    async def ready(self) -> None:
        """Wait until every service says that it is ready."""

    async def death(self) -> str:
        """Wait until one of its processes died for good; who, and how."""


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
    cache: CacheUrl = "memory://",
    certs: Certificates = None,
    edges: Edges = 1,
    routers: Routers = 1,
    stores: Stores = None,
    tagsvcs: Tagsvcs = 1,
    schedulers: Schedulers = 1,
    balancers: Balancers = 1,
    restart: Restart = True,
    log_level: LogLevel = "warning",
) -> None:
    """Start a whole mesh and keep it running until Ctrl-C; a second Ctrl-C ends it at once."""
    database, found, level = _store(store, data), _registry(registry), _level(log_level)
    check(database, found, {"store": stores or 1, "balancer": balancers}, certificates=certs is not None)
    wanted = {
        "--edge-port": (edge_port, edges),
        "--tagsvc-port": (tagsvc_port, tagsvcs),
        "--scheduler-port": (scheduler_port, schedulers),
        "--port": (port, balancers),
    }
    place = Place(data)
    place.prepare()
    with place.lock():
        chosen = assign(host, wanted)
        plan = Plan(
            data=data,
            secrets=place.make_secrets(),
            host=host,
            advertise=advertise,
            balancer_ports=chosen["--port"],
            edge_ports=chosen["--edge-port"],
            tagsvc_ports=chosen["--tagsvc-port"],
            scheduler_ports=chosen["--scheduler-port"],
            store=database,
            registry=found,
            cache=_cache(cache),
            certificates=certs,
            stores=stores or (0 if _shareable(database, found) else 1),
            routers=routers,
            restart=restart,
            log_level=level,
        )
        asyncio.run(_check_servers(plan))
        configure_logging("tidings", plan.log_level, as_json=False)
        run = asyncio.run if plan.as_processes else uvloop.run  # docs/adr/0006
        with _explained():
            run(_run(place, plan))


async def _check_servers(plan: Plan) -> None:
    """See that the servers which the mesh needs and doesn't start are there: better said once here than by every service."""
    checkup.quiet()
    if plan.certificates:
        checkup_fleet.usable_certificates(plan.certificates)
    if plan.store.startswith("postgresql:"):
        await checkup.postgresql(plan.store)
    if plan.as_processes:
        await checkup.etcd(plan.registry)
    if plan.cache.startswith("redis"):
        try:
            await checkup_fleet.redis(plan.cache)
        except checkup.IllError as fault:  # not a reason to stop: all works without, only slower
            note(f"{fault}; going on without a cache until it is there")


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


def _shareable(database: str, registry: str) -> bool:
    """Whether there may be a store in each router's process: they are processes, and the database takes many."""
    return database.startswith("postgresql:") and registry.startswith("etcd:")


def _registry(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme == "memory" or (scheme == "etcd" and rest):
        return url
    raise CommandError(f"the registry {url!r} is neither memory:// nor etcd://host:port", "give one of these with --registry")


def _cache(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme == "memory" or (scheme in ("redis", "rediss") and rest):
        return url
    raise CommandError(f"the cache {url!r} is neither memory:// nor redis://host:port", "give one of these with --cache")


def _level(name: str) -> str:
    if name.lower() in ("debug", "info", "warning", "error"):
        return name.lower()
    raise CommandError(f"no log level {name!r}", "use debug, info, warning or error")


async def _run(place: Place, plan: Plan) -> None:
    stop = asyncio.create_task(stop_signal().wait())
    async with _served(plan) as house:
        death, opening = asyncio.create_task(house.death()), asyncio.create_task(_open(house, plan))
        try:
            await asyncio.wait({stop, death, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                with place.announce(_running(plan, house)):
                    welcome(plan)
                    await asyncio.wait({stop, death}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if not stop.done():
            raise CommandError(f"{death.result()}; stopped the rest", "its last log lines above say why")
        say("stopping")


def _served(plan: Plan) -> AbstractAsyncContextManager[House]:
    if plan.as_processes:
        return fleet.serve(plan)
    from cli import together  # every service's modules: 70 MB and a second, which a process that only starts others can do without

    return together.serve(plan)


async def _open(house: House, plan: Plan) -> None:
    """Wait until the mesh takes clients: until the balancer, which needs an edge for that, and the edges say so."""
    await house.ready()
    waiting_for = ""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), aiohttp.ClientSession() as session:
            for url in (*plan.urls, *plan.edge_urls):
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


def _running(plan: Plan, house: House) -> Running:
    return Running(
        url=plan.urls[0],
        urls=plan.urls,
        pid=os.getpid(),
        ports={service: numbers for service, numbers in plan.ports.items() if numbers and all(numbers)},
        edges=plan.edge_urls,
        store=plan.store.partition("://")[0],
        registry=plan.registry,
        host=reachable(plan.host),
        cache=plan.cache,
        certs=str(plan.certificates.absolute()) if plan.certificates else "",
        nodes=dict(house.nodes),
        instances=[json_format.MessageToDict(instance) for instance in house.instances],
    )
