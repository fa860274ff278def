"""Mappings stream in: whole chunks, in order, durable when answered."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.system.proxy import Proxy, open_proxy
from tests.tagsvc.client import TagClient, chunk, connected, refused
from tests.tagsvc.conftest import Mesh
from tidings.common.v1.instance_pb2 import Instance
from tidings.tag.v1 import tag_pb2 as pb


def _user(user_id: str, add: list[str] | None = None, remove: list[str] | None = None) -> pb.UserChange:
    return pb.UserChange(user_id=user_id, add_tags=add or [], remove_tags=remove or [])


@asynccontextmanager
async def _proxy(instance: Instance) -> AsyncIterator[Proxy]:
    async with open_proxy(random.Random(1)) as proxy:
        proxy.target = int(instance.public_url.rpartition(":")[2])
        yield proxy


async def test_chunks_are_applied_in_order_and_answered(mesh: Mesh, tagsvc: TagClient) -> None:
    answers = await tagsvc.apply(
        chunk(add={"a": ["u1", "u2"], "b": ["u2"]}),
        chunk(remove={"a": ["u1", "never"]}, users=[_user("u3", ["a", "b"]), _user("u2", ["c"], ["b", "a"])]),
        chunk(),
        chunk(add={"a": ["u2"]}, users=[_user("u2", [], ["a"]), _user("u2", ["a"], [])]),
    )
    assert [(answer.chunks, answer.version) for answer in answers] == [(1, 1), (2, 2), (3, 2), (4, 3)]
    assert await tagsvc.members("a") == ["u2", "u3"]
    assert await tagsvc.members("b") == ["u3"]
    assert await tagsvc.members("c") == ["u2"]
    assert list(mesh.memory.users) == ["u1", "u2", "never", "u3"]
    tags = await tagsvc.tags.ListUserTags(pb.ListUserTagsRequest(user_id="u2"))
    assert (list(tags.tags), tags.version) == (["a", "c"], 3)
    with refused("UNKNOWN_USER", "user_id"):
        await tagsvc.tags.ListUserTags(pb.ListUserTagsRequest(user_id="u9"))
    with refused("INVALID_FIELD", "user_id"):
        await tagsvc.tags.ListUserTags(pb.ListUserTagsRequest(user_id=""))


async def test_sending_a_stream_again_is_harmless_and_costs_nothing(mesh: Mesh, tagsvc: TagClient) -> None:
    chunks = [chunk(add={"a": ["u1", "u2"]}), chunk(remove={"a": ["u1"]}, add={"b": ["u1"]})]
    await tagsvc.apply(*chunks)
    again = await tagsvc.apply(chunks[1])
    assert (again[0].version, mesh.memory.version) == (2, 2)
    await tagsvc.apply(*chunks)
    assert (await tagsvc.members("a"), await tagsvc.members("b")) == (["u2"], ["u1"])


async def test_a_refused_chunk_ends_the_stream_and_earlier_ones_stay(mesh: Mesh, tagsvc: TagClient) -> None:
    mesh.memory.answering.clear()
    refusable = [chunk(add={"b": ["u1"], "a": ["u2"]}, create=False), chunk(add={"a": ["u3"]}), chunk(add={"a": ["u4"]})]
    call = tagsvc.tags.ApplyMapping(iter([chunk(add={"a": ["u1"]}), *refusable]))
    await mesh.memory.until(lambda: mesh.memory.held)
    mesh.memory.answering.set()
    assert (await call.read()).chunks == 1
    with refused("UNKNOWN_TAG", "tags") as unknown:
        await call.read()
    assert "'b'" in unknown.error.message
    assert await tagsvc.add("a", "u5") == 2
    assert await tagsvc.members("a") == ["u1", "u5"], "nothing of the stream after the refused chunk"


async def test_after_a_chunk_that_was_given_up_none_of_its_stream_is_applied(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(write_seconds=2.0)
    mesh.memory.lose_answers, mesh.memory.die = 1, True
    call = tagsvc.tags.ApplyMapping(iter([chunk(add={"a": [f"u{n}"]}) for n in range(4)]))
    with refused("UNAVAILABLE"):
        await call.read()
    mesh.memory.refuse = None
    await tagsvc.reach(1)
    await tagsvc.add("b", "u9")
    assert await tagsvc.members("a") == ["u0"], "it was durable all the same; sending the stream again completes it"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (chunk(add={"a": ["u 1"]}), "user_ids"),
        (chunk(remove={"a": [""]}), "user_ids"),
        (chunk(users=[_user("é", ["a"])]), "user_ids"),
        (chunk(add={" a": ["u"]}), "tags.tag"),
        (chunk(users=[_user("u", [""])]), "tags.tag"),
        (chunk(add={"a": [f"u{n}" for n in range(100_001)]}), "tags"),
        (chunk(users=[_user(f"u{n}" * 20, [f"t{n % 9}" * 30]) for n in range(30_000)]), "tags"),
        (chunk(users=[_user("u", ["a"]), _user("v", [f"t{n}" for n in range(1000)])]), "users[1].add_tags"),
        (pb.ApplyMappingRequest(tags=[pb.TagChange(tag=f"t{n % 1001}") for n in range(2000)]), "tags[1000].tag"),
    ],
    ids=["user", "no user", "user letters", "tag", "no tag", "memberships", "bytes", "a user's tags", "tags"],
)
async def test_bounds(tagsvc: TagClient, bad: pb.ApplyMappingRequest, field: str) -> None:
    with refused("INVALID_FIELD", field):
        await tagsvc.apply(bad)
    assert await tagsvc.version() == 0


async def test_a_refused_chunk_makes_no_users(mesh: Mesh, tagsvc: TagClient) -> None:
    await tagsvc.create("there")
    await tagsvc.combine("taken", "there")
    for reason, bad in (
        ("UNKNOWN_TAG", chunk(add={"there": ["u1"], "gone": ["u2"]}, create=False)),
        ("INVALID_FIELD", chunk(add={"there": ["u1"], " bad": ["u2"]})),
        ("NAME_TAKEN", chunk(users=[_user("u1", ["there", "taken"])])),
    ):
        with refused(reason):
            await tagsvc.apply(bad)
    assert list(mesh.memory.users) == []
    assert await tagsvc.count("* + !there") == 0


async def test_a_chunk_may_name_tags_that_those_before_it_are_about_to_create(mesh: Mesh, tagsvc: TagClient) -> None:
    mesh.memory.answering.clear()
    call = tagsvc.tags.ApplyMapping(iter([chunk(add={"a": ["u1"]}), chunk(add={"a": ["u2"]}, create=False)]))
    await mesh.memory.until(lambda: "u2" in mesh.memory.users)
    mesh.memory.answering.set()
    assert [answer.chunks async for answer in call] == [1, 2]
    assert await tagsvc.members("a") == ["u1", "u2"]


async def test_there_are_so_many_tags_and_no_more(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(max_tags=3)
    await tagsvc.add("a", "u1")
    with refused("INVALID_FIELD", "tags") as full:
        await tagsvc.apply(chunk(add={"b": ["u2"], "c": ["u2"], "d": ["u2"]}))
    assert "max_tags" in full.error.message and "u2" not in mesh.memory.users
    await tagsvc.apply(chunk(add={"b": ["u2"], "c": ["u2"]}))
    for _ in range(2):
        await tagsvc.apply(chunk(add={"a": ["u3"], "b": ["u3"], "c": ["u3"]}))
    with refused("INVALID_FIELD", "name"):
        await tagsvc.create("d")
    for name in "xyz":
        await tagsvc.alias(name, "a")
        await tagsvc.combine(name, "a")
    await tagsvc.alias("x", "b")
    await tagsvc.combine("x", "b")
    with refused("INVALID_FIELD", "name"):
        await tagsvc.alias("w", "a")
    with refused("INVALID_FIELD", "name"):
        await tagsvc.combine("w", "a")
    await tagsvc.tags.DeleteTag(pb.DeleteTagRequest(name="c"))
    assert await tagsvc.create("d")


async def test_a_whole_chunk_of_users_and_tags_never_seen(mesh: Mesh, tagsvc: TagClient) -> None:
    users = [_user(f"u{n}", [f"t{(n + k) % 1000}" for k in range(3)]) for n in range(20_000)]
    (answer,) = await tagsvc.apply(chunk(users=users))
    assert (answer.version, mesh.memory.version) == (1, 1), "tags that come into being need no records of their own"
    assert max(mesh.memory.bulks) == 1000 and sum(mesh.memory.bulks) == 20_000
    assert await tagsvc.count("t7") == 60
    tags = await tagsvc.tags.ListTags(pb.ListTagsRequest(page_size=999))
    assert tags.tags[0].revision == 1 and tags.next_page_token
    assert await tagsvc.count("*") == 20_000


async def test_a_reader_that_stops_reading_its_answers_holds_up_nobody(tagsvc: TagClient) -> None:
    stuck = [tagsvc.tags.ApplyMapping() for _ in range(20)]
    for number, call in enumerate(stuck):
        for n in range(4):
            await call.write(chunk(add={f"s{number}": [f"u{n}"]}))
    assert await tagsvc.add("other", "u1")
    for call in stuck:
        call.cancel()


async def test_many_streams_at_once(tagsvc: TagClient) -> None:
    async def stream(number: int) -> None:
        answers = await tagsvc.apply(*[chunk(add={f"t{number}": [f"u{n}"], "all": [f"u{number}-{n}"]}) for n in range(20)])
        assert [answer.chunks for answer in answers] == list(range(1, 21))

    await asyncio.gather(*(stream(number) for number in range(25)))
    assert await tagsvc.count("all") == 500
    assert await tagsvc.count("t7") == 20


async def test_replacing_members(mesh: Mesh, tagsvc: TagClient) -> None:
    await tagsvc.add("a", "u1", "u2", "u3")
    replaced = await tagsvc.replace("a", ["u3", "u4"], ["u5", "u3"])
    assert (replaced.version, replaced.member_count) == (2, 3)
    assert await tagsvc.members("a") == ["u3", "u4", "u5"]
    same = await tagsvc.replace("a", ["u5", "u4", "u3"])
    assert (same.version, mesh.memory.version) == (2, 2)
    assert (await tagsvc.replace("a", [])).member_count == 0
    assert await tagsvc.members("a") == []


async def test_a_replacement_is_refused(tagsvc: TagClient) -> None:
    await tagsvc.add("a", "u1")
    for reason, field, messages in (
        ("UNKNOWN_TAG", "tag", [{"tag": "b", "user_ids": ["u1"], "last": True}]),
        ("INVALID_FIELD", "tag", [{"user_ids": ["u1"], "last": True}]),
        ("INVALID_FIELD", "tag", [{"tag": "a", "user_ids": ["u2"]}, {"tag": "b", "last": True}]),
        ("INVALID_FIELD", "user_ids", [{"tag": "a", "user_ids": ["u 2"], "last": True}]),
        ("INVALID_FIELD", "user_ids", [{"tag": "a", "user_ids": ["u"] * 100_001, "last": True}]),
        ("INVALID_FIELD", "last", [{"tag": "a", "user_ids": ["u2"]}]),
        ("INVALID_FIELD", "last", [{"tag": "a", "last": True}, {"user_ids": ["u3"], "last": True}]),
        ("INVALID_FIELD", "last", []),
    ):
        requests = [pb.ReplaceMembersRequest(**message) for message in messages]  # type: ignore[arg-type]
        with refused(reason, field):
            await tagsvc.tags.ReplaceMembers(iter(requests))
    assert await tagsvc.members("a") == ["u1"]


async def test_a_cut_replacement_changes_nothing(mesh: Mesh) -> None:
    await mesh.store()
    instance = await mesh.instance()
    async with connected(instance.public_url) as steady, _proxy(instance) as proxy:
        await steady.add("a", "u1")
        async with connected(f"{proxy.host}:{proxy.port}") as tagsvc:
            call = tagsvc.tags.ReplaceMembers()
            await call.write(pb.ReplaceMembersRequest(tag="a", user_ids=["u2", "u3"]))
            await mesh.memory.until(lambda: "u3" in mesh.memory.users)
            proxy.fail_all()
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        await steady.add("b", "u9")
        assert await steady.members("a") == ["u1"]


async def test_a_cut_mapping_has_applied_whole_chunks_and_all_that_were_answered(mesh: Mesh) -> None:
    await mesh.store()
    instance = await mesh.instance()
    seed = random.Random(5)
    async with connected(instance.public_url) as steady:
        for number in range(5):
            answered = 0
            async with _proxy(instance) as proxy, connected(f"{proxy.host}:{proxy.port}") as tagsvc:
                tags = [f"r{number}-{n}" for n in range(40)]
                call = tagsvc.tags.ApplyMapping(iter([chunk(add={tag: ["u1", "u2"], f"{tag}b": ["u3"]}) for tag in tags]))
                stop_after = seed.randrange(1, 20)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async for response in call:
                        answered = response.chunks
                        if answered == stop_after:
                            proxy.fail_all()
            await steady.add("fence", f"u{number}")
            listed = await steady.tags.ListTags(pb.ListTagsRequest(prefix=f"r{number}-", page_size=1000))
            counts: dict[str, Any] = {tag.name: tag.member_count for tag in listed.tags}
            applied = [tag for tag in tags if tag in counts]
            assert applied == tags[: len(applied)] and len(applied) >= answered >= stop_after
            assert counts == dict.fromkeys(applied, 2) | {f"{tag}b": 1 for tag in applied}


async def test_a_stream_ends_by_name_when_its_tagsvc_stops(mesh: Mesh) -> None:
    await mesh.store()
    async with contextlib.AsyncExitStack() as stack:
        instance = await mesh.instance(stack)
        async with connected(instance.public_url) as tagsvc:
            call = tagsvc.tags.ApplyMapping()
            await call.write(chunk(add={"a": ["u1"]}))
            assert (await call.read()).chunks == 1
            stopping = asyncio.create_task(stack.aclose())
            with refused("UNAVAILABLE") as ended:
                await call.read()
            assert "go on at another" in ended.error.message
            await stopping
