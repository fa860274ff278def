"""The state file: what it keeps over a restart, and which files it won't touch."""

import sqlite3
from pathlib import Path

import pytest

from tidings.client.v1.frames_pb2 import ClientFrame, SendMessage
from tidings.common.v1.content_pb2 import Content, Text
from tidings.common.v1.conversation_pb2 import Conversation, Deletion, Edit, LogEntry
from tidings.common.v1.error_pb2 import ERROR_CODE_CONTENT_TOO_LARGE, Error
from tidings_client import StateFileError, state_schema
from tidings_client.state import KEPT_IN_MEMORY, Changes, State


def entry(seq: int, text: str = "", sender: str = "alice") -> LogEntry:
    made = LogEntry(conversation_id="c", seq=seq, sender_id=sender, client_msg_id=f"m{seq}")
    made.content.text.text = text or str(seq)
    return made


def keep(state: State, *entries: LogEntry) -> None:
    state.apply(Changes(entries=list(entries), positions={"c": entries[-1].seq}))


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State(path)
    state.set_identity("user_id", "alice")
    frame = ClientFrame(send_message=SendMessage(client_msg_id="out", recipient_id="bob"))
    number = state.insert_outgoing("out", "bob", frame)
    changes = Changes(entries=[entry(1), entry(2)], positions={"c": 2}, own={"c": 2}, progress={"c": (1, 0)})
    changes.descriptions = [Conversation(conversation_id="c", name="friends")]
    state.apply(changes)
    state.mark_read("c", 2)
    state.close()

    state = State(path)
    assert state.identity("user_id") == "alice"
    [record] = state.outgoing()
    assert (record.number, record.client_msg_id, record.target, record.frame) == (number, "out", "bob", frame)
    assert state.position("c") == 2
    assert state.newest_positions(10) == [("c", 2)]
    assert [kept.seq for _, kept in state.arrived_after(0, 10)] == [1, 2]
    delivered, read, description = state.progress("c")
    assert (delivered, read) == (1, 0)
    assert description is not None
    assert description.name == "friends"
    assert state.unconfirmed_reads() == [("c", 2)]
    assert state.unread_by_others(10) == ["c"]
    state.apply(Changes(stored=["out"], confirmed_reads=[("c", 2)]))
    assert state.outgoing() == []
    assert state.unconfirmed_reads() == []
    state.close()


def test_numbers_of_outgoing_messages_are_never_used_again(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State(path)
    first = state.insert_outgoing("one", "bob", ClientFrame())
    state.apply(Changes(stored=["one"]))
    state.close()
    state = State(path)
    assert state.insert_outgoing("two", "bob", ClientFrame()) > first
    state.close()


def test_failed_messages_are_kept_apart_until_tried_again() -> None:
    state = State(None)
    state.insert_outgoing("one", "bob", ClientFrame())
    state.apply(Changes(failed=[("one", Error(code=ERROR_CODE_CONTENT_TOO_LARGE, message="too large"))]))
    assert state.outgoing() == []
    assert [(failed.client_msg_id, failed.error.message) for failed in state.failed()] == [("one", "too large")]
    state.insert_outgoing("one", "bob", ClientFrame())
    assert state.failed() == []
    assert len(state.outgoing()) == 1
    state.close()


def test_a_batch_is_kept_whole_or_not_at_all() -> None:
    state = State(None)
    keep(state, entry(1))
    with pytest.raises(OverflowError):  # whatever goes wrong, and wherever
        state.apply(Changes(entries=[entry(2)], positions={"c": 2}, confirmed_reads=[("c", 2**70)]))
    assert state.position("c") == 1
    keep(state, entry(2))
    assert [(number, kept.seq) for number, kept in state.arrived_after(0, 10)] == [(1, 1), (2, 2)]
    state.close()


def test_edits_and_deletions_are_applied_whichever_comes_first() -> None:
    state = State(None)
    edit = LogEntry(conversation_id="c", seq=4, edit=Edit(target_seq=1, content=Content(text=Text(text="new"))))
    older = LogEntry(conversation_id="c", seq=3, edit=Edit(target_seq=1, content=Content(text=Text(text="old"))))
    deletion = LogEntry(conversation_id="c", seq=5, deletion=Deletion(target_seq=2))
    keep(state, entry(2, "secret"), edit, deletion)
    state.keep_history([older, entry(1)])
    first, second = state.after("c", 0, 2)
    assert (first.amended_by, first.content and first.content.text.text) == (4, "new")
    assert (second.amended_by, second.content) == (5, None)
    assert b"secret" not in second.entry.SerializeToString(), "what was deleted is gone from this device too"
    state.close()


def test_history_does_not_go_through_the_feed_but_an_arrival_later_does() -> None:
    state = State(None)
    state.keep_history([entry(1), entry(2)])
    assert state.arrived_after(0, 10) == []
    keep(state, entry(1), entry(2))
    assert [kept.seq for _, kept in state.arrived_after(0, 10)] == [1, 2]
    state.close()


def test_in_memory_only_the_newest_are_kept() -> None:
    state = State(None)
    keep(state, *(entry(seq) for seq in range(1, KEPT_IN_MEMORY + 101)))
    state.forget_taken(50)
    assert state.arrived_after(0, 1)[0][0] == 51
    state.forget_taken(KEPT_IN_MEMORY)
    assert state.arrived_after(0, 1)[0][0] == 101
    state.close()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Bob, " * 1000)
    with pytest.raises(StateFileError, match="not a state file"):
        State(path)
    assert path.read_text().startswith("Dear Bob")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (id INTEGER)")
    database.close()
    with pytest.raises(StateFileError, match="another program"):
        State(path)


def test_a_file_from_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    State(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(state_schema.MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(StateFileError, match="newer version"):
        State(path)


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State(path)
    keep(state, *(entry(seq, "x" * 2000) for seq in range(1, 200)))
    state.close()
    data = bytearray(path.read_bytes())
    data[8192:] = bytes(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StateFileError, match="damaged"):
        state = State(path)
        for seq in range(1, 200):
            state.before("c", seq + 1, 1)


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="can't be opened"):
        State(tmp_path / "nowhere" / "state.sqlite")
