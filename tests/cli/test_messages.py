"""Messages and groups, by the real command against a real mesh."""

import signal
from datetime import datetime

import pytest

from mesh import naming
from tests.cli.mesh_under_test import MeshUnderTest


def test_the_commands_as_processes(mesh: MeshUnderTest) -> None:
    said = mesh.run_process("send", "--as", "zoe", "yan", "hello").stdout
    assert said == f"stored {naming.direct_conversation_id('yan', 'zoe')}:1 (seq 1)\n"
    assert mesh.run_process("tail", "--as", "yan", "--count", "1").stdout.endswith(" zoe: hello\n")
    assert mesh.run_process("history", "--as", "yan", "zoe").stdout.endswith(" zoe: hello\n")


def test_a_message_is_stored_printed_and_kept(mesh: MeshUnderTest) -> None:
    stored = mesh.json("send", "--as", "alice", "bob", "hello bob")
    chat = naming.direct_conversation_id("alice", "bob")
    assert stored["conversation_id"] == chat
    assert stored["message_id"] == f"{chat}:{stored['seq']}"
    [told] = mesh.json_lines("tail", "--as", "bob", "--count", "1", "--timeout", "20")
    [kept] = mesh.json_lines("history", "--as", "bob", "alice", "--limit", "1")
    assert told == kept
    assert told["text"] == "hello bob"
    assert told["sender_id"] == "alice"
    assert told["message_id"] == stored["message_id"]
    assert datetime.fromisoformat(told["time"]).tzinfo is not None


def test_of_two_balancers_one_may_be_away(mesh: MeshUnderTest) -> None:
    urls = ("--url", f"http://127.0.0.1:1,{mesh.url}")
    stored = mesh.json("send", "--as", "otto", "olga", "either will do", *urls)
    told = mesh.json("tail", "--as", "olga", "--count", "1", "--timeout", "20", *urls)
    assert told["message_id"] == stored["message_id"]


def test_words_for_people(mesh: MeshUnderTest) -> None:
    assert mesh.run("send", "--as", "ann", "ben", "-", stdin="good\nmorning\n").stdout.endswith(":1 (seq 1)\n")
    assert mesh.run("history", "--as", "ben", "ann").stdout.endswith(" ann: good morning\n")


def test_the_same_client_msg_id_is_stored_once(mesh: MeshUnderTest) -> None:
    words = ("send", "--as", "cleo", "dan", "once", "--client-msg-id", "m-1")
    assert mesh.json(*words) == mesh.json(*words)
    assert len(mesh.json_lines("history", "--as", "dan", "cleo")) == 1


def test_history_pages_backwards(mesh: MeshUnderTest) -> None:
    for number in range(1, 6):
        mesh.run("send", "--as", "eve", "fay", f"n{number}")
    newest = mesh.json_lines("history", "--as", "fay", "eve", "--limit", "2")
    before = mesh.json_lines("history", "--as", "fay", "eve", "--limit", "2", "--before", str(newest[0]["seq"]))
    assert [one["text"] for one in (*before, *newest)] == ["n2", "n3", "n4", "n5"]
    assert mesh.run("history", "--as", "fay", "nobody-yet").stdout == ""


def test_tail_goes_on_where_it_ended(mesh: MeshUnderTest) -> None:
    for text in ("a", "b", "c"):
        mesh.run("send", "--as", "gus", "hal", text)
    tail = ("tail", "--as", "hal", "--count", "1", "--timeout", "20")
    assert [mesh.json(*tail)["text"] for _ in range(3)] == ["a", "b", "c"]
    assert mesh.json(*tail, "--device", "other")["text"] == "a"
    with_nothing_left = mesh.run("tail", "--as", "hal", "--count", "1", "--timeout", "1", ok=False)
    assert with_nothing_left.returncode == 1
    assert "0 of 1" in with_nothing_left.stderr


def test_tail_prints_what_comes_while_it_waits(mesh: MeshUnderTest) -> None:
    tail = mesh.open("tail", "--as", "ivy")
    try:
        mesh.run("send", "--as", "jon", "ivy", "live")
        assert tail.stdout is not None
        assert tail.stdout.readline().endswith("jon: live\n")
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130
    finally:
        tail.kill()
        tail.communicate()


def test_a_group_from_its_making_to_its_end(mesh: MeshUnderTest) -> None:
    made = mesh.json("group", "create", "--as", "kim", "team", "lee")
    roles = {member["user_id"]: member["role"] for member in made["members"]}
    assert roles == {"kim": "owner", "lee": "member"}
    assert made["conversation_id"].startswith("g")
    mesh.run("send", "--as", "kim", "team", "welcome")
    mesh.run("send", "--as", "lee", made["conversation_id"], "thanks")
    added = mesh.json("group", "add", "--as", "kim", "team", "max", "--role", "admin")
    assert {"user_id": "max", "role": "admin"} in added["members"]
    assert [group["name"] for group in mesh.json_lines("group", "list", "--as", "max")] == ["team"]
    assert "team" in mesh.run("group", "list", "--as", "lee").stdout
    mesh.run("group", "rename", "--as", "kim", "team", "The team")
    mesh.run("group", "remove", "--as", "kim", "The team", "lee")
    mesh.run("group", "leave", "--as", "max", "group:The team")
    assert mesh.json_lines("group", "list", "--as", "max") == []
    said = mesh.json_lines("history", "--as", "kim", "The team")
    assert [one["seq"] for one in said] == list(range(1, len(said) + 1))
    assert [one["text"] for one in said if one["kind"] == "message"] == ["welcome", "thanks"]
    assert [one["membership"]["change"] for one in said if one["kind"] == "membership"] == [
        "created", "added", "renamed", "removed", "left",
    ]  # fmt: skip


def test_tail_of_a_group_shows_messages_first_of_all(mesh: MeshUnderTest) -> None:
    mesh.run("group", "create", "--as", "ned", "crew", "oda")
    mesh.run("send", "--as", "ned", "crew", "all hands")
    assert mesh.json("tail", "--as", "oda", "--count", "1", "--timeout", "20")["text"] == "all hands"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("send", "--as", "pam", "pam", "hi"), "themselves"),
        (("send", "--as", "pam", "g" + "a" * 26, "hi"), "g" + "a" * 26),
        (("history", "--as", "pam", "g" + "a" * 26), "g" + "a" * 26),
        (("send", "--as", "pam", "group:none", "hi"), "group list"),
        (("send", "--as", "pam", "quin", "x" * 100_000), "bytes"),
        (("group", "leave", "--as", "pam", "d" + "a" * 26), "d" + "a" * 26),
        (("tail", "--as", "pam", "--device", "a/b"), "device id"),
    ],
    ids=lambda value: "",
)
def test_refusals_say_why(mesh: MeshUnderTest, words: tuple[str, ...], said: str) -> None:
    done = mesh.run(*words, ok=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_stranger_reads_nothing(mesh: MeshUnderTest) -> None:
    group = mesh.json("group", "create", "--as", "rob", "secret")["conversation_id"]
    done = mesh.run("history", "--as", "sly", group, ok=False)
    assert done.returncode == 1
    assert "member" in done.stderr


def test_a_wrong_secret_is_refused_with_a_hint(mesh: MeshUnderTest) -> None:
    done = mesh.run("send", "--as", "tom", "uma", "hi", "--secret", "w" * 32, ok=False)
    assert done.returncode == 1
    assert "--secret" in done.stderr
