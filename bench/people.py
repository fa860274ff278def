"""Puts millions of tagged clients into a database before a mesh starts on it: rows by SQL, tags by the store's own tag log.

Afterwards the database is at rest: PostgreSQL would otherwise begin to clear up after all these rows in the middle of what is
measured, which one that has been in service for a while has behind it.
"""

import asyncio
from collections.abc import Mapping

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap
from sqlalchemy import Connection, text

import store.serve
from mesh import rpc
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.serve import open_database
from store.settings import StoreSettings
from tidings.store.v1.tag_log_pb2 import AppendRecordsRequest
from tidings.store.v1.tag_log_pb2_grpc import TagLogServiceStub
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord
from tidings.tag.v1.tag_pb2 import Tag

PREFIX = "bench-"
_STATEMENTS = {
    "sqlite": """
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
        INSERT INTO users (ordinal, user_id, created_at) SELECT n, :prefix || n, 0 FROM numbers
    """,
    "postgresql": """
        INSERT INTO users (ordinal, user_id, created_at) SELECT n, :prefix || n, 0 FROM generate_series(1, :count) AS n
    """,
}


def user_id(ordinal: int) -> str:
    """The id of the client with this ordinal."""
    return f"{PREFIX}{ordinal}"


def fill(database: str, count: int, tags: Mapping[str, BitMap]) -> None:
    """Make clients with the ordinals 1 to `count`, and give them tags.

    Args:
        database: sqlite:///file or postgresql://…, empty.
        tags: name -> who has it.
    """
    asyncio.run(_fill(database, count, tags))
    if database.startswith("postgresql"):
        _settle(database)


def _settle(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


async def _fill(database: str, count: int, tags: Mapping[str, BitMap]) -> None:
    settings = StoreSettings(database=database, port=0, drain_seconds=1.0, reflection=False)
    telemetry = Telemetry("bench")
    async with store.serve.serve(settings, MemoryRegistry(), telemetry) as instance:
        async with open_database(settings) as (opened, _):
            await opened.write(lambda connection: _insert(connection, count))
        async with rpc.channel(instance.grpc_address, telemetry) as channel:
            log = TagLogServiceStub(channel)
            version = 0
            for name, members in tags.items():
                answer = await log.AppendRecords(AppendRecordsRequest(expected_version=version, records=_records(name, members)))
                version = answer.version
    telemetry.close()


def _insert(connection: Connection, count: int) -> None:
    connection.execute(text(_STATEMENTS[connection.dialect.name]), {"count": count, "prefix": PREFIX})


def _records(name: str, members: BitMap) -> list[bytes]:
    now = Timestamp()
    now.GetCurrentTime()
    change = TagMembers(tag=name, added_ordinals=members.serialize())
    made = TagRecord(time=now, put_tag=Tag(name=name, create_time=now))
    given = TagRecord(time=now, memberships=MembershipChange(tags=[change]))
    return [made.SerializeToString(), given.SerializeToString()]
