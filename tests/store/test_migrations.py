"""The migrations bring an empty database to the schema, on both engines, also when stores race."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from store.migrate import migrate
from store.ports import Database
from store.schema import metadata
from store.serve import open_database
from store.settings import StoreSettings
from tests.servers import PostgresServer
from tests.store.client import StoreClient, running_store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/empty.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    """It, open."""
    options: dict[str, Any] = {"database": empty_url}
    async with open_database(StoreSettings(**options)) as (database, _):
        yield database


def differences(connection: Connection) -> list[Any]:
    """What the schema has otherwise than the database."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def index_rules(connection: Connection) -> dict[str, Any]:
    """Columns and conditions of the partial indexes, which alembic doesn't compare."""
    found = {}
    for table in metadata.sorted_tables:
        for index in inspect(connection).get_indexes(table.name):
            options = index.get("dialect_options", {})
            conditions = [str(rule) for name, rule in options.items() if name.endswith("_where")]
            found[str(index["name"])] = (index["column_names"], [rule.strip("()") for rule in conditions])
    return found


async def test_from_empty_to_the_schema(empty: Database) -> None:
    await empty.write(migrate)
    assert await empty.read(differences) == []
    indexes = await empty.read(index_rules)
    assert indexes["ix_conversations_swept"] == (["conversation_id"], ["retention_kind <> 1"])
    assert indexes["ix_messages_edits"] == (["conversation_id", "target_seq"], ["kind = 2"])


async def test_again_changes_nothing(empty: Database) -> None:
    await empty.write(migrate)
    await empty.write(migrate)
    assert await empty.read(differences) == []


@pytest.mark.postgresql
async def test_postgresql_looks_after_the_messages_gently(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    async with running_store(url):
        pass
    with psycopg.connect(url) as connection:
        table = "WHERE attrelid = 'messages'::regclass AND attnum > 0"
        options = connection.execute("SELECT reloptions FROM pg_class WHERE oid = 'messages'::regclass").fetchone()
        statistics = connection.execute(f"SELECT DISTINCT attstattarget FROM pg_attribute {table}").fetchall()
    assert options == (["autovacuum_vacuum_cost_delay=20"],)
    assert statistics == [(10,)], "one column with more, and PostgreSQL looks at as many rows as for that one"


async def test_two_stores_start_at_once(empty_url: str) -> None:
    async def start(ready: asyncio.Event, other: asyncio.Event) -> StoreClient:
        async with running_store(empty_url) as store:
            assert await store.ordinals("alice", "bob") == [1, 2]
            ready.set()
            await asyncio.wait_for(other.wait(), 30)
            return store

    events = asyncio.Event(), asyncio.Event()
    await asyncio.gather(start(*events), start(*reversed(events)))


async def test_a_wrong_database_is_named() -> None:
    for wrong in ("mysql://x/y", "nonsense", "sqlite://", "postgresql://host"):
        options: dict[str, Any] = {"database": wrong}
        with pytest.raises(ValueError, match="use sqlite:///FILE or postgresql://"):
            async with open_database(StoreSettings(**options)):
                pass
