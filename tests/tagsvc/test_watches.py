"""WatchSnapshots: a replica that follows it holds the same, whatever it missed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing

import pytest

from mesh import process
from mesh.errors import TidingsError
from tagset.snapshot import Snapshot
from tagsvc.history import Bounds
from tagsvc.journal import Journal
from tagsvc.watches import Watches
from tests.tagsvc.client import TagClient, chunk, connected, refused
from tests.tagsvc.conftest import Mesh
from tests.tagsvc.replica import Replica, whole
from tidings.store.v1 import tag_log_pb2
from tidings.tag.v1.audience_pb2 import WatchSnapshotsRequest
from tidings.tag.v1.log_pb2 import TagRecord
from tidings.tag.v1.tag_pb2 import Tag


async def test_a_replica_holds_the_same_under_concurrent_changes(mesh: Mesh) -> None:
    await mesh.store()
    both = [await mesh.tagsvc(), await mesh.tagsvc()]
    replicas = [Replica() for _ in both]
    following = [asyncio.create_task(one.follow(tagsvc.audience, 60)) for one, tagsvc in zip(replicas, both, strict=True)]

    async def change(tagsvc: TagClient, name: str) -> None:
        for n in range(15):
            await tagsvc.apply(chunk(add={f"{name}{n % 3}": [f"u{n}"]}, remove={f"{name}{n % 2}": [f"u{n - 4}"]}))

    await asyncio.gather(*(change(tagsvc, name) for tagsvc, name in zip(both * 2, "abcd", strict=True)))
    await asyncio.gather(*following)
    newest = await whole(both[0].audience)
    assert newest.version == 60
    assert replicas[0].snapshot == replicas[1].snapshot == newest
    assert [replica.wholes for replica in replicas] == [1, 1]
    assert replicas[0].known == len(mesh.memory.users)


async def test_one_that_comes_back_gets_what_it_missed(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(kept_records=5)
    replica = Replica()
    await tagsvc.create("a")
    await replica.follow(tagsvc.audience, 1)
    await tagsvc.create("b", "c", "d", "e", "f")
    await replica.follow(tagsvc.audience, 6)
    assert (replica.wholes, replica.steps) == (1, 5)
    await tagsvc.create(*(f"t{n}" for n in range(6)))
    await replica.follow(tagsvc.audience, 12)
    assert (replica.wholes, replica.steps) == (2, 5), "too far behind: the whole"
    assert replica.snapshot == await whole(tagsvc.audience)
    await replica.follow(tagsvc.audience, 12)
    assert (replica.wholes, replica.steps) == (2, 5), "nothing missed: told so at once"
    other = Replica()
    other.snapshot = Snapshot.empty().apply(1, TagRecord())
    for version in range(2, 40):
        other.snapshot = other.snapshot.apply(version, TagRecord())
    request = WatchSnapshotsRequest(with_content=True, after_version=39)
    async for response in tagsvc.audience.WatchSnapshots(request):
        assert response.HasField("part") and response.version == 12, "from another log: the whole"
        break


async def test_large_wholes_come_in_parts(mesh: Mesh, tagsvc: TagClient) -> None:
    await tagsvc.apply(*(chunk(add={f"{first + n:0128}": [] for n in range(1000)}) for first in range(0, 9000, 1000)))
    responses = []
    async for response in tagsvc.audience.WatchSnapshots(WatchSnapshotsRequest(with_content=True)):
        responses.append(response)
        if response.complete:
            break
    assert len(responses) > 1 and [one.complete for one in responses] == [False] * (len(responses) - 1) + [True]
    assert all(one.ByteSize() < 1.1 * 1024 * 1024 for one in responses)
    assert {one.version for one in responses} == {9}
    replica = Replica()
    for response in responses:
        replica.take(response)
    assert len(replica.snapshot.tags) == 9000


async def test_versions_alone_and_new_clients_are_told(mesh: Mesh, tagsvc: TagClient) -> None:
    call = tagsvc.audience.WatchSnapshots(WatchSnapshotsRequest())
    first = await call.read()
    assert (first.version, first.highest_user_ordinal, first.complete) == (0, 0, True)
    mesh.memory.users["somebody"] = 1
    await mesh.memory.tell()
    known = await call.read()
    assert (known.version, known.highest_user_ordinal) == (0, 1)
    await tagsvc.create("a")
    created = await call.read()
    assert (created.version, created.complete, created.HasField("part"), len(created.records)) == (1, True, False, 0)
    assert await tagsvc.count("!a") == 1
    call.cancel()


async def test_watchers_are_sent_elsewhere_by_one_that_stops(mesh: Mesh) -> None:
    await mesh.store()
    leaving = AsyncExitStack()
    instance = await mesh.instance(leaving)
    async with connected(instance.grpc_address) as tagsvc:
        call = tagsvc.audience.WatchSnapshots(WatchSnapshotsRequest(with_content=True))
        await call.read()
        stopping = asyncio.create_task(leaving.aclose())
        with refused("UNAVAILABLE") as ended:
            await call.read()
        assert "watch another" in ended.error.message
        await stopping


class Log:
    """A log that says what it is told to."""

    def __init__(self) -> None:
        self.responses: asyncio.Queue[tag_log_pb2.FollowRecordsResponse] = asyncio.Queue()

    async def follow(self, after_version: int) -> AsyncGenerator[tag_log_pb2.FollowRecordsResponse, None]:
        while True:
            yield await self.responses.get()

    async def load_checkpoint(self) -> AsyncIterator[tag_log_pb2.LoadCheckpointResponse]:
        return
        yield

    async def append(self, expected_version: int, records: Sequence[bytes]) -> tag_log_pb2.AppendRecordsResponse:
        raise NotImplementedError

    async def save_checkpoint(self, version: int, parts: object) -> bool:
        raise NotImplementedError

    def say(self, first: int, last: int, description: str = "") -> None:
        """Versions from the first to the last."""
        records = [TagRecord(put_tag=Tag(name=f"t{n}", description=description)) for n in range(first, last + 1)]
        response = tag_log_pb2.FollowRecordsResponse(version=last, last_version=last, highest_user_ordinal=last)
        response.records.extend(record.SerializeToString() for record in records)
        self.responses.put_nowait(response)


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def journal(log: Log) -> AsyncIterator[Journal]:
    journal = Journal(log, Bounds(snapshots=4, snapshot_bytes=1 << 26, pinned=4, records=20, record_bytes=1 << 26))
    log.say(1, 1)
    async with process.background(journal.run()):
        await asyncio.wait_for(journal.reached(1), 5)
        yield journal


async def test_a_slow_watcher_hears_of_several_as_one_and_gets_the_whole_when_it_is_far_behind(log: Log, journal: Journal) -> None:
    replica = Replica()
    async with aclosing(Watches(journal).watch(WatchSnapshotsRequest(with_content=True))) as responses:
        replica.take(await anext(responses))
        log.say(2, 10)
        await journal.reached(10)
        response = await anext(responses)
        replica.take(response)
        assert (len(response.records), replica.wholes) == (9, 1)
        log.say(11, 40)
        await journal.reached(40)
        replica.take(await anext(responses))
        assert (replica.wholes, replica.snapshot) == (2, journal.newest())


async def test_records_come_in_responses_of_a_few_mebibytes(log: Log, journal: Journal) -> None:
    replica = Replica()
    async with aclosing(Watches(journal).watch(WatchSnapshotsRequest(with_content=True))) as responses:
        replica.take(await anext(responses))
        log.say(2, 10, "x" * 1_500_000)
        await journal.reached(10)
        sizes = []
        while replica.snapshot.version < 10:
            response = await anext(responses)
            sizes.append(len(response.records))
            replica.take(response)
    assert sizes == [2, 2, 2, 2, 1]
    assert replica.snapshot == journal.newest()


async def test_a_gap_in_the_log_is_not_passed_over(log: Log, journal: Journal) -> None:
    log.say(3, 4)
    log.say(2, 4)
    await asyncio.wait_for(journal.reached(4), 5)
    assert sorted(journal.newest().tags) == ["t1", "t2", "t3", "t4"]


async def test_a_record_that_cannot_be_read_is_not_passed_over(log: Log, journal: Journal) -> None:
    log.responses.put_nowait(tag_log_pb2.FollowRecordsResponse(records=[b"\xff"], version=2, last_version=2))
    log.say(2, 3)
    await asyncio.wait_for(journal.reached(3), 5)
    assert sorted(journal.newest().tags) == ["t1", "t2", "t3"]


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_catching_up_takes_in_what_the_log_has_by_now(log: Log, journal: Journal) -> None:
    for more in (True, False):
        catching_up = asyncio.create_task(journal.catch_up())
        for _ in range(2):  # to the journal's own following, then to the question how far the log is
            await turns()
            log.say(2, 5)
        assert await asyncio.wait_for(catching_up, 5) is more
        assert journal.history.version == 5


async def test_who_can_not_catch_up_says_so(log: Log, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagsvc.journal._CATCH_UP_SECONDS", 0.05)
    with pytest.raises(TidingsError, match="not up to date"):
        await journal.catch_up()
