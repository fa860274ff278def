"""`tidings up` as processes, on PostgreSQL, etcd and Redis. Starting them takes most of the time, so what is tried is tried on one
fleet."""

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.orders import ROUTER_WITH_STORE
from tests.cli.mesh_under_test import MeshUnderTest, run_here
from tests.servers import EtcdServer, PostgresServer, RedisServer, etcd_server, postgres_server, redis_server

__all__ = ["etcd_server", "postgres_server", "redis_server"]

END_SECONDS = 30.0

pytestmark = [pytest.mark.postgresql, pytest.mark.etcd, pytest.mark.redis]


@pytest.fixture
def fleet(
    tmp_path: Path, postgres_server: PostgresServer, etcd_server: EtcdServer, redis_server: RedisServer
) -> Iterator[MeshUnderTest]:
    """Eight processes, with certificates; the stores are the routers'."""
    under_test = MeshUnderTest(tmp_path)
    under_test.edge_port = 0
    run_here("certs", "init", str(tmp_path / "certs"))
    servers = (
        "--store",
        postgres_server.new_database(),
        "--registry",
        f"etcd://{etcd_server.endpoint}",
        "--cache",
        redis_server.url,
    )
    under_test.start(*servers, "--certs", str(tmp_path / "certs"), "--edges", "2", "--routers", "2", "--balancers", "2")
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


def await_nodes(fleet: MeshUnderTest, count: int, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Watch until there are so many nodes, all of which answer, and none of those `without`; gives them."""
    until = time.monotonic() + END_SECONDS
    while True:
        nodes: list[dict[str, Any]] = fleet.json("top", "--every", "0.2")["nodes"]
        answering = [node for node in nodes if node["state"] != "away" and node["instance_id"] not in without]
        if len(nodes) == len(answering) == count:
            return nodes
        assert time.monotonic() < until, nodes


def test_a_fleet_serves_and_what_dies_is_started_again(fleet: MeshUnderTest) -> None:
    running = children(fleet)
    assert {service: len(those) for service, those in running.items()} == {
        ROUTER_WITH_STORE: 2,
        "tagsvc": 1,
        "scheduler": 1,
        "balancer": 2,
        "edge": 2,
    }
    assert "8 processes" in "".join(fleet.said)
    stored = fleet.json("send", "--as", "alice", "bob", "across the fleet")
    assert fleet.json("tail", "--as", "bob", "--count", "1", "--timeout", "20")["message_id"] == stored["message_id"]
    doctor = fleet.json("doctor")
    assert doctor["exit_status"] == 0, doctor
    pieces = {piece["piece"]: piece for piece in doctor["pieces"]}
    assert pieces["registry"]["detail"] == "etcd has 2 store, 1 tagsvc, 2 router, 1 scheduler, 2 balancer, 2 edge"
    assert {pieces[name]["state"] for name in ("etcd members", "cache", "certificates")} == {"healthy"}

    nodes = await_nodes(fleet, 10)
    assert [node["name"] for node in nodes][:2] == ["store in router-1", "store in router-2"]
    assert [node["name"] for node in nodes][-4:] == ["balancer-1", "balancer-2", "edge-1", "edge-2"]
    drained = [json.loads(line) for line in fleet.run("drain", "edge-1", "--over", "0", "--watch", "--json").stdout.splitlines()]
    assert drained[0]["instance_id"] == nodes[-2]["instance_id"]
    assert drained[-1]["connections"] == 0

    victim = running[ROUTER_WITH_STORE][0]  # the one that was started first
    os.kill(victim, signal.SIGKILL)
    await_end([victim])
    again = fleet.json("send", "--as", "alice", "bob", "once more")
    assert again["seq"] == stored["seq"] + 1
    dead = [node["instance_id"] for node in nodes if node["name"].endswith("router-1")]
    assert len(dead) == 2, "a router and a store"
    assert [node["name"] for node in await_nodes(fleet, 10, without=dead)] == [node["name"] for node in nodes], "on their old ports"

    everybody = [pid for those in children(fleet).values() for pid in those]
    assert len(everybody) == 8
    fleet.end(signal.SIGKILL)
    await_end(everybody)  # none outlives its parent
