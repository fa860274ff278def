"""The whole mesh as real processes on PostgreSQL and etcd, each of which can be killed, frozen, and started again on its ports.

Every process dies with this one, however that ends. What they say is in `<name>.log` in the fleet's folder.
"""

import itertools
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import EtcdServer, PostgresServer, process_wait
from cli.orders import ROUTER_WITH_STORE
from mesh import naming
from mesh.credentials import mint_token
from mesh.process import open_registry
from tests.system.fences import PostgresFences
from tests.system.ports import lasting_port
from tidings_client.business import Business

HOST = "127.0.0.1"
START_SECONDS = 60.0  # nine interpreters on two busy cores
LEASE_SECONDS = 2.0
_POLL_SECONDS = 0.05
SMALL = {"store": 1, "tagsvc": 2, "router": 2, "scheduler": 2, "balancer": 1, "edge": 1}
"""How many of each service, in the order they start."""

_PORTS = {"tagsvc": ("port", "mesh-port"), "balancer": ("port", "grpc-port")}
_QUICK = {
    "router": {"lease-seconds": LEASE_SECONDS, "resend-seconds": 1.0, "expand-seconds": 1.0},
    "scheduler": {"lease-seconds": LEASE_SECONDS, "handover-seconds": 0.5, "poll-seconds": 0.5},
    "balancer": {"backoff-base-seconds": 0.05, "backoff-max-seconds": 0.5},
    "edge": {"heartbeat-seconds": 1.0, "heartbeat-limit-seconds": 2.5, "acknowledge-seconds": 2.0},
}


@dataclass
class Member:
    """One process, whether it runs or not, its ports by the flag that sets them, and what else it is told.

    Attributes:
        wrapper: what runs it, in place of `python -m`.
        module: what is run, where it is not the service's own.
    """

    name: str
    service: str
    ports: dict[str, int]
    flags: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ("-m",)
    module: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None


@dataclass
class Fleet:
    """See the module. Members are named by their service, numbered from 1 where there are several: `router-1`.

    Attributes:
        folder: of the logs.
        database: what the stores write to, as they are told.
        registry: of all.
        fences: look into the store's database.
    """

    folder: Path
    database: str
    registry: str
    fences: PostgresFences
    members: dict[str, Member] = field(default_factory=dict)
    _keys: dict[str, str] = field(
        default_factory=lambda: {name: secrets.token_hex(32) for name in ("token_secret", "ticket_secret")}
    )
    _turn: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """The balancers', with commas between."""
        return ",".join(f"http://{HOST}:{one.ports['port']}" for one in self.of("balancer"))

    def of(self, service: str) -> list[Member]:
        """The members that are one service."""
        return [one for one in self.members.values() if one.service == service]

    def token(self, user_id: str) -> str:
        """A token for a user, good for an hour."""
        return mint_token(self._keys["token_secret"], user_id, time.time(), 3600.0)

    def business(self) -> Business:
        """The way of a business: it knows all schedulers and tagsvcs, and keeps to one while that answers. Each call begins with
        another one."""
        first = next(self._turn)
        return Business.connect(self._addresses("scheduler", first), self._addresses("tagsvc", first))

    def start(self, name: str) -> None:
        """Start one."""
        one = self.members[name]
        ports = {flag: str(port) for flag, port in one.ports.items()}
        quick = {flag: str(value) for flag, value in _QUICK.get(one.service, {}).items()}
        given = ports | {"registry": self.registry} | quick | one.flags
        flags = [part for flag, value in given.items() for part in (f"--{flag}", value)]
        command = [*_dying_with_us(), sys.executable, *one.wrapper, one.module or one.service, *flags]
        environment = self._environment(one) | one.environment
        with (self.folder / f"{name}.log").open("ab") as log:
            one.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.members[name].process
        if process is not None:
            process.kill()
            process.wait()

    def stop(self, name: str) -> None:
        """SIGTERM: it drains, and ends by itself."""
        self._signal(name, signal.SIGTERM)

    def await_end(self, name: str) -> None:
        """Wait until it has ended.

        Raises:
            TimeoutExpired: it goes on.
        """
        process = self.members[name].process
        if process is not None:
            process.wait(START_SECONDS)

    def freeze(self, name: str) -> None:
        """SIGSTOP: it does nothing, and its connections stay open."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._signal(name, signal.SIGCONT)

    def is_ready(self, name: str) -> bool:
        """Whether it serves."""
        try:
            self._ask(name, "/readyz")
        except OSError:
            return False
        return True

    def metric(self, name: str, metric: str, label: str) -> float:
        """The value of a metric with that label, such as `why="fenced"`; 0 when it was never counted."""
        found = re.search(rf"^{metric}{{[^}}]*{label}[^}}]*}} (\S+)$", self._ask(name, "/metrics"), re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def owner(self, notification_id: str) -> str:
        """The router that a notification is given to as things are."""
        async with open_registry(self.registry) as registry:
            nodes = await anext(registry.watch("router"))
        address = nodes[naming.owner(notification_id, nodes) or ""].grpc_address
        port = address.rpartition(":")[2]
        return next(one.name for one in self.of("router") if port in (str(one.ports["port"]), one.flags.get("advertise-port")))

    def await_ready(self, *names: str) -> None:
        """Wait until these serve.

        Raises:
            RuntimeError: one ended.
            TimeoutError: one takes too long.
        """
        until = time.monotonic() + START_SECONDS
        for name in names:
            process = self.members[name].process
            while not self.is_ready(name):
                if process is None or process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {self.log(name)}")
                if time.monotonic() > until:
                    raise TimeoutError(f"{name} did not serve in {START_SECONDS:.0f} s: {self.log(name)}")
                process_wait(process, _POLL_SECONDS)

    def log(self, name: str) -> str:
        """The end of what it said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-4_000:] if path.exists() else ""

    def close(self) -> None:
        """End all."""
        for member in self.members.values():
            if member.process is not None:
                member.process.kill()  # also one that is frozen
                member.process.wait()
        self.fences.close()

    def _addresses(self, service: str, first: int) -> str:
        ports = [member.ports["port"] for member in self.of(service)]
        turned = ports[first % len(ports) :] + ports[: first % len(ports)]
        return "ipv4:" + ",".join(f"{HOST}:{port}" for port in turned)

    def _environment(self, one: Member) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        if one.service == "store" or one.module == ROUTER_WITH_STORE:
            return mine | {"TIDINGS_STORE_DATABASE": self.database, "TIDINGS_STORE_PORT": "0"}
        if one.service in ("balancer", "edge"):
            return mine | {f"TIDINGS_{one.service.upper()}_{name.upper()}": value for name, value in self._keys.items()}
        return mine

    def _ask(self, name: str, path: str) -> str:
        with urllib.request.urlopen(f"http://{HOST}:{self.members[name].ports['admin-port']}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self.members[name].process
        if process is not None:
            process.send_signal(number)


@contextmanager
def run_fleet(folder: Path, postgres: PostgresServer, etcd: EtcdServer) -> Iterator[Fleet]:
    """A small fleet that serves until the context ends."""
    database = postgres.new_database()
    with running(Fleet(folder, database, f"etcd://{etcd.endpoint}", PostgresFences(database), members(SMALL))) as fleet:
        yield fleet


def members(counts: Mapping[str, int]) -> dict[str, Member]:
    """So many of each service, by name, none of them running. Where there are no stores, they are the routers'."""
    made = {}
    for service, count in counts.items():
        for number in range(1, count + 1):
            name = service if count == 1 else f"{service}-{number}"
            ports = {flag: lasting_port() for flag in (*_PORTS.get(service, ("port",)), "admin-port")}
            module = ROUTER_WITH_STORE if service == "router" and not counts.get("store") else ""
            made[name] = Member(name, service, ports, module=module)
    return made


@contextmanager
def running(fleet: Fleet) -> Iterator[Fleet]:
    """Start a fleet; it serves until the context ends."""
    try:
        for name in fleet.members:
            fleet.start(name)
        fleet.await_ready(*fleet.members)
        for url in fleet.url.split(","):
            _await_edge(url)
        yield fleet
    finally:
        fleet.close()


def _await_edge(url: str) -> None:
    """Wait until the balancer knows an edge."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                raise TimeoutError(f"no edge came to the balancer in {START_SECONDS:.0f} s") from error
            time.sleep(_POLL_SECONDS)
        else:
            return


def _dying_with_us() -> list[str]:
    """Runs a command that the kernel kills when our process dies, however it dies (Linux; util-linux). Not by code between fork and
    exec: gRPC's threads in this process don't survive that."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if sys.platform == "linux" else []
