"""One contract, two registries: in memory, and over a real etcd, which is also killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from etcd3aio import Etcd3Client

from mesh import naming
from mesh.etcd_registry import EtcdRegistry
from mesh.process import open_registry
from mesh.registry import MemoryRegistry, Nodes, Registry, trusted
from tests.servers import EtcdServer, run_etcd
from tidings.common.v1.instance_pb2 import Instance

LIMIT = 20.0  # seconds a change may take to be seen before a test gives up


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    """Each registry in turn."""
    if request.param == "memory":
        yield MemoryRegistry()
        return
    server: EtcdServer = request.getfixturevalue("etcd_server")
    async with EtcdRegistry.open([server.endpoint]) as one:
        yield one


@pytest.fixture
def service() -> str:
    """A service's name of the test's own, for tests share one etcd."""
    return naming.new_instance_id("service")


class Watcher:
    """Remembers the newest set of nodes, and lets one wait for a certain one."""

    def __init__(self) -> None:
        self.sets: list[Nodes] = []
        self._changed = asyncio.Condition()

    async def follow(self, sets: AsyncIterator[Nodes]) -> None:
        async for nodes in sets:
            async with self._changed:
                self.sets.append(nodes)
                self._changed.notify_all()

    async def until(self, condition: Callable[[Nodes], bool]) -> Nodes:
        """The newest set, once it is so."""
        async with asyncio.timeout(LIMIT), self._changed:
            await self._changed.wait_for(lambda: self.sets and condition(self.sets[-1]))
        return self.sets[-1]

    async def names(self, *expected: str) -> None:
        await self.until(lambda nodes: set(nodes) == set(expected))


@asynccontextmanager
async def watching(registry: Registry, service: str) -> AsyncIterator[Watcher]:
    """A watcher at work."""
    watcher = Watcher()
    task = asyncio.create_task(watcher.follow(registry.watch(service)))
    try:
        yield watcher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def instance(service: str, name: str, *, draining: bool = False) -> Instance:
    return Instance(service=service, instance_id=name, grpc_address=f"{name}:1", draining=draining)


async def test_a_watcher_sees_who_is_there_who_comes_and_who_goes(registry: Registry, service: str) -> None:
    async with registry.register(instance(service, "one")), watching(registry, service) as watcher:
        await watcher.names("one")
        async with registry.register(instance(service, "two")):
            nodes = await watcher.until(lambda nodes: len(nodes) == 2)
            assert nodes["two"] == instance(service, "two")
        await watcher.names("one")
    assert await anext(registry.watch(service)) == {}


async def test_nobody_there_is_said_at_once(registry: Registry, service: str) -> None:
    assert await asyncio.wait_for(anext(registry.watch(service)), LIMIT) == {}


async def test_an_update_is_seen_and_leaving_still_takes_the_entry_away(registry: Registry, service: str) -> None:
    async with watching(registry, service) as watcher:
        async with registry.register(instance(service, "one")) as registration:
            await watcher.names("one")
            await registration.update(instance(service, "one", draining=True))
            await watcher.until(lambda nodes: nodes["one"].draining)
        await watcher.names()


async def test_services_do_not_see_each_other(registry: Registry, service: str) -> None:
    async with registry.register(instance(service, "one")), registry.register(instance(service + "2", "other")):
        assert set(await anext(registry.watch(service))) == {"one"}


async def test_what_a_watcher_does_to_its_set_is_its_own_affair(registry: Registry, service: str) -> None:
    async with registry.register(instance(service, "one")), watching(registry, service) as watcher:
        await watcher.names("one")
        watcher.sets[-1].clear()
        async with registry.register(instance(service, "two")):
            await watcher.names("one", "two")


async def test_many_watchers_see_the_same(registry: Registry, service: str) -> None:
    async with watching(registry, service) as one, watching(registry, service) as other:
        async with registry.register(instance(service, "a")), registry.register(instance(service, "b")):
            for watcher in (one, other):
                await watcher.names("a", "b")
        for watcher in (one, other):
            await watcher.names()


@pytest.mark.etcd
async def test_a_restarted_etcd_is_watched_again_and_carries_what_was_updated_meanwhile(service: str) -> None:
    with run_etcd() as server:
        async with (
            EtcdRegistry.open([server.endpoint]) as registry,
            watching(registry, service) as watcher,
            registry.register(instance(service, "one")) as registration,
        ):
            await watcher.names("one")
            server.kill()
            await registration.update(instance(service, "one", draining=True))
            assert set(watcher.sets[-1]) == {"one"}, "what is known stays while etcd is away"
            await asyncio.to_thread(server.start)
            await watcher.until(lambda nodes: nodes["one"].draining)
            async with registry.register(instance(service, "two")):
                await watcher.names("one", "two")


@pytest.mark.etcd
async def test_a_lease_that_was_lost_is_entered_again(service: str) -> None:
    with run_etcd() as server:
        async with EtcdRegistry.open([server.endpoint]) as registry, registry.register(instance(service, "one")):
            assert set(await anext(registry.watch(service))) == {"one"}
            server.kill()
            server.wipe()
            await asyncio.to_thread(server.start)
            async with watching(registry, service) as watcher:
                await watcher.names("one")


@pytest.mark.etcd
async def test_a_holder_that_dies_is_gone_after_its_lease(etcd_server: EtcdServer, service: str) -> None:
    async with EtcdRegistry.open([etcd_server.endpoint]) as registry, watching(registry, service) as watcher:
        async with Etcd3Client([etcd_server.endpoint]) as dying:
            assert dying.lease is not None
            assert dying.kv is not None
            lease = await dying.lease.grant(1)
            await dying.kv.put(f"/tidings/{service}/one", instance(service, "one").SerializeToString(), lease=lease.ID)
            await watcher.names("one")
        await watcher.names()


@pytest.mark.etcd
async def test_an_entry_that_is_not_an_instance_is_left_out(etcd_server: EtcdServer, service: str) -> None:
    async with Etcd3Client([etcd_server.endpoint]) as client, EtcdRegistry.open([etcd_server.endpoint]) as registry:
        assert client.kv is not None
        await client.kv.put(f"/tidings/{service}/broken", b"\xff\xff\xff")
        async with registry.register(instance(service, "one")):
            assert set(await anext(registry.watch(service))) == {"one"}


@pytest.mark.etcd
async def test_a_registration_outlives_its_first_lease(
    etcd_server: EtcdServer, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.etcd_registry.LEASE_SECONDS", 2)  # the shortest that etcd grants
    async with (
        EtcdRegistry.open([etcd_server.endpoint]) as registry,
        registry.register(instance(service, "one")),
        watching(registry, service) as watcher,
    ):
        await watcher.names("one")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watcher.names(), 3.5)
        assert len(watcher.sets) == 1


def test_an_update_that_drops_most_of_many_is_doubted() -> None:
    nodes = {name: Instance(instance_id=name) for name in "abcd"}
    assert trusted(nodes, {"a": nodes["a"], "b": nodes["b"]})
    assert not trusted(nodes, {"a": nodes["a"]})
    assert not trusted(nodes, {})
    assert trusted({"a": nodes["a"], "b": nodes["b"]}, {}), "of two, both may well have gone"
    assert trusted({}, nodes)


async def test_a_registry_is_opened_by_its_url() -> None:
    async with open_registry("memory://") as registry:
        assert isinstance(registry, MemoryRegistry)
    for wrong in ("zookeeper://host", "etcd://", ""):
        with pytest.raises(ValueError, match="use memory:// or etcd://"):
            async with open_registry(wrong):
                pass
