"""The way of `tidings tag` and `tidings notify` into the mesh: the business' own door, gRPC with a key and certificates if asked.

Where the services are comes from the options, else from the mesh running in the data folder, else the default ports. Certificates
come from the environment: TIDINGS_TLS_CA, TIDINGS_TLS_CERTIFICATE, TIDINGS_TLS_KEY name PEM files.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cli.failure import CommandError
from cli.place import Place
from tidings_client.business import Business, BusinessError, TlsFiles

TAGS_PORT, SCHEDULER_PORT = 9091, 9092
_TLS = ("TIDINGS_TLS_CA", "TIDINGS_TLS_CERTIFICATE", "TIDINGS_TLS_KEY")
R = TypeVar("R")

Tags = Annotated[
    str | None,
    typer.Option(
        "--tags", help="host:port of the tags' service; else of the mesh in --data.", envvar="TIDINGS_TAGS", metavar="ADDRESS"
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", help="host:port of the scheduler; else of the mesh in --data.", envvar="TIDINGS_SCHEDULER", metavar="ADDRESS"
    ),
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", help="Your key, where the service asks for one.", envvar="TIDINGS_API_KEY", metavar="KEY")
]


@dataclass(frozen=True, slots=True)
class Door:
    """Where the business' services are, and what opens them."""

    data: Path
    tags: str | None = None
    scheduler: str | None = None
    api_key: str | None = None

    def run(self, work: Callable[[Business], Awaitable[R]]) -> R:
        """Do something at the services."""

        async def run() -> R:
            async with self.connect() as business:
                return await work(business)

        try:
            return asyncio.run(run())
        except BusinessError as error:
            if error.reason == "UNAVAILABLE" and "failed to connect" in error.message:
                where = error.message.partition("/")[0]
                raise CommandError(f"nothing answers at {where}", "start a mesh with `tidings up`, or say where it is") from error
            raise

    def connect(self) -> Business:
        """Open it; nothing is dialled before the first call.

        Raises:
            CommandError: the key or a certificate can't be used.
        """
        scheduler = self.scheduler or self._running("scheduler", SCHEDULER_PORT)
        tags = self.tags or self._running("tagsvc", TAGS_PORT)
        try:
            return Business.connect(scheduler, tags, self.api_key, _tls())
        except (ValueError, OSError) as error:
            raise CommandError(f"can't open the way to the services ({error})", "look at --api-key and TIDINGS_TLS_…") from error

    def _running(self, service: str, port: int) -> str:
        running = Place(self.data).running()
        found = running.ports.get(service, []) if running else []
        return f"{running.host if running else '127.0.0.1'}:{found[0] if found else port}"


def _tls() -> TlsFiles | None:
    authority, certificate, key = (os.environ.get(name) or None for name in _TLS)
    return TlsFiles(authority, certificate, key) if authority or certificate or key else None
