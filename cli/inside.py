"""The way of the operators' commands into a mesh: to its services' own ports, which face nobody outside.

Who runs is in the registry. Which one that is, the options say, else the run.json of the mesh in the data folder; for a mesh of one
process, whose registry nobody else can read, run.json names the services itself.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import grpc
import typer
from google.protobuf import json_format

from cli import checkup
from cli.failure import CommandError
from cli.place import Place, Running
from mesh import errors, rpc
from mesh.certificates import CertificateError
from mesh.patience import PASSING
from mesh.process import open_registry
from mesh.registry import MemoryRegistry, Nodes, Registry
from tidings.common.v1.instance_pb2 import Instance

ANSWER_SECONDS = 5.0
R = TypeVar("R")
S = TypeVar("S")

RegistryUrl = Annotated[
    str | None,
    typer.Option("--registry", help="etcd://…; else that of the mesh in --data.", envvar="TIDINGS_REGISTRY", metavar="URL"),
]
Certificates = Annotated[
    Path | None,
    typer.Option("--certs", help="Folder with an operator's certificate; else that of the mesh in --data.", metavar="DIR"),
]


class Inside:
    """An open way in.

    Args:
        registry: who runs.
        certs: the folder with the operator's certificate; None for a mesh in plain text.
    """

    def __init__(self, registry: Registry, certs: Path | None, stack: AsyncExitStack) -> None:
        self._registry = registry
        self._certs = certs
        self._stack = stack
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def instances(self, service: str) -> list[Instance]:
        """Who runs now, by instance id.

        Raises:
            CommandError: the registry does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS), aclosing(self.watch(service)) as found:
                nodes = await anext(found)
        except TimeoutError:
            raise CommandError("the registry does not answer", "is it running? `tidings doctor` looks at every piece") from None
        return [nodes[one] for one in sorted(nodes)]

    async def watch(self, service: str) -> AsyncGenerator[Nodes, None]:
        """Who runs, now and whenever that changes."""
        async for nodes in self._registry.watch(service):
            yield nodes

    async def call(
        self,
        service: str,
        stub: Callable[[grpc.aio.Channel], S],
        ask: Callable[[S], Awaitable[R]],
        *,
        limit: float = ANSWER_SECONDS,
    ) -> R:
        """Ask one instance of a service, and others when it does not answer: only what may be asked twice.

        Args:
            service: which.
            stub: of the generated class.
            ask: makes the call on the stub.
            limit: seconds to wait for each.

        Raises:
            CommandError: none runs, or none answers.
            TidingsError: what it answered.
        """
        found = await self.instances(service)
        said = "none is registered"
        for instance in sorted(found, key=lambda one: one.draining):
            try:
                async with asyncio.timeout(limit):
                    with rpc.named_errors():
                        return await ask(stub(self._channel(service, instance)))
            except TimeoutError:
                said = f"{instance.instance_id} did not answer within {limit:.0f} s"
            except errors.TidingsError as error:
                if error.code not in PASSING:
                    raise
                said = error.message
        raise CommandError(f"no {service} answers ({said})", "is the mesh running? `tidings doctor` looks at every piece")

    def _channel(self, service: str, instance: Instance) -> grpc.aio.Channel:
        address = instance.grpc_address
        if address not in self._channels:
            try:
                opened = rpc.operator_channel(address, service, self._certs)
            except CertificateError as error:
                raise CommandError(str(error), "give the folder with --certs") from error
            self._channels[address] = opened
            self._stack.push_async_callback(opened.close)
        return self._channels[address]


@dataclass(frozen=True, slots=True)
class Gate:
    """Where the way in begins: what the options say."""

    data: Path
    registry: str | None = None
    certs: Path | None = None

    @property
    def running(self) -> Running | None:
        """What run.json says of the mesh, unless the options name another one."""
        return None if self.registry else Place(self.data).running()

    def run(self, work: Callable[[Inside], Awaitable[R]]) -> R:
        """Do something inside."""

        async def run() -> R:
            async with self.open() as inside:
                return await work(inside)

        return asyncio.run(run())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Inside]:
        """Open it; nothing is dialled before the first call.

        Raises:
            CommandError: no mesh is known.
        """
        checkup.quiet()
        running = self.running
        certs = self.certs or (Path(running.certs) if running and running.certs else None)
        async with AsyncExitStack() as stack:
            yield Inside(await stack.enter_async_context(self._registry(running)), certs, stack)

    @asynccontextmanager
    async def _registry(self, running: Running | None) -> AsyncIterator[Registry]:
        url = self.registry or (running.registry if running else "")
        if not url:
            raise CommandError(
                f"no mesh runs in {self.data}", "start one with `tidings up`, point --data at its folder, or give its --registry"
            )
        if url.startswith("etcd:"):
            async with open_registry(url) as registry:
                yield registry
        else:
            async with _listed(running) as listed:
                yield listed


@asynccontextmanager
async def _listed(running: Running | None) -> AsyncIterator[Registry]:
    """A registry that holds what run.json lists."""
    if running is None:
        raise CommandError("memory:// is the registry of one process", "point --data at the folder of that mesh")
    registry = MemoryRegistry()
    async with AsyncExitStack() as stack:
        for value in running.instances:
            instance = json_format.ParseDict(value, Instance(), ignore_unknown_fields=True)
            await stack.enter_async_context(registry.register(instance))
        yield registry
