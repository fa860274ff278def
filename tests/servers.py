"""Real servers for tests: each in a temporary folder, on a free port, stopped at the end.

A conftest imports the fixtures it needs: ``from tests.servers import postgres_server``.
"""

import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

_START_SECONDS = 30  # a busy machine takes a few seconds to initialise a cluster; this is where we give up


class PostgresServer:
    """A running cluster.

    Attributes:
        folder: its data and log.
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres") -> str:
        """A database's URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database; gives its URL."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextmanager
def run_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a private cluster.

    Args:
        durable: flush to disk at commit, as in production; tests that don't measure or crash go without.
    """
    folder = Path(tempfile.mkdtemp(prefix="tidings-postgres-"))
    try:
        server = PostgresServer(folder, free_port())
        _initialise(folder)
        process = subprocess.Popen(_as_postgres(_postgres_command(server, durable=durable)), cwd=folder, stderr=subprocess.DEVNULL)
        try:
            _await_postgres(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: end the sessions, then stop
            process.wait(_START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A cluster for this test session."""
    with run_postgres() as server:
        yield server


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _initialise(folder: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    command = [_binary("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(_as_postgres(command), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _postgres_command(server: PostgresServer, *, durable: bool) -> list[str]:
    options = {"listen_addresses": "127.0.0.1", "port": str(server.port), "unix_socket_directories": str(server.folder)}
    if not durable:
        options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [_binary("postgres"), "-D", str(server.folder / "data"), *flags]


def _await_postgres(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    for _ in range(_START_SECONDS * 20):
        if process.poll() is not None:
            raise RuntimeError(f"postgres ended at once with status {process.returncode}")
        try:
            psycopg.connect(server.url(), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            process_wait(process, 0.05)
    raise TimeoutError("postgres did not start")


def process_wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process to end, or at most so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _as_postgres(command: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]


def _binary(name: str) -> str:
    """Where a PostgreSQL program is: on the path, else the newest of Debian's versions."""
    found = shutil.which(name)
    if found:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    if not versions:
        raise FileNotFoundError(f"{name}: install Debian's package `postgresql`")
    return str(versions[-1])


class EtcdServer:
    """An etcd of one node, which can be killed and started again on the same ports.

    Attributes:
        folder: its data and log; what it stored survives `kill`, unless `wipe` is called.
        endpoint: host:port for clients.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = f"127.0.0.1:{free_port()}"
        self._peer = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        client = f"http://{self.endpoint}"
        command = ["etcd", "--data-dir", str(self.folder / "data"), "--initial-cluster", f"default={self._peer}"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        _await_etcd(client, self._process)

    def kill(self) -> None:
        """End it without warning, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Lose what it stored; only while it isn't running."""
        shutil.rmtree(self.folder / "data")


@contextmanager
def run_etcd() -> Iterator[EtcdServer]:
    """Run a private etcd."""
    with tempfile.TemporaryDirectory(prefix="tidings-etcd-") as folder:
        server = EtcdServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """An etcd for this test session; whoever kills it starts it again."""
    with run_etcd() as server:
        yield server


def _await_etcd(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(_START_SECONDS * 20):
        if process.poll() is not None:
            raise RuntimeError(f"etcd ended at once with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if json.load(answer)["health"] == "true":
                    return
        except OSError:
            pass
        process_wait(process, 0.05)
    raise TimeoutError("etcd did not start")
