"""The mesh as processes: `python -m tagsvc`, `edge` and so on as children of this one.

One that dies is named and started again. One that dies before it was ever ready ends the whole: what is wrong then, is wrong
with what it was told, and won't pass.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
from rich.console import Console
from rich.text import Text

from cli.child import Child
from cli.failure import CommandError
from cli.orders import Order, environment, orders
from cli.plan import Plan
from tidings.common.v1.instance_pb2 import Instance

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
START_SECONDS = 20.0  # to migrate a database and find each other, on a busy machine …
START_SECONDS_EACH = 4.0  # … and for each process a second and a half of processor time to import what it needs
ANSWER_SECONDS = 2.0


class Fleet:
    """The children, and what they say.

    Args:
        plan: what to start.
        session: asks them whether they are ready.

    Attributes:
        instances: none: who runs is in the registry.
        nodes: the children by name, each with the base URL of its /metrics.
    """

    instances: Sequence[Instance] = ()

    def __init__(self, plan: Plan, session: aiohttp.ClientSession) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        made = orders(plan)
        self._services = plan.services
        self.nodes: Mapping[str, str] = {order.name: order.admin for order in made}
        self._width = max(len(order.name) for order in made)
        self._colours = {order.name: COLOURS[number % len(COLOURS)] for number, order in enumerate(made)}
        self._children = [
            Child(order, environment(plan, order.service), session, self._said, self._note, restart=plan.restart) for order in made
        ]
        self._running: list[asyncio.Task[None]] = []

    async def ready(self) -> None:
        """Start all children and wait until every one says that it is ready. One with a store goes first: the others would only
        complain that there is none yet.

        Raises:
            CommandError: it takes too long.
        """
        first, *others = self._children
        limit = START_SECONDS + START_SECONDS_EACH * len(self._children)
        try:
            async with asyncio.timeout(limit):
                await self._start(first)
                await asyncio.gather(*map(self._start, others))
        except TimeoutError as error:
            missing = ", ".join(child.order.name for child in self._children if not child.ready.is_set())
            what = f"{missing} not ready within {limit:.0f} s"
            raise CommandError(what, "their logs above say why; are the store and the registry reachable?") from error

    async def death(self) -> str:
        """Wait for the first child to end for good; who, and how."""
        lost = [child.lost for child in self._children]
        done, _ = await asyncio.wait(lost, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()

    async def stop(self) -> None:
        """Stop the children, the ones that face clients first; kill those that don't. When cancelled, kill all."""
        try:
            for service in reversed(self._services):
                await asyncio.gather(*(child.stop() for child in self._children if child.order.service == service))
        except asyncio.CancelledError:
            for child in self._children:
                child.kill()
            raise
        finally:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _start(self, child: Child) -> None:
        self._running.append(asyncio.create_task(child.run()))
        await child.ready.wait()

    def _said(self, order: Order, line: str) -> None:
        self._console.print(self._name(order) + Text.from_ansi(line))

    def _note(self, order: Order, what: str) -> None:
        self._console.print(self._name(order) + Text(what, style="bold"))

    def _name(self, order: Order) -> Text:
        return Text(f"{order.name:<{self._width}} ", style=self._colours[order.name])


@asynccontextmanager
async def serve(plan: Plan) -> AsyncIterator[Fleet]:
    """A fleet that starts when asked to be `ready`; it is stopped when the context ends."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
        fleet = Fleet(plan, session)
        try:
            yield fleet
        finally:
            await fleet.stop()
