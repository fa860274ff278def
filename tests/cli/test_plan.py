"""What `tidings up` starts."""

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from cli.failure import CommandError
from cli.orders import ROUTER_WITH_STORE, environment, orders
from cli.place import Secrets
from cli.plan import SERVICES, Plan, assign, check, http_url, ports, sqlite_url
from mesh.settings import ServiceSettings


def plan(**changes: object) -> Plan:
    given: dict[str, object] = {
        "data": Path("data"),
        "secrets": Secrets("t" * 32, "k" * 32),
        "host": "127.0.0.1",
        "balancer_ports": [8080],
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
    assert len({order.admin for order in made}) == len(made)


def test_where_routers_have_stores_within_they_start_first_and_are_told_what_a_store_must_know() -> None:
    within = plan(stores=0, certificates=Path("/certs"))
    made = orders(within)
    assert [order.name for order in made] == ["router-1", "router-2", "tagsvc", "scheduler", "balancer", "edge-1", "edge-2"]
    assert [order.module for order in made][:3] == [ROUTER_WITH_STORE, ROUTER_WITH_STORE, "tagsvc"]
    given = environment(within, "router")
    assert given["TIDINGS_STORE_DATABASE"] == "postgresql://me:word@db/tidings"
    assert given["TIDINGS_STORE_PORT"] == "0"
    assert given["TIDINGS_STORE_MESH_CERTIFICATE"] == "/certs/store.pem"
    assert all("TIDINGS_STORE_DATABASE" not in environment(within, service) for service in ("tagsvc", "edge"))
    assert [order.module for order in orders(plan(stores=2))][:3] == ["store", "store", "tagsvc"]
    assert "TIDINGS_STORE_DATABASE" not in environment(plan(stores=2), "router")


def test_several_of_each_have_ports_of_their_own() -> None:
    made = orders(plan(stores=2, balancer_ports=[8080, 18080], tagsvc_ports=[9091, 9093]))
    assert len(made) == 11
    ports = [flag for order in made for name, flag in pairs(order.flags) if name.endswith("port")]
    assert len(set(ports)) == len(ports)
    assert len([name for order in made for name, _ in pairs(order.flags) if name == "--grpc-port"]) == 2


def pairs(flags: list[str]) -> list[tuple[str, str]]:
    return list(zip(flags[::2], flags[1::2], strict=True))


def test_a_cache_is_told_to_all_where_nobody_else_reads_it() -> None:
    for service in SERVICES:
        assert environment(plan(cache="redis://:word@r:1"), service)[f"TIDINGS_{service.upper()}_CACHE"] == "redis://:word@r:1"
        assert f"TIDINGS_{service.upper()}_CACHE" not in environment(plan(), service)
    assert "cache" in ServiceSettings.model_fields
    assert not any("word" in flag for order in orders(plan(cache="redis://:word@r:1")) for flag in order.flags)


def test_each_shows_a_certificate_of_its_own() -> None:
    for order in orders(plan(certificates=Path("/certs"))):
        flags = dict(pairs(order.flags))
        assert flags["--mesh-ca"] == "/certs/ca.pem"
        assert flags["--mesh-certificate"] == f"/certs/{order.service}.pem"
        assert flags["--mesh-key"] == f"/certs/{order.service}.key"


@pytest.mark.parametrize(
    ("store", "registry", "counts", "certificates", "said"),
    [
        ("sqlite:///x", "etcd://h", {"store": 2}, False, "2 stores can't share one SQLite file.*--store postgresql"),
        ("postgresql://h/x", "memory://", {"store": 2}, False, "one process has one store, not 2.*--registry etcd"),
        ("postgresql://h/x", "memory://", {"balancer": 3}, False, "one process has one balancer, not 3.*--balancers 1"),
        ("sqlite:///x", "memory://", {}, True, "nobody to show certificates.*--certs"),
    ],
)
def test_what_makes_no_sense_is_refused(store: str, registry: str, counts: dict[str, int], certificates: bool, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        check(store, registry, {"store": 1, "balancer": 1} | counts, certificates=certificates)


def test_what_makes_sense_is_not_refused() -> None:
    check("postgresql://h/x", "etcd://h", {"store": 2, "balancer": 2}, certificates=True)
    check("sqlite:///x", "etcd://h", {"store": 1, "balancer": 2}, certificates=False)
    check("sqlite:///x", "memory://", {"store": 1, "balancer": 1}, certificates=False)


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


def test_services_step_aside_for_each_other() -> None:
    first = free_run("127.0.0.1", 9)
    wanted = {
        "--edge-port": (first + 1, 3),
        "--tagsvc-port": (first + 5, 2),
        "--scheduler-port": (first + 6, 1),
        "--port": (first, 2),
    }
    assert assign("127.0.0.1", wanted) == {
        "--edge-port": [first + 1, first + 2, first + 3],
        "--tagsvc-port": [first + 5, first + 7],
        "--scheduler-port": [first + 6],
        "--port": [first, first + 4],
    }
    with pytest.raises(CommandError, match=rf"port {first} is given to two services: .*--edge-port"):
        assign("127.0.0.1", {"--edge-port": (first, 1), "--port": (first, 1)})


def free_run(host: str, count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = ports(host, 0, 1, "")[0]
        with suppress(CommandError):
            return ports(host, first, count, "")[0]


def test_urls() -> None:
    assert http_url("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert http_url("::1", 1) == "http://[::1]:1"
    assert sqlite_url(Path("/tmp/x")) == "sqlite:////tmp/x/tidings.sqlite"
    assert plan().as_processes
    assert not plan(registry="memory://").as_processes
