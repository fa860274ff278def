"""Each baseline runs and gives a rate; PostgreSQL's and etcd's servers start and stop."""

import socket
from urllib.parse import urlsplit

import psycopg
import pytest

from bench import baselines, inserts
from bench.servers import run_etcd, run_postgres


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SECONDS", 0.2)
    monkeypatch.setattr(inserts, "SECONDS", 0.2)


def test_all_bare_parts_move_something() -> None:
    measured = baselines.run_baselines()
    assert [one.name for one in measured] == ["aiohttp echo", "grpc.aio one by one", "grpc.aio by 100"]
    assert all(one.rate > 100 for one in measured)


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def test_bare_inserts(engine: str) -> None:
    assert inserts.run_insert_baseline(engine).rate > 100
    waits = inserts.lone_inserts(engine, 50, 0.2)
    assert len(waits) == 10
    assert all(0 < wait < 10 for wait in waits)


@pytest.mark.postgresql
def test_postgres_starts_flushing_and_is_gone_afterwards() -> None:
    with run_postgres(durable=True) as server, psycopg.connect(server.new_database()) as session:
        row = session.execute("SHOW fsync").fetchone()
        assert row == ("on",)
    assert not server.folder.exists()


@pytest.mark.etcd
def test_etcd_starts_and_is_gone_afterwards() -> None:
    with run_etcd() as server:
        parts = urlsplit(f"//{server.endpoint}")
        socket.create_connection((parts.hostname or "", parts.port or 0), 1).close()
    with pytest.raises(OSError):
        socket.create_connection((parts.hostname or "", parts.port or 0), 1)
