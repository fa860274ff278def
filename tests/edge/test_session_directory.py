"""The session directory as an edge keeps it: the core with scripted connections, then a whole edge over a real Redis."""

import signal
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge import session_directory
from edge.connection import Connection
from edge.population import Population
from edge.session_directory import BATCH, GONE, SessionChanges, SessionWriter
from mesh.cache import Cache, SessionRecord
from mesh.memory_cache import MemoryCache
from mesh.open_cache import open_cache
from mesh.telemetry import Telemetry
from tests.edge.conftest import Start
from tests.eventually import eventually_answered
from tests.servers import RedisServer, redis_server  # noqa: F401  (a fixture)


def connection(number: int, user_id: str = "alice", device_id: str = "phone") -> Connection:
    return cast(Connection, SimpleNamespace(session=SimpleNamespace(number=number, user_id=user_id, device_id=device_id)))


def changes() -> SessionChanges:
    return SessionChanges("edge-1", lambda: 1.5)


def record(number: int, device_id: str = "phone") -> SessionRecord:
    return SessionRecord("alice", "edge-1", number, device_id, 1500)


class TestChanges:
    def test_a_session_is_written_once_it_has_named_its_device(self) -> None:
        told, nameless = changes(), connection(1, device_id="")
        told.opened(nameless, "")
        told.opened(connection(2), "ticket")
        assert told.take(10) == ([record(2)], [])
        cast(Any, nameless.session).device_id = "tablet"
        assert told.take(10) == ([record(1, "tablet")], [])
        assert told.take(10) == ([], [])

    def test_what_was_written_is_removed_and_what_was_not_is_not(self) -> None:
        told, one, other = changes(), connection(1), connection(2)
        told.opened(one, "")
        told.take(10)
        told.opened(other, "")
        told.closed(one)
        told.closed(other)
        told.closed(connection(3))
        assert told.take(10) == ([], [record(1)])
        assert told.take(10) == ([], [])

    def test_what_failed_comes_again_unless_it_has_ended(self) -> None:
        told, ended = changes(), connection(1)
        told.opened(ended, "")
        told.opened(connection(2), "")
        puts, _ = told.take(10)
        told.closed(ended)
        told.unwritten(puts)
        assert told.take(10) == ([record(2)], [record(1)])
        told.unremoved([record(1)])
        assert told.take(10) == ([], [record(1)])

    def test_everything_is_told_again_in_batches_with_newcomers_first(self) -> None:
        told = changes()
        for number in range(1, 6):
            told.opened(connection(number), "")
        told.take(10)
        told.rewrite()
        told.opened(connection(9), "")
        assert told.take(3) == ([record(9), record(1), record(2)], [])
        assert told.take(3) == ([record(3), record(4), record(5)], [])
        assert told.take(3) == ([], [])

    def test_removals_are_bounded(self) -> None:
        told = changes()
        told.unremoved([record(number) for number in range(GONE + 3)])
        assert told.dropped == 3
        assert told.take(1) == ([], [record(3)])


async def test_rounds_are_bounded_and_wait_for_a_directory_that_answers() -> None:
    class Scripted:
        """Answers as told, and writes down what it is asked."""

        def __init__(self) -> None:
            self.known: bool | None = None
            self.written, self.beats = list[int](), 0

        async def beat(self, edge_id: str) -> bool | None:
            self.beats += 1
            return self.known

        async def put(self, sessions: list[SessionRecord]) -> bool:
            self.written.append(len(sessions))
            return self.known is not None

        async def remove(self, sessions: list[SessionRecord]) -> bool:
            return self.known is not None

    now = [0.0]
    told, directory = changes(), Scripted()
    writer = SessionWriter("edge-1", told, cast(Any, directory), lambda: now[0])
    for number in range(BATCH + 1):
        told.opened(connection(number), "")
    await writer.round()
    assert (directory.beats, directory.written) == (1, [])  # away: nothing is tried
    directory.known = False
    for _ in range(3):
        await writer.round()
    assert (directory.beats, directory.written) == (2, [BATCH, 1, 0])
    directory.known = True
    now[0] += session_directory.BEAT_SECONDS
    await writer.round()
    assert (directory.beats, directory.written[3:]) == (3, [0])  # known: nothing to tell again
    directory.known = False
    now[0] += session_directory.BEAT_SECONDS
    for _ in range(2):
        await writer.round()
    assert (directory.beats, directory.written[4:]) == (4, [BATCH, 1])  # forgotten: everything again
    directory.known = True
    now[0] += session_directory.REWRITE_SECONDS
    await writer.round()
    assert directory.written[6:] == [BATCH]  # in time before it runs out


async def test_the_edge_is_gone_from_the_directory_when_it_ends() -> None:
    cache, population = MemoryCache(), Population(10, 0)
    writer = SessionWriter("edge-1", changes(), cache.directory, lambda: 0.0)
    async with writer.following(population):
        population.enter(connection(1), "")
        await eventually_answered(lambda: found(cache, {"phone"}))
    assert await cache.directory.sessions_of("alice") == []


@pytest.fixture
async def cache(redis_server: RedisServer, telemetry: Telemetry) -> AsyncIterator[Cache]:  # noqa: F811
    async with open_cache(redis_server.url, telemetry) as one:
        yield one


@pytest.fixture
def telemetry() -> Any:
    one = Telemetry("test")
    yield one
    one.close()


async def found(cache: Cache, devices: set[str], user_id: str = "alice") -> bool:
    sessions = await cache.directory.sessions_of(user_id)
    return sessions is not None and {session.device_id for session in sessions} == devices


@pytest.mark.redis
async def test_an_edge_tells_who_is_there_and_again_after_flush_freeze_and_restart(
    start: Start,
    cache: Cache,
    redis_server: RedisServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_directory, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(session_directory, "ROUND_SECONDS", 0.05)
    edge = await start(cache=redis_server.url)
    phone = await edge.online("alice", "phone")
    await edge.online("alice", "tablet")
    await edge.connect("alice")  # not Hello yet
    await eventually_answered(lambda: found(cache, {"phone", "tablet"}))
    redis_server.flush()
    await eventually_answered(lambda: found(cache, {"phone", "tablet"}))
    redis_server.signal(signal.SIGSTOP)
    await phone.socket.close()
    await edge.online("alice", "watch")  # nobody waits for the directory
    redis_server.signal(signal.SIGCONT)
    await eventually_answered(lambda: found(cache, {"tablet", "watch"}))
    redis_server.kill()
    redis_server.start()
    await eventually_answered(lambda: found(cache, {"tablet", "watch"}))
    await edge.stop()
    assert await found(cache, set())
