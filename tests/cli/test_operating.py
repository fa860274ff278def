"""The operators' commands against a mesh of one process, which no registry tells them of."""

import json
from pathlib import Path

import pytest

from cli.dead_letters import to_json
from cli.inside import Gate, Inside
from mesh import naming
from tests.cli.mesh_under_test import MeshUnderTest, run_here
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub
from tidings.store.v1.message_log_pb2 import MarkAdvance


def put(mesh: MeshUnderTest, *letters: pb.DeadLetter) -> list[str]:
    """Put letters aside as a router would; gives their ids."""

    request = pb.PutDeadLettersRequest(dead_letters=letters)

    async def work(inside: Inside) -> list[str]:
        answer: pb.PutDeadLettersResponse = await inside.call(
            "store", DeadLetterServiceStub, lambda stub: stub.PutDeadLetters(request)
        )
        return list(answer.dead_letter_ids)

    return Gate(mesh.data).run(work)


def letter(conversation: str, **fields: object) -> pb.DeadLetter:
    given = {"kind": pb.DEAD_LETTER_KIND_DISPATCH, "reason": "INTERNAL", "detail": "torn\nline", "attempts": 3}
    return pb.DeadLetter(subject=conversation, **(given | {"from_seq": 4, "to_seq": 9} | fields))  # type: ignore[arg-type]


def test_dead_letters(mesh: MeshUnderTest) -> None:
    assert mesh.run("deadletter", "list").stdout == "nothing was put aside\n"
    first, second = naming.direct_conversation_id("a", "b"), naming.direct_conversation_id("a", "c")
    ids = put(mesh, letter(first), letter(second))
    listed = mesh.json_lines("deadletter", "list", "--kind", "dispatch")
    assert {one["dead_letter_id"]: (one["subject"], one["from_seq"], one["to_seq"]) for one in listed} == {
        ids[0]: (first, 4, 9),
        ids[1]: (second, 4, 9),
    }
    assert mesh.json_lines("deadletter", "list", "--kind", "marks") == []
    assert len(mesh.json_lines("deadletter", "list", "--limit", "1")) == 1
    said = mesh.run("deadletter", "list").stdout.splitlines()
    assert len(said) == 2, "what a letter quotes does not break lines"
    shown = mesh.json("deadletter", "show", ids[0])
    assert (shown["reason"], shown["detail"], shown["attempts"]) == ("INTERNAL", "torn\nline", 3)
    assert f"{'subject':<15} {first}" in mesh.run("deadletter", "show", ids[0]).stdout
    assert mesh.json("deadletter", "discard", ids[0]) == {"dead_letter_id": ids[0]}
    assert "is being done again" in mesh.run("deadletter", "replay", "--all", "--kind", "dispatch").stdout
    hostile = "x\x1b]0;title\x07\x9b31m"
    [third] = put(mesh, letter(naming.direct_conversation_id("a", "d"), reason=hostile, detail=hostile))
    assert not {"\x1b", "\x07", "\x9b"} & set(mesh.run("deadletter", "list").stdout + mesh.run("deadletter", "show", third).stdout)
    some = mesh.run("deadletter", "replay", ids[0], third, ok=False)
    assert (some.returncode, some.stdout) == (1, f"{third} is being done again\n"), "one that has gone holds up no other"
    assert ids[0] in some.stderr
    gone = mesh.run("deadletter", "show", ids[0], ok=False)
    assert gone.returncode == 1
    assert ids[0] in gone.stderr


@pytest.mark.parametrize("words", [("replay",), ("discard", "dl-x", "--all"), ("replay", "dl-x", "--kind", "marks")])
def test_which_letters_must_be_said(mesh: MeshUnderTest, words: tuple[str, ...]) -> None:
    assert mesh.run("deadletter", *words, ok=False).returncode == 2


def test_a_payload_is_shown_as_what_it_is_if_it_is_that() -> None:
    marks = pb.DeadLetter(kind=pb.DEAD_LETTER_KIND_MARKS, payload=MarkAdvance(device_id="phone").SerializeToString())
    assert to_json(marks)["payload"] == {"device_id": "phone"}
    assert to_json(pb.DeadLetter(kind=pb.DEAD_LETTER_KIND_MARKS, payload=b"\xff"))["payload"] == "ff"


def test_sessions(mesh: MeshUnderTest) -> None:
    assert mesh.run("sessions", "nobody").stdout == "nobody is not connected\n"
    tail = mesh.open("tail", "--as", "bob", "--count", "2", "--json")
    mesh.json("send", "--as", "alice", "bob", "one")
    assert tail.stdout is not None
    assert json.loads(tail.stdout.readline())["text"] == "one"
    found = mesh.json("sessions", "bob")
    assert found["edge_id"].startswith("edge-")
    assert found["edge_url"] == f"ws://127.0.0.1:{mesh.edge_port}"
    assert f"ws://127.0.0.1:{mesh.edge_port}" in mesh.run("sessions", "bob").stdout
    assert mesh.json("top", "--every", "0.2")["total"]["connections"] == 1
    mesh.json("send", "--as", "alice", "bob", "two")
    assert json.loads(tail.communicate(timeout=20)[0])["text"] == "two"


def test_top(mesh: MeshUnderTest) -> None:
    found = mesh.json("top", "--every", "0.2")
    assert [node["service"] for node in found["nodes"]] == ["store", "tagsvc", "router", "scheduler", "balancer", "edge"]
    assert {node["state"] for node in found["nodes"]} == {"up"}
    router = found["nodes"][2]
    assert (router["links"], router["queued"]) == (1, 0)
    assert router["rss_mb"] > 10
    said = mesh.run("top", "--once", "--every", "0.2").stdout
    assert "6 nodes" in said.splitlines()[0]


def test_edges_that_are_even_and_edges_that_are_not_there(mesh: MeshUnderTest) -> None:
    assert mesh.json("rebalance", "--per-second", "7") == {"connections": 0, "per_second": 7}
    assert mesh.run("rebalance").stdout == "no edge has more than its share\n"
    missing = mesh.run("drain", "edge-9", ok=False)
    assert missing.returncode == 1
    assert f"at ws://127.0.0.1:{mesh.edge_port}" in missing.stderr


@pytest.mark.parametrize("words", [("top",), ("drain", "edge"), ("rebalance",), ("sessions", "bob"), ("deadletter", "list")])
def test_where_no_mesh_runs(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_here(*words, "--data", str(tmp_path), ok=False)
    assert done.returncode == 1
    assert "tidings up" in done.stderr


def test_a_registry_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.inside.ANSWER_SECONDS", 0.3)
    done = run_here("sessions", "bob", "--data", str(tmp_path), "--registry", "etcd://127.0.0.1:1", ok=False)
    assert done.returncode == 1
    assert "the registry does not answer" in done.stderr
