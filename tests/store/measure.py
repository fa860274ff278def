"""How many entries a second the message logs take, by batch size, beside a bare insert on the same server.

``python -m tests.store.measure [seconds per figure]``; PostgreSQL runs with fsync and synchronous_commit on.
"""

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg

from mesh import naming
from mesh.times import clock
from store.append_sql import append
from store.conversations import ensure_direct
from store.migrate import migrate
from store.model import Advance, Draft
from store.ports import Database, MessageLog
from store.serve import open_database
from store.settings import StoreSettings
from tests.servers import run_postgres

BATCHES = (1, 10, 100, 1000)
CHATS = 1_000
BODY = b"\x0a\x50" + b"x" * 80  # a text of 80 characters
_BARE = """
INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
SELECT name, seq, 1, id, 1, 0, 0, body FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::bytea[]) AS rows (name, seq, id, body)
"""


class Figures:
    """Prints one line a subject."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def measure(self, subject: str, work: Callable[[int], Awaitable[object]]) -> None:
        """Run `work` over each batch size; print entries a second and, for a batch of one, its latency."""
        figures = []
        for size in BATCHES:
            await work(size)
            started, number = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - started) < self._seconds:
                await work(size)
                number += size
            figures.append(f"by {size}: {number / elapsed:>7,.0f}/s")
        sys.stdout.write(f"{subject:<34}{'   '.join(figures)}\n")


class Source:
    """New drafts over many chats, without end."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.pairs = [(f"user{2 * n}", f"user{2 * n + 1}") for n in range(CHATS)]
        self.names = [naming.direct_conversation_id(*pair) for pair in self.pairs]

    def drafts(self, size: int) -> list[Draft]:
        """The next batch: one message for each of so many chats."""
        return [
            Draft(self.names[n % CHATS], 2 * (n % CHATS) + 1 + n // CHATS % 2, f"{n:032x}", 0, BODY)
            for n in itertools.islice(self._numbers, size)
        ]

    def advances(self, size: int) -> list[Advance]:
        """The next batch of marks, each one step further."""
        return [
            Advance(self.names[n % CHATS], 2 * (n % CHATS) + 1, "device", n // CHATS, 0)
            for n in itertools.islice(self._numbers, size)
        ]


async def measure_log(figures: Figures, name: str, database: Database, log: MessageLog) -> None:
    """Entries, then marks."""
    source = Source()
    await database.write(migrate)
    await database.write(lambda connection: ensure_direct(connection, source.pairs, clock()))
    await figures.measure(f"{name} append", lambda size: log.append(source.drafts(size)))
    if name == "postgresql":
        general = source.drafts
        await figures.measure(
            "postgresql append, general way",
            lambda size: database.write(lambda connection: append(connection, general(size), clock())),
        )
    marks = Source()
    await figures.measure(f"{name} advance marks", lambda size: log.advance(marks.advances(size)))


async def measure_bare(figures: Figures, url: str) -> None:
    """One insert statement a batch, without seqs, members or repeats."""
    source = Source()
    numbers = itertools.count(1_000_000_000)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) as connection:

        async def insert(size: int) -> None:
            drafts = source.drafts(size)
            columns: Iterable[list[Any]] = (
                [draft.conversation_id for draft in drafts],
                list(itertools.islice(numbers, size)),
                [f"bare{draft.client_msg_id}" for draft in drafts],
                [draft.body for draft in drafts],
            )
            await connection.execute(_BARE, tuple(columns))

        await figures.measure("bare psycopg insert", insert)


async def main(seconds: float) -> None:
    """Measure everything."""
    figures = Figures(seconds)
    with tempfile.TemporaryDirectory() as folder:
        settings = StoreSettings(**_options(f"sqlite:///{Path(folder)}/measure.sqlite"))
        async with open_database(settings) as (database, log):
            await measure_log(figures, "sqlite", database, log)
    with run_postgres(durable=True) as server:
        url = server.new_database()
        async with open_database(StoreSettings(**_options(url))) as (database, log):
            await measure_log(figures, "postgresql", database, log)
        await measure_bare(figures, url)


def _options(database: str) -> dict[str, Any]:
    return {"database": database}


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
