"""Broadcasts by themselves, and the promise that chat goes between their slices."""

import asyncio
import time
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from pyroaring import BitMap

from edge import clockwork
from edge.broadcasts import Broadcasts, Drop
from edge.directory import Directory
from edge.fan_out import MAX_BROADCASTS, SLICE
from edge.link import Link
from edge.metrics import EdgeMetrics
from edge.outbox import CHAT, NOTIFICATION, PRESENCE, RECEIPT
from edge.packet import Packet
from edge.rules import Rules
from edge.session import Session
from edge.settings import EdgeSettings
from edge.switchboard import Switchboard
from mesh.credentials import Identity
from mesh.telemetry import Telemetry
from tests.edge.conftest import WAIT, metric
from tidings.client.v1.frames_pb2 import ClientFrame, Hello, ServerFrame
from tidings.router.v1 import link_pb2

NOW = 1_000_000


class Someone:
    """A session, as far as a directory knows one."""

    def __init__(self, number: int, ordinal: int) -> None:
        self.number = number
        self.user_ordinal = ordinal
        self.user_id = f"user-{ordinal}"
        self.device_id = f"device-{number}"


def directory(*ordinals: int) -> Directory:
    """A directory with a session for each ordinal, numbered from 0; an ordinal may come several times."""
    found = Directory()
    for number, ordinal in enumerate(ordinals):
        someone = cast(Session, Someone(number, ordinal))
        found.enter(someone)
        found.online(someone)
    return found


def broadcast(*ordinals: int, text: str = "x", **fields: Any) -> link_pb2.Broadcast:
    frame = ServerFrame()
    frame.notification.content.text.text = text
    whole: dict[str, Any] = {"user_ordinals": BitMap(ordinals).serialize(), "traffic_class": 3, "frame": frame.SerializeToString()}
    return link_pb2.Broadcast(**whole | fields)


def queue(of: Directory, max_count: int = 100, max_bytes: int = 1_000_000) -> tuple[Broadcasts, list[str]]:
    dropped = list[str]()
    return Broadcasts(of, max_count, max_bytes, dropped.append), dropped


def walked(broadcasts: Broadcasts, size: int = 10) -> list[list[int]]:
    """The session numbers of all slices."""
    slices = []
    while (found := broadcasts.next_slice(size, NOW)) is not None:
        slices.append([session.number for session in found.sessions])
    return slices


@given(st.lists(st.integers(1, 200_000), max_size=60), st.sets(st.integers(1, 200_000), max_size=60), st.integers(1, 20), st.data())
def test_every_session_of_those_named_and_here_is_written_once(
    here: list[int], others: set[int], size: int, data: st.DataObject
) -> None:
    named = others | (set(data.draw(st.lists(st.sampled_from(here)))) if here else set())
    broadcasts, dropped = queue(directory(*here))
    assert broadcasts.offer(broadcast(*named)) is None
    slices = walked(broadcasts, size)
    assert sorted(number for one in slices for number in one) == [n for n, ordinal in enumerate(here) if ordinal in named]
    most = max((here.count(ordinal) for ordinal in here), default=0)
    assert all(len(one) < size + most for one in slices)
    assert not dropped


def test_who_leaves_meanwhile_is_passed_over_and_who_comes_back_is_not() -> None:
    of = directory(1, 2, 3, 4)
    broadcasts, _ = queue(of)
    broadcasts.offer(broadcast(1, 2, 3, 4))
    broadcasts.next_slice(1, NOW)
    for ordinal in (2, 4):
        of.leave(of.of_user(ordinal)[0])
    back = cast(Session, Someone(9, 4))
    of.enter(back)
    of.online(back)
    assert walked(broadcasts) == [[2, 9]]


@given(st.lists(st.integers(1, 5), max_size=20), st.data())
def test_who_is_here_is_who_came_and_has_not_left(ordinals: list[int], data: st.DataObject) -> None:
    of = directory(*ordinals)
    for session in [session for ordinal in set(ordinals) for session in of.of_user(ordinal)]:
        if data.draw(st.booleans()):
            of.leave(session)
    here = [ordinal for ordinal in range(1, 6) if of.of_user(ordinal)]
    assert list(of.here(BitMap(range(10)))) == here
    assert list(BitMap.deserialize(of.snapshot())) == here


def test_the_first_in_is_the_first_out() -> None:
    broadcasts, _ = queue(directory(1, 2, 3))
    first, second = broadcast(1, 3, text="first"), broadcast(1, 2, text="second")
    broadcasts.offer(first)
    broadcasts.offer(second)
    found = [broadcasts.next_slice(1, NOW) for _ in range(4)]
    assert [one and one.frame for one in found] == [first.frame, first.frame, second.frame, second.frame]
    assert broadcasts.next_slice(1, NOW) is None
    assert len(broadcasts) == 0


ONE = broadcast(1, text="x" * 50)
SIZE = len(ONE.user_ordinals) + len(ONE.frame)


@pytest.mark.parametrize(("max_count", "max_bytes"), [(3, 100 * SIZE), (100, 3 * SIZE)])
def test_what_finds_no_room_is_dropped_until_there_is_some(max_count: int, max_bytes: int) -> None:
    broadcasts, dropped = queue(directory(1), max_count, max_bytes)
    assert [broadcasts.offer(ONE) for _ in range(5)] == [None, None, None, Drop.FULL, Drop.FULL]
    assert dropped == ["full"] * 2
    for _ in range(2):  # the second shows that the first is through
        assert broadcasts.next_slice(1, NOW) is not None
    assert [broadcasts.offer(ONE) for _ in range(2)] == [None, Drop.FULL]
    assert walked(broadcasts) == [[0], [0]]


@given(st.binary(max_size=40))
def test_any_bytes_are_a_bitmap_or_refused(data: bytes) -> None:
    broadcasts, dropped = queue(directory(1, 2))
    if broadcasts.offer(broadcast(user_ordinals=data)) is None:
        walked(broadcasts)
    else:
        assert dropped == ["malformed"]
        assert len(broadcasts) == 0


@pytest.mark.parametrize("fields", [{"user_ordinals": b"\xff" * 9}, {"user_ordinals": b"\x3a"}, {"frame": b"\xff\xff"}])
def test_what_is_malformed_is_dropped_and_the_next_one_is_not(fields: dict[str, bytes]) -> None:
    broadcasts, dropped = queue(directory(1))
    assert broadcasts.offer(broadcast(1, **cast(Any, fields))) is Drop.MALFORMED
    assert broadcasts.offer(broadcast(1)) is None
    assert walked(broadcasts) == [[0]]
    assert dropped == ["malformed"]


def test_past_its_expiry_nothing_more_is_written() -> None:
    broadcasts, dropped = queue(directory(1, 2))
    broadcasts.offer(broadcast(1, 2, expire_time_us=NOW + 1))
    broadcasts.offer(broadcast(2, expire_time_us=NOW + 2))
    first = broadcasts.next_slice(1, NOW)
    assert first is not None and first.sessions[0].user_ordinal == 1
    last = broadcasts.next_slice(1, NOW + 1)
    assert last is not None and last.sessions[0].user_ordinal == 2
    assert dropped == ["expired"]
    assert broadcasts.next_slice(1, NOW + 1) is None
    assert dropped == ["expired"], "the second one was over by then"


@pytest.mark.parametrize(
    ("given_class", "used"),
    [(0, NOTIFICATION), (CHAT, NOTIFICATION), (RECEIPT, RECEIPT), (NOTIFICATION, NOTIFICATION), (4, PRESENCE), (9, NOTIFICATION)],
)
def test_a_broadcast_is_never_held_against_a_session(given_class: int, used: int) -> None:
    broadcasts, _ = queue(directory(1))
    broadcasts.offer(broadcast(1, traffic_class=given_class))
    found = broadcasts.next_slice(1, NOW)
    assert found is not None
    assert found.traffic_class == used


# Over sessions, on an event loop


class Client:
    """A client of a board, which writes down what is flushed to it."""

    drained = True

    def __init__(self, board: "Board") -> None:
        self._board = board
        self._queued: list[int] = []

    def write(self, frame: bytes, traffic_class: int, *, asked: bool = False) -> None:
        if traffic_class == NOTIFICATION:
            self._board.texts.append(self._board.board.json.encode(frame))
        self._queued.append(traffic_class)
        self._board.board.touched(self)

    def write_packet(self, packet: Packet) -> None:
        for one in packet.frames:
            self.write(one.frame, packet.traffic_class)

    def flush(self) -> None:
        self._board.on_flushed(self._queued)
        self._queued = []

    def verify_token(self, token: str, request_id: int) -> None:
        raise AssertionError

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(code)


class Board:
    """A switchboard with sessions of users 1, 2, 3 …, all caught up, and the task that writes broadcasts."""

    def __init__(self, sessions: int) -> None:
        self.wanted = asyncio.Event()
        self.telemetry = Telemetry("test")
        self.metrics = EdgeMetrics(self.telemetry)
        self.board = Switchboard(100_000, 1 << 40, self.metrics, time.monotonic, lambda: None, self.wanted.set)
        self.written: list[int] = []
        self.texts: list[bytes] = []
        self.first, self.changed = asyncio.Event(), asyncio.Event()
        settings = EdgeSettings(port=0, token_secret=SecretStr("a secret of at least thirty-two bytes"))
        for ordinal in range(1, sessions + 1):
            self._open(ordinal, Rules.of(settings, "edge"))
        self.board.flush()
        self.written.clear()
        self.first.clear()

    def _open(self, ordinal: int, rules: Rules) -> None:
        identity = Identity(f"user-{ordinal}", time.time() + 3600)
        one = Session(ordinal, identity, rules, Client(self), self.board, time.monotonic(), 0.0)
        one.on_frame(ClientFrame(hello=Hello(device_id="d")), time.monotonic())
        one.on_opened(ordinal)
        one.on_sync_page(link_pb2.SyncPage(), time.monotonic())

    def on_flushed(self, traffic_classes: list[int]) -> None:
        self.written += traffic_classes
        self.first.set()
        self.changed.set()

    def put(self, **fields: Any) -> None:
        """A batch comes from a router."""
        self.board.on_batch(cast(Link, AnyLink()), link_pb2.RouterBatch(**fields))

    async def until_written(self, count: int) -> None:
        async with asyncio.timeout(WAIT):
            while len(self.written) < count:
                self.changed.clear()
                await self.changed.wait()

    async def write(self) -> None:
        await clockwork.write_broadcasts(self.wanted, self.board, time.monotonic, lambda: NOW / 1e6)


class AnyLink:
    router_id = "router"


async def test_chat_goes_between_the_slices_of_a_broadcast() -> None:
    many = 5_000
    board = Board(many)
    writing = asyncio.create_task(board.write())
    board.put(broadcasts=[broadcast(*range(1, many + 1))])
    chat = link_pb2.Delivery(user_ordinals=[many], traffic_class=1, frame=b"chat")  # type: ignore[arg-type]
    await board.first.wait()
    board.put(deliveries=[chat])
    put_in_at = board.written.index(CHAT)
    await board.until_written(many + 1)
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    assert put_in_at <= 2 * SLICE, "it waits for the slice under way at most; the test itself is woken a turn later"
    assert board.written.count(NOTIFICATION) == many
    assert metric(board.telemetry, "notifications_total", direction="out") == many
    assert len({id(text) for text in board.texts}) == 1, "its JSON is made once, not once a slice"


async def test_a_session_that_fails_is_closed_and_the_others_get_theirs() -> None:
    board = Board(3)
    bad = board.board.directory.of_user(2)[0]
    codes: list[int] = []
    bad._client = cast(Any, type("Broken", (), {"close": lambda self, code, reason: codes.append(code)})())
    board.put(broadcasts=[broadcast(1, 2, 3)])
    while board.board.write_slice(0.0, 0.0):
        pass
    assert board.written == [NOTIFICATION] * 2
    assert len(codes) == 1
    assert not board.board.directory.of_user(2)


async def test_a_flood_of_broadcasts_is_bounded_and_counted() -> None:
    board = Board(1)
    board.put(broadcasts=[broadcast(1)] * (MAX_BROADCASTS + 5))
    dropped = "broadcasts_dropped_total"
    assert metric(board.telemetry, dropped, reason="full") == metric(board.telemetry, dropped) == 5, "and for nothing else"
    while board.board.write_slice(0.0, 0.0):
        pass
    assert len(board.written) == MAX_BROADCASTS
