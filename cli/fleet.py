"""The mesh as processes: `python -m store`, `tagsvc`, `router` and so on as children of this one.

None is started again: the first that dies is named, and the rest is stopped. Secrets go by the environment, which other users of
the machine can't read, not by flags, which they can.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from rich.console import Console
from rich.text import Text

from cli.failure import CommandError
from cli.plan import BALANCER_DEFAULTS, SERVICES, Plan, free_port

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
START_SECONDS = 30.0  # to migrate a database and find each other, on a busy machine
STOP_SECONDS = 15.0  # a child that has not drained by then is killed
POLL_SECONDS = 0.1
LINE_BYTES = 1 << 20  # a log line longer than this ends the child's pipe; tracebacks are far below
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Child:
    """One service process; `admin` is the base URL of its /readyz."""

    name: str
    service: str
    admin: str
    process: asyncio.subprocess.Process


@dataclass(frozen=True, slots=True)
class Order:
    """A child to start."""

    name: str
    service: str
    admin_port: int
    flags: list[str]


def orders(plan: Plan) -> list[Order]:
    """The children of a plan, in the order they start."""
    made = []
    for service in SERVICES:
        ports = plan.ports[service]
        for number, port in enumerate(ports, 1):
            name = service if len(ports) == 1 else f"{service}-{number}"
            made.append(_order(plan, name, service, port or free_port(plan.host)))
    return made


def _order(plan: Plan, name: str, service: str, port: int) -> Order:
    admin_port = free_port(plan.host)
    given = {
        "host": plan.host,
        "advertise": plan.advertise,
        "port": port,
        "admin-port": admin_port,
        "registry": plan.registry,
        "drain-seconds": plan.drain_seconds,
        "log-level": plan.log_level,
    }
    if service == "balancer":
        given["grpc-port"] = free_port(plan.host)
    if service == "tagsvc":
        given["mesh-port"] = free_port(plan.host)
    return Order(name, service, admin_port, [part for key, value in given.items() for part in (f"--{key}", str(value))])


def environment(plan: Plan, service: str) -> dict[str, str]:
    """What a child finds in its environment: ours, and what flags should not show."""
    mine = dict(os.environ)
    if service == "store":
        mine["TIDINGS_STORE_DATABASE"] = plan.store
    if service in ("balancer", "edge"):
        mine[f"TIDINGS_{service.upper()}_TOKEN_SECRET"] = plan.secrets.token_secret
        mine[f"TIDINGS_{service.upper()}_TICKET_SECRET"] = plan.secrets.ticket_secret
    if service == "balancer":
        for name, value in BALANCER_DEFAULTS.items():
            mine.setdefault(f"TIDINGS_BALANCER_{name.upper()}", str(value))
    return mine


class Fleet:
    """The children, and what they say."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._tasks: list[asyncio.Task[None]] = []
        self._death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.children: list[Child] = []

    async def ready(self) -> None:
        """Start all children and wait until every one says that it is ready. The store goes first: the others would only complain
        that it is not there yet.

        Raises:
            CommandError: one took longer than START_SECONDS.
        """
        try:
            async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
                first, *others = orders(self._plan)
                await _answers(session, await self._start(first))
                for child in [await self._start(order) for order in others]:
                    await _answers(session, child)
        except TimeoutError as error:
            missing = f"not every service was ready within {START_SECONDS:.0f} s"
            raise CommandError(missing, "their logs above say why; are the store and the registry reachable?") from error

    async def death(self) -> str:
        """Wait for the first child to end; who, and how."""
        return await asyncio.shield(self._death)

    async def stop(self) -> None:
        """Stop the children, the ones that face clients first; kill those that don't."""
        for service in reversed(SERVICES):
            await asyncio.gather(*(_stop(child) for child in self.children if child.service == service))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, order: Order) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            order.service,
            *order.flags,
            env=environment(self._plan, order.service),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for us: we stop them in order
            preexec_fn=_die_with_parent,
        )
        child = Child(order.name, order.service, f"http://{self._plan.host}:{order.admin_port}", process)
        colour = COLOURS[len(self.children) % len(COLOURS)]
        self.children.append(child)
        self._tasks.append(asyncio.create_task(self._follow(child, colour)))
        return child

    async def _follow(self, child: Child, colour: str) -> None:
        """Print what the child says, with its name, until it ends."""
        prefix = Text(f"{child.name:<10} ", style=colour)
        said = child.process.stdout or asyncio.StreamReader()
        with contextlib.suppress(ValueError):
            async for line in said:
                self._console.print(prefix + Text.from_ansi(line.decode(errors="replace").rstrip()))
        status = await child.process.wait()
        if not self._death.done():
            self._death.set_result(f"{child.name} {_ending(status)}")


@asynccontextmanager
async def serve(plan: Plan) -> AsyncIterator[Fleet]:
    """A fleet that starts when asked to be `ready`; it is stopped when the context ends."""
    fleet = Fleet(plan)
    try:
        yield fleet
    finally:
        await fleet.stop()


async def _answers(session: aiohttp.ClientSession, child: Child) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with session.get(f"{child.admin}/readyz") as response:
                if response.status == 200:
                    return
        await asyncio.sleep(POLL_SECONDS)


async def _stop(child: Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(child.process.wait(), STOP_SECONDS)
    except TimeoutError:
        child.process.kill()
        await child.process.wait()


def _ending(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"died with status {status}"


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when our process dies, however it dies: nothing is left holding the ports (Linux; prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
