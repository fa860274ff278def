"""`tidings up`: what it says, what it leaves, and what survives it."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.mesh_under_test import FREE, MeshUnderTest, run_here


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[MeshUnderTest]:
    """A mesh not started yet."""
    under_test = MeshUnderTest(tmp_path / "data")
    yield under_test
    if under_test.process is not None:
        under_test.end(signal.SIGKILL)


def test_it_says_what_it_is_not_and_what_to_type(mesh: MeshUnderTest) -> None:
    said = "".join(mesh.said)
    assert mesh.url in said
    assert all(words in said for words in ("one process", "one disk", "development secret", "plain ws"))
    assert f"tidings chat --data {mesh.data} --as alice bob" in said
    running = json.loads((mesh.data / "run.json").read_text())
    assert mesh.process is not None
    assert (running["url"], running["pid"]) == (mesh.url, mesh.process.pid)


def test_the_services_of_one_process_call_each_other_without_sockets(mesh: MeshUnderTest) -> None:
    instances = json.loads((mesh.data / "run.json").read_text())["instances"]
    ports = {int(one["grpcAddress"].rpartition(":")[2]) for one in instances if "grpcAddress" in one}
    assert len(ports) >= 4  # they have them all the same: for operators, and for businesses
    assert not ports & _connected_ports()


def _connected_ports() -> set[int]:
    """Ports of this machine at which somebody is connected."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "01"}


def test_several_edges_and_routers_and_ctrl_c(fresh: MeshUnderTest) -> None:
    fresh.edge_port = 0
    fresh.start("--edges", "2", "--routers", "2")
    assert len(json.loads((fresh.data / "run.json").read_text())["edges"]) == 2
    assert fresh.end(signal.SIGINT) == 0
    assert fresh.said[-1] == "stopping\n"


def test_a_kill_between_two_messages_loses_nothing(fresh: MeshUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.api.REFUSED_SECONDS", 0.5)
    fresh.start()
    tail = fresh.open("tail", "--as", "bob", "--count", "3", "--json")
    first = fresh.json("send", "--as", "alice", "bob", "before")
    assert fresh.end(signal.SIGKILL) == -signal.SIGKILL
    assert (fresh.data / "run.json").exists()
    refused = fresh.run("send", "--as", "alice", "bob", "while it is away", ok=False)
    assert refused.returncode == 1
    assert "tidings up" in refused.stderr
    fresh.start()
    second = fresh.json("send", "--as", "alice", "bob", "after")
    third = fresh.json("send", "--as", "bob", "alice", "and back")
    assert [first["seq"], second["seq"], third["seq"]] == [1, 2, 3]
    out, _ = tail.communicate(timeout=30)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["before", "after", "and back"]
    kept = fresh.json_lines("history", "--as", "bob", "alice")
    assert [(one["seq"], one["text"]) for one in kept] == [(1, "before"), (2, "after"), (3, "and back")]
    assert fresh.end(signal.SIGTERM) == 0
    assert not (fresh.data / "run.json").exists()


def test_a_folder_in_use(mesh: MeshUnderTest) -> None:
    assert mesh.process is not None
    done = mesh.run("up", "--port", "0", "--edge-port", "0", *FREE, ok=False)
    assert done.returncode == 1
    assert f"pid {mesh.process.pid}" in done.stderr


@pytest.mark.parametrize("option", ["--port", "--edge-port", "--tagsvc-port", "--scheduler-port"])
def test_a_port_taken_is_named(tmp_path: Path, option: str) -> None:
    free = [word for name in ("--port", "--edge-port", "--tagsvc-port", "--scheduler-port") for word in (name, "0")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here("up", "--data", str(tmp_path), *free, option, str(port), ok=False)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert option in done.stderr


@pytest.mark.parametrize(
    ("option", "url", "said"),
    [
        ("--store", "postgresql://nobody@127.0.0.1:1/none", "PostgreSQL"),
        ("--registry", "etcd://127.0.0.1:1", "etcd at 127.0.0.1:1"),
    ],
)
def test_an_unreachable_server_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, url: str, said: str
) -> None:
    monkeypatch.setattr("cli.checkup.ANSWER_SECONDS", 1.0)
    done = run_here("up", "--data", str(tmp_path), "--port", "0", "--edge-port", "0", *FREE, option, url, ok=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert option in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stores", "2"), "--store postgresql://"),
        (("--balancers", "2"), "--registry etcd://"),
        (("--certs", "somewhere"), "--certs"),
        (("--cache", "memcached://x"), "--cache"),
        (("--cache", "redis://"), "--cache"),
    ],
)
def test_options_that_make_no_sense_are_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = run_here("up", "--data", str(tmp_path), "--port", "0", "--edge-port", "0", *FREE, *words, ok=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_certificates_that_are_not_there_are_missed_before_anything_starts(tmp_path: Path) -> None:
    words = ("--registry", "etcd://127.0.0.1:1", "--certs", str(tmp_path / "none"))
    done = run_here("up", "--data", str(tmp_path), "--port", "0", "--edge-port", "0", *FREE, *words, ok=False)
    assert done.returncode == 1
    assert "tidings certs" in done.stderr


def test_a_mesh_goes_on_without_its_cache(fresh: MeshUnderTest) -> None:
    fresh.start("--cache", "redis://127.0.0.1:1")
    assert fresh.json("send", "--as", "alice", "bob", "without")["seq"] == 1
