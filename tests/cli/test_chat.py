"""`tidings chat` with pipes: lines in, lines out, ticks, typing, presence, no escape codes."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from tests.cli.mesh_under_test import MeshUnderTest, environment

LINE_SECONDS = 15.0


class Talker:
    """One end of a conversation, driven by lines."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: Queue[str] = Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def expect(self, *wanted: str) -> None:
        """Wait for each of these lines, whatever comes between or before."""
        for line in wanted:
            while line not in self.seen:
                try:
                    self.seen.append(self.lines.get(timeout=LINE_SECONDS))
                except Empty:
                    raise AssertionError(f"{line!r} did not come; there came {self.seen}") from None

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(LINE_SECONDS)


@pytest.fixture
def talkers() -> Iterator[list[Talker]]:
    """Those made, ended after the test."""
    made: list[Talker] = []
    yield made
    for talker in made:
        talker.process.kill()
        talker.process.wait()


def open_chat(mesh: MeshUnderTest, talkers: list[Talker], user: str, where: str) -> Talker:
    talker = Talker(mesh.open("chat", "--as", user, where))
    talkers.append(talker)
    return talker


def test_two_talk_and_see_how_far_their_words_have_come(mesh: MeshUnderTest, talkers: list[Talker]) -> None:
    alice = open_chat(mesh, talkers, "alice", "bob")
    alice.expect("* connected")
    alice.say("hello")
    alice.expect("✓ hello")
    bob = open_chat(mesh, talkers, "bob", "alice")
    bob.expect("alice: hello")
    alice.expect("✓✓ hello (read)", "* bob is online")
    bob.say("hi yourself")
    bob.expect("✓ hi yourself", "✓✓ hi yourself (read)")
    alice.expect("bob: hi yourself")
    assert bob.end() == 0
    alice.expect("* bob is offline")
    assert alice.end() == 0
    assert alice.seen.index("✓ hello") < alice.seen.index("✓✓ hello (read)")
    assert not any("\x1b" in line for line in alice.seen + bob.seen)


def test_a_delivered_message_is_not_yet_read(mesh: MeshUnderTest, talkers: list[Talker]) -> None:
    alice = open_chat(mesh, talkers, "alba", "bert")
    alice.say("are you there?")
    alice.expect("✓ are you there?")
    mesh.run("tail", "--as", "bert", "--count", "1", "--timeout", "20")
    alice.expect("✓✓ are you there?")
    assert "✓✓ are you there? (read)" not in alice.seen


def test_a_chat_opens_with_what_was_said(mesh: MeshUnderTest, talkers: list[Talker]) -> None:
    for text in ("one", "two"):
        mesh.run("send", "--as", "carol", "dave", text)
    for _ in range(2):
        dave = open_chat(mesh, talkers, "dave", "carol")
        dave.expect("carol: one", "carol: two")
        assert dave.end() == 0
        assert dave.seen.index("carol: one") < dave.seen.index("carol: two")


def test_what_is_piped_in_is_stored_before_the_end(mesh: MeshUnderTest) -> None:
    done = mesh.run_process("chat", "--as", "erin", "frank", stdin="first\n\nsecond\n")
    assert "✓ first\n" in done.stdout
    kept = mesh.json_lines("history", "--as", "frank", "erin")
    assert [one["text"] for one in kept] == ["first", "second"]


def test_a_file_can_be_piped_in(mesh: MeshUnderTest, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("one\ntwo without an end")
    shell(f"chat --as lena mike --data {mesh.data} < {said}")
    assert [one["text"] for one in mesh.json_lines("history", "--as", "mike", "lena")] == ["one", "two without an end"]


def test_a_reader_that_leaves_is_no_error(mesh: MeshUnderTest) -> None:
    assert shell(f"chat --as nora otto --data {mesh.data} < <(yes x | head -50) | head -1").stderr == ""


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    """Run `tidings …` as bash would."""
    command = ["bash", "-c", f"{sys.executable} -m cli {line}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment(), timeout=30)


def test_a_group_by_name(mesh: MeshUnderTest, talkers: list[Talker]) -> None:
    mesh.run("group", "create", "--as", "gina", "hikers", "hugo", "ines")
    hugo, ines = (open_chat(mesh, talkers, user, "hikers") for user in ("hugo", "ines"))
    for one in (hugo, ines):
        one.expect("gina: (created the group hikers with hugo, ines)", "* connected")
    hugo.say("tomorrow?")
    ines.expect("hugo: tomorrow?")
    hugo.expect("✓ tomorrow?")


def test_a_group_is_still_known_by_its_name_when_the_mesh_is_away(mesh: MeshUnderTest, talkers: list[Talker]) -> None:
    group = mesh.json("group", "create", "--as", "pia", "sailors", "quentin")["conversation_id"]
    mesh.run_process("chat", "--as", "pia", "sailors", stdin="first\n")
    mesh.end(signal.SIGTERM)
    pia = open_chat(mesh, talkers, "pia", "sailors")
    pia.say("second")
    mesh.start()
    pia.expect("✓ second")
    assert pia.end() == 0
    said = [one["text"] for one in mesh.json_lines("history", "--as", "quentin", group) if one["kind"] == "message"]
    assert said == ["first", "second"]


def test_what_is_said_while_the_mesh_is_away_goes_out_later(mesh: MeshUnderTest, talkers: list[Talker]) -> None:
    jack = open_chat(mesh, talkers, "jack", "kate")
    jack.expect("* connected")
    mesh.end(signal.SIGKILL)
    jack.expect("* not connected; what you type goes out later")
    jack.say("are you there?")
    mesh.start()
    jack.expect("✓ are you there?")
    assert jack.end() == 0
    assert [one["text"] for one in mesh.json_lines("history", "--as", "kate", "jack")] == ["are you there?"]
