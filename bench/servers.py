"""Real servers beside the mesh: PostgreSQL and etcd, each private, in a temporary folder, on a free port, stopped at the end.

PostgreSQL refuses to run as root; then it runs as the account `postgres` that Debian's package made.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

START_SECONDS = 30  # a busy machine takes a few seconds to initialise a cluster; this is where we give up
_POLL_SECONDS = 0.05


class PostgresServer:
    """A running cluster.

    Attributes:
        folder: its data and log.
        port: where it listens on 127.0.0.1.
        pid: the postmaster's; its children serve the sessions.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.pid = 0
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres") -> str:
        """A database's URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self, options: str = "") -> str:
        """Create an empty database, with options of CREATE DATABASE; gives its URL."""
        name = f"tidings_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {options}".encode())
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
        process = _start(_as_postgres(_postgres_command(server, durable=durable)), folder)
        server.pid = process.pid
        try:
            _await(process, lambda: _connects(server.url()), "postgres")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: end the sessions, then stop
            process.wait(START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        options = {"data-dir": str(self.folder / "data"), "listen-client-urls": client, "advertise-client-urls": client}
        options |= {"listen-peer-urls": self._peer, "initial-advertise-peer-urls": self._peer}
        options |= {"initial-cluster": f"default={self._peer}"}
        self._process = _start(["etcd", *(f"--{name}={value}" for name, value in options.items())], self.folder)
        _await(self._process, lambda: _healthy(f"{client}/health"), "etcd")

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


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def process_wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process to end, or at most so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _start(command: Sequence[str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)  # noqa: S603


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str) -> None:
    for _ in range(int(START_SECONDS / _POLL_SECONDS)):
        if ready():
            return
        process_wait(process, _POLL_SECONDS)
        if process.returncode is not None:
            raise RuntimeError(f"{name} ended at once with status {process.returncode}")
    raise TimeoutError(f"{name} did not start")


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  (our own etcd)
            return bool(json.load(answer)["health"] == "true")
    except (OSError, ValueError):
        return False


def _initialise(folder: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    command = [_binary("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(_as_postgres(command), cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def _postgres_command(server: PostgresServer, *, durable: bool) -> list[str]:
    options = {"listen_addresses": "127.0.0.1", "port": str(server.port), "unix_socket_directories": str(server.folder)}
    if not durable:
        options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [_binary("postgres"), "-D", str(server.folder / "data"), *flags]


def _as_postgres(command: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]


def _binary(name: str) -> str:
    """Where a PostgreSQL program is: the newest of Debian's versions, else on the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name}: install Debian's package `postgresql`")
    return found
