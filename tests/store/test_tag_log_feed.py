"""Who is woken, and when the database is asked: the feed without a server, in part over a database that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from mesh import errors
from mesh.process import background
from mesh.times import clock
from store.migrate import migrate
from store.ports import T
from store.serve import open_database
from store.service_tag_log import Context, TagLogServicer
from store.settings import StoreSettings
from store.tag_log import Page, Position, fitting, read_position
from store.tag_log_checkpoints import Checkpoints
from store.tag_log_feed import TagLogFeed
from tests.store.tags import SECONDS
from tidings.store.v1 import tag_log_pb2 as pb

TURNS = 50  # of the event loop: more than anything here takes that doesn't wait


class ScriptedDatabase:
    """A log of empty records; counts how often it was asked for its position.

    Attributes:
        version: the log's.
        polls: how often the feed looked.
        faults: so many looks fail first.
    """

    def __init__(self) -> None:
        self.version = 0
        self.polls = 0
        self.pages = 0
        self.faults = 0

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The log's position, or a page that ends there."""
        answer: Any
        if work is read_position:
            self.polls += 1
            if self.faults:
                self.faults -= 1
                raise errors.unavailable("as told")
            answer = Position(self.version)
        else:
            assert isinstance(work, partial)
            self.pages += 1
            missing = self.version - work.keywords["after_version"]
            answer = Page([b""] * missing, self.version, Position(self.version))
        return answer  # type: ignore[no-any-return]

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Nothing here writes."""
        raise NotImplementedError


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def soon(pages: AsyncIterator[Page]) -> Page:
    """The next page."""
    return await asyncio.wait_for(anext(pages), SECONDS)


async def test_an_append_here_wakes_followers_without_a_look_at_the_database(database_url: str) -> None:
    options: dict[str, Any] = {"database": database_url}
    async with open_database(StoreSettings(**options)) as (database, _):
        await database.write(migrate)
        feed = TagLogFeed(database)  # its `run`, which looks for what others do, does not run
        servicer = TagLogServicer(database, feed, Checkpoints(database, clock))
        followers = [feed.follow(0) for _ in range(3)]
        for follower in followers:
            assert not (await soon(follower)).records
        waiting = [asyncio.create_task(soon(follower)) for follower in followers]
        await turns()
        assert not any(task.done() for task in waiting)
        await servicer.AppendRecords(pb.AppendRecordsRequest(records=[b"new"]), cast("Context", None))
        for page in await asyncio.gather(*waiting):
            assert (page.records, page.version) == ([b"new"], 1)


async def test_one_look_serves_all_and_nobody_following_costs_none() -> None:
    database = ScriptedDatabase()
    feed = TagLogFeed(database, poll_seconds=0)
    async with background(feed.run()):
        await turns()
        assert database.polls == 0
        followers = [feed.follow(0) for _ in range(20)]
        await asyncio.gather(*map(soon, followers))
        await turns()
        assert 0 < database.polls <= 3 * TURNS  # not twenty times as many
        assert database.pages == 20
        waiting = [asyncio.create_task(soon(follower)) for follower in followers]
        database.version = 2
        assert [page.version for page in await asyncio.gather(*waiting)] == [2] * 20
        for follower in followers:
            await follower.aclose()  # type: ignore[attr-defined]  # a generator
        await turns()
        before = database.polls
        await turns()
        assert database.polls == before


async def test_a_failed_look_is_made_up_for() -> None:
    database = ScriptedDatabase()
    feed = TagLogFeed(database, poll_seconds=0)
    async with background(feed.run()):
        follower = feed.follow(0)
        await soon(follower)
        database.faults, database.version = 3, 1
        assert (await soon(follower)).version == 1
        assert database.faults == 0


async def test_a_database_that_lost_a_record_is_not_asked_without_end() -> None:
    """As after a failover to a standby that was behind."""
    database = ScriptedDatabase()
    feed = TagLogFeed(database)
    feed.appended(5)
    follower = feed.follow(0)
    assert (await soon(follower)).version == 0
    waiting = asyncio.create_task(soon(follower))
    await turns()
    assert database.pages == 1
    database.version = 6
    feed.appended(6)
    assert (await waiting).version == 6


def test_fitting() -> None:
    assert fitting([], 10) == 0
    assert fitting([11, 1], 10) == 1
    assert fitting([4, 6, 1], 10) == 2
    assert fitting([0, 0, 0], 10) == 3


async def test_a_follower_hears_something_even_when_there_is_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.tag_log_feed.BEAT_SECONDS", 0.01)
    feed = TagLogFeed(ScriptedDatabase())  # its `run` doesn't run
    follower = feed.follow(0)
    pages = [await soon(follower) for _ in range(3)]
    assert [(page.records, page.version) for page in pages] == [([], 0)] * 3
