"""Each test of the store runs on SQLite and on PostgreSQL, on an empty migrated database."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from store.migrate import migrate
from store.serve import open_database
from store.settings import StoreSettings
from tests.servers import PostgresServer, postgres_server  # noqa: F401  (a fixture)
from tests.store.client import StoreClient, running_store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:  # noqa: F811
    """Name of a PostgreSQL database to copy, so that a test doesn't wait for the migrations."""
    url = postgres_server.new_database()
    asyncio.run(_migrate(url))
    return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite"
    return new_postgres_database(request)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> str:
    """An empty PostgreSQL database."""
    return new_postgres_database(request)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[StoreClient]:
    """A running store."""
    async with running_store(database_url) as client:
        yield client


def new_postgres_database(request: pytest.FixtureRequest) -> str:
    """A copy of the migrated template."""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    template = request.getfixturevalue("migrated_template")
    name = f"store_{next(_numbers)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
    return server.url(name)


async def _migrate(url: str) -> None:
    options: dict[str, Any] = {"database": url}
    async with open_database(StoreSettings(**options)) as (database, _):
        await database.write(migrate)
