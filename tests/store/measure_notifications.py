"""How long the store takes over notifications with 10,000,000 recipients, and over claims among many.

``python -m tests.store.measure_notifications [block bits]``; PostgreSQL runs with fsync and synchronous_commit on. On SQLite the
figures are also what the event loop is busy for, but for the commit.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pyroaring import BitMap
from sqlalchemy import Connection

from mesh import naming
from mesh.times import clock
from store import notification_claims, notification_lists, notification_rows, recipient_blocks
from store import notification_progress as progress
from store.migrate import migrate
from store.notification import Notification
from store.notification_creation import Expansion
from store.notification_life import Part, State
from store.notification_progress import Delivery, Step
from store.notification_uploads import SpecParts
from store.notification_uploads import insert as insert_upload
from store.ports import Database
from store.recipient_blocks import Counts, split
from store.serve import open_database
from store.settings import StoreSettings
from tests.servers import run_postgres

RECIPIENTS = 10_000_000
DELTA = 10_000
LEASE = 10_000_000  # microseconds
DAY = 24 * 3600 * 1_000_000
RUNS = 20


async def timed(subject: str, runs: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Print the median and the longest of some runs."""
    times = []
    for run in runs:
        started = time.perf_counter()
        await run()
        times.append((time.perf_counter() - started) * 1000)
    sys.stdout.write(f"  {subject:<62}{statistics.median(times):8.1f} ms, at most {max(times):8.1f} ms\n")


def made(number: int, **fields: Any) -> Notification:
    """A notification, due now."""
    now = clock()
    values: dict[str, Any] = {
        "notification_id": naming.new_notification_id(),
        "state": State.SCHEDULED,
        "priority": number % 10,
        "send_at": now - 1,
        "expire_at": now + DAY,
        "type": "news",
        "series_id": "",
        "occurrence": 0,
        "request_id": f"r{number}-{random.random()}",
        "request_digest": bytes(16),
        "created_at": now,
        "fence": 0,
        "lease_owner": None,
        "lease_until": 0,
        "snapshot_version": 0,
        "counts": Counts(),
        "reason": "",
        "started_at": None,
        "finished_at": None,
        "status_report": 1,
        "estimated_audience": 0,
        "failures": 0,
        "recipients_kept": True,
        "settled": False,
        "awaits_next": False,
    }
    return Notification(**(values | fields))


def insert_many(connection: Connection, notifications: Iterable[Notification]) -> None:
    """Add them, each with a small upload."""
    for one in notifications:
        notification_rows.insert(connection, one)
        insert_upload(connection, one.notification_id, SpecParts(b"\x12\x04news", b"", b""), b"", b"")


async def claimed(database: Database) -> tuple[str, int]:
    """The only one that is due."""
    one = made(0)
    await database.write(partial(insert_many, notifications=[one]))
    [stored] = await database.write(partial(notification_claims.claim, claimer_id="x", limit=1, lease=DAY, now=clock()))
    return stored.notification.notification_id, stored.notification.fence


async def measure_large(database: Database, kind: str, audience: BitMap) -> None:
    """One notification for many: expansion, progress, acknowledgements, read back."""
    expansion = Expansion(split(audience), 1)
    owned = [await claimed(database) for _ in range(3)]

    def expand(notification_id: str, fence: int) -> Awaitable[object]:
        return database.write(
            partial(
                progress.save_expansion,
                notification_id=notification_id,
                fence=fence,
                expansion=expansion,
                lease=DAY,
                now=clock(),
            )
        )

    await timed(f"expansion of {len(audience):,} {kind}", [partial(expand, *one) for one in owned])
    name, fence = owned[0]
    everyone = random.Random(1).sample(audience.to_array(), len(audience) // 2)

    def send(ordinals: Iterable[int]) -> Awaitable[object]:
        step = Step(name, fence, split(BitMap(ordinals)), {}, None, "")
        return database.write(partial(progress.save_progress, steps=[step], lease=DAY, now=clock()))

    def deliver(ordinals: Iterable[int]) -> Awaitable[object]:
        return database.write(partial(progress.record_delivered, deliveries=[Delivery(name, split(BitMap(ordinals)))], now=clock()))

    half = len(everyone) // 2
    await send(everyone[:half])
    spread = [everyone[half + n * DELTA : half + (n + 1) * DELTA] for n in range(RUNS)]
    await timed(f"sent: {DELTA:,} all over, a quarter sent before", [partial(send, one) for one in spread])
    ascending = sorted(everyone[half + RUNS * DELTA :])
    runs = [ascending[n * DELTA : (n + 1) * DELTA] for n in range(RUNS)]
    await timed(f"sent: {DELTA:,} in a row", [partial(send, one) for one in runs])
    await deliver(everyone[: half // 2])
    spread = [everyone[half // 2 + n * DELTA : half // 2 + (n + 1) * DELTA] for n in range(RUNS)]
    await timed(f"delivered: {DELTA:,} all over, an eighth before", [partial(deliver, one) for one in spread])

    async def read() -> None:
        block = -1
        work = partial(notification_lists.read_recipients, notification_id=name, parts=[Part.PENDING])
        while chunk := await database.read(partial(work, after_block=block)):
            block = chunk[1]

    await timed("read all who are pending", [read] * 3)


async def measure_many(database: Database) -> None:
    """Leases and claims among many."""
    running = [made(n, state=State.SENDING, fence=1, lease_until=clock() + DAY) for n in range(1_000)]
    await database.write(partial(insert_many, notifications=running))
    renewals = [Step(one.notification_id, 1, {}, {}, None, "") for one in running]
    renew = partial(progress.save_progress, steps=renewals, lease=DAY, now=clock())
    await timed("renew 1,000 leases", [lambda: database.write(renew)] * 5)
    finished = (made(n, state=State.COMPLETED, finished_at=clock()) for n in range(50_000))
    future = (made(n, send_at=clock() + DAY // 2) for n in range(20_000))
    due = (made(n) for n in range(20_000))
    for notifications in (finished, future, due):
        await database.write(partial(insert_many, notifications=notifications))
    ask = partial(notification_claims.claim, claimer_id="x", limit=100, lease=DAY, now=clock())
    title = "claim 100 of 20,000 due, 20,000 not due, 50,000 finished"
    await timed(title, [lambda: database.write(ask)] * RUNS)
    nothing = partial(notification_claims.claim, claimer_id="x", limit=100, lease=DAY, now=1)
    await timed("claim nothing among them", [lambda: database.write(nothing)] * RUNS)
    await timed("end what has expired: nothing", [lambda: database.write(partial(notification_claims.end_expired, now=1))] * RUNS)
    await timed("when the next is due", [lambda: database.read(notification_claims.next_due)] * RUNS)


async def measure(url: str) -> None:
    """Measure everything on one engine."""
    sys.stdout.write(f"{url.partition(':')[0]}\n")
    options: dict[str, Any] = {"database": url}
    async with open_database(StoreSettings(**options)) as (database, _):
        await database.write(migrate)
        await measure_large(database, "in a row", BitMap(range(1, RECIPIENTS + 1)))
        half = BitMap(random.Random(2).sample(range(1, 2 * RECIPIENTS), RECIPIENTS))
        await measure_large(database, "every other one", half)
        await measure_many(database)


async def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        await measure(f"sqlite:///{Path(folder)}/measure.sqlite")
    with run_postgres(durable=True) as server:
        await measure(server.new_database())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        recipient_blocks.BLOCK_BITS = int(sys.argv[1])
    asyncio.run(main())
