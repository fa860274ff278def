"""What a page of recent entries costs, from the database alone and by way of the cache, and what keeping entries costs the store.

``python -m tests.store.measure_recent_history [seconds per figure]``. Processor time is of this process (the store's part, without
gRPC), of PostgreSQL's processes, and of Redis; per page, or per entry stored. The machine's other work disturbs latencies, hardly
processor times.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from mesh import naming
from mesh.open_cache import open_cache
from mesh.telemetry import Telemetry
from mesh.times import clock
from store import codec
from store.conversations import ensure_direct
from store.database_history import DatabaseHistory
from store.entries import Page, Question
from store.migrate import migrate
from store.model import MAX_SEQ, Draft
from store.ports import Database, History, MessageLog
from store.recent_entries import Readership
from store.recent_history import RecentHistory, RecentLog
from store.serve import open_database
from store.settings import StoreSettings
from store.sync import Question as DeviceQuestion
from tests.servers import PostgresServer, RedisServer, run_postgres, run_redis
from tidings.store.v1 import message_log_pb2 as pb

CHATS = 200
ENTRIES = 128  # of each
TOGETHER = 8  # readers at once
PAGES = (1, 10, 50)
BODY = b"\x0a\x52\x0a\x50" + b"x" * 80


@dataclass(frozen=True)
class Servers:
    """Whose processor time is read."""

    postgres: PostgresServer
    redis: RedisServer

    def seconds(self) -> list[float]:
        """Of this process, PostgreSQL, and Redis."""
        return [_used([psutil.Process()]), _used(_family(self.postgres.pid)), _used(_family(self.redis.pid))]


async def measure(servers: Servers, subject: str, seconds: float, weight: int, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work` for so long; print processor microseconds for each of the `weight` things that it does, and the median time."""
    await work()
    before, started, times = servers.seconds(), time.perf_counter(), list[float]()
    while time.perf_counter() - started < seconds:
        turn = time.perf_counter()
        await work()
        times.append(time.perf_counter() - turn)
    await asyncio.sleep(0.3)  # what is kept by and by belongs to it
    spent = [1e6 * (after - old) / (len(times) * weight) for old, after in zip(before, servers.seconds(), strict=True)]
    latency = 1e3 * sorted(times)[len(times) // 2]
    columns = f"store {spent[0]:>6,.0f}   postgresql {spent[1]:>5,.0f}   redis {spent[2]:>4,.0f}   sum {sum(spent):>6,.0f} us"
    sys.stdout.write(f"{subject:<44}{columns}   turn {latency:>6.2f} ms\n")
    sys.stdout.flush()


async def read_pages(history: History, names: Sequence[str], chats: "itertools.cycle[int]", size: int) -> None:
    """As many readers at once as TOGETHER, each of another chat."""

    async def one(chat: int) -> None:
        page = await history.list_entries(Question(names[chat], 2 * chat + 1, MAX_SEQ, newer=False, page_size=size))
        _response(page).SerializeToString()

    await asyncio.gather(*(one(next(chats)) for _ in range(TOGETHER)))


async def sync_devices(history: History, names: Sequence[str], chats: "itertools.cycle[int]", missed: int) -> None:
    """As many devices in one call as TOGETHER; each missed so many entries of its chat."""
    devices = [next(chats) for _ in range(TOGETHER)]
    await history.sync_devices(
        [DeviceQuestion(2 * chat + 1, "phone", {names[chat]: ENTRIES - missed}, 0, None, 200) for chat in devices]
    )


async def compare(servers: Servers, database: Database, log: MessageLog, seconds: float) -> None:
    """Pages, syncs, then appends: without and with."""
    telemetry, numbers, chats = Telemetry("measure"), itertools.count(), itertools.cycle(range(CHATS))
    async with open_cache(servers.redis.url, telemetry) as cache:
        by_cache = RecentHistory(database, cache, ENTRIES, telemetry)
        recent = RecentLog(log, database, cache, ENTRIES, by_cache.readership)
        keeping = asyncio.create_task(recent.run())
        histories: dict[str, History] = {"database": DatabaseHistory(database), "cache": by_cache}
        names = await _filled(database, log, numbers)
        for _ in range(CHATS // TOGETHER):
            await read_pages(by_cache, names, chats, ENTRIES)
        for size in PAGES:
            for name, history in histories.items():
                await measure(
                    servers, f"page of {size}, {name}", seconds, TOGETHER, partial(read_pages, history, names, chats, size)
                )
        for missed in PAGES:
            for name, history in histories.items():
                work = partial(sync_devices, history, names, chats, missed)
                await measure(servers, f"sync of a device that missed {missed}, {name}", seconds, TOGETHER, work)
        for batch in (1, 100):
            unread = RecentLog(log, database, cache, ENTRIES, Readership(1.0, 1))
            for name, one in (("no cache", log), ("read by nobody", unread), ("read lately", recent)):
                work = partial(_append, one, names, chats, numbers, batch)
                for chat in names:
                    by_cache.readership.read(chat, time.monotonic())
                await measure(servers, f"append by {batch}, {name}: an entry", seconds, batch, work)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    sys.stdout.writelines(f"{line}\n" for line in telemetry.exposition().decode().splitlines() if line.startswith("store_recent"))


async def _filled(database: Database, log: MessageLog, numbers: "itertools.count[int]") -> list[str]:
    pairs = [(f"user{2 * n}", f"user{2 * n + 1}") for n in range(CHATS)]
    await database.write(lambda connection: ensure_direct(connection, pairs, clock()))
    names = [naming.direct_conversation_id(*pair) for pair in pairs]
    for _ in range(ENTRIES):
        await _append(log, names, itertools.cycle(range(CHATS)), numbers, CHATS)
    return names


async def _append(
    log: MessageLog, names: Sequence[str], chats: "itertools.cycle[int]", numbers: "itertools.count[int]", batch: int
) -> None:
    drafts = [Draft(names[chat], 2 * chat + 1, f"{next(numbers):032x}", 0, BODY) for chat in itertools.islice(chats, batch)]
    await log.append(drafts)


def _response(page: Page) -> pb.ListEntriesResponse:
    return pb.ListEntriesResponse(entries=map(codec.log_entry, page.entries), last_seq=page.last_seq)


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _used(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def main(seconds: float) -> None:
    """Measure everything."""
    with run_postgres(durable=True) as postgres, run_redis() as redis:
        options: dict[str, Any] = {"database": postgres.new_database()}
        async with open_database(StoreSettings(**options)) as (database, log):
            await database.write(migrate)
            await compare(Servers(postgres, redis), database, log, seconds)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
