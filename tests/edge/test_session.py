"""The session by itself: a Hypothesis machine plays client, routers and clock, and checks what must always hold."""

import itertools
from collections.abc import Collection
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.packet import Packet
from edge.ports import Expects
from edge.rate import AWAIT_SECONDS
from edge.requests import MAX_NOTIFICATIONS
from edge.rules import MAX_FETCHES, Rules
from edge.session import Session
from edge.settings import EdgeSettings
from edge.states import State
from mesh.credentials import Identity
from mesh.naming import direct_conversation_id, new_notification_id
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1 import error_pb2 as e
from tidings.common.v1.content_pb2 import Content, Text
from tidings.common.v1.conversation_pb2 import Position
from tidings.router.v1 import link_pb2

WALL = 1_700_000_000.0
CHATS = [direct_conversation_id("alice", other) for other in ("bob", "carol")]
CHAT = link_pb2.TRAFFIC_CLASS_CHAT
RECEIPT = link_pb2.TRAFFIC_CLASS_RECEIPT
NOTIFICATION = link_pb2.TRAFFIC_CLASS_NOTIFICATION
LAST_SEQ = dict.fromkeys(CHATS, 3)
IDS = [new_notification_id() for _ in range(1_500)]


class Client:
    def __init__(self) -> None:
        self.frames: list[f.ServerFrame] = []
        self.drained = True
        self.code: int | None = None
        self.tokens: list[tuple[str, int]] = []

    def write(self, frame: bytes, traffic_class: int, *, asked: bool = False) -> None:
        assert self.code is None, "nothing is written after close"
        self.frames.append(f.ServerFrame.FromString(frame))

    def write_packet(self, packet: Packet) -> None:
        for one in packet.frames:
            self.write(one.frame, packet.traffic_class)

    def verify_token(self, token: str, request_id: int) -> None:
        self.tokens.append((token, request_id))

    def close(self, code: int, reason: str) -> None:
        assert self.code is None
        self.code = code

    def arms(self) -> list[str | None]:
        return [frame.WhichOneof("body") for frame in self.frames]


class Mesh:
    def __init__(self) -> None:
        self.has_room = True
        self.asked: list[tuple[str, link_pb2.ClientEnvelope, Expects]] = []
        self.accepted: list[link_pb2.ClientEnvelope] = []
        self.told: list[link_pb2.ClientEnvelope] = []
        self.marks: dict[str, int] = {}
        self.notifications: list[str] = []
        self.entered = self.announced = self.left = 0
        self.ordinal = 0  # what the edge knows of the user
        self.errors: list[int] = []

    def ask(self, session: int, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects) -> None:
        copy = link_pb2.ClientEnvelope()
        copy.CopyFrom(envelope)
        self.asked.append((key, copy, expects))
        if expects is Expects.STORED:
            self.accepted.append(copy)

    def tell(self, key: str, envelope: link_pb2.ClientEnvelope) -> None:
        self.told.append(envelope)

    def mark(self, session: int, mark: link_pb2.ReceiptDelta) -> None:
        assert mark.user_ordinal
        self.marks[mark.conversation_id] = max(mark.delivered_seq, self.marks.get(mark.conversation_id, 0))

    def acknowledge_notifications(self, notification_ids: Collection[str], user_ordinal: int) -> None:
        assert user_ordinal
        self.notifications += notification_ids

    def enter(self, session: Session) -> int:
        self.entered += 1
        return self.ordinal

    def announce(self, session: Session) -> None:
        self.announced += 1

    def leave(self, session: Session) -> None:
        self.left += 1

    def refused(self, code: int) -> None:
        self.errors.append(code)


def session(client: Client, mesh: Mesh, lifetime: float = 3600.0, **options: Any) -> Session:
    rules = Rules.of(EdgeSettings(**options), "edge-1")
    return Session(7, Identity("alice", WALL + lifetime), rules, client, mesh, 0.0, WALL)


def send(number: int, chat: str) -> f.ClientFrame:
    content = Content(text=Text(text="hi"))
    message = f.SendMessage(client_msg_id=f"m{number:05}", conversation_id=chat, content=content)
    return f.ClientFrame(request_id=number, send_message=message)


def got(*notification_ids: str) -> f.ClientFrame:
    return f.ClientFrame(acknowledge_notification=f.AcknowledgeNotification(notification_ids=notification_ids))


class SessionMachine(RuleBasedStateMachine):
    """The client keeps its outbox as the contract tells it to: what is refused it sends again, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.mesh, self.now = Client(), Mesh(), 0.0
        self.session = session(
            self.client, self.mesh, frames_per_second=2, frames_burst=8, max_sends_in_flight=3, sync_window_pages=1, held_entries=3
        )
        self.serial = 0
        self.in_flight = 0
        self.live: dict[str, int] = dict(LAST_SEQ)
        self.refused: dict[str, list[int]] = {chat: [] for chat in CHATS}
        self.refused_at: dict[str, float] = {}

    @initialize(live=st.booleans())
    def begin(self, live: bool) -> None:
        """Half of the runs begin with a session that has caught up."""
        if live:
            self.hello()
            self.a_router_answers(drained=True)
            self.the_links_have_heard()
            for chat in CHATS:
                self.a_router_answers(drained=True)
                positions = [Position(conversation_id=chat, seq=3)]
                self.session.on_frame(f.ClientFrame(acknowledge=f.Acknowledge(positions=positions)), self.now)
            assert self.session.state is State.LIVE

    @precondition(lambda self: self.session.state is State.HANDSHAKE or self.now > 20)
    @rule()
    def hello(self) -> None:
        before = self.session.state
        self.session.on_frame(f.ClientFrame(hello=f.Hello(device_id="d")), self.now)
        if before is State.HANDSHAKE:
            assert self.session.state is State.OPENING
        elif before is not State.CLOSED:
            assert self.client.code in (e.ERROR_CODE_HELLO_REPEATED, e.ERROR_CODE_FLOODING)

    @precondition(lambda self: self.open)
    @rule(chat=st.sampled_from(CHATS))
    def send(self, chat: str) -> None:
        if self.refused[chat] and self.now - self.refused_at[chat] >= AWAIT_SECONDS:
            self.send_again(chat)
        self.serial += 1
        if self.open:
            self._send(self.serial, chat)

    @precondition(lambda self: self.open)
    @rule(chat=st.sampled_from(CHATS))
    def send_while_there_is_no_room(self, chat: str) -> None:
        self.mesh.has_room = False
        self.send(chat)
        self.mesh.has_room = True

    @precondition(lambda self: self.open)
    @rule(chat=st.sampled_from(CHATS))
    def send_again(self, chat: str) -> None:
        """Everything refused in this conversation, oldest first."""
        again, self.refused[chat] = self.refused[chat], []
        for number in again:
            if self.open:
                self._send(number, chat)

    @precondition(lambda self: self.open)
    @rule(chat=st.sampled_from(CHATS), back=st.integers(0, 2))
    def acknowledge(self, chat: str, back: int) -> None:
        seq = max(0, self.live[chat] - back)
        positions = [Position(conversation_id=chat, seq=seq)]
        self.session.on_frame(f.ClientFrame(acknowledge=f.Acknowledge(positions=positions)), self.now)

    @precondition(lambda self: self.mesh.asked)
    @rule(drained=st.booleans())
    def a_router_answers(self, drained: bool) -> None:
        self.client.drained = drained
        _, envelope, expects = self.mesh.asked.pop(0)
        if expects is Expects.OPENED:
            self.session.on_opened(42)
        elif expects is Expects.SYNC_PAGE:
            self.session.on_sync_page(self._page(envelope.sync_device), self.now)
        else:
            self.in_flight -= expects is Expects.STORED
            self.session.on_reply(expects, f.ServerFrame(message_stored=f.MessageStored()).SerializeToString(), self.now)

    @precondition(lambda self: self.session.state is State.ANNOUNCING)
    @rule()
    def the_links_have_heard(self) -> None:
        self.session.on_announced(self.now)
        assert self.session.state is State.SYNCING

    @precondition(lambda self: self.session.user_ordinal)
    @rule(chat=st.sampled_from(CHATS))
    def a_live_entry(self, chat: str) -> None:
        self.live[chat] += 1
        before = len(self.client.frames)
        frame = f.ServerFrame(new_message=f.NewMessage())
        frame.new_message.entry.conversation_id, frame.new_message.entry.seq = chat, self.live[chat]
        self.session.on_delivery(CHAT, chat, self.live[chat], frame.SerializeToString(), self.now)
        assert (len(self.client.frames) > before) == (self.session.state is State.LIVE)

    @precondition(lambda self: self.session.user_ordinal)
    @rule(traffic_class=st.sampled_from([NOTIFICATION, RECEIPT]))
    def what_is_not_in_the_log(self, traffic_class: int) -> None:
        before = len(self.client.frames)
        self.session.on_delivery(traffic_class, "", 0, f.ServerFrame(notification=f.Notification()).SerializeToString(), self.now)
        told = self.open and (traffic_class == NOTIFICATION or "caught_up" in self.client.arms())
        assert (len(self.client.frames) > before) == told, "no sync holds it back; but what may be old is not told to a newcomer"

    @rule()
    def a_link_was_lost(self) -> None:
        self.session.resync(self.now)

    @rule()
    def the_outbox_drains(self) -> None:
        self.client.drained = True
        self.session.on_drained(self.now)

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.session.deadline <= self.now:
            self.session.tick(self.now)

    @rule()
    def a_heartbeat(self) -> None:
        self.session.on_frame(f.ClientFrame(heartbeat=f.Heartbeat()), self.now)

    @invariant()
    def accepted_sends_of_a_conversation_are_in_the_order_first_sent(self) -> None:
        for chat in CHATS:
            accepted = [one.append_entry for one in self.mesh.accepted] + self._kept_back()
            ids = [append.client_msg_id for append in accepted if append.conversation_id == chat]
            assert ids == sorted(ids)

    @invariant()
    def it_is_closed_once_and_left_once(self) -> None:
        closed = self.session.state is State.CLOSED
        assert (self.client.code is not None) == closed
        assert self.mesh.left == int(closed)

    @invariant()
    def every_request_is_signed(self) -> None:
        for _, envelope, expects in self.mesh.asked:
            assert (envelope.session, envelope.user_id) == (7, "alice")
            assert bool(envelope.user_ordinal) == (expects is not Expects.OPENED)

    @invariant()
    def at_most_one_page_and_a_bounded_number_of_sends_are_under_way(self) -> None:
        kinds = [expects for _, _, expects in self.mesh.asked]
        assert kinds.count(Expects.SYNC_PAGE) <= 1
        assert self.in_flight <= 3

    @invariant()
    def caught_up_is_said_once_and_after_welcome(self) -> None:
        arms = self.client.arms()
        assert arms.count("caught_up") <= 1
        assert arms.count("welcome") <= 1
        if "caught_up" in arms:
            assert "message_page" in arms[: arms.index("caught_up")]

    @property
    def open(self) -> bool:
        return self.session.state not in (State.HANDSHAKE, State.CLOSED)

    def _kept_back(self) -> list[link_pb2.AppendEntry]:
        early = self.session._voice._early
        return [envelope.append_entry for _, envelope, _ in early.requests] if early else []

    def _send(self, number: int, chat: str) -> None:
        before = len(self.client.frames)
        self.session.on_frame(send(number, chat), self.now)
        answer = self.client.frames[before:]
        if answer and answer[0].HasField("error"):
            assert answer[0].error.client_msg_id == f"m{number:05}"
            assert answer[0].error.HasField("retry_after")
            if not self.refused[chat]:
                self.refused_at[chat] = self.now
            self.refused[chat].append(number)
        elif self.open:
            self.in_flight += 1

    def _page(self, sync: link_pb2.SyncDevice) -> link_pb2.SyncPage:
        index = CHATS.index(sync.page_token) + 1 if sync.page_token else 0
        page = link_pb2.SyncPage(next_page_token=CHATS[index] if index + 1 < len(CHATS) else "")
        page.frames.append(f.ServerFrame(message_page=f.MessagePage(conversation_id=CHATS[index])).SerializeToString())
        page.positions.add(conversation_id=CHATS[index], seq=self.live[CHATS[index]])
        return page


SessionMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestSession = SessionMachine.TestCase


def live(client: Client, mesh: Mesh, **options: Any) -> Session:
    """A session that has caught up."""
    one = session(client, mesh, **options)
    one.on_frame(f.ClientFrame(hello=f.Hello(device_id="d")), 0.0)
    one.on_opened(42)
    one.on_announced(0.0)
    one.on_sync_page(link_pb2.SyncPage(), 0.0)
    assert one.state is State.LIVE
    mesh.asked.clear()
    return one


def test_a_token_runs_out_in_two_steps() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh, heartbeat_limit_seconds=1000, lifetime=300.0)
    one.tick(1.0)
    assert one.deadline == 240.0
    one.tick(240.0)
    assert client.arms()[-1] == "token_expiring"
    assert one.deadline == 300.0
    one.on_token(Identity("alice", WALL + 900.0), 5)
    assert client.frames[-1].token_refreshed.token_expire_time.seconds == WALL + 900
    one.tick(300.0)
    assert one.state is State.LIVE
    one.on_frame(f.ClientFrame(heartbeat=f.Heartbeat()), 850.0)
    one.tick(840.0)
    one.tick(900.0)
    assert client.code == e.ERROR_CODE_UNAUTHENTICATED


def test_a_client_that_never_acknowledges_is_sent_its_entries_ever_more_seldom() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh, heartbeat_limit_seconds=100_000, lifetime=100_000.0)
    one.on_delivery(CHAT, CHATS[0], 4, f.ServerFrame(new_message=f.NewMessage()).SerializeToString(), 0.0)
    now, times = 0.0, []
    while now < 4000:
        now += 1.0
        if one.deadline <= now:
            one.tick(now)
        for _, _, expects in mesh.asked:
            if expects is Expects.SYNC_PAGE:
                times.append(now)
                one.on_sync_page(link_pb2.SyncPage(), now)
        mesh.asked.clear()
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] <= 45.0
    assert gaps == sorted(gaps) or all(gap >= 540 for gap in gaps[-3:])
    assert len(times) < 14


def test_what_is_said_before_the_ordinal_is_known_goes_out_in_order() -> None:
    client, mesh = Client(), Mesh()
    one = session(client, mesh)
    one.on_frame(f.ClientFrame(hello=f.Hello(device_id="d")), 0.0)
    for number in (1, 2):
        one.on_frame(send(number, CHATS[0]), 0.0)
    one.on_frame(f.ClientFrame(mark_read=f.MarkRead(conversation_id=CHATS[0], seq=3)), 0.0)
    one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["bob"])), 0.0)
    one.on_frame(got(IDS[0], IDS[1]), 0.0)
    assert not mesh.notifications
    assert [expects for _, _, expects in mesh.asked] == [Expects.OPENED]
    one.on_opened(42)
    assert [expects for _, _, expects in mesh.asked[1:]] == [Expects.STORED, Expects.STORED, Expects.PRESENCE]
    assert mesh.marks == {CHATS[0]: 3}
    assert sorted(mesh.notifications) == IDS[:2]
    assert mesh.announced == 1


def test_a_user_known_here_is_not_asked_for() -> None:
    client, mesh = Client(), Mesh()
    mesh.ordinal = 42
    one = session(client, mesh)
    one.on_frame(f.ClientFrame(hello=f.Hello(device_id="d")), 0.0)
    assert client.arms() == ["welcome"]
    assert (mesh.asked, mesh.announced) == ([], 1)
    one.on_announced(0.0)
    assert [(envelope.user_ordinal, expects) for _, envelope, expects in mesh.asked] == [(42, Expects.SYNC_PAGE)]


def test_what_hello_says_the_device_has_is_marked_unless_more_of_it_comes() -> None:
    client, mesh = Client(), Mesh()
    one = session(client, mesh)
    resume = [Position(conversation_id=chat, seq=2) for chat in CHATS[:2]]
    one.on_frame(f.ClientFrame(hello=f.Hello(device_id="d", resume=resume)), 0.0)
    one.on_opened(42)
    one.on_announced(0.0)
    assert not mesh.marks
    page = link_pb2.SyncPage(positions=[Position(conversation_id=CHATS[0], seq=3)], next_page_token="more")
    one.on_sync_page(page, 0.0)
    assert mesh.marks == {CHATS[1]: 2}, "of the other the device will say itself how far it is"
    one.on_frame(f.ClientFrame(acknowledge=f.Acknowledge(positions=[Position(conversation_id=CHATS[0], seq=3)])), 0.0)
    one.on_sync_page(link_pb2.SyncPage(), 0.0)
    assert mesh.marks == {CHATS[0]: 3, CHATS[1]: 2}


def test_notifications_acknowledged_before_the_ordinal_is_known_are_bounded() -> None:
    client, mesh = Client(), Mesh()
    one = session(client, mesh)
    one.on_frame(f.ClientFrame(hello=f.Hello(device_id="d")), 0.0)
    for start in range(0, len(IDS), 500):
        one.on_frame(got(*IDS[start : start + 500]), 0.0)
    one.on_opened(42)
    assert len(set(mesh.notifications)) == MAX_NOTIFICATIONS < len(IDS)


def test_an_opening_the_router_refuses_ends_the_session() -> None:
    client, mesh = Client(), Mesh()
    one = session(client, mesh)
    one.on_frame(f.ClientFrame(hello=f.Hello(device_id="d")), 0.0)
    one.on_reply(Expects.OPENED, b"", 0.0)
    assert client.code == e.ERROR_CODE_SESSION_FAILED


def test_a_sync_the_router_refuses_is_tried_again() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh)
    one.resync(1.0)
    one.on_reply(Expects.SYNC_PAGE, b"", 1.0)
    mesh.asked.clear()
    assert one.deadline <= 2.0
    one.tick(2.0)
    assert [expects for _, _, expects in mesh.asked] == [Expects.SYNC_PAGE]


def test_presence_is_watched_within_its_bound_and_said_again() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh, max_watched_users=3)
    one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["a", "b"])), 0.0)
    one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["b", "c"])), 0.0)
    one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["d"])), 0.0)
    assert client.frames[-1].error.code == e.ERROR_CODE_TOO_MANY_WATCHED
    one.on_frame(f.ClientFrame(unwatch_presence=f.UnwatchPresence(user_ids=["a"])), 0.0)
    one.rewatch()
    assert list(mesh.asked[-1][1].watch_users.watch_user_ids) == ["b", "c"]
    one.on_frame(f.ClientFrame(unwatch_presence=f.UnwatchPresence()), 0.0)
    assert not one.watches


def test_one_session_cannot_fill_the_mesh_with_watches() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh, max_watched_users=3)
    one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["a"] * 1000)), 0.0)
    assert client.frames[-1].error.code == e.ERROR_CODE_TOO_MANY_WATCHED
    one.on_frame(f.ClientFrame(unwatch_presence=f.UnwatchPresence(user_ids=["a"] * 1000)), 0.0)
    assert client.frames[-1].error.code == e.ERROR_CODE_INVALID_FIELD
    mesh.asked.clear()
    for _ in range(MAX_FETCHES + 1):
        one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["a"])), 0.0)
    assert len(mesh.asked) == MAX_FETCHES
    assert client.frames[-1].error.code == e.ERROR_CODE_OVERLOADED
    one.on_reply(Expects.PRESENCE, b"", 0.0)
    one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["a"])), 0.0)
    assert len(mesh.asked) == MAX_FETCHES + 1


def test_acknowledgements_cost_by_what_they_name() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh)
    many = [Position(conversation_id=f"g{number:026}".translate(str.maketrans("0189", "abcd")), seq=1) for number in range(1000)]
    for _ in range(120):
        one.on_frame(f.ClientFrame(acknowledge=f.Acknowledge(positions=many)), 0.0)
    assert client.code == e.ERROR_CODE_FLOODING


def test_acknowledged_notifications_cost_little_but_made_up_ones_without_end_close() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh)
    for notification_id in IDS[:1000]:
        one.on_frame(got(notification_id), 0.0)
    assert mesh.notifications == IDS[:1000]
    assert not mesh.errors
    for _ in range(20):
        one.on_frame(got(*IDS[:1000]), 0.0)
    assert client.code == e.ERROR_CODE_FLOODING


def test_watching_costs_by_whom_it_names() -> None:
    client, mesh = Client(), Mesh()
    one = live(client, mesh)
    for number in range(20):
        names = [f"invented-{number}-{n}" for n in range(190)]
        one.on_frame(f.ClientFrame(watch_presence=f.WatchPresence(user_ids=names)), 0.0)
        one.on_frame(f.ClientFrame(unwatch_presence=f.UnwatchPresence()), 0.0)
    assert any(frame.error.code == e.ERROR_CODE_RATE_LIMITED for frame in client.frames)
    named = sum(len(envelope.watch_users.watch_user_ids) for _, envelope, _ in mesh.asked)
    assert named < 1_000
