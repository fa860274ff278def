"""A mesh to measure, started and stopped by the bench.

    process   one process, one loop, SQLite: what `tidings up` runs
    fleet     one process per service, PostgreSQL, etcd: what a deployment runs

Both are ready when a client gets a ticket from the balancer.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import free_port, process_wait, run_etcd, run_postgres
from mesh.credentials import mint_token

START_SECONDS = 30.0
STOP_SECONDS = 15.0
TOKEN_SECONDS = 6 * 3600.0
UNLIMITED = 100_000
"""Frames per second of a session, connects per second: a bench measures what a mesh can take, not what it grants one client."""
SERVICES = ("store", "router", "edge", "balancer")


@dataclass(slots=True)
class Target:
    """A mesh that serves.

    Attributes:
        url: the balancer's.
        token_secret: what its tokens are signed with.
        database: URL of what the store writes to; empty when unknown.
        pids: process ids by service, to be metered; empty when unknown.
        settings: how it was started, for the report.
    """

    url: str
    token_secret: str
    database: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def token(self, user_id: str) -> str:
        """A token for a user of the run."""
        return mint_token(self.token_secret, user_id, time.time(), TOKEN_SECONDS)


@contextmanager
def one_process(loop: str = "uvloop") -> Iterator[Target]:
    """All four services in one process on SQLite.

    Args:
        loop: "uvloop" or "asyncio".
    """
    folder, keys = Path(tempfile.mkdtemp(prefix="tidings-bench-")), _secrets()
    database = f"sqlite:///{folder / 'tidings.sqlite'}"
    command = [sys.executable, "-m", "bench.together", "--database", database, "--loop", loop]
    environment = os.environ | {f"TIDINGS_BENCH_{name.upper()}": value for name, value in keys.items()}
    try:
        with _child(command, environment, stdout=subprocess.PIPE) as process:
            line = process.stdout.readline() if process.stdout else b""
            if not line:
                raise RuntimeError("the mesh ended before it served: its log is above")
            settings = {"mode": "process", "loop": loop, "database": "SQLite, WAL"}
            target = Target(json.loads(line)["url"], keys["token_secret"], database, {"mesh": process.pid}, settings)
            _await_ticket(target)
            yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fleet(database: str = "") -> Iterator[Target]:
    """One process per service, found through etcd.

    Args:
        database: postgresql://…; empty starts a private cluster that flushes at every commit.
    """
    with ExitStack() as stack:
        pids: dict[str, int] = {}
        if not database:
            server = stack.enter_context(run_postgres(durable=True))
            database, pids["postgresql"] = server.new_database(), server.pid
        registry, keys, port = f"etcd://{stack.enter_context(run_etcd()).endpoint}", _secrets(), free_port()
        for service in SERVICES:
            command = [sys.executable, "-m", service, "--registry", registry, "--log-level", "warning", *_flags(service, port)]
            process = stack.enter_context(_child(command, os.environ | _environment(service, database, keys)))
            pids[service] = process.pid
        settings = {"mode": "fleet", "database": "PostgreSQL, fsync on", "registry": "etcd"}
        target = Target(f"http://127.0.0.1:{port}", keys["token_secret"], database, pids, settings)
        _await_ticket(target)
        yield target


def _flags(service: str, port: int) -> list[str]:
    given = {
        "store": {"port": free_port()},
        "router": {"port": free_port()},
        "edge": {"port": free_port(), "frames-per-second": UNLIMITED, "frames-burst": UNLIMITED},
        "balancer": {"port": port, "grpc-port": free_port(), "connects-per-second": UNLIMITED, "connect-burst": UNLIMITED},
    }
    return [part for name, value in given[service].items() for part in (f"--{name}", str(value))]


def _environment(service: str, database: str, keys: dict[str, str]) -> dict[str, str]:
    """Secrets and URLs with passwords go by the environment, which other users of the machine can't read."""
    if service == "store":
        return {"TIDINGS_STORE_DATABASE": database}
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


def _await_ticket(target: Target) -> None:
    until = time.monotonic() + START_SECONDS
    headers = {"Authorization": f"Bearer {target.token('bench-first')}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{target.url}/v1/connect", b"{}", headers)  # noqa: S310  (our own mesh)
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
            return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                raise TimeoutError(f"the mesh gave no ticket in {START_SECONDS:.0f} s: {error}") from error
            time.sleep(0.1)
