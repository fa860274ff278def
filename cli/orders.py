"""The processes of a plan: what each is called, its ports, its flags and its environment.

Ports are given here, so that one which is started again is found where it was; but for a store's within a router's process, which
only the registry tells of. Secrets go by the environment, which other users of the machine can't read, and not by flags.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from cli.plan import BALANCER_DEFAULTS, Plan, free_ports, http_url
from mesh.mutual_tls import settings_in

ROUTER_WITH_STORE = "cli.router_with_store"
"""The module that a router is when there is a store in its process."""

_MORE_PORTS = {"balancer": "grpc-port", "tagsvc": "mesh-port"}
"""Services that listen for the mesh elsewhere than for those outside, and the flag that says where."""


@dataclass(frozen=True, slots=True)
class Order:
    """A process to start: `python -m MODULE FLAGS`; `admin` is the base URL of its /readyz."""

    name: str
    service: str
    module: str
    admin: str
    flags: list[str]


def orders(plan: Plan) -> list[Order]:
    """The processes of a plan, in the order they start."""
    spare = iter(free_ports(plan.host, 3 * sum(map(len, plan.ports.values()))))
    made = []
    for service in plan.services:
        ports = plan.ports[service]
        for number, port in enumerate(ports, 1):
            name = service if len(ports) == 1 else f"{service}-{number}"
            made.append(_order(plan, name, service, port or next(spare), spare))
    return made


def _order(plan: Plan, name: str, service: str, port: int, spare: Iterator[int]) -> Order:
    admin_port = next(spare)
    given: dict[str, object] = {
        "host": plan.host,
        "advertise": plan.advertise,
        "port": port,
        "admin-port": admin_port,
        "registry": plan.registry,
        "drain-seconds": plan.drain_seconds,
        "log-level": plan.log_level,
    }
    if service in _MORE_PORTS:
        given[_MORE_PORTS[service]] = next(spare)
    if plan.certificates:
        given |= {name.replace("_", "-"): path for name, path in settings_in(plan.certificates.absolute(), service).items()}
    flags = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    module = service if plan.stores or service != "router" else ROUTER_WITH_STORE
    return Order(name, service, module, http_url(plan.host, admin_port), flags)


def environment(plan: Plan, service: str) -> dict[str, str]:
    """What a process finds in its environment: ours, and what flags should not show."""
    mine, prefix = dict(os.environ), f"TIDINGS_{service.upper()}"
    if service == "store":
        mine["TIDINGS_STORE_DATABASE"] = plan.store
    if service == "router" and not plan.stores:
        mine |= _of_store(plan)
    if service in ("balancer", "edge"):
        mine[f"{prefix}_TOKEN_SECRET"] = plan.secrets.token_secret
        mine[f"{prefix}_TICKET_SECRET"] = plan.secrets.ticket_secret
    if service == "balancer":
        for name, value in BALANCER_DEFAULTS.items():
            mine.setdefault(f"{prefix}_{name.upper()}", str(value))
    if not plan.cache.startswith("memory:"):
        mine[f"{prefix}_CACHE"] = plan.cache  # its URL may hold a password
    return mine


def _of_store(plan: Plan) -> dict[str, str]:
    """What a store that shares its process must be told by the environment. It is found through the registry, at whatever port."""
    files = settings_in(plan.certificates.absolute(), "store") if plan.certificates else {}
    given = {"database": plan.store, "port": "0", **files}
    return {f"TIDINGS_STORE_{name.upper()}": value for name, value in given.items()}
