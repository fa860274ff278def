"""A line makes its routine on every connection it opens, and never takes what keeps it from opening for a fault of the data."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy.engine import make_url

from store.ports import PassingError
from store.postgres_line import PostgresLine, Routine

DOUBLE = Routine(
    "double",
    {"numbers": "bigint[]"},
    lock="pg_advisory_xact_lock(1)",
    work="SELECT n, 2 * n, pg_backend_pid()::bigint FROM unnest(numbers) AS given (n)",
    columns="n bigint, doubled bigint, process bigint",
)


@pytest.fixture
async def line(postgres_url: str) -> AsyncIterator[PostgresLine]:
    line = PostgresLine(postgres_url, DOUBLE)
    yield line
    await line.close()


async def process_of(line: PostgresLine) -> int:
    """Its connection's server process."""
    [(_, _, process)] = await line.run(DOUBLE, ([1],))
    return int(process)


async def test_a_routine_gives_its_rows(line: PostgresLine) -> None:
    assert [row[:2] for row in await line.run(DOUBLE, ([1, 2, 3],))] == [(1, 2), (2, 4), (3, 6)]
    assert await line.run(DOUBLE, ([],)) == []


async def test_a_lost_connection_is_a_passing_fault_and_the_next_call_has_another(line: PostgresLine, postgres_url: str) -> None:
    first = await process_of(line)
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    with pytest.raises(PassingError):
        await line.run(DOUBLE, ([1],))
    assert await process_of(line) != first


async def test_data_at_fault_is_not_a_passing_fault(line: PostgresLine) -> None:
    with pytest.raises(psycopg.DataError):
        await line.run(DOUBLE, ([2**62],))
    assert [row[:2] for row in await line.run(DOUBLE, ([1],))] == [(1, 2)]


async def test_a_role_that_may_not_make_functions_is_told_at_the_start_and_no_data_is_blamed(postgres_url: str) -> None:
    url = make_url(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute(f"CREATE ROLE {url.database}_plain LOGIN".encode())
        session.execute(f"REVOKE TEMP ON DATABASE {url.database} FROM PUBLIC".encode())
    line = PostgresLine(url.set(username=f"{url.database}_plain").render_as_string(hide_password=False), DOUBLE)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="temporary"):
        await line.open()
    with pytest.raises(PassingError, match="temporary"):
        await line.run(DOUBLE, ([1],))
