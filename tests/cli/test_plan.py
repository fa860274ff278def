"""What `tidings up` starts."""

import socket
from pathlib import Path

import pytest

from cli.failure import CommandError
from cli.fleet import environment, orders
from cli.place import Secrets
from cli.plan import SERVICES, Plan, http_url, ports, sqlite_url


def plan(**changes: object) -> Plan:
    given: dict[str, object] = {
        "data": Path("data"),
        "secrets": Secrets("t" * 32, "k" * 32),
        "host": "127.0.0.1",
        "port": 8080,
        "edge_ports": [8081, 8082],
        "tagsvc_ports": [9091],
        "scheduler_ports": [9092],
        "store": "postgresql://me:word@db/tidings",
        "registry": "etcd://127.0.0.1:2379",
        "routers": 2,
    }
    return Plan(**(given | changes))  # type: ignore[arg-type]


def test_orders_of_a_fleet() -> None:
    made = orders(plan())
    assert [order.name for order in made] == [
        "store",
        "tagsvc",
        "router-1",
        "router-2",
        "scheduler",
        "balancer",
        "edge-1",
        "edge-2",
    ]
    flags = {order.name: " ".join(order.flags) for order in made}
    assert "--port 8080 " in flags["balancer"]
    assert "--port 8081 " in flags["edge-1"]
    assert "--port 8082 " in flags["edge-2"]
    assert "--port 9091 " in flags["tagsvc"]
    assert "--mesh-port " in flags["tagsvc"]
    assert "--port 9092 " in flags["scheduler"]
    assert all("--registry etcd://127.0.0.1:2379" in words for words in flags.values())
    assert len({order.admin_port for order in made}) == len(made)


def test_secrets_go_by_the_environment_to_those_who_need_them() -> None:
    for service in SERVICES:
        mine = environment(plan(), service)
        assert ("t" * 32 in mine.values()) == (service in ("balancer", "edge"))
        assert ("postgresql://me:word@db/tidings" in mine.values()) == (service == "store")
    assert not any("word" in flag or "t" * 32 in flag for order in orders(plan()) for flag in order.flags)


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"port {number} is taken: .*--edge-port"):
            ports("127.0.0.1", number, 1, "--edge-port")
    assert ports("127.0.0.1", number, 1, "--port") == [number]
    assert len(set(ports("127.0.0.1", 0, 3, "--port"))) == 3
    with pytest.raises(CommandError, match="lower one"):
        ports("127.0.0.1", 65535, 2, "--edge-port")
    with pytest.raises(CommandError, match="--host"):
        ports("192.0.2.1", 65000, 1, "--port")


def test_urls() -> None:
    assert http_url("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert http_url("::1", 1) == "http://[::1]:1"
    assert sqlite_url(Path("/tmp/x")) == "sqlite:////tmp/x/tidings.sqlite"
    assert plan().as_processes
    assert not plan(registry="memory://").as_processes
