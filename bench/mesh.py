"""A mesh to measure, started and stopped by the bench.

    process   one process, one loop, SQLite: what `tidings up` runs
    fleet     one process per service, with a store in the router's, PostgreSQL, etcd: what `tidings up --registry etcd://…` runs

Both are ready when a client gets a ticket from the balancer, the fleet also not before every process listens.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.servers import START_SECONDS, free_port, process_wait, run_etcd, run_postgres, until_ready
from mesh.credentials import mint_token

STOP_SECONDS = 15.0
TOKEN_SECONDS = 6 * 3600.0
UNLIMITED = 100_000
"""Frames per second of a session, connects per second: a bench measures what a mesh can take, not what it grants one client."""
_UNLIMITED_CLIENTS = {
    f"TIDINGS_{name}": str(UNLIMITED)
    for name in ("EDGE_FRAMES_PER_SECOND", "EDGE_FRAMES_BURST", "BALANCER_CONNECTS_PER_SECOND", "BALANCER_CONNECT_BURST")
}
SERVICES = ("router", "tagsvc", "scheduler", "edge", "balancer")
_MODULES = {"router": "cli.router_with_store"}


@dataclass(slots=True)
class Target:
    """A mesh that serves.

    Attributes:
        url: the balancer's.
        token_secret: what its tokens are signed with.
        database: URL of what the store writes to; empty when unknown.
        pids: process ids by service, to be metered; empty when unknown.
        settings: how it was started, for the report.
        tags, scheduler: host:port of the services that businesses call; empty when unknown.
    """

    url: str
    token_secret: str
    database: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    tags: str = ""
    scheduler: str = ""

    def token(self, user_id: str) -> str:
        """A token for a user of the run."""
        return mint_token(self.token_secret, user_id, time.time(), TOKEN_SECONDS)


Seed = Callable[[str], None]
"""Puts something into a database, given its URL, before the mesh starts on it."""


@contextmanager
def one_process(seed: Seed | None = None, environment: Mapping[str, str] | None = None) -> Iterator[Target]:
    """All services in one process on SQLite: `tidings up` itself."""
    folder = Path(tempfile.mkdtemp(prefix="tidings-bench-"))
    command = [sys.executable, "-m", "cli", "up", "--data", str(folder), "--port", "0", "--edge-port", "0"]
    command += ["--tagsvc-port", "0", "--scheduler-port", "0"]
    database = f"sqlite:///{folder / 'tidings.sqlite'}"
    try:
        if seed is not None:
            seed(database)
        given = os.environ | _UNLIMITED_CLIENTS | dict(environment or {})
        with _child(command, given, stdout=subprocess.DEVNULL) as process:
            running = _await_run_file(folder / "run.json", process)
            token_secret = json.loads((folder / "secrets.json").read_text())["token_secret"]
            settings = {"mode": "process", "database": "SQLite, WAL, synchronous FULL"}
            tags, scheduler = (f"127.0.0.1:{running['ports'][service][0]}" for service in ("tagsvc", "scheduler"))
            target = Target(running["url"], token_secret, database, {"mesh": process.pid}, settings, tags, scheduler)
            _await_ticket(target)
            yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await_run_file(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    until_ready(process, path.exists, "the mesh, whose log is above,")
    running: dict[str, Any] = json.loads(path.read_text())
    return running


@contextmanager
def fleet(
    database: str = "",
    seed: Seed | None = None,
    counts: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Target]:
    """One process per service, with a store in each router's, found through etcd.

    Args:
        database: postgresql://…; empty starts a private cluster that flushes at every commit.
        seed: prepares the database.
        counts: service -> how many, where not one; the second edge is metered as "edge-2".
        environment: of the services, beside this process's own.
    """
    with ExitStack() as stack:
        pids: dict[str, int] = {}
        if not database:
            server = stack.enter_context(run_postgres(durable=True))
            server.make_log_files()
            database, pids["postgresql"] = server.new_database(), server.pid
        if seed is not None:
            seed(database)
        registry, keys = f"etcd://{stack.enter_context(run_etcd()).endpoint}", _secrets()
        ports = {service: free_port() for service in SERVICES}
        started: list[tuple[subprocess.Popen[bytes], int, str]] = []
        for service, name in _processes(counts or {}):
            port = ports[service] if name == service else free_port()
            flags = [*_flags(service, port), "--registry", registry, "--log-level", "warning"]
            command = [sys.executable, "-m", _MODULES.get(service, service), *flags]
            given = {**(environment or {}), **_environment(service, database, keys)}
            process = stack.enter_context(_child(command, os.environ | _UNLIMITED_CLIENTS | given))
            pids[name] = process.pid
            started.append((process, port, name))
        # A router that came later would have sessions synced again, and what is not acknowledged told twice.
        for process, port, name in started:
            until_ready(process, partial(_listens, port), name)
        settings = {"mode": "fleet", "database": "PostgreSQL, fsync on", "registry": "etcd"}
        tags, scheduler = (f"127.0.0.1:{ports[service]}" for service in ("tagsvc", "scheduler"))
        target = Target(f"http://127.0.0.1:{ports['balancer']}", keys["token_secret"], database, pids, settings, tags, scheduler)
        _await_ticket(target)
        yield target


def _processes(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The service and the name of each process."""
    for service in SERVICES:
        yield service, service
        yield from ((service, f"{service}-{number}") for number in range(2, counts.get(service, 1) + 1))


def _flags(service: str, port: int) -> list[str]:
    more = {"balancer": "grpc-port", "tagsvc": "mesh-port"}
    given = {"port": port, **({more[service]: free_port()} if service in more else {})}
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def _environment(service: str, database: str, keys: dict[str, str]) -> dict[str, str]:
    """Secrets and URLs with passwords go by the environment, which other users of the machine can't read."""
    if service == "router":
        return {"TIDINGS_STORE_DATABASE": database, "TIDINGS_STORE_PORT": "0"}
    named = keys if service in ("edge", "balancer") else {}
    return {f"TIDINGS_{service.upper()}_{name.upper()}": value for name, value in named.items()}


def _secrets() -> dict[str, str]:
    return {"token_secret": secrets.token_hex(32), "ticket_secret": secrets.token_hex(32)}


@contextmanager
def _child(command: list[str], environment: dict[str, str], stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, stdout=stdout)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        process_wait(process, STOP_SECONDS)
        process.kill()
        process.wait()


def edge_for(target: Target, user_id: str) -> str:
    """The URL of the edge at which the balancer gives a user a place.

    Raises:
        URLError, OSError: it gives none, or does not serve yet.
    """
    headers = {"Authorization": f"Bearer {target.token(user_id)}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{target.url}/v1/connect", b"{}", headers)  # noqa: S310  (our own mesh)
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return str(json.load(answer)["url"])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _await_ticket(target: Target) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            edge_for(target, "bench-first")
            return
        except OSError as error:
            if time.monotonic() > until:
                raise TimeoutError(f"the mesh gave no ticket in {START_SECONDS} s: {error}") from error
            time.sleep(0.1)
