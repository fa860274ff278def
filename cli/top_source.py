"""Where `tidings top` gets what it shows: from the registry who there is, from each node's /metrics how it does, from a balancer
what edges report.

None of the three needs the others: without the registry those last known are asked; a node that does not answer is away; without a
balancer the edges' own numbers are shown.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from cli import edges
from cli.failure import CommandError
from cli.inside import ANSWER_SECONDS, Inside
from cli.operate import list_edges
from cli.place import Running
from cli.plan import SERVICES
from cli.top_rows import Reading, Row, row
from mesh import errors
from mesh.process import background
from mesh.registry import Nodes
from tidings.balancer.v1.balancer_pb2 import Edge
from tidings.common.v1.instance_pb2 import Instance

SCRAPE_SECONDS = 2.0


class Source:
    """See the module. Get one with `opened`.

    Args:
        inside: the way to the registry and the balancers.
        session: asks the nodes.
        running: what run.json says, for the names; and for the metrics of a mesh that is one process.
    """

    def __init__(self, inside: Inside, session: aiohttp.ClientSession, running: Running | None) -> None:
        self._inside = inside
        self._session = session
        self._running = running
        self._nodes: dict[str, Nodes] = {}
        self._listed = asyncio.Event()
        self._before: dict[str, Reading] = {}

    @classmethod
    @asynccontextmanager
    async def opened(cls, inside: Inside, running: Running | None) -> AsyncIterator["Source"]:
        """Follow the registry until the context ends.

        Raises:
            CommandError: the registry does not answer.
        """
        timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            source = cls(inside, session, running)
            async with background(*(source._follow(service) for service in SERVICES)):
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await source._listed.wait()
                except TimeoutError:
                    raise CommandError("the registry does not answer", "`tidings doctor` looks at every piece") from None
                yield source

    async def rows(self) -> list[Row]:
        """All nodes as they are now, by service and name. Rates are since the last call."""
        instances = [instance for service in SERVICES for instance in self._nodes[service].values()]
        reported, readings = await asyncio.gather(self._edges(), asyncio.gather(*map(self._read, instances)))
        made = []
        for instance, reading in zip(instances, readings, strict=True):
            one, name = instance.instance_id, self._name(instance)
            made.append(row(instance, name, reading, self._before.get(one), reported.get(one)))
            if reading is not None:
                self._before[one] = reading
        for gone in self._before.keys() - {instance.instance_id for instance in instances}:
            del self._before[gone]
        return sorted(made, key=lambda one: (SERVICES.index(one.service), one.name, one.instance_id))

    async def _follow(self, service: str) -> None:
        async for nodes in self._inside.watch(service):
            self._nodes[service] = nodes
            if len(self._nodes) == len(SERVICES):
                self._listed.set()

    async def _edges(self) -> dict[str, Edge]:
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):  # one that hangs must not hold up the table
                return {edge.instance.instance_id: edge for edge in await list_edges(self._inside)}
        except (CommandError, TimeoutError, errors.TidingsError):
            return {}

    async def _read(self, instance: Instance) -> Reading | None:
        url = instance.admin_url or (self._running.url if self._running else "")
        try:
            async with self._session.get(f"{url}/metrics") as response:
                return Reading.parse(await response.text(), time.monotonic())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    def _name(self, instance: Instance) -> str:
        """What `tidings up` calls it, else the end of its id: the beginning is the time it started."""
        if self._running is not None:
            for name, url in self._running.nodes.items():
                if instance.admin_url and edges.port(url) == edges.port(instance.admin_url):
                    return name if name.startswith(instance.service) else f"{instance.service} in {name}"
            if found := edges.name(instance.public_url, self._running.edges):
                return found
        return f"{instance.service} …{instance.instance_id[-6:]}"
