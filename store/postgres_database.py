"""PostgreSQL, or what speaks its protocol: a pool of connections by SQLAlchemy and psycopg."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, Connection, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from store.ports import T
from store.retrying import retrying, writes_elsewhere

# Every query here goes by index from few rows to few rows. Without these a plan made while a table was empty would read it whole
# when it is not any more. No compilation either: it costs more than the queries.
_PLANNER = ("jit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin")
# A store that stands still, or whose machine is gone, holds locks, and a snapshot because of which nothing dead is cleared away:
# the server ends its session by itself. The keepalives are the server's.
_ABANDONED = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
SESSION_OPTIONS = " ".join(f"-c {name}={value}" for name, value in (dict.fromkeys(_PLANNER, "off") | _ABANDONED).items())
CONNECT_SECONDS = 5
# Of libpq. A server whose machine is gone says nothing, and the kernel would wait a quarter of an hour, or two, for it to answer.
LIVELINESS: dict[str, Any] = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_POOL_SECONDS = 5.0  # longest wait for a free connection


class PostgresDatabase:
    """See `store.ports.Database`. Reads leave a quarter of the connections to writes, which somebody waits for."""

    def __init__(self, engine: AsyncEngine, connections: int) -> None:
        self._engine = engine
        self._readers = asyncio.Semaphore(max(1, connections * 3 // 4))
        self._snapshots = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: URL, connections: int) -> AsyncIterator["PostgresDatabase"]:
        """Keep up to so many connections until the context ends."""
        engine = create_async_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_POOL_SECONDS,
            connect_args={"options": SESSION_OPTIONS, "connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8", **LIVELINESS},
        )
        event.listen(engine.sync_engine, "handle_error", _leave_standby)
        try:
            yield cls(engine, connections)
        finally:
            await engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `store.ports.Database`."""
        return await retrying(lambda: self._read_once(work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `store.ports.Database`."""
        return await retrying(lambda: self.write_once(work))

    async def write_once(self, work: Callable[[Connection], T]) -> T:
        """As `write`, for a caller who does the retrying."""
        return await _transact(self._engine, work)

    async def _read_once(self, work: Callable[[Connection], T]) -> T:
        async with self._readers:
            return await _transact(self._snapshots, work)


def _leave_standby(context: ExceptionContext) -> None:
    """Have the pool forget the connections to a server that doesn't write."""
    if writes_elsewhere(context.original_exception):
        context.is_disconnect = True


async def _transact(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)
