"""tagsvc over the real store on SQLite."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyroaring import BitMap

from mesh.naming import new_notification_id
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.serve import serve as serve_store
from store.settings import StoreSettings
from tagsvc.serve import serve
from tagsvc.settings import TagsvcSettings
from tests.tagsvc.client import TagClient, chunk, connected, refused
from tests.tagsvc.replica import Replica, whole
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.store.v1 import notification_pb2 as notifications
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub
from tidings.tag.v1 import audience_pb2 as audience
from tidings.tag.v1 import tag_pb2 as pb


class House:
    """Stores over one file, and tagsvcs."""

    def __init__(self, folder: Path) -> None:
        self.registry = MemoryRegistry()
        self.telemetry = Telemetry("test")
        self._options: dict[str, Any] = {"port": 0, "database": f"sqlite:///{folder / 'tidings.sqlite'}"}

    async def store(self, stack: AsyncExitStack) -> str:
        """A store until that stack is closed; its address."""
        settings = StoreSettings(**self._options)
        return (await stack.enter_async_context(serve_store(settings, self.registry, self.telemetry))).grpc_address

    async def tagsvc(self, stack: AsyncExitStack, **settings: Any) -> TagClient:
        """A tagsvc likewise."""
        configured = TagsvcSettings(**({"port": 0, "drain_seconds": 1} | settings))
        instance = await stack.enter_async_context(serve(configured, self.registry, self.telemetry))
        return await stack.enter_async_context(connected(instance.public_url))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    house.telemetry.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_business_maps_its_clients_and_asks_who_is_meant(house: House, stack: AsyncExitStack) -> None:
    await house.store(stack)
    tagsvc = await house.tagsvc(stack)
    ids = [f"client-{n}" for n in range(5000)]
    await tagsvc.apply(
        chunk(add={"gold": ids[::2], "de": ids[::5]}),
        chunk(users=[pb.UserChange(user_id=user, add_tags=["new"], remove_tags=["gold"]) for user in ids[:100]]),
    )
    await tagsvc.combine("target", "gold & !de + user:client-3")
    assert await tagsvc.count("target") == 2450 - 490 + 1
    found = await tagsvc.people("target", page_size=700)
    assert sorted(found) == sorted({"client-3"} | {user for n, user in enumerate(ids) if n >= 100 and n % 2 == 0 and n % 5})
    known = len({*ids[::2], *ids[::5], *ids[:100]})  # whoever was never named is nobody
    assert len(await tagsvc.expand("!target")) == known - len(found)
    await tagsvc.replace("gold", ids[:10], ids[10:20])
    assert await tagsvc.count("gold") == 20
    request = audience.ExplainUserRequest(user_id="client-5", expression="gold - de")
    assert (await tagsvc.audience.ExplainUser(request)).explanation == "out, because they have de"


async def test_two_instances_and_a_restart_of_everything(house: House, stack: AsyncExitStack) -> None:
    async with AsyncExitStack() as first:
        await house.store(first)
        both = [await house.tagsvc(first, checkpoint_records=20), await house.tagsvc(first)]
        replica = Replica()
        following = asyncio.create_task(replica.follow(both[1].audience, 80))

        async def work(tagsvc: TagClient, name: str) -> None:
            for n in range(20):
                await tagsvc.apply(chunk(add={name: [f"u{n}"], "all": [f"{name}{n}"]}, remove={name: [f"u{n - 3}"]}))

        await asyncio.gather(*(work(tagsvc, name) for tagsvc, name in zip(both * 2, "abcd", strict=True)))
        created = await both[0].tags.CreateTag(pb.CreateTagRequest(request_id="r", name="last"))
        assert created.tag.revision == 81
        await asyncio.gather(*(tagsvc.reach(81) for tagsvc in both), following)
        before = await whole(both[0].audience)
        assert before == await whole(both[1].audience)
        await replica.follow(both[1].audience, 81)
        assert replica.snapshot == before
    await house.store(stack)
    tagsvc = await house.tagsvc(stack)
    assert await whole(tagsvc.audience) == before
    assert await tagsvc.tags.CreateTag(pb.CreateTagRequest(request_id="r", name="last")) == created
    assert await tagsvc.count("all") == 80
    assert await tagsvc.count("*") == len(await tagsvc.people("*"))


async def test_a_store_that_goes_and_another_that_comes(house: House, stack: AsyncExitStack) -> None:
    async with AsyncExitStack() as first:
        await house.store(first)
        tagsvc = await house.tagsvc(stack)
        await tagsvc.add("a", "u1")
        await house.store(stack)
        writing = [asyncio.create_task(tagsvc.add("a", f"u{n}")) for n in range(2, 50)]
    await asyncio.gather(*writing)
    assert await tagsvc.count("a") == 49
    assert await tagsvc.people("a & user:u7") == ["u7"]


async def test_notifications_are_named_and_asked_about(house: House, stack: AsyncExitStack) -> None:
    address = await house.store(stack)
    tagsvc = await house.tagsvc(stack)
    await tagsvc.add("gold", "u1", "u2", "u3")
    async with grpc.aio.insecure_channel(address) as channel:
        spec = common.NotificationSpec(content=Content(text=Text(text="hello")))
        spec.send_time.GetCurrentTime()
        spec.expire_time.FromSeconds(spec.send_time.seconds + 3600)
        notification_id = new_notification_id()
        await NotificationStoreServiceStub(channel).CreateNotification(
            notifications.CreateNotificationRequest(
                request_id="r1",
                request_digest=b"d" * 16,
                notification_id=notification_id,
                spec=spec,
                names=["gold"],
                expansion=notifications.Expansion(user_ordinals=BitMap([1, 3]).serialize(), snapshot_version=1),
            )
        )
    assert await tagsvc.people(f"gold - pending({notification_id})") == ["u2"]
    assert await tagsvc.people(f"gold & sent({notification_id})") == []
    with refused("NOTIFICATION_NOT_FOUND", "expression"):
        await tagsvc.count(f"sent({new_notification_id()})")
    with refused("NAME_IN_USE") as in_use:
        await tagsvc.tags.DeleteTag(pb.DeleteTagRequest(name="gold"))
    assert notification_id in in_use.error.message
    await tagsvc.tags.DeleteTag(pb.DeleteTagRequest(name="gold", force=True))


async def test_changes_now_at_one_now_at_the_other_add_up(house: House, stack: AsyncExitStack) -> None:
    await house.store(stack)
    both, rng = [await house.tagsvc(stack), await house.tagsvc(stack)], random.Random(3)
    expected: dict[str, set[str]] = {tag: set() for tag in "abc"}
    for n in range(60):
        tag, user, one, other = rng.choice("abc"), f"u{rng.randrange(20)}", both[n % 2], both[(n + 1) % 2]
        if rng.random() < 0.6:
            expected[tag].add(user)
            version = await one.add(tag, user)
        else:
            expected[tag].discard(user)
            version = (await one.apply(chunk(add={tag: []}, remove={tag: [user]})))[-1].version
        await other.reach(version)
        assert set(await one.members(tag)) == set(await other.members(tag)) == expected[tag]
    assert await both[0].count("a & b - c") == len((expected["a"] & expected["b"]) - expected["c"])
