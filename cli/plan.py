"""What `tidings up` is asked to start: how many of each service, where, on what store and registry."""

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cli.failure import CommandError
from cli.place import Secrets

SERVICES = ("store", "tagsvc", "router", "scheduler", "balancer", "edge")
"""In the order they start; they stop in reverse, so that nothing is asked of one that has gone."""

# What a balancer on a developer's machine is told where the environment says nothing: every client comes from the same address, so
# the caps for one address would hit them all together; and there is no crowd of clients to keep from coming back at once.
BALANCER_DEFAULTS = {"connects_per_second": 5_000.0, "connect_burst": 20_000, "backoff_max_seconds": 3.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module. `store` is a database URL, `registry` "memory://" or "etcd://…". `advertise` is the host that
    clients elsewhere reach this machine under; empty means `host`."""

    data: Path
    secrets: Secrets
    host: str
    port: int
    edge_ports: list[int]
    tagsvc_ports: list[int]
    scheduler_ports: list[int]
    store: str
    registry: str
    advertise: str = ""
    routers: int = 1
    log_level: str = "warning"
    drain_seconds: float = 1.0

    @property
    def url(self) -> str:
        """The balancer's base URL."""
        return http_url(self.host, self.port)

    @property
    def ports(self) -> dict[str, list[int]]:
        """The ports that others are told of; 0 for those that only services of the mesh use, found through the registry."""
        return {
            "store": [0],
            "tagsvc": self.tagsvc_ports,
            "router": [0] * self.routers,
            "scheduler": self.scheduler_ports,
            "balancer": [self.port],
            "edge": self.edge_ports,
        }

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


def ports(host: str, first: int, count: int, option: str) -> list[int]:
    """`count` ports from `first` on; free ones when `first` is 0.

    Raises:
        CommandError: someone listens there; names the port and the option that moves it.
    """
    if first == 0:
        return free_ports(host, count)
    if first + count > 65536:
        raise CommandError(f"there are no {count} ports from {first} on", f"give a lower one with {option}")
    for port in range(first, first + count):
        _check_port(host, port, option)
    return list(range(first, first + count))


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
    """A port nobody listens on at this moment."""
    return free_ports(host, 1)[0]


def free_ports(host: str, count: int) -> list[int]:
    """Different ports nobody listens on at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(_family(host))) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
