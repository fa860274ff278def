"""The small cores, by themselves, in virtual time."""

import asyncio
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pyroaring import BitMap

from edge import server_frames, wire
from edge.device_sync import DeviceSync
from edge.encoding import BinaryEncoding, JsonEncoding, UndecodableError, from_json, to_json
from edge.link_queue import LinkQueue
from edge.metrics import EdgeMetrics
from edge.places import MAX_QUESTIONS, SHUN_SECONDS, Desk, Places
from edge.ports import Expects
from edge.rate import SendGate, TokenBucket
from edge.routes import Routes
from edge.switchboard import Switchboard
from edge.timetable import CHUNK, LEAD_SECONDS, Timetable, appointments
from edge.unacknowledged import Unacknowledged
from edge.waiting_marks import Mark
from mesh.rpc import MAX_MESSAGE_BYTES
from mesh.telemetry import Telemetry
from tidings.balancer.v1 import balancer_pb2
from tidings.client.v1.frames_pb2 import ClientFrame, Notification, ServerFrame
from tidings.client.v1.http_pb2 import PollRequest, PollResponse
from tidings.common.v1.error_pb2 import ERROR_CODE_NOT_A_MEMBER, Error
from tidings.router.v1 import link_pb2

# Rate and order


@given(st.lists(st.floats(0, 0.5), max_size=100))
def test_a_bucket_gives_at_most_its_rate_and_burst(pauses: list[float]) -> None:
    bucket, now, taken = TokenBucket(5, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(10, 5, now)
        assert taken <= 5 + 10 * now + 1e-6


def test_after_a_refusal_later_sends_wait_for_it() -> None:
    gate = SendGate()
    gate.refused("c", "m1", 0.0)
    assert gate.blocks("c", "m2", 1.0) == 4.0
    assert gate.blocks("other", "m2", 1.0) == 0.0
    assert gate.blocks("c", "m1", 1.0) == 0.0
    assert gate.blocks("c", "m2", 5.0) == 0.0
    gate.accepted("c")
    assert gate.blocks("c", "m2", 1.0) == 0.0


def test_a_gate_forgets_the_oldest_when_it_is_full() -> None:
    gate = SendGate()
    for number in range(1001):
        gate.refused(f"c{number}", "m", 0.0)
    assert gate.blocks("c0", "n", 0.0) == 0.0
    assert gate.blocks("c1", "n", 0.0) == 5.0


def test_what_is_owed() -> None:
    owed = Unacknowledged()
    owed.sent("c", 3, 10.0)
    owed.sent("c", 5, 12.0)
    assert owed.overdue(11.0)
    owed.acknowledged("c", 4, 20.0)
    assert not owed.overdue(11.0)
    owed.acknowledged("c", 9, 21.0)
    assert not owed


# Catching up


def page(conversation_id: str, seq: int, token: str) -> link_pb2.SyncPage:
    found = link_pb2.SyncPage(frames=[b"page"], next_page_token=token)
    found.positions.add(conversation_id=conversation_id, seq=seq)
    return found


def test_a_sync_keeps_its_window() -> None:
    sync = DeviceSync("d", {"a": 3}, 7, window=2, max_held=10, max_held_bytes=1000)
    first = sync.next_request()
    assert first is not None
    assert (first.page_token, first.history_limit, first.positions[0].seq) == ("", 7, 3)
    assert sync.next_request() is None, "one at a time"
    sync.on_page(page("a", 5, "t1"))
    assert sync.next_request() is not None
    sync.on_page(page("b", 2, "t2"))
    assert sync.next_request() is None, "the window is full"
    sync.on_acknowledged("a", 4)
    assert sync.next_request() is None
    sync.on_acknowledged("a", 5)
    again = sync.next_request()
    assert again is not None
    assert (again.page_token, again.positions[0].seq) == ("t2", 5)
    sync.on_page(page("c", 1, ""))
    assert sync.complete


def test_live_entries_wait_and_those_in_pages_are_not_repeated() -> None:
    sync = DeviceSync("d", {}, 0, window=2, max_held=10, max_held_bytes=1000)
    sync.next_request()
    sync.hold("a", 5, b"5")
    sync.hold("a", 6, b"6")
    sync.on_page(page("a", 5, ""))
    assert [held[1] for held in sync.release()] == [6]


@pytest.mark.parametrize(("entries", "size"), [(3, 1), (2, 600)])
def test_too_many_live_entries_make_another_round(entries: int, size: int) -> None:
    sync = DeviceSync("d", {}, 0, window=2, max_held=2, max_held_bytes=1000)
    sync.next_request()
    for seq in range(1, entries + 1):
        sync.hold("a", seq, bytes(size))
    assert sync.held == 0
    sync.on_page(page("a", 1, ""))
    assert not sync.complete
    assert sync.next_request() is not None
    sync.on_page(link_pb2.SyncPage())
    assert sync.complete


def test_a_page_that_failed_is_asked_for_again() -> None:
    sync = DeviceSync("d", {}, 0, window=2, max_held=2, max_held_bytes=1000)
    sync.next_request()
    sync.on_failed()
    assert sync.next_request() is not None


# What goes to one router


def take(queue: LinkQueue) -> link_pb2.LinkRequest:
    request = queue.take()
    assert request is not None
    return request


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans())), st.data())
def test_online_changes_arrive_whatever_is_batched(changes: list[tuple[int, bool]], data: st.DataObject) -> None:
    queue, online, router = LinkQueue(10, 10), set[int](), set[int]()
    for ordinal, _ in changes:
        opened = ordinal not in online
        (online.add if opened else online.discard)(ordinal)
        queue.online(ordinal, opened=opened)
        if data.draw(st.booleans()):
            request = queue.take()
            if request is not None:
                router |= set(request.batch.opened_user_ordinals)
                router -= set(request.batch.closed_user_ordinals)
    request = queue.take()
    if request is not None:
        router |= set(request.batch.opened_user_ordinals)
        router -= set(request.batch.closed_user_ordinals)
    assert router == online


def test_a_barrier_passes_when_what_was_said_before_is_processed() -> None:
    queue, passed = LinkQueue(10, 10), list[str]()
    queue.online(1, opened=True)
    queue.barrier(lambda: passed.append("x"))
    first = take(queue)
    queue.on_processed(first.sequence - 1)
    assert not passed
    queue.on_processed(first.sequence)
    assert passed == ["x"]
    assert queue.take() is None


def test_a_barrier_passes_when_the_link_is_lost() -> None:
    queue, passed = LinkQueue(10, 10), list[str]()
    queue.barrier(lambda: passed.append("said"))
    take(queue)
    queue.barrier(lambda: passed.append("unsaid"))
    queue.abandon()
    assert passed == ["said", "unsaid"]


def test_a_last_barrier_waits_for_all_marks_that_were_released() -> None:
    queue, passed = LinkQueue(2, 10), list[str]()
    for number in range(5):
        queue.mark((number, "c"), Mark(conversation_id="c", delivered_seq=5))
    queue.release_all_marks()
    queue.last_barrier(lambda: passed.append("x"))
    assert queue.awaits
    for _ in range(2):
        queue.on_processed(take(queue).sequence)
        assert queue.more
        assert not passed
    queue.on_processed(take(queue).sequence)
    assert passed == ["x"]
    assert not queue.more


def test_the_end_of_a_session_follows_the_request_that_took_its_questions() -> None:
    queue = LinkQueue(10, 10)
    queue.say(link_pb2.ClientEnvelope(typing=link_pb2.Typing(conversation_id="c")))
    queue.session_closed(7)
    assert not take(queue).batch.closed_sessions
    assert queue.more
    assert list(take(queue).batch.closed_sessions) == [7]
    assert not queue.more


def test_marks_are_merged_and_survive_until_processed() -> None:
    queue = LinkQueue(10, 10)
    queue.mark((1, "c"), Mark(conversation_id="c", delivered_seq=5))
    queue.mark((1, "c"), Mark(conversation_id="c", delivered_seq=3, read_seq=3))
    assert queue.take() is None, "marks wait to be released"
    queue.release_marks()
    (mark,) = take(queue).batch.receipts
    assert (mark.delivered_seq, mark.read_seq) == (5, 3)
    queue.mark((1, "c"), Mark(conversation_id="c", delivered_seq=6))
    (kept,) = queue.abandon().values()
    assert (kept.delivered_seq, kept.read_seq) == (6, 3)


def test_processed_marks_are_forgotten_and_marks_are_bounded() -> None:
    queue = LinkQueue(10, 2)
    queue.mark((1, "c"), Mark(conversation_id="c", delivered_seq=5))
    queue.release_marks()
    queue.on_processed(take(queue).sequence)
    assert queue.abandon() == {}
    for number in range(3):
        queue.mark((number, "c"), Mark(conversation_id="c", delivered_seq=1))
    queue.release_marks()
    assert len(take(queue).batch.receipts) == 2


def test_a_bare_acknowledgement_is_said_once() -> None:
    queue = LinkQueue(10, 10)
    queue.acted_on(4)
    request = queue.acknowledgement()
    assert request is not None
    assert (request.processed_sequence, request.WhichOneof("body")) == (4, None)
    assert queue.acknowledgement() is None


def test_batches_are_bounded() -> None:
    queue = LinkQueue(2, 10)
    for _ in range(5):
        queue.say(link_pb2.ClientEnvelope())
    assert [len(take(queue).batch.envelopes) for _ in range(3)] == [2, 2, 1]


def test_a_batch_stays_below_what_grpc_carries() -> None:
    queue = LinkQueue(500, 10)
    for number in range(500):
        queue.say(link_pb2.ClientEnvelope(envelope_id=number, watch_users=link_pb2.WatchUsers(watch_user_ids=["a" * 100_000])))
    taken: list[int] = []
    while len(taken) < 500:
        request = take(queue)
        assert request.ByteSize() < MAX_MESSAGE_BYTES
        taken += [envelope.envelope_id for envelope in request.batch.envelopes]
    assert taken == list(range(500))


def test_a_mark_without_a_router_never_goes_back() -> None:
    board = Switchboard(10, 10_000, EdgeMetrics(Telemetry("test")), lambda: 0.0, lambda: None, lambda: None)
    for delivered, read in ((5, 5), (7, 0), (3, 3)):
        board.mark(1, Mark(conversation_id="c", delivered_seq=delivered, read_seq=read))
    (kept,) = board._homeless.values()
    assert (kept.delivered_seq, kept.read_seq) == (7, 5)


# Routes: whatever links do, a key's requests are answered once each, and reach the log in order


class RoutesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.under_way: dict[str, list[link_pb2.ClientEnvelope]] = {}
        self.routes = Routes(lambda link, envelope: self.under_way[link].append(envelope), 1000, 1_000_000)
        self.draining: set[str] = set()
        self.asked: dict[str, list[int]] = {}
        self.log: dict[str, list[int]] = {}
        self.answered: set[int] = set()
        self.serial = 0

    @property
    def live(self) -> list[str]:
        return [link for link in self.under_way if link not in self.draining]

    @rule(key=st.sampled_from("abc"))
    def ask(self, key: str) -> None:
        self.serial += 1
        envelope = link_pb2.ClientEnvelope(user_id=key, request_id=self.serial)
        self.asked.setdefault(key, []).append(self.serial)
        self.routes.ask(1, key, envelope, Expects.STORED, 0.0)

    @rule(link=st.sampled_from(["r1", "r2", "r3"]))
    def gain(self, link: str) -> None:
        if link not in self.under_way:
            self.under_way[link] = []
            self.routes.on_links(self.live)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        self.draining.add(data.draw(st.sampled_from(sorted(self.under_way))))
        self.routes.on_links(self.live)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), stored=st.integers(0, 3))
    def lose(self, data: st.DataObject, stored: int) -> None:
        link = data.draw(st.sampled_from(sorted(self.under_way)))
        for envelope in self.under_way.pop(link)[:stored]:
            self._store(envelope)  # it reached the log; its answer is lost with the link
        self.draining.discard(link)
        self.routes.on_links(self.live)
        self.routes.on_lost(link)

    @precondition(lambda self: any(self.under_way.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        link = data.draw(st.sampled_from(sorted(link for link, queue in self.under_way.items() if queue)))
        envelope = self.under_way[link].pop(0)
        self._store(envelope)
        pending = self.routes.on_reply(envelope.envelope_id)
        assert pending is not None
        assert envelope.request_id not in self.answered
        self.answered.add(envelope.request_id)

    @invariant()
    def the_log_is_a_prefix_of_what_was_asked(self) -> None:
        for key, log in self.log.items():
            assert log == self.asked[key][: len(log)]

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert len(self.routes) == self.serial - len(self.answered)

    def teardown(self) -> None:
        """With one router left, everything gets answered."""
        self.gain("r9")
        for link in [link for link in self.under_way if link != "r9"]:
            self.under_way.pop(link)
            self.draining.discard(link)
            self.routes.on_links(self.live)
            self.routes.on_lost(link)
        while self.under_way["r9"]:
            envelope = self.under_way["r9"].pop(0)
            self._store(envelope)
            self.routes.on_reply(envelope.envelope_id)
        assert len(self.routes) == 0
        assert self.log == self.asked

    def _store(self, envelope: link_pb2.ClientEnvelope) -> None:
        log = self.log.setdefault(envelope.user_id, [])
        if envelope.request_id not in log:
            log.append(envelope.request_id)


TestRoutes = RoutesMachine.TestCase


def test_routes_say_when_they_are_full() -> None:
    routes = Routes(lambda *_: None, 2, 10_000)
    for _ in range(2):
        assert routes.has_room
        routes.ask(1, "a", link_pb2.ClientEnvelope(), Expects.STORED, 0.0)
    assert not routes.has_room


# Frames


@given(st.lists(st.binary(max_size=70_000), max_size=4))
def test_packed_frames_are_what_rfc_6455_says(payloads: list[bytes]) -> None:
    data = wire.pack(payloads, 2)
    found = []
    while data:
        assert data[0] == 0x82
        size, start = data[1], 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
            assert size >= (126 if width == 2 else 1 << 16)
        found.append(data[start : start + size])
        data = data[start + size :]
    assert found == payloads


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for encoding, message in ((BinaryEncoding(), data), (JsonEncoding(), data.decode("latin-1"))):
        try:
            assert isinstance(encoding.decode(message), ClientFrame)
        except UndecodableError as error:
            assert str(error)


def test_a_frame_becomes_json_once() -> None:
    encoding, frame = JsonEncoding(), ServerFrame(request_id=3)
    first = encoding.encode(frame.SerializeToString())
    assert first == b'{"request_id":"3"}'
    assert encoding.encode(frame.SerializeToString()) is first
    encoding.forget()
    assert encoding.encode(frame.SerializeToString()) is not first


def test_the_json_of_a_broadcast_is_held_from_batch_to_batch() -> None:
    encoding = JsonEncoding()
    held, other = (ServerFrame(request_id=number).SerializeToString() for number in (3, 4))
    encoding.hold(held)
    encoding.forget()
    text, passing = encoding.encode(held), encoding.encode(other)
    encoding.forget()
    assert encoding.encode(held) is text
    assert encoding.encode(other) is not passing
    encoding.hold(other)
    encoding.forget()
    assert encoding.encode(held) is not text


@given(st.binary(max_size=60), st.text(max_size=30))
def test_the_id_of_an_encoded_notification_is_found(data: bytes, name: str) -> None:
    assert isinstance(server_frames.notification_id(data), str)
    frame = ServerFrame(notification=Notification(notification_id=name))
    assert server_frames.notification_id(frame.SerializeToString()) == name
    assert server_frames.notification_id(server_frames.HEARTBEAT) == ""


@given(st.integers(0, 2**64 - 1), st.text(max_size=20))
def test_errors_are_found_in_encoded_frames(request_id: int, text: str) -> None:
    error = ServerFrame(request_id=request_id, error=Error(code=ERROR_CODE_NOT_A_MEMBER, message=text))
    assert server_frames.error_code(error.SerializeToString()) == ERROR_CODE_NOT_A_MEMBER
    assert server_frames.error_code(server_frames.token_refreshed(request_id, 7.0)) == 0
    assert server_frames.error_code(b"") == 0


@pytest.mark.parametrize("inside", ['"frames": [%s]', '"frames": [{"acknowledge": {"positions": [%s]}}]'])
def test_json_of_endless_values_is_refused_before_it_costs_much(inside: str) -> None:
    with pytest.raises(UndecodableError, match="too many"):
        from_json("{%s}" % (inside % ",".join(["{}"] * 30_000)), PollRequest())
    few = from_json("{%s}" % (inside % ",".join(["{}"] * 1_000)), PollRequest())
    assert few.frames


def test_codes_are_numbers_in_json() -> None:
    frame = ServerFrame(error=Error(code=ERROR_CODE_NOT_A_MEMBER))
    assert to_json(frame) == '{"error":{"code":4003}}'
    assert to_json(PollResponse(frames=[frame])) == '{"frames":[{"error":{"code":4003}}]}'


# Leaving


@given(st.integers(0, 300), st.floats(0.1, 100))
def test_appointments_are_spread_evenly(count: int, over: float) -> None:
    times = appointments(count, over, random.Random(1).random)
    assert len(times) == count
    for index, at in enumerate(times):
        assert index * over / count <= at <= (index + 1) * over / count + 1e-9


@given(
    count=st.integers(0, 3_000),
    over=st.floats(0.1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.sampled_from([0.0, 0.0, 0.5])), max_size=40),
)
def test_everyone_is_told_once_in_order_and_none_long_before_their_time(
    count: int, over: float, steps: list[tuple[float, float]]
) -> None:
    table = Timetable(range(count), over, 0.0, random.Random(1).random)
    now, end, told, last = 0.0, over, list[int](), 0.0
    for pause, late in [*steps, (over + sum(late for _, late in steps), 0.0)]:
        now += pause
        while chunk := table.take(now):
            assert len(chunk) <= CHUNK
            assert last <= chunk[0][0] and chunk[-1][0] <= min(now + LEAD_SECONDS, end + 1e-6)
            told += [who for _, who in chunk]
            last = chunk[-1][0]
        table.delay(late)
        end += late
    assert told == list(range(count))
    assert len(table) == 0
    assert table.end == pytest.approx(end)


async def test_a_balancer_is_asked_once_and_passed_over_while_it_does_not_answer() -> None:
    now = 0.0
    places, slow, quick = Places(lambda: now), Desk(), Desk()
    asked = [balancer_pb2.PlaceConnection(connection=7)]
    assert await places.find(asked, 1.0) == {}, "there is no balancer"
    places.open(slow)
    places.open(quick)
    assert await places.find(asked, 0.01) == {}
    answer = asyncio.create_task(places.find(asked, 10.0))
    assert (await quick.question()).connections[0].connection == 7
    quick.on_answer(balancer_pb2.Placements(placements=[balancer_pb2.Placement(connection=7, url="ws://there")]))
    assert (await answer)[7].url == "ws://there"
    places.close(quick)
    assert await places.find(asked, 0.01) == {}, "the slow one is still passed over"
    now += SHUN_SECONDS
    answer = asyncio.create_task(places.find(asked, 10.0))
    for expected in ("late, to the question given up", "ws://here"):
        await slow.question()
        slow.on_answer(balancer_pb2.Placements(placements=[balancer_pb2.Placement(connection=7, url=expected)]))
    assert (await answer)[7].url == "ws://here"
    answer = asyncio.create_task(places.find(asked, 10.0))
    await slow.question()
    places.close(slow)
    assert await answer == {}, "a stream that ends answers nothing more"


async def test_an_edge_that_was_itself_stopped_reads_the_answer_that_came_meanwhile() -> None:
    places, desk = Places(lambda: 0.0), Desk()
    places.open(desk)
    answer = asyncio.create_task(places.find([], 0.2))
    await desk.question()
    time.sleep(0.3)  # noqa: ASYNC251 (nobody has a turn: that is what a stop is)
    for _ in range(5):  # a stream has its turns, too, before what it brings is read
        await asyncio.sleep(0)
    desk.on_answer(balancer_pb2.Placements(placements=[balancer_pb2.Placement(connection=7, url="ws://there")]))
    assert (await answer)[7].url == "ws://there"


async def test_a_balancer_with_too_many_open_questions_is_not_asked_more() -> None:
    places, desk = Places(lambda: 0.0), Desk()
    places.open(desk)
    waiting = [asyncio.create_task(places.find([], 10.0)) for _ in range(MAX_QUESTIONS)]
    for _ in waiting:
        await desk.question()
    assert await places.find([], 10.0) == {}
    desk.close()
    await asyncio.gather(*waiting)


def test_a_snapshot_is_a_portable_roaring_bitmap() -> None:
    snapshot = LinkQueue(1, 1).snapshot(BitMap([1, 5]).serialize())
    assert set(BitMap.deserialize(snapshot.online_snapshot.user_ordinals)) == {1, 5}
