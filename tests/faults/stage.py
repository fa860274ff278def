"""All that a fault can strike: several of every service as processes, PostgreSQL, three etcds and a Redis; and on every way from
one to another a proxy. What a service registers is its proxy's port, so the others come through it.

Faults reach for the parts by name: `router-1`, `postgres`, `etcd-2`, `redis`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import EtcdServer, PostgresServer, RedisServer, run_etcd_cluster, run_postgres, run_redis
from tests.faults.dialers import holder
from tests.system.fences import PostgresFences
from tests.system.fleet_fixture import HOST, Fleet, Member, members, running
from tests.system.proxy import Proxy, Weather, open_proxy

APART = {"store": 2, "tagsvc": 2, "router": 2, "scheduler": 2, "balancer": 2, "edge": 3}
"""How many of each service, every one a process."""
WITHIN = {service: count for service, count in APART.items() if service != "store"}
"""The same with the stores in the routers' processes, as `tidings up` has it unless it is told otherwise."""
_MESH_PORT = {"store": "port", "router": "port", "tagsvc": "mesh-port", "balancer": "grpc-port"}
_DRAIN = {"edge": "12", "router": "4"}  # seconds, of which an edge spreads its clients over all but five


@dataclass
class Stage:
    """See the module.

    Attributes:
        proxies: by the name of what is behind them.
    """

    folder: Path
    fleet: Fleet
    postgres: PostgresServer
    etcds: list[EtcdServer]
    redis: RedisServer
    proxies: dict[str, Proxy] = field(default_factory=dict)

    def names(self, service: str) -> list[str]:
        """The members that are one service."""
        return [one.name for one in self.fleet.of(self._home(service))]

    def before(self, part: str) -> Iterator[Proxy]:
        """The proxies before all parts whose name begins so."""
        return (proxy for name, proxy in self.proxies.items() if name.startswith(part))

    def weather(self, dialer: str, dialed: str, up: Weather, down: Weather) -> None:
        """Between two parts, or between all of two kinds, this befalls what goes to the dialed one, and what comes back."""
        dialer = self._home(dialer)
        assert any(proxy.connected(dialer) for proxy in self.before(dialed)), f"{dialer or 'nobody'} has no connection to {dialed}"
        for proxy in self.before(dialed):
            proxy.weather(up, down, dialer)

    def clear(self, *, reset: bool = False) -> None:
        """Fair weather everywhere."""
        for proxy in self.proxies.values():
            proxy.clear(reset=reset)
            proxy.heal()

    def _home(self, service: str) -> str:
        """Whose processes are a service's: where there are no stores, they are the routers'."""
        return "router" if service == "store" and not self.fleet.of("store") else service

    async def back(self, *names: str) -> None:
        """Start those that don't run, and wait until all of them serve."""
        for name in names:
            if not self.fleet.members[name].running:
                self.fleet.start(name)
        await asyncio.to_thread(self.fleet.await_ready, *names)

    async def whole(self) -> None:
        """Whatever a fault left behind: everything runs and serves again."""
        self.clear()
        for revive in (self.postgres.revive, self.redis.revive, *(one.revive for one in self.etcds)):
            await asyncio.to_thread(revive)
        for name, member in self.fleet.members.items():
            if member.running:
                self.fleet.thaw(name)
        await self.back(*self.fleet.members)


@asynccontextmanager
async def open_stage(
    folder: Path,
    rng: random.Random,
    counts: Mapping[str, int],
    *,
    disk: Path | None = None,
    prepare: Callable[[Fleet], None] = lambda fleet: None,
) -> AsyncIterator[Stage]:
    """Start everything; it serves until the context ends.

    Args:
        folder: for logs.
        counts: APART or WITHIN.
        prepare: changes the members before they start.
        disk: where PostgreSQL keeps its data; else where temporary files go.
    """
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(run_postgres(durable=True, place=disk))
        etcds, redis = stack.enter_context(run_etcd_cluster(3)), stack.enter_context(run_redis())
        outside = {"postgres": postgres.port, "redis": redis.port}
        outside |= {f"etcd-{number}": _port(one.endpoint) for number, one in enumerate(etcds, 1)}
        inside = members(counts)

        def dialer(port: int) -> str:
            return holder(port, {one.name: one.process.pid for one in inside.values() if one.process is not None})

        proxies = {}
        for name, target in {**outside, **{name: _target(one) for name, one in inside.items() if _target(one)}}.items():
            # To an edge come clients only, and in crowds: nobody asks who they are.
            opening = open_proxy(rng) if name.startswith("edge") else open_proxy(rng, dialer)
            proxies[name] = await stack.enter_async_context(opening)
            proxies[name].target = target
        database = postgres.new_database()
        for one in inside.values():
            _tell(one, proxies)
        seen = database.replace(f":{postgres.port}/", f":{proxies['postgres'].port}/")
        registry = "etcd://" + ",".join(f"{HOST}:{proxies[f'etcd-{number}'].port}" for number in (1, 2, 3))
        fleet = Fleet(folder, seen, registry, PostgresFences(database), inside)
        stage = Stage(folder, fleet, postgres, etcds, redis, proxies)
        prepare(fleet)
        starting = running(fleet)
        await asyncio.to_thread(starting.__enter__)
        stack.push(starting.__exit__)
        yield stage


def _target(member: Member) -> int:
    """The port that others reach this member by; 0 when only businesses do, who go straight there."""
    flag = "port" if member.service == "edge" else _MESH_PORT.get(member.service, "")
    return member.ports.get(flag, 0)


def _tell(member: Member, proxies: dict[str, Proxy]) -> None:
    """What this member must know to be reached through its proxy, and to reach the servers through theirs."""
    if member.service == "edge":
        member.flags["public-url"] = f"ws://{HOST}:{proxies[member.name].port}"
    elif member.name in proxies:
        member.flags["advertise-port"] = str(proxies[member.name].port)
    member.flags["cache"] = f"redis://{HOST}:{proxies['redis'].port}/0"
    member.flags["drain-seconds"] = _DRAIN.get(member.service, "2")


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])
