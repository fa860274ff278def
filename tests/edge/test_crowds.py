"""Frames for large conversations: every session gets each once and in order, with everybody else's chat in between; and the marks
that come back by the thousand leave by and by."""

import time
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from edge.connection import Services
from edge.crowds import MANY, TOGETHER, Crowds
from edge.directory import Directory
from edge.encoding import BinaryEncoding, JsonEncoding
from edge.fan_out import CROWD_SLICE, CROWDED, MAX_CROWD, MAX_CROWDED, FanOut
from edge.frame_reader import FrameReader
from edge.link_queue import CHAT_TURNS, CROWD_TURNS, LinkQueue
from edge.metrics import EdgeMetrics
from edge.outbox import CHAT, PRESENCE
from edge.packet import Live, Packet
from edge.rules import Rules
from edge.settings import EdgeSettings
from edge.waiting_marks import Mark, WaitingMarks
from edge.websocket import WebSocketConnection
from edge.wire import pack
from mesh.credentials import Identity
from mesh.telemetry import Telemetry
from tests.edge.conftest import SECRET, Edge, Start, metric
from tests.edge.test_broadcasts import Board, directory
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.router.v1 import link_pb2

CROWD = range(1, MANY + 2)


def entry(conversation_id: str, seq: int) -> bytes:
    frame = ServerFrame()
    frame.new_message.entry.conversation_id, frame.new_message.entry.seq = conversation_id, seq
    return frame.SerializeToString()


def delivery(conversation_id: str, seq: int, users: Any = CROWD, **fields: Any) -> link_pb2.Delivery:
    whole: dict[str, Any] = {"conversation_id": conversation_id, "seq": seq, "traffic_class": CHAT, "user_ordinals": users}
    return link_pb2.Delivery(**({"frame": entry(conversation_id, seq)} | whole | fields))


def walked(crowds: Crowds, size: int = 10) -> dict[int, list[tuple[str, int]]]:
    """What each session is written, in order."""
    found: dict[int, list[tuple[str, int]]] = {}
    while (one := crowds.next_slice(size)) is not None:
        packet, sessions = one
        for session in sessions:
            frames = [(packet.conversation_id, live.seq) for live in packet.frames if live.suits(session.number)]
            found.setdefault(session.number, []).extend(frames)
    return found


class Written:
    """What each session was written, by conversation; beside it what it should have been."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], list[int]] = {}
        self.expected: dict[tuple[int, str], list[int]] = {}

    def put(self, crowds: Crowds, one: link_pb2.Delivery) -> None:
        """As FanOut does with a delivery."""
        for ordinal in one.user_ordinals:
            if ordinal - 1 != one.except_session:
                self.expected.setdefault((ordinal - 1, one.conversation_id), []).append(one.seq)
        if crowds.concerns(one):
            assert crowds.offer(one)
        else:
            packet = Packet(CHAT, one.conversation_id, [Live(one.seq, one.frame, one.except_session, frozenset())])
            self._note(packet, [ordinal - 1 for ordinal in one.user_ordinals])

    def slice(self, crowds: Crowds, size: int) -> bool:
        part = crowds.next_slice(size)
        if part is not None:
            self._note(part[0], [session.number for session in part[1]])
        return part is not None

    def _note(self, packet: Packet, numbers: list[int]) -> None:
        for number in numbers:
            if seqs := [one.seq for one in packet.frames if one.suits(number)]:
                self.found.setdefault((number, packet.conversation_id), []).extend(seqs)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans()), max_size=20), st.integers(1, 300))
def test_each_session_gets_every_entry_once_and_in_order(given_: list[tuple[str, bool, bool]], size: int) -> None:
    """Whatever is large or small, and whenever slices are written in between."""
    crowds, written = Crowds(directory(*CROWD), 100, 1 << 20), Written()
    for seq, (conversation, large, write) in enumerate(given_, 1):
        written.put(crowds, delivery(conversation, seq, CROWD if large else CROWD[:3], except_session=1))
        if write:
            written.slice(crowds, size)
    while written.slice(crowds, size):
        pass
    assert written.found == written.expected
    assert not crowds.busy


def test_a_few_users_of_a_quiet_conversation_are_not_its_business_and_those_who_follow_a_waiting_entry_are() -> None:
    crowds = Crowds(directory(*CROWD), 100, 1 << 20)
    assert not crowds.concerns(delivery("a", 1, [1, 2]))
    crowds.offer(delivery("a", 1))
    assert crowds.concerns(delivery("a", 2, [1, 2]))
    assert not crowds.concerns(delivery("b", 1, [1, 2]))
    crowds.next_slice(1)
    assert crowds.concerns(delivery("a", 2, [1, 2])), "it is still being written"
    walked(crowds)
    assert not crowds.concerns(delivery("a", 2, [1, 2]))


def test_what_waits_for_the_same_users_goes_together_and_conversations_take_turns() -> None:
    crowds = Crowds(directory(*CROWD), 200, 1 << 20)
    for seq in range(1, TOGETHER + 3):
        crowds.offer(delivery("a", seq))
    crowds.offer(delivery("b", 1))
    crowds.offer(delivery("a", TOGETHER + 3, [1, 2]))
    packets = []
    while (found := crowds.next_slice(1_000)) is not None:
        packets.append((found[0].conversation_id, len(found[0].frames)))
    assert packets == [("a", TOGETHER), ("b", 1), ("a", 2), ("a", 1)]


def test_frames_that_go_together_are_bounded_by_their_bytes() -> None:
    crowds = Crowds(directory(*CROWD), 200, 1 << 30)
    large = [delivery("a", seq, frame=b"x" * 20_000) for seq in (1, 2)] + [delivery("a", 3, frame=b"x" * 100_000)]
    assert all(crowds.offer(one) for one in large)
    sizes = []
    while (found := crowds.next_slice(1_000)) is not None:
        sizes.append(len(found[0].frames))
    assert sizes == [1, 1, 1]


def test_what_finds_no_room_is_refused_until_there_is_some() -> None:
    crowds = Crowds(directory(*CROWD), 2, 1 << 20)
    assert [crowds.offer(delivery("a", seq)) for seq in (1, 2, 3)] == [True, True, False]
    walked(crowds)
    assert crowds.offer(delivery("a", 4))
    assert not Crowds(Directory(), 100, 5).offer(delivery("a", 1))


def test_the_bytes_of_what_is_being_written_do_not_count() -> None:
    crowds = Crowds(directory(*CROWD), 100, 2 * len(entry("a", 1)))
    for _ in range(3):
        assert [crowds.offer(delivery("a", seq)) for seq in (1, 2, 3)] == [True, True, False]
        walked(crowds)


def test_a_packet_is_made_once_for_each_subprotocol() -> None:
    packet = Packet(CHAT, "a", [Live(seq, entry("a", seq), 0, frozenset()) for seq in (1, 2)])
    binary, json = BinaryEncoding(), JsonEncoding()
    assert packet.packed(binary) == pack([entry("a", 1), entry("a", 2)], 2)
    assert packet.packed(json) == pack([json.encode(entry("a", 1)), json.encode(entry("a", 2))], 1)
    assert packet.packed(binary) is packet.packed(binary)
    assert packet.seq == 2


def test_a_frame_for_chosen_sessions_goes_to_no_other() -> None:
    of = directory(*CROWD)
    crowds = Crowds(of, 10, 1 << 20)
    crowds.offer(delivery("", 0, traffic_class=PRESENCE, only_sessions=[3, 5]))
    assert {number for number, frames in walked(crowds).items() if frames} == {3, 5}


# Over sessions


async def test_everybody_elses_chat_goes_between_the_slices_of_a_large_conversation() -> None:
    board = Board(1_000)
    board.put(deliveries=[delivery("a", 1, range(1, 1_001))])
    assert board.written == [], "nothing is written before its turn"
    assert board.board.write_slice(0.0, 0.0)
    assert len(board.written) == CROWD_SLICE
    board.put(deliveries=[delivery("b", 1, [1, 2])])
    assert len(board.written) == CROWD_SLICE + 2
    while board.board.write_slice(0.0, 0.0):
        pass
    assert len(board.written) == 1_002
    assert metric(board.telemetry, "messages_total", direction="out") == 1_002


async def test_the_session_that_caused_an_entry_is_left_out() -> None:
    board = Board(MANY + 1)
    board.put(deliveries=[delivery("a", 1, except_session=5)])
    while board.board.write_slice(0.0, 0.0):
        pass
    assert len(board.written) == MANY


class Transport:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False


async def test_a_packet_never_overtakes_what_waits_for_its_session() -> None:
    board, transport = Board(0), Transport()
    rules = Rules.of(EdgeSettings(port=0, token_secret=SecretStr(SECRET)), "edge")
    services = Services(rules, board.board, cast(Any, None), board.metrics, (1 << 20, 100), time.monotonic)
    identity = Identity("u", time.time() + 3600)
    reader, wire = FrameReader(1024), cast(Any, transport)
    connection = WebSocketConnection(services, identity, "", BinaryEncoding(), wire, reader, lambda ended: None)
    packets = [Packet(CHAT, "a", [Live(seq, entry("a", seq), 0, frozenset())]) for seq in range(1, 6)]
    connection.write_packet(packets[0])
    assert transport.written == [pack([entry("a", 1)], 2)], "at once, when nothing waits"
    connection.write(entry("a", 2), CHAT)
    connection.write_packet(packets[2])
    connection.flush()
    connection.pause_writing()
    connection.write_packet(packets[3])
    connection.resume_writing()
    connection.write_packet(packets[4])
    connection.flush()
    assert b"".join(transport.written) == pack([entry("a", seq) for seq in range(1, 6)], 2)
    written = len(transport.written)
    connection.close(1000, "")
    connection.write_packet(packets[0])
    assert len(transport.written) == written, "nothing is written after close"


async def test_past_the_bound_the_log_brings_it() -> None:
    board = Board(MANY + 1)
    board.put(deliveries=[delivery("a", seq) for seq in range(1, MAX_CROWD + 2)])
    dropped = "outbox_dropped_frames_total"
    assert metric(board.telemetry, dropped, traffic_class="chat") == metric(board.telemetry, dropped) == 1, "and nothing else"
    states = {session.state.name for ordinal in CROWD for session in board.board.directory.of_user(ordinal)}
    assert states == {"SYNCING"}


def test_marks_take_their_time_where_an_entry_went_to_many_as_long_as_that_is_remembered() -> None:
    fan_out = FanOut(directory(), JsonEncoding(), EdgeMetrics(Telemetry("test")), lambda session: None)
    fan_out.deliver(delivery("few", 1, range(CROWDED)), 0.0)
    fan_out.deliver(delivery("typing", 0, range(CROWDED + 1)), 0.0)
    for number in range(MAX_CROWDED):
        fan_out.deliver(delivery(f"many{number}", 1, range(CROWDED + 1)), 0.0)
    assert not fan_out.crowded("few")
    assert not fan_out.crowded("typing")
    assert fan_out.crowded("many0")
    assert fan_out.crowded(f"many{MAX_CROWDED - 1}")
    fan_out.deliver(delivery("one more", 1, range(CROWDED + 1)), 0.0)
    assert not fan_out.crowded("many0")
    assert fan_out.crowded("one more")


async def test_a_session_that_fails_in_a_crowd_is_closed_and_the_others_get_theirs() -> None:
    board = Board(MANY + 1)
    bad = board.board.directory.of_user(2)[0]
    codes: list[int] = []
    bad._client = cast(Any, type("Broken", (), {"close": lambda self, code, reason: codes.append(code)})())
    board.put(deliveries=[delivery("a", 1)])
    while board.board.write_slice(0.0, 0.0):
        pass
    assert len(board.written) == MANY
    assert len(codes) == 1


async def test_members_of_a_large_group_get_its_entries_in_order_over_their_sockets(start: Start) -> None:
    edge: Edge = await start()
    clients = [await edge.online(f"u{n}") for n in range(3)]
    everyone = ["u0", "u1", "u2", *(f"elsewhere-{n}" for n in range(MANY))]
    for seq in range(1, 31):
        frame = ServerFrame.FromString(entry("a", seq))
        edge.router.deliver(everyone if seq < 30 else ["u0", "u1", "u2"], frame, traffic_class=CHAT, conversation_id="a", seq=seq)
    for client in clients:
        seqs = [(await client.until("new_message")).new_message.entry.seq for _ in range(30)]
        assert seqs == list(range(1, 31))


# What comes back


def mark(seq: int, read: int = 0) -> Mark:
    return Mark(conversation_id="a", delivered_seq=seq, read_seq=read)


def test_marks_of_a_crowd_leave_evenly_the_oldest_first_and_the_newest_counts() -> None:
    marks = WaitingMarks(turns=20, few=20)
    for number in range(5_000):
        marks.add((number, "a"), mark(1))
    for number in range(5_000):
        marks.add((number, "a"), mark(2, read=1))
    first = marks.turn()
    assert list(first) == [(number, "a") for number in range(250)]
    assert all((one.delivered_seq, one.read_seq) == (2, 1) for one in first.values())
    turns = 1
    while marks.turn():
        turns += 1
    assert turns < 80


def test_few_marks_leave_at_once() -> None:
    marks = WaitingMarks(turns=8, few=24)
    for number in range(24):
        marks.add((number, "a"), mark(1))
    assert len(marks.turn()) == 24
    assert len(marks) == 0


def test_a_conversations_marks_leave_together_where_there_are_few_of_each() -> None:
    marks = WaitingMarks(turns=8, few=24, whole=True)
    for number in range(100):
        marks.add((number, "group" if number % 2 else f"chat{number}"), mark(1))
    taken = marks.turn()
    assert {session for session, name in taken if name == "group"} == set(range(1, 100, 2))
    assert [session for session, name in taken if name != "group"] == list(range(0, 24, 2))
    assert list(marks.turn()) == [(number, f"chat{number}") for number in range(24, 72, 2)]
    marks.add((1, "group"), mark(2))
    for _ in range(14):
        marks.drop_oldest()
    assert list(marks.turn()) == [(1, "group")]
    assert marks.turn() == marks.all() == {}


def test_others_marks_do_not_wait_behind_a_crowds_and_all_go_when_the_edge_stops() -> None:
    queue = LinkQueue(500, 100_000)
    for number in range(5_000):
        queue.mark((number, "a"), mark(1), crowd=True)
    queue.mark((9_999, "d"), Mark(conversation_id="d", delivered_seq=1))
    assert queue.release_marks() == 0
    request = queue.take()
    assert request is not None
    assert [one.conversation_id for one in request.batch.receipts] == ["d"]
    assert queue.release_marks(crowds=True) == 5_000 - 5_000 // CROWD_TURNS
    queue.mark((9_999, "d"), Mark(conversation_id="d", delivered_seq=2))
    queue.release_all_marks()
    sent = 0
    while (request := queue.take()) is not None:
        sent += len(request.batch.receipts)
    assert sent == 5_000 + 1
    assert queue.release_marks() == queue.release_marks(crowds=True) == 0


def test_of_many_chats_marks_a_share_leaves_at_a_time() -> None:
    queue = LinkQueue(500, 100_000)
    for number in range(400):
        queue.mark((number, f"d{number}"), Mark(conversation_id=f"d{number}", delivered_seq=1))
    assert queue.release_marks() == 400 - 400 // CHAT_TURNS
    request = queue.take()
    assert request is not None
    assert [one.conversation_id for one in request.batch.receipts] == [f"d{number}" for number in range(400 // CHAT_TURNS)]


def test_marks_of_a_crowd_survive_their_link_and_are_bounded() -> None:
    queue = LinkQueue(500, 100)
    for number in range(150):
        queue.mark((number, "a"), mark(number + 1), crowd=True)
    assert set(queue.abandon()) == {(number, "a") for number in range(50, 150)}


def test_a_frame_of_a_class_that_is_not_known_here_is_counted_too() -> None:
    telemetry = Telemetry("test")
    EdgeMetrics(telemetry).dropped(77, 1)
    assert metric(telemetry, "outbox_dropped_frames_total", traffic_class="unknown") == 1
