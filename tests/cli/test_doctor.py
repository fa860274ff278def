"""`tidings doctor`: each exit status, and what it says."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli import checkup, checkup_mesh
from cli.doctor import PIECES
from tests.cli.mesh_under_test import MeshUnderTest, run_here


def look(*words: str) -> tuple[int, dict[str, Any]]:
    """Exit status and pieces by name."""
    done = run_here("doctor", "--json", *words, ok=False)
    found = json.loads(done.stdout)
    assert found["exit_status"] == done.returncode
    assert found["healthy"] == (done.returncode == 0)
    return done.returncode, {piece["piece"]: piece for piece in found["pieces"]}


def test_all_is_well(mesh: MeshUnderTest) -> None:
    status, pieces = look("--data", str(mesh.data))
    assert status == 0
    assert {name for name, piece in pieces.items() if piece["state"] == "healthy"} >= {
        "Python", "packages", "data folder", "secrets", "database", "balancer", "clock", "edge", "router", "store", "tags",
        "scheduler",
    }  # fmt: skip
    assert "arrived after" in pieces["store"]["detail"]
    said = mesh.run("doctor").stdout
    assert said.count("✓") == 12
    assert "next:" not in said


@pytest.mark.parametrize(
    ("words", "status", "piece", "said"),
    [
        (("--cache", "redis://:word@127.0.0.1:1"), 24, "cache", "Redis at 127.0.0.1:1 does not answer"),
        (("--certs", "/nowhere"), 25, "certificates", "missing"),
    ],
)
def test_what_a_fleet_stands_on(mesh: MeshUnderTest, words: tuple[str, ...], status: int, piece: str, said: str) -> None:
    found, pieces = look("--data", str(mesh.data), *words)
    assert found == status
    assert said in pieces[piece]["detail"]
    assert "word" not in json.dumps(pieces)


def test_members_of_etcd_that_are_away(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reached(_: object) -> str:
        return "reached"

    monkeypatch.setattr(checkup, "etcd", reached)
    _, pieces = look("--data", str(stopped), "--registry", "etcd://127.0.0.1:1,127.0.0.1:2")
    assert pieces["etcd members"]["detail"] == "2 of 2 etcd members are not healthy: 127.0.0.1:1, 127.0.0.1:2"


def test_no_folder(tmp_path: Path) -> None:
    status, pieces = look("--data", str(tmp_path / "none"))
    assert status == 12
    assert "tidings up" in pieces["data folder"]["next"]
    assert pieces["secrets"]["state"] == "not looked at"


def test_no_secrets_and_secrets_that_others_can_read(tmp_path: Path) -> None:
    assert look("--data", str(tmp_path))[0] == 13
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"token_secret": "t" * 32, "ticket_secret": "k" * 32}))
    secrets.chmod(0o644)
    status, pieces = look("--data", str(tmp_path))
    assert status == 13
    assert "chmod 600" in pieces["secrets"]["next"]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a mesh that isn't running."""
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"token_secret": "t" * 32, "ticket_secret": "k" * 32}))
    secrets.chmod(0o600)
    return tmp_path


def test_a_broken_database(stopped: Path) -> None:
    (stopped / "tidings.sqlite").write_bytes(b"this is not a database" * 100)
    assert look("--data", str(stopped))[0] == 14


def test_an_unreachable_postgresql(stopped: Path) -> None:
    status, pieces = look("--data", str(stopped), "--store", "postgresql://nobody@127.0.0.1:1/none")
    assert status == 14
    assert "--store" in pieces["database"]["next"]


def test_an_unreachable_etcd(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "ANSWER_SECONDS", 0.5)
    status, pieces = look("--data", str(stopped), "--registry", "etcd://127.0.0.1:1")
    assert status == 15
    assert "--registry" in pieces["registry"]["next"]


def test_not_running(stopped: Path) -> None:
    sqlite3.connect(stopped / "tidings.sqlite").close()
    status, pieces = look("--data", str(stopped), "--url", "http://127.0.0.1:1")
    assert status == 16
    assert "no mesh is running" in pieces["balancer"]["detail"]
    assert "tidings up" in pieces["balancer"]["next"]
    assert pieces["store"]["state"] == "not looked at"


def test_someone_elses_secret(mesh: MeshUnderTest, stopped: Path) -> None:
    status, pieces = look("--data", str(stopped), "--url", mesh.url)
    assert status == 18
    assert "refused our token" in pieces["edge"]["detail"]


def test_an_old_python_and_a_missing_package(mesh: MeshUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_installed", lambda name: name != "grpcio")
    status, pieces = look("--data", str(mesh.data))
    assert status == 11
    assert pieces["packages"]["detail"] == "missing: grpcio"
    monkeypatch.setattr(checkup, "PYTHON", (99, 0))
    status, pieces = look("--data", str(mesh.data))
    assert status == 10
    assert "99.0" in pieces["Python"]["next"]


def test_a_clock_that_differs(mesh: MeshUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    late = SimpleNamespace(time=lambda: time.time() - 90, perf_counter=time.perf_counter, time_ns=time.time_ns)
    monkeypatch.setattr(checkup_mesh, "time", late)
    status, pieces = look("--data", str(mesh.data))
    assert status == 17
    assert "behind" in pieces["clock"]["detail"]


def test_a_message_that_does_not_arrive(mesh: MeshUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(checkup_mesh, "_arrival", never)
    monkeypatch.setattr(checkup_mesh, "ROUND_TRIP_SECONDS", 2.0)
    status, pieces = look("--data", str(mesh.data))
    assert status == 20
    assert "did not arrive" in pieces["store"]["detail"]


@pytest.fixture
def facade() -> Iterator["Facade"]:
    """Something that looks like a balancer and an edge from outside."""
    with Facade() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Facade(ThreadingHTTPServer):
    """Answers /readyz and /v1/connect as told; has no WebSocket."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FacadeHandler)
        self.ready = self.connect = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is no error."""


class FacadeHandler(BaseHTTPRequestHandler):
    """See `Facade`."""

    server: Facade

    def do_GET(self) -> None:
        self._answer(self.server.ready, "no edge reports its load yet")

    def do_POST(self) -> None:
        answer = {"api_url": self.server.url, "url": "ws://127.0.0.1:1/v1/ws", "ticket": "t", "message": "no room"}
        self._answer(self.server.connect, json.dumps(answer))

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_balancer_without_an_edge(stopped: Path, facade: Facade) -> None:
    facade.ready = 503
    status, pieces = look("--data", str(stopped), "--url", facade.url)
    assert status == 16
    assert "no edge reports" in pieces["balancer"]["detail"]


def test_an_edge_without_room(stopped: Path, facade: Facade) -> None:
    facade.connect = 503
    status, pieces = look("--data", str(stopped), "--url", facade.url)
    assert status == 18
    assert "no room" in pieces["edge"]["detail"]


def test_sessions_that_do_not_open(stopped: Path, facade: Facade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup_mesh, "ROUND_TRIP_SECONDS", 1.0)
    status, pieces = look("--data", str(stopped), "--url", facade.url)
    assert status == 19
    assert "router" in pieces["router"]["next"]
    assert pieces["store"]["state"] == "not looked at"


def test_each_piece_has_a_status_of_its_own_and_needs_what_comes_before() -> None:
    statuses = [piece.status for piece in PIECES]
    assert len(set(statuses)) == len(statuses)
    names = [piece.name for piece in PIECES]
    assert all(names.index(need) < names.index(piece.name) for piece in PIECES for need in piece.needs)
