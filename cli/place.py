"""The data folder: what `tidings up` leaves there, and where the other commands find it.

secrets.json   the development secrets, made once, mode 0600
run.json       where the running mesh answers; there while it runs
lock           held by the running mesh; the kernel lets go of it when the holder dies, however it dies
clients/       state of `tidings chat` and `tidings tail`, one file for each user, mesh and purpose
"""

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from cli.failure import CommandError

DEFAULT_URL = "http://127.0.0.1:8080"
MOST_OPEN = 99  # of one command by one user


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs tokens and tickets in development."""

    token_secret: str
    ticket_secret: str


@dataclass(frozen=True, slots=True)
class Running:
    """What run.json says. A file of another version may have less or more.

    Attributes:
        url: the first balancer's base URL.
        pid: the process of `tidings up`.
        ports: those that others are told of, by service.
        edges: the edges' HTTP base URLs.
        store: the scheme of its URL.
        registry, cache: their URLs.
        host: under which the ports are reached.
        urls: the balancers' base URLs.
        certs: the folder of the certificates; empty without.
        nodes: the processes by name, each with the base URL of its /metrics.
        instances: who serves, in the JSON of `tidings.common.v1.Instance`, where no registry says it.
    """

    url: str
    pid: int
    ports: dict[str, list[int]]
    edges: list[str] = field(default_factory=list)
    store: str = ""
    registry: str = ""
    host: str = "127.0.0.1"
    urls: list[str] = field(default_factory=list)
    cache: str = ""
    certs: str = ""
    nodes: dict[str, str] = field(default_factory=dict)
    instances: list[dict[str, Any]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it still exists."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Place:
    """A data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _run_file(self) -> Path:
        return self.folder / "run.json"

    @property
    def secrets_file(self) -> Path:
        """Where the development secrets are kept."""
        return self.folder / "secrets.json"

    def prepare(self) -> None:
        """Make the folder, and see that files can be made in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise CommandError(
                f"can't write in the data folder {self.folder} ({reason})", "give another one with --data"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one mesh. A holder that died holds nothing."""
        with (self.folder / "lock").open("a+") as file:
            if not _locked(file):
                file.seek(0)
                holder = file.read().strip()
                what = f"the data folder {self.folder} is in use by a running mesh (pid {holder})"
                raise CommandError(what, f"stop it (kill {holder}), or give another folder with --data")
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def make_secrets(self) -> Secrets:
        """The development secrets; made now if there are none."""
        if not self.secrets_file.exists():
            made = Secrets(secrets.token_hex(32), secrets.token_hex(32))
            _write(self.secrets_file, asdict(made))
        return self.read_secrets()

    def read_secrets(self) -> Secrets:
        """The development secrets."""
        try:
            found = json.loads(self.secrets_file.read_text())
            return Secrets(found["token_secret"], found["ticket_secret"])
        except FileNotFoundError as error:
            hint = "start a mesh with `tidings up`, point --data at its folder, or give its --secret"
            raise CommandError(f"no development secrets in {self.folder}", hint) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"can't read {self.secrets_file} ({error})", "remove it, then start `tidings up` again") from error

    def token_secret(self, given: str | None) -> str:
        """What signs tokens: the secret given, else the folder's."""
        return given or self.read_secrets().token_secret

    def running(self) -> Running | None:
        """What run.json says; None when there is none to read. It may be stale: see `Running.alive`."""
        try:
            found = json.loads(self._run_file.read_text())
            known = {one.name for one in fields(Running)}
            return Running(**{name: value for name, value in found.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    @contextmanager
    def announce(self, running: Running) -> Iterator[None]:
        """Keep run.json while the context is open."""
        _write(self._run_file, asdict(running))
        _write_text(self.folder / "last_url", running.url)
        try:
            yield
        finally:
            self._run_file.unlink(missing_ok=True)

    def urls(self, given: str | None) -> list[str]:
        """The balancers' base URLs: those given, with commas between, else the running mesh's, else that of the last one, else the
        default."""
        if given:
            return [url.strip().rstrip("/") for url in given.split(",")]
        running = self.running()
        return (running.urls or [running.url]) if running else [self._last_url()]

    def url(self, given: str | None) -> str:
        """The first of `urls`, by which a mesh is known here."""
        return self.urls(given)[0]

    def _last_url(self) -> str:
        try:
            return (self.folder / "last_url").read_text()
        except OSError:
            return DEFAULT_URL

    def remember(self, user: str, url: str, name: str, conversation_id: str) -> None:
        """Keep what a group's name meant, for when nobody can be asked."""
        known = self._names(user, url)
        if known.get(name) != conversation_id:
            _write(self._names_file(user, url), {**known, name: conversation_id})

    def recall(self, user: str, url: str, name: str) -> str:
        """What a group's name meant when it was last asked; empty when it never was."""
        return self._names(user, url).get(name, "")

    def _names(self, user: str, url: str) -> dict[str, str]:
        try:
            return dict(json.loads(self._names_file(user, url).read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _names_file(self, user: str, url: str) -> Path:
        return self.clients() / f"{user}@{_mesh(url)}.names.json"

    def clients(self) -> Path:
        """The folder of the clients' state, made when missing."""
        folder = self.folder / "clients"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"can't make {folder} ({error.strerror})", "give another folder with --data") from error
        return folder

    @contextmanager
    def client_state(self, user: str, url: str, purpose: str, device: str | None = None) -> Iterator[tuple[Path, str]]:
        """A state file and a device id that nobody else uses while the context is open.

        The first free of `purpose`, `purpose`-2, … so that a user may have the same command open twice, and each has its own
        device; the ids are the same from run to run. With `device` it is that one, or a failure.
        """
        names = (
            [purpose, *(f"{purpose}-{number}" for number in range(2, MOST_OPEN + 1))] if device is None else [f"{purpose}.{device}"]
        )
        for name in names:
            path = self.clients() / f"{user}@{_mesh(url)}.{name}.sqlite"
            with path.with_suffix(".lock").open("a") as file:
                if _locked(file):
                    yield path, device or f"cli-{_machine_id(self.folder)}-{name}"
                    return
        if device is not None:
            raise CommandError(
                f"device {device} of {user} is in use", "close the command that uses it, or name another with --device"
            )
        raise CommandError(f"{user} has `tidings {purpose}` open {MOST_OPEN} times", "close one of them")


def _locked(file: IO[str]) -> bool:
    """Take the file's lock; False when another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _mesh(url: str) -> str:
    """Eight characters that stand for a mesh in file names."""
    return hashlib.blake2b(url.encode(), digest_size=4).hexdigest()


def _machine_id(folder: Path) -> str:
    """Eight characters that tell this data folder's devices from those of another, so that they don't replace each other."""
    path = folder / "clients" / "device"
    try:
        return path.read_text()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_text(path, secrets.token_hex(4))
        return path.read_text()


def _write(path: Path, content: Mapping[str, object]) -> None:
    _write_text(path, json.dumps(content, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    part = path.with_name(f".{path.name}-{os.getpid()}-{time.monotonic_ns()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    part.replace(path)
