"""The pieces on this machine that `tidings doctor` looks at, one function each: it returns what it found, or raises `IllError`
with what to do.

A piece that stands on an ill one isn't looked at, so that the first ill piece is the cause.
"""

import asyncio
import importlib.metadata
import logging
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psycopg
import structlog

from cli.failure import CommandError
from cli.place import Place
from cli.plan import SERVICES
from mesh.etcd_registry import EtcdRegistry
from tidings_client import Client

DISTRIBUTION = "tidings"
PYTHON = (3, 11)
LEAST_FREE_BYTES = 200 << 20  # below it SQLite and PostgreSQL soon refuse to write
ANSWER_SECONDS = 3.0


class IllError(CommandError):
    """A piece doesn't work: `what` is the cause, `hint` the next step."""


class NotNeededError(Exception):
    """There is nothing to look at; the text says why."""


@dataclass(slots=True)
class Patient:
    """What is looked at, and what the checks learn on the way."""

    place: Place
    url: str
    given_url: bool
    secret: str | None
    store: str
    registry: str
    cache: str
    certs: Path | None
    session: aiohttp.ClientSession
    stack: AsyncExitStack
    api_url: str = ""
    clients: list[Client] = field(default_factory=list)

    @property
    def local(self) -> bool:
        """Whether the data folder is expected to be the mesh's own."""
        return not (self.given_url and self.secret)


Check = Callable[[Patient], Awaitable[str]]


async def python(_: Patient) -> str:
    """The interpreter."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < PYTHON:
        raise IllError(f"Python {found} is too old", f"install Python {PYTHON[0]}.{PYTHON[1]} or newer, then `make up` again")
    return f"{found} at {sys.executable}"


async def packages(_: Patient) -> str:
    """What the distribution needs."""
    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise IllError("tidings itself is not installed here", "run `make up`, or `pip install -e .`") from None
    names = [re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in wanted if "extra ==" not in line]
    missing = [name for name in names if not _installed(name)]
    if missing:
        raise IllError(f"missing: {', '.join(missing)}", "run `make up`, or `pip install -e .`")
    return f"all {len(names)} installed"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


async def data_folder(patient: Patient) -> str:
    """Where the mesh keeps things."""
    folder = patient.place.folder
    if not folder.exists():
        if not patient.local:
            raise NotNeededError("the mesh is elsewhere")
        raise IllError(f"there is no {folder}", "`tidings up` makes it; or point --data at the folder of a mesh")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise IllError(f"{folder} is not writable", "give yourself the right to, or point --data elsewhere")
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise IllError(f"only {free >> 20} MiB left on the disk of {folder}", "make room, or point --data at another disk")
    return f"{folder}, {free >> 30} GiB free"


async def development_secrets(patient: Patient) -> str:
    """What signs tokens and tickets."""
    if patient.secret:
        raise NotNeededError("--secret was given")
    try:
        patient.place.read_secrets()
    except CommandError as error:
        raise IllError(error.what, error.hint) from error
    mode = patient.place.secrets_file.stat().st_mode & 0o777
    if mode & 0o077:
        raise IllError(
            f"{patient.place.secrets_file} can be read by others (mode {mode:o})", f"chmod 600 {patient.place.secrets_file}"
        )
    return str(patient.place.secrets_file)


async def database(patient: Patient) -> str:
    """The store's database, when it can be reached from here."""
    if patient.store.startswith("postgresql:"):
        return await postgresql(patient.store)
    path = Path(patient.store.removeprefix("sqlite:///")) if patient.store else patient.place.folder / "tidings.sqlite"
    if not path.exists():
        raise NotNeededError("none here; the round trip below looks at the store that is in use")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=ANSWER_SECONDS) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise IllError(f"{path}: {error}", "put back a backup, or move the file away to begin anew") from error
    return f"SQLite, {path}, {path.stat().st_size >> 10} KiB"


async def postgresql(url: str) -> str:
    """Whether a PostgreSQL server lets us in; which one it is."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=int(ANSWER_SECONDS)) as connection:
            row = await (await connection.execute("SHOW server_version")).fetchone()
    except psycopg.Error as error:
        first = (str(error).splitlines() or ["no answer"])[0]
        raise IllError(
            f"PostgreSQL: {first}", "start the server, or correct --store (host, port, user, password, database)"
        ) from error
    return f"PostgreSQL {row[0] if row else ''}"


async def registry(patient: Patient) -> str:
    """etcd, when that is where the services find each other."""
    if not patient.registry.startswith("etcd://"):
        raise NotNeededError("in memory")
    return await etcd(patient.registry)


async def etcd(url: str) -> str:
    """Whether etcd answers; who is registered there."""
    endpoints = url.removeprefix("etcd://").split(",")
    counts = []
    try:
        async with asyncio.timeout(ANSWER_SECONDS), EtcdRegistry.open(endpoints) as opened:
            for service in SERVICES:
                nodes = await anext(aiter(opened.watch(service)))
                counts.append(f"{len(nodes)} {service}")
    except TimeoutError:
        raise IllError(f"etcd at {', '.join(endpoints)} does not answer", "start it, or correct --registry") from None
    return f"etcd has {', '.join(counts)}"


def quiet() -> None:
    """Let libraries log nothing but disasters, and not to stdout: what is found is said by us."""
    disasters = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr), wrapper_class=disasters)
