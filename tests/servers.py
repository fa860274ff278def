"""Real servers for tests, as fixtures; `bench.servers` starts them: each in a temporary folder, on a free port, stopped at the end.

A conftest imports the fixtures it needs: ``from tests.servers import postgres_server``.
"""

from collections.abc import Iterator

import pytest

from bench.servers import EtcdServer, PostgresServer, RedisServer, free_port, process_wait, run_etcd, run_postgres, run_redis

__all__ = [
    "EtcdServer",
    "PostgresServer",
    "RedisServer",
    "etcd_server",
    "free_port",
    "postgres_server",
    "process_wait",
    "redis_server",
    "run_etcd",
    "run_postgres",
    "run_redis",
]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A cluster for this test session."""
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """An etcd for this test session; whoever kills it starts it again."""
    with run_etcd() as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis of the test's own, for it is there in a tenth of a second: to kill, freeze and flush."""
    with run_redis() as server:
        yield server
