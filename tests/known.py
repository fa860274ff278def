"""What the services behind the edges keep of each user: `python -m tests.known [--users 100000] [--only router|balancer|tagsvc]`.

The router runs in a process of its own, between a store twin and a fake edge in this one, and is told of users over its link: who
is online, who opens a session, who writes in a direct chat. The balancer's and tagsvc's cores are filled in processes of their own.
Printed is by how many bytes each process grew for each of them: resident, and handed out by Python's allocator and malloc.
"""

import argparse
import asyncio
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from pyroaring import BitMap

from balancer.fleet import Connection as Counted
from balancer.fleet import Fleet, Load, Profile
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, configure_logging, settle_memory
from router.serve import serve
from router.settings import RouterSettings
from tagsvc.ordinals import Ordinals
from tests import memory
from tests.router import store_twin
from tests.router.fake_edge import FakeEdge, edge, send
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import link_pb2
from tidings.store.v1.user_pb2 import User

STEP = 500  # envelopes of one batch
TAGS = 8  # of each tagged client


def told(what: str, before: memory.Reading, after: memory.Reading, count: int) -> None:
    """A line of the table."""
    given = (after.python + after.malloc - before.python - before.malloc) / count
    sys.stdout.write(f"{what:58} {(after.resident - before.resident) / count:8.1f} {given:8.1f}\n")
    sys.stdout.flush()


# Router


async def route(pipe: Connection, store: str) -> None:
    """The child: a router that tells what its memory is made of whenever asked."""
    registry, options = MemoryRegistry(), {"port": 0, "drain_seconds": 1}
    async with (
        registry.register(Instance(service="store", instance_id="store-1", grpc_address=store)),
        serve(RouterSettings(**options), registry, Telemetry("router")) as instance,  # type: ignore[arg-type]
    ):
        settle_memory()
        pipe.send(instance.grpc_address)
        while await asyncio.to_thread(pipe.recv) != "stop":
            pipe.send(memory.read())


def router_process(pipe: Connection, store: str) -> None:
    configure_logging("router", "warning", as_json=False)
    asyncio.run(route(pipe, store))


class Grown:
    """Reads the child before and after each thing done to it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def _read(self) -> memory.Reading:
        self._pipe.send("read")
        reading: memory.Reading = self._pipe.recv()
        return reading

    async def by(self, what: str, doing: Any, count: int) -> None:
        before = self._read()
        await doing
        told(what, before, self._read(), count)


async def ask(one: FakeEdge, envelopes: Sequence[link_pb2.ClientEnvelope]) -> None:
    """Ask all, a batch at a time, each once the one before is answered; answers are not kept."""
    for start in range(0, len(envelopes), STEP):
        await one.batch(envelopes=envelopes[start : start + STEP])
        await one.until(lambda: len(one.replies) >= len(envelopes[start : start + STEP]))  # noqa: B023
        one.replies.clear()
        one.deliveries.clear()


async def measure_router(users: int) -> None:
    twin = store_twin.Memory()
    async with store_twin.serve(twin, MemoryRegistry(), Telemetry("measure")) as store:
        pipe, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=router_process, args=(theirs, store.grpc_address))
        child.start()
        async with edge(await asyncio.to_thread(pipe.recv)) as one:
            grown, names = Grown(pipe), [f"user-{n:08}" for n in range(users)]
            ordinals = [twin.user(name).user_ordinal for name in names]
            await ask(one, [one.envelope("warm", 0, open_session=link_pb2.OpenSession(device_id="d"))])
            await grown.by("router, a user online, dense ordinals", come(one, ordinals), users)
            sparse = [ordinal * 97 for ordinal in ordinals]
            await grown.by("router, a user online, one ordinal in 97", come(one, sparse), users)
            opening = [one.envelope(name, 0, open_session=link_pb2.OpenSession(device_id="d")) for name in names]
            await grown.by("router, a user whose session opened", ask(one, opening), users)
            chats = [twin.direct(*pair).conversation.conversation_id for pair in zip(names[::2], names[1::2], strict=True)]
            sends = [
                one.envelope(name, ordinal, append_entry=send(chat))
                for name, ordinal, chat in zip(names[::2], ordinals[::2], chats, strict=True)
            ]
            await grown.by("router, a direct chat that was written in", ask(one, sends), len(chats))
        pipe.send("stop")
        child.join()


async def come(one: FakeEdge, ordinals: list[int]) -> None:
    for start in range(0, len(ordinals), STEP):
        await one.batch(opened_user_ordinals=ordinals[start : start + STEP])
    await one.settled()


# Cores


def grow(what: str, make: Callable[[int], object], count: int) -> None:
    """In a process of its own: how much it grows by what `make` makes."""
    make(10)
    before = memory.read()
    made = make(count)
    told(what, before, memory.read(), count)
    del made


def make_fleet(users: int) -> object:
    fleet = Fleet()
    found = fleet.enter(Profile("edge-1", "", "", users), [], 0.0)
    for n in range(users):
        fleet.report(found, Load(n, (Counted.of(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", f"user-{n:08}"),)), 0.0)
    return fleet


class Directory:
    """Users by the order in which they are first named."""

    async def ensure_users(self, user_ids: Sequence[str]) -> Sequence[User]:
        return [User(user_id=one, user_ordinal=int(one.removeprefix("user-")) + 1) for one in user_ids]

    async def get_users(self, user_ids: Sequence[str]) -> Sequence[User]:
        return await self.ensure_users(user_ids)

    async def list_users(self, ordinals: Sequence[int]) -> Sequence[User]:
        raise NotImplementedError


def make_ordinals(users: int) -> object:
    ordinals = Ordinals(Directory(), users, 1.0, lambda highest: None)
    for start in range(0, users, 10_000):
        asyncio.run(ordinals.ensure([f"user-{n:08}" for n in range(start, min(users, start + 10_000))], "user_ids"))
    return ordinals


def make_tags(users: int) -> object:
    """As random as tags get: each has one in eight of all users, picked by a multiplier's bits."""
    mixed: Iterable[int] = range(users)
    return [BitMap([n for n in mixed if (n * 2_654_435_761 >> 8 + tag) % TAGS == tag]) for tag in range(TAGS)]


CORES: dict[str, list[tuple[str, Callable[[int], object]]]] = {
    "balancer": [("balancer, a connection counted for the caps", make_fleet)],
    "tagsvc": [
        ("tagsvc, a user whose ordinal is remembered", make_ordinals),
        (f"tagsvc, a client with one of {TAGS} tags, of a snapshot", make_tags),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    sys.stdout.write(f"{'bytes each, of ' + format(arguments.users, ','):58} resident    given\n")
    if arguments.only in ("", "router"):
        asyncio.run(measure_router(arguments.users))
    for service, cores in CORES.items():
        for what, make in cores if arguments.only in ("", service) else []:
            process = multiprocessing.get_context("spawn").Process(target=partial(grow, what, make, arguments.users))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
