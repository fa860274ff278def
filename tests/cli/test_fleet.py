"""`tidings up` as processes, on PostgreSQL and etcd."""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.mesh_under_test import MeshUnderTest
from tests.servers import EtcdServer, PostgresServer, etcd_server, postgres_server

__all__ = ["etcd_server", "postgres_server"]

END_SECONDS = 30.0

pytestmark = [pytest.mark.postgresql, pytest.mark.etcd]


@pytest.fixture
def fleet(tmp_path: Path, postgres_server: PostgresServer, etcd_server: EtcdServer) -> Iterator[MeshUnderTest]:
    """Eight processes."""
    under_test = MeshUnderTest(tmp_path)
    under_test.edge_port = 0
    store, registry = postgres_server.new_database(), f"etcd://{etcd_server.endpoint}"
    under_test.start("--store", store, "--registry", registry, "--edges", "2", "--routers", "2")
    yield under_test
    if under_test.process is not None:
        under_test.end(signal.SIGTERM)


def children(fleet: MeshUnderTest) -> dict[str, list[int]]:
    """The service processes' ids, by service."""
    assert fleet.process is not None
    parent = fleet.process.pid
    found: dict[str, list[int]] = {}
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        found.setdefault(command[command.index("-m") + 1], []).append(int(child))
    return found


def await_end(pids: list[int]) -> None:
    """Wait until none of these processes runs."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], END_SECONDS)
        os.close(descriptor)
        assert ended, f"{pid} is still there"


def test_a_fleet_serves_and_ends_when_one_of_it_dies(fleet: MeshUnderTest) -> None:
    running = children(fleet)
    assert {service: len(those) for service, those in running.items()} == {
        "store": 1,
        "tagsvc": 1,
        "router": 2,
        "scheduler": 1,
        "balancer": 1,
        "edge": 2,
    }
    assert "8 processes" in "".join(fleet.said)
    stored = fleet.json("send", "--as", "alice", "bob", "across the fleet")
    assert fleet.json("tail", "--as", "bob", "--count", "1", "--timeout", "20")["message_id"] == stored["message_id"]
    pieces = {piece["piece"]: piece for piece in fleet.json("doctor")["pieces"]}
    assert pieces["registry"]["detail"] == "etcd has 1 store, 1 tagsvc, 2 router, 1 scheduler, 1 balancer, 2 edge"
    os.kill(running["router"][0], signal.SIGKILL)
    assert fleet.process is not None
    assert fleet.process.wait(END_SECONDS) == 1
    await_end([pid for those in running.values() for pid in those])
    assert not (fleet.data / "run.json").exists()


def test_a_fleet_does_not_outlive_its_parent(fleet: MeshUnderTest) -> None:
    running = [pid for those in children(fleet).values() for pid in those]
    assert len(running) == 8
    fleet.end(signal.SIGKILL)
    await_end(running)
