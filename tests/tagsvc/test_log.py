"""Instances on one log: what one writes all see, whatever is lost on the way."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import grpc

from tagset.snapshot import Snapshot, parts
from tests.tagsvc.client import TagClient, chunk, refused
from tests.tagsvc.conftest import Mesh
from tests.tagsvc.replica import whole
from tidings.tag.v1 import tag_pb2 as pb
from tidings.tag.v1.log_pb2 import TagRecord


async def _create(tagsvc: TagClient, name: str, request_id: str = "") -> pb.Tag:
    return (await tagsvc.tags.CreateTag(pb.CreateTagRequest(name=name, request_id=request_id))).tag  # type: ignore[no-any-return]


async def _outcome(tagsvc: TagClient, name: str, request_id: str = "") -> str:
    try:
        await _create(tagsvc, name, request_id)
    except grpc.aio.AioRpcError:
        return "refused"
    return "created"


async def test_what_one_writes_the_other_reads(mesh: Mesh) -> None:
    await mesh.store()
    one, other = await mesh.tagsvc(), await mesh.tagsvc()
    version = await one.add("a", "u1", "u2")
    await other.reach(version)
    assert await other.people("a") == ["u1", "u2"]
    assert await other.count("!a + *") == 2
    version = await other.remove("a", "u1")
    await one.reach(version)
    assert await one.people("a") == ["u2"]
    assert await whole(one.audience) == await whole(other.audience)


async def test_one_of_two_who_create_a_name_at_once_has_it(mesh: Mesh) -> None:
    await mesh.store()
    both = [await mesh.tagsvc(), await mesh.tagsvc()]
    for n in range(20):
        outcomes = await asyncio.gather(*(_outcome(tagsvc, f"t{n}") for tagsvc in both))
        assert sorted(outcomes) == ["created", "refused"]
    await asyncio.gather(*(tagsvc.reach(20) for tagsvc in both))
    for tagsvc in both:
        with refused("NAME_TAKEN"):
            await tagsvc.create("t7")
        assert await tagsvc.version() == 20


async def test_everybody_changes_everything_at_once(mesh: Mesh) -> None:
    await mesh.store()
    both = [await mesh.tagsvc(), await mesh.tagsvc()]
    await both[0].create("shared")
    await both[1].reach(1)

    async def work(tagsvc: TagClient, name: str) -> None:
        for n in range(15):
            user, before = f"{name}-{n}", f"{name}-{n - 1}"
            await tagsvc.apply(chunk(add={"shared": [user], name: [user]}, remove={"shared": [before]}))

    await asyncio.gather(*(work(tagsvc, f"w{k}_{n}") for k, tagsvc in enumerate(both) for n in range(4)))
    await asyncio.gather(*(tagsvc.reach(mesh.memory.version) for tagsvc in both))
    for tagsvc in both:
        assert sorted(await tagsvc.people("shared")) == sorted(f"w{k}_{n}-14" for k in range(2) for n in range(4))
        assert await tagsvc.count("w1_3") == 15
    assert await whole(both[0].audience) == await whole(both[1].audience)
    assert sum(mesh.memory.appends) == mesh.memory.version == 121, "each chunk once, whatever conflicts there were"


async def test_changes_that_wait_go_together(mesh: Mesh, tagsvc: TagClient) -> None:
    mesh.memory.answering.clear()
    calls = [asyncio.create_task(_create(tagsvc, "first"))]
    await mesh.memory.until(lambda: mesh.memory.held)
    calls += [asyncio.create_task(_create(tagsvc, f"t{n}")) for n in range(199)]
    await mesh.queued(199)
    mesh.memory.answering.set()
    assert sorted(tag.revision for tag in await asyncio.gather(*calls)) == list(range(1, 201))
    assert mesh.memory.appends == [1, 199]


async def test_a_change_whose_answer_is_lost_is_made_once(mesh: Mesh, tagsvc: TagClient) -> None:
    """G17: the store fails right after it committed."""
    for n, request_id in enumerate(["", "r1", ""]):
        mesh.memory.lose_answers = 1
        assert (await _create(tagsvc, f"t{n}", request_id)).revision == n + 1
        assert mesh.memory.lose_answers == 0
    mesh.memory.lose_requests = 2
    assert (await _create(tagsvc, "t3")).revision == 4
    mesh.memory.lose_answers = 1
    assert await tagsvc.add("t0", "u1") == 5
    assert mesh.memory.version == 5


async def test_after_an_outage_the_same_request_id_tells_what_happened(mesh: Mesh) -> None:
    """G17: the caller hears UNAVAILABLE, the change is made; asked again it is answered as made."""
    await mesh.store()
    tagsvc = await mesh.tagsvc(write_seconds=2.0)
    mesh.memory.lose_answers, mesh.memory.die = 1, True
    with refused("UNAVAILABLE"):
        await _create(tagsvc, "a", "r1")
    mesh.memory.refuse = None
    made = await _create(tagsvc, "a", "r1")
    assert (made.revision, mesh.memory.version) == (1, 1)
    other = await mesh.tagsvc()
    assert await _create(other, "a", "r1") == made
    with refused("NAME_TAKEN"):
        await _create(other, "a", "r2")
    with refused("REQUEST_ID_CONFLICT"):
        await _create(other, "b", "r1")


async def test_a_refusal_that_rests_on_what_never_became_durable_is_not_told(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(write_seconds=2.0)
    mesh.memory.answering.clear()
    first = asyncio.create_task(_outcome(tagsvc, "first"))
    await mesh.memory.until(lambda: mesh.memory.held)
    waiting = [asyncio.create_task(_create(tagsvc, "b")) for _ in range(2)]
    await mesh.queued(2)
    await mesh.memory.fail()
    mesh.memory.answering.set()
    await first
    for task in waiting:
        with refused("UNAVAILABLE"):
            await task


async def test_while_stores_are_away_reads_go_on_and_changes_are_refused(mesh: Mesh) -> None:
    async with AsyncExitStack() as stack:
        await mesh.store(stack)
        tagsvc = await mesh.tagsvc(write_seconds=2.0, request_seconds=2.0)
        await tagsvc.add("a", "u1")
    assert await tagsvc.count("a") == 1
    with refused("UNAVAILABLE"):
        await _create(tagsvc, "b")
    with refused("UNAVAILABLE"):
        await tagsvc.people("a")
    await mesh.store()
    await asyncio.wait_for(_until_created(tagsvc, "c"), 10)
    assert await tagsvc.people("a") == ["u1"]


async def _until_created(tagsvc: TagClient, name: str) -> None:
    while await _outcome(tagsvc, name, "again") != "created":
        pass


async def test_calls_are_unavailable_until_the_log_is_caught_up(mesh: Mesh) -> None:
    instance = await mesh.instance()
    async with grpc.aio.insecure_channel(instance.grpc_address) as channel:
        tagsvc = TagClient(channel)
        for call in (tagsvc.create("a"), tagsvc.add("a", "u"), tagsvc.replace("a", ["u"]), tagsvc.count("*"), tagsvc.reach(0)):
            with refused("UNAVAILABLE"):
                await call
        await mesh.store()
        await tagsvc.ready()
        assert await tagsvc.create("a") == 1


async def test_a_full_queue_refuses_by_name(mesh: Mesh) -> None:
    """G15"""
    await mesh.store()
    tagsvc = await mesh.tagsvc(write_queue=2)
    mesh.memory.answering.clear()
    first = asyncio.create_task(_create(tagsvc, "first"))
    await mesh.memory.until(lambda: mesh.memory.held)
    calls = [asyncio.create_task(_create(tagsvc, f"t{n}")) for n in range(5)]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 3:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    for task in done:
        with refused("OVERLOADED") as overloaded:
            await task
        assert overloaded.error.retry_after
    mesh.memory.answering.set()
    await first
    assert len(await asyncio.gather(*waiting)) == 2


async def test_a_restarted_instance_is_what_the_one_before_was(mesh: Mesh) -> None:
    await mesh.store()
    rng = random.Random(7)
    async with AsyncExitStack() as stack:
        tagsvc = await mesh.tagsvc(stack)
        await _random_changes(tagsvc, rng, 60)
        before = await whole(tagsvc.audience)
    after = await whole((await mesh.tagsvc()).audience)
    assert before == after and after.version > 30


async def test_checkpoints_are_made_and_begun_from(mesh: Mesh) -> None:
    await mesh.store()
    rng = random.Random(8)
    async with AsyncExitStack() as stack:
        tagsvc = await mesh.tagsvc(stack, checkpoint_records=10)
        await _create(tagsvc, "asked before", "r1")
        await _random_changes(tagsvc, rng, 40)
        await mesh.memory.until(lambda: mesh.memory.checkpoint is not None)
        await _random_changes(tagsvc, rng, 10)
        before = await whole(tagsvc.audience)
    assert mesh.memory.checkpoint is not None
    begun = mesh.memory.checkpoint[0]
    mesh.memory.kept_after = begun
    mesh.memory.log[:begun] = [b"gone"] * begun
    again = await mesh.tagsvc()
    assert await whole(again.audience) == before
    assert (await _create(again, "asked before", "r1")).revision == 1


async def test_one_that_fell_far_behind_begins_anew_from_the_checkpoint(mesh: Mesh) -> None:
    async with AsyncExitStack() as stack:
        await mesh.store(stack)
        tagsvc = await mesh.tagsvc()
        await tagsvc.create("a", "b")
    ahead = await whole(tagsvc.audience)
    for n in range(5):
        record = TagRecord(put_tag=pb.Tag(name=f"t{n}"))
        ahead = ahead.apply(ahead.version + 1, record)
        mesh.memory.log.append(record.SerializeToString())
    _checkpoint(mesh, ahead)
    last = TagRecord(put_tag=pb.Tag(name="last"))
    mesh.memory.log.append(last.SerializeToString())
    await mesh.store()
    await tagsvc.reach(8)
    assert await whole(tagsvc.audience) == ahead.apply(8, last)
    assert await tagsvc.create("goes on") == 9


async def test_a_log_that_was_restored_to_an_older_state_is_followed(mesh: Mesh) -> None:
    async with AsyncExitStack() as stack:
        await mesh.store(stack)
        tagsvc = await mesh.tagsvc()
        await tagsvc.create("a", "b", "c")
    del mesh.memory.log[1:]
    await mesh.store()
    async with asyncio.timeout(10):
        while await _outcome(tagsvc, "d") != "created":
            pass
    assert sorted((await whole(tagsvc.audience)).tags) == ["a", "d"]
    assert mesh.memory.version == 2


def _checkpoint(mesh: Mesh, snapshot: Snapshot) -> None:
    mesh.memory.checkpoint = (snapshot.version, [part.SerializeToString() for part in parts(snapshot, 1 << 20)])
    mesh.memory.kept_after = snapshot.version


async def _random_changes(tagsvc: TagClient, rng: random.Random, number: int) -> None:
    """Changes of every kind; some are refused."""
    for _ in range(number):
        one, other = (f"t{rng.randrange(8)}" for _ in range(2))
        force = pb.DeleteTagRequest(name=one, force=True)
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: tagsvc.tags.CreateTag(pb.CreateTagRequest(name=one, description=other)),  # noqa: B023
            lambda: tagsvc.tags.UpdateTag(pb.UpdateTagRequest(name=one, description="new")),  # noqa: B023
            lambda: tagsvc.apply(chunk(add={one: [f"u{rng.randrange(30)}" for _ in range(5)]})),  # noqa: B023
            lambda: tagsvc.apply(chunk(remove={one: [f"u{rng.randrange(30)}" for _ in range(5)]})),  # noqa: B023
            lambda: tagsvc.replace(one, [f"u{rng.randrange(30)}"]),  # noqa: B023
            lambda: tagsvc.alias(other, one),  # noqa: B023
            lambda: tagsvc.combine(f"c{one}", f"{one} + !{other}"),  # noqa: B023
            lambda: tagsvc.tags.DeleteTag(force),  # noqa: B023
        ]
        try:
            await rng.choice(changes)()
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS), error
