"""What `tidings up` is asked to start: how many of each service, where, on what store and registry."""

import errno
import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cli.failure import CommandError
from cli.place import Secrets

SERVICES = ("store", "tagsvc", "router", "scheduler", "balancer", "edge")
"""In the order they start; they stop in reverse, so that nothing is asked of one that has gone."""

# What a balancer on a developer's machine is told where the environment says nothing: every client comes from the same address, so
# the caps for one address would hit them all together; and there is no crowd of clients to keep from coming back at once.
BALANCER_DEFAULTS = {"connects_per_second": 5_000.0, "connect_burst": 20_000, "backoff_max_seconds": 3.0}

_FIRST_PORT, _LAST_PORT = 10_240, 32_000  # below the range from which the kernel takes ports for outgoing connections


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module.

    Attributes:
        store: a database's URL.
        registry: "memory://" or "etcd://…".
        cache: "memory://" or "redis://…".
        certificates: the folder `tidings certs init` made, for TLS among the services; None for plain text.
        advertise: the host that clients elsewhere reach this machine under; empty means `host`.
        stores: how many are processes of their own; 0 for one in each router's.
        restart: whether a process that dies is started again.
    """

    data: Path
    secrets: Secrets
    host: str
    balancer_ports: list[int]
    edge_ports: list[int]
    tagsvc_ports: list[int]
    scheduler_ports: list[int]
    store: str
    registry: str
    cache: str = "memory://"
    certificates: Path | None = None
    advertise: str = ""
    stores: int = 1
    routers: int = 1
    restart: bool = True
    log_level: str = "warning"
    drain_seconds: float = 1.0

    @property
    def urls(self) -> list[str]:
        """The balancers' base URLs."""
        return [http_url(self.host, port) for port in self.balancer_ports]

    @property
    def edge_urls(self) -> list[str]:
        """The base URLs of the edges' HTTP."""
        return [http_url(self.host, port) for port in self.edge_ports]

    @property
    def ports(self) -> dict[str, list[int]]:
        """The ports that others are told of; 0 for those that only services of the mesh use, found through the registry."""
        return {
            "store": [0] * self.stores,
            "tagsvc": self.tagsvc_ports,
            "router": [0] * self.routers,
            "scheduler": self.scheduler_ports,
            "balancer": self.balancer_ports,
            "edge": self.edge_ports,
        }

    @property
    def services(self) -> tuple[str, ...]:
        """Those that are processes, in the order they start, reversed when they stop: where the stores are comes first, for without
        any the others could only complain."""
        return SERVICES if self.stores else ("router", *(one for one in SERVICES if one not in ("router", "store")))

    @property
    def as_processes(self) -> bool:
        """Whether each service is a process: they need a registry that they can share."""
        return self.registry.startswith("etcd:")

    @property
    def embedded(self) -> bool:
        """Whether the store is a file in the data folder."""
        return self.store.startswith("sqlite:")


def sqlite_url(data: Path) -> str:
    """The store of a mesh that has none but its data folder."""
    return f"sqlite:///{(data / 'tidings.sqlite').absolute()}"


def reachable(host: str) -> str:
    """The address under which what listens on `host` is reached from this machine, as it is written before a port."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not bound)
    return f"[{reached}]" if ":" in reached else reached


def http_url(host: str, port: int) -> str:
    """The base URL under which a port of ours is reached from this machine."""
    return f"http://{reachable(host)}:{port}"


def assign(host: str, wanted: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    """Ports for several services: of each the first port, or 0 for free ones, and how many, by the option that says so. Those after
    the first take the next ones that no other service has.

    Raises:
        CommandError: as `ports`; or two begin at the same port.
    """
    firsts = [first for first, _ in wanted.values() if first]
    taken, found = set(firsts), dict[str, list[int]]()
    for option, (first, count) in wanted.items():
        if firsts.count(first) > 1:
            raise CommandError(f"port {first} is given to two services", f"give another one with {option}")
        found[option] = ports(host, first, count, option, taken - {first})
        taken.update(found[option])
    return found


def ports(host: str, first: int, count: int, option: str, passed_over: Collection[int] = ()) -> list[int]:
    """`count` ports from `first` on, without some; free ones when `first` is 0.

    Raises:
        CommandError: someone listens there; names the port and the option that moves it.
    """
    if first == 0:
        return free_ports(host, count)
    found = list(islice((port for port in range(first, 65536) if port not in passed_over), count))
    if len(found) < count:
        raise CommandError(f"there are no {count} ports from {first} on", f"give a lower one with {option}")
    for port in found:
        _check_port(host, port, option)
    return found


def _check_port(host: str, port: int, option: str) -> None:
    try:
        with socket.socket(_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a stopped mesh left in TIME_WAIT is no one's
            probe.bind((host, port))
    except OSError as error:
        raise _unusable(host, port, option, error) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _unusable(host: str, port: int, option: str, error: OSError) -> CommandError:
    if error.errno == errno.EADDRINUSE:
        return CommandError(
            f"port {port} is taken", f"stop what listens there, or give another one with {option} (0 picks a free one)"
        )
    if error.errno == errno.EACCES:
        return CommandError(f"port {port} is not yours to open", f"give one from 1024 up with {option}")
    return CommandError(f"can't listen on {host}:{port} ({error.strerror or error})", "give an address of this machine with --host")


def free_port(host: str) -> int:
    """A port nobody listens on at this moment; see `free_ports`."""
    return free_ports(host, 1)[0]


def free_ports(host: str, count: int) -> list[int]:
    """Different ports nobody listens on at this moment. They stay free while a service of ours is down: the kernel gives none of
    them to a connection going out."""
    found: list[int] = []
    for port in random.sample(range(_FIRST_PORT, _LAST_PORT), _LAST_PORT - _FIRST_PORT):
        if len(found) == count:
            break
        if _is_free(host, port):
            found.append(port)
    return found


def _is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def check(store: str, registry: str, counts: Mapping[str, int], *, certificates: bool) -> None:
    """Refuse what can't work together.

    Args:
        store: the database's URL.
        registry: the registry's.
        counts: how many of each service.
        certificates: whether the services speak TLS among themselves.

    Raises:
        CommandError: says what, and which option to change.
    """
    if counts["store"] > 1 and store.startswith("sqlite:"):
        raise CommandError(
            f"{counts['store']} stores can't share one SQLite file", "give a database with --store postgresql://…, or --stores 1"
        )
    if registry.startswith("etcd:"):
        return
    for service in ("store", "balancer"):
        if counts[service] > 1:
            raise CommandError(
                f"one process has one {service}, not {counts[service]}",
                f"give --registry etcd://… for a process each, or --{service}s 1",
            )
    if certificates:
        raise CommandError("one process has nobody to show certificates to", "give --registry etcd://…, or leave out --certs")
