"""Real servers beside the mesh: PostgreSQL, etcd and Redis, private, in temporary folders, on free ports, stopped at the end.

PostgreSQL refuses to run as root; then it runs as the account `postgres` that Debian's package made.
"""

import itertools
import json
import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

START_SECONDS = 30  # a busy machine takes a few seconds to initialise a cluster; this is where we give up
LOG_FILES = 32  # of PostgreSQL's log, made ahead: half a GB, about as much as it writes between two checkpoints
_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


class PostgresServer:
    """A cluster, which can be stopped and started again on the same port.

    Attributes:
        folder: its data and log.
        port: where it listens on 127.0.0.1.
        pid: the postmaster's; its children serve the sessions. 0 while it doesn't run.
    """

    def __init__(self, folder: Path, port: int, *, durable: bool = False) -> None:
        self.folder = folder
        self.port = port
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        """See the class."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = _as_postgres(_postgres_command(self, durable=self._durable))
        self._process = process = _start(command, self.folder)
        until_ready(process, lambda: _connects(self.url()), "postgres")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends the sessions and then the server, SIGQUIT everything at once, and the next start recovers.

        It has happened, once in hundreds of times, that it stood still at that: then it is killed with all its sessions.
        """
        if self._process is not None:
            self._process.send_signal(how)
            process_wait(self._process, START_SECONDS)
            if _runs(self._process):
                _log.warning("postgres did not stop within %d s: killed", START_SECONDS)
                _kill_family(self._process)
            self._process = None

    def revive(self) -> None:
        """Start it if it does not run."""
        if not _runs(self._process):
            self.start()

    def make_log_files(self) -> None:
        """Make the files of its log ahead, as a server that has run for a while has them: a fresh one makes each of 16 MB when it
        comes to it, and everybody waits for that. Not on a small disk."""
        if _on_small_disk(self.folder):
            return
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for _ in range(LOG_FILES):
                connection.execute("SELECT pg_logical_emit_message(false, '', '')")
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")

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
def run_postgres(*, durable: bool = False, place: Path | None = None) -> Iterator[PostgresServer]:
    """Run a private cluster.

    Args:
        durable: flush to disk at commit, as in production; tests that don't measure or crash go without.
        place: the folder in which it makes its own; else where temporary files go.
    """
    folder = Path(tempfile.mkdtemp(prefix="tidings-postgres-", dir=place))
    try:
        server = PostgresServer(folder, free_port(), durable=durable)
        _initialise(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class EtcdServer:
    """An etcd, which can be killed and started again on the same ports. Alone, or one member of a cluster: see `run_etcd_cluster`.

    Attributes:
        folder: its data and log; what it stored survives `kill`, unless `wipe` is called.
        name: of the member.
        endpoint: host:port for clients.
        peer: URL for the other members.
        cluster: "name=peer,…" of all members.
    """

    def __init__(self, folder: Path, name: str = "default") -> None:
        self.folder = folder
        self.name = name
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.cluster = f"{name}={self.peer}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.launch()
        self.await_healthy()

    def launch(self) -> None:
        """Start without waiting: a member answers only once most of its cluster is there."""
        client = f"http://{self.endpoint}"
        options = {"data-dir": str(self.folder / "data"), "listen-client-urls": client, "advertise-client-urls": client}
        options |= {"listen-peer-urls": self.peer, "initial-advertise-peer-urls": self.peer}
        options |= {"name": self.name, "initial-cluster": self.cluster}
        self._process = _start(["etcd", *(f"--{name}={value}" for name, value in options.items())], self.folder)

    def await_healthy(self) -> None:
        """Wait until it answers."""
        if self._process is not None:
            until_ready(self._process, lambda: _healthy(f"http://{self.endpoint}/health"), "etcd")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, for example SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it without warning, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def revive(self) -> None:
        """Start it if it does not run, and let it go on if it is frozen."""
        if not _runs(self._process):
            self.start()
        self.signal(signal.SIGCONT)

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


@contextmanager
def run_etcd_cluster(count: int) -> Iterator[list[EtcdServer]]:
    """Run a private cluster of several members."""
    with tempfile.TemporaryDirectory(prefix="tidings-etcd-") as folder:
        members = [EtcdServer(Path(folder) / f"member{number}", f"member{number}") for number in range(1, count + 1)]
        for member in members:
            member.folder.mkdir()
            member.cluster = ",".join(f"{one.name}={one.peer}" for one in members)
        try:
            for member in members:
                member.launch()
            for member in members:
                member.await_healthy()
            yield members
        finally:
            for member in members:
                member.kill()


class RedisServer:
    """A Redis that keeps nothing on disk, which can be killed, frozen and started again on the same port.

    Attributes:
        folder: its log.
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's; 0 while it doesn't run."""
        return self._process.pid if self._process is not None else 0

    @property
    def url(self) -> str:
        """For the setting `cache`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = _start([*command, "--dir", str(self.folder)], self.folder)
        until_ready(self._process, self._answers, "redis-server")

    def flush(self) -> None:
        """FLUSHALL."""
        with Redis(port=self.port) as client:
            client.flushall()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it without warning, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def revive(self) -> None:
        """Start it if it does not run, and let it go on if it is frozen."""
        if not _runs(self._process):
            self.start()
        self.signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except RedisError:
            return False


@contextmanager
def run_redis() -> Iterator[RedisServer]:
    """Run a private Redis."""
    with tempfile.TemporaryDirectory(prefix="tidings-redis-") as folder:
        server = RedisServer(Path(folder))
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


def until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str) -> None:
    """Wait for a process that was started.

    Raises:
        RuntimeError: it ended.
        TimeoutError: it isn't ready in time.
    """
    for _ in range(int(START_SECONDS / _POLL_SECONDS)):
        if ready():
            return
        process_wait(process, _POLL_SECONDS)
        if process.returncode is not None:
            raise RuntimeError(f"{name} ended at once with status {process.returncode}")
    raise TimeoutError(f"{name} did not start")


def _kill_family(process: subprocess.Popen[bytes]) -> None:
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in reversed(family):  # the parent first, that it starts no more
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=START_SECONDS)


def _runs(process: "subprocess.Popen[bytes] | None") -> bool:
    return process is not None and process.poll() is None


def _start(command: Sequence[str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)  # noqa: S603


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
    options |= {"max_wal_size": "128MB", "min_wal_size": "64MB"} if _on_small_disk(server.folder) else {"min_wal_size": "1GB"}
    if not durable:
        options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [_binary("postgres"), "-D", str(server.folder / "data"), *flags]


def _on_small_disk(folder: Path) -> bool:
    return shutil.disk_usage(folder).total < 2 << 30


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
