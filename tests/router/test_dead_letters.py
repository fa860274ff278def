"""Work that a router can't do: its neighbours go on, it is put aside with the reason, and is done once mended and replayed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import errors
from mesh.naming import direct_conversation_id
from router.dead_letters import ATTEMPTS, DeadLetters
from router.directory import Directory
from router.dispatch import DispatchMarks
from router.log_fan_out import LogFanOut
from router.membership import Membership, MembershipCache
from router.peers import Peers
from router.replays import Replays
from store.serve import serve as serve_store
from store.settings import StoreSettings
from tests.router.conftest import Mesh
from tests.router.fake_edge import FakeEdge, edge, frame_of, send
from tests.router.test_membership import chat
from tests.store.behind import allow, execute, query, refuse
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import link_pb2
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1.conversation_pb2 import GetConversationsRequest, GetConversationsResponse
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub
from tidings.store.v1.message_log_pb2 import ListEntriesRequest, ListEntriesResponse

SEARCHING: dict[str, Any] = {"redispatch_seconds": 0.1, "redispatch_age_seconds": 0.0}
LOST = "UPDATE conversations SET dispatched_seq = 0"  # as if the router had died before it told anybody


class Fleet:
    """A store whose database tests spoil, and a router that looks often for what was left behind.

    Attributes:
        url: the database.
    """

    def __init__(self, mesh: Mesh, url: str, letters: Any) -> None:
        self.mesh, self.url, self._letters = mesh, url, letters
        self.bodies: dict[str, bytes] = {}

    async def router(self, stack: AsyncExitStack | None = None) -> Instance:
        """One more."""
        return await self.mesh.router(stack, **SEARCHING)

    def spoil(self, conversation_id: str, seq: int, body: bytes = b"\xff") -> None:
        """Make an entry one that can't be read, or one that can."""
        where = "WHERE conversation_id = :chat AND seq = :seq"
        execute(self.url, f"UPDATE messages SET body = :body {where}", body=body, chat=conversation_id, seq=seq)

    async def letters(self) -> list[pb.DeadLetter]:
        """What was put aside."""
        page = await self._letters.ListDeadLetters(pb.ListDeadLettersRequest())
        return list(page.dead_letters)

    async def letter(self, attempts: int = ATTEMPTS) -> pb.DeadLetter:
        """The only one, once it was tried so often and no replay is awaited."""
        async with asyncio.timeout(10):
            while not (found := await self.letters()) or found[0].attempts < attempts or found[0].replaying:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # it tells nobody
        [one] = found
        return one

    async def noted(self) -> None:
        """Wait until the store has it that everything was told, or put aside."""
        behind = "SELECT 1 FROM conversations WHERE last_seq > dispatched_seq"
        async with asyncio.timeout(10):
            while query(self.url, behind):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def none_left(self) -> None:
        """Wait until nothing is put aside any more."""
        async with asyncio.timeout(10):
            while await self.letters():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def replay(self, letter: pb.DeadLetter) -> None:
        """Have it done again."""
        await self._letters.ReplayDeadLetter(pb.ReplayDeadLetterRequest(dead_letter_id=letter.dead_letter_id))


@pytest.fixture
async def fleet(tmp_path: Path, mesh: Mesh) -> AsyncIterator[Fleet]:
    url = f"sqlite:///{tmp_path / 'tidings.sqlite'}"
    options: dict[str, Any] = {"port": 0, "database": url, "history_cache_entries": 0, "drain_seconds": 0.5}
    async with (
        serve_store(StoreSettings(**options), mesh.registry, mesh.telemetry) as store,
        grpc.aio.insecure_channel(store.grpc_address) as channel,
    ):
        yield Fleet(mesh, url, DeadLetterServiceStub(channel))


async def _open(one: FakeEdge, *names: str) -> list[int]:
    replies = [await one.ask(name, 0, open_session=link_pb2.OpenSession(device_id="phone")) for name in names]
    ordinals = [reply.session_opened.user_ordinal for reply in replies]
    await one.batch(opened_user_ordinals=ordinals)
    return ordinals


async def _left_behind(fleet: Fleet, said: int, poisoned: int) -> tuple[list[str], dict[str, int]]:
    """Two chats whose entries nobody was told of, one of them with an entry that can't be read; and the users' ordinals."""
    async with AsyncExitStack() as stack:
        router = await fleet.router(stack)
        one = await stack.enter_async_context(edge(router.grpc_address))
        ordinals = dict(zip(names := ("alice", "bob", "carol"), await _open(one, *names), strict=True))
        for other in ("bob", "carol"):
            for n in range(said):
                await one.ask("alice", ordinals["alice"], append_entry=send(client_msg_id=f"m{n}", recipient_id=other))
    chats = sorted(direct_conversation_id("alice", other) for other in ("bob", "carol"))
    fleet.spoil(chats[0], poisoned)
    execute(fleet.url, LOST)
    return chats, ordinals


async def test_an_entry_that_can_not_be_read_holds_up_nobody(fleet: Fleet) -> None:
    (first, second), ordinals = await _left_behind(fleet, said=9, poisoned=4)
    everyone, alice = list(ordinals.values()), ordinals["alice"]
    router = await fleet.router()
    async with edge(router.grpc_address, *everyone) as one:
        rest = {1, 2, 3, 5, 6, 7, 8, 9}
        await one.until(lambda: set(one.messages(alice, first)) == rest and set(one.messages(alice, second)) == rest | {4})
        letter = await fleet.letter()
        assert (letter.kind, letter.subject, letter.from_seq, letter.to_seq) == (pb.DEAD_LETTER_KIND_DISPATCH, first, 4, 4)
        assert letter.reason == "INTERNAL" and letter.attempts % ATTEMPTS == 0
        await fleet.noted()
        [letter] = await fleet.letters()

        await fleet.replay(letter)  # too early: it fails again, and comes back
        again = await fleet.letter(letter.attempts + ATTEMPTS)
        assert (again.dead_letter_id, again.replaying) == (letter.dead_letter_id, False)

        fleet.spoil(first, 4, b"")
        await fleet.replay(again)
        await one.until(lambda: 4 in one.messages(alice, first))
        await fleet.none_left()


async def test_a_replay_outlives_the_router_that_took_it_up(fleet: Fleet) -> None:
    (first, _), ordinals = await _left_behind(fleet, said=2, poisoned=2)
    alice = ordinals["alice"]
    async with AsyncExitStack() as stack:
        router = await fleet.router(stack)
        one = await stack.enter_async_context(edge(router.grpc_address, *ordinals.values()))
        letter = await fleet.letter()
        await fleet.noted()
        fleet.spoil(first, 2, b"")
        one.reading.clear()  # so that the edge never says that it has acted on it
        await fleet.replay(letter)
        one.reading.set()
    router = await fleet.router()
    async with edge(router.grpc_address, *ordinals.values()) as two:
        if await fleet.letters():
            await two.until(lambda: 2 in two.messages(alice, first))
        await fleet.none_left()


async def test_a_conversation_that_can_not_be_read_at_all_is_put_aside_as_a_whole(fleet: Fleet) -> None:
    (first, second), ordinals = await _left_behind(fleet, said=3, poisoned=1)
    fleet.spoil(first, 1, b"")
    execute(fleet.url, "UPDATE conversations SET kind = 99 WHERE conversation_id = :chat", chat=first)
    router = await fleet.router()
    async with edge(router.grpc_address, *ordinals.values()) as one:
        await one.until(lambda: set(one.messages(ordinals["alice"], second)) == {1, 2, 3})
        letter = await fleet.letter()
        assert (letter.subject, letter.from_seq, letter.to_seq) == (first, 1, 0)
        await fleet.noted()
        execute(fleet.url, "UPDATE conversations SET kind = 1 WHERE conversation_id = :chat", chat=first)
        await fleet.replay(letter)
        await one.until(lambda: set(one.messages(ordinals["alice"], first)) == {1, 2, 3})
        await fleet.none_left()


async def test_marks_that_the_log_can_not_take_are_put_aside(fleet: Fleet) -> None:
    router = await fleet.router()
    async with edge(router.grpc_address) as one:
        alice, bob, carol = await _open(one, "alice", "bob", "carol")
        chats = {}
        for other in ("bob", "carol"):
            stored = await one.ask_frame("alice", alice, append_entry=send(recipient_id=other))
            chats[other] = stored.message_stored.conversation_id
        refuse(fleet.url, "bob", "UPDATE", "members", f"NEW.user_ordinal = {bob}")
        deltas = [
            link_pb2.ReceiptDelta(user_ordinal=ordinal, user_id=name, device_id="phone", conversation_id=chats[name], read_seq=1)
            for name, ordinal in (("bob", bob), ("carol", carol))
        ]
        await one.batch(receipts=deltas)
        told = await one.delivery(lambda frame: frame.HasField("receipt"))
        assert frame_of(told.frame).receipt.conversation_id == chats["carol"]
        letter = await fleet.letter()
        assert letter.kind == pb.DEAD_LETTER_KIND_MARKS and letter.subject == f"{chats['bob']}/{bob}/phone"
        with pytest.raises(grpc.RpcError):
            await fleet.replay(letter)
        assert (await fleet.letter()).attempts == ATTEMPTS + 1
        allow(fleet.url, "bob", "members")
        await fleet.replay(letter)
        assert await fleet.letters() == []


async def test_nonsense_that_clients_say_is_never_put_aside(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    async def put(_: object, *what: object) -> bool:
        tried.append(what)
        return True

    monkeypatch.setattr(DeadLetters, "put_marks", put)
    router = await fleet.router()
    async with edge(router.grpc_address) as one:
        alice, mallory = await _open(one, "alice", "mallory")
        stored = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob"))
        chats = [stored.message_stored.conversation_id, "g" + "a" * 26, "", "\0", "x" * 10_000]
        for device in ("phone", "bad device", "", "x" * 1000):
            deltas = [
                link_pb2.ReceiptDelta(
                    user_ordinal=mallory, user_id="mallory", device_id=device, conversation_id=name, read_seq=2**64 - 1
                )
                for name in chats
            ]
            await one.batch(receipts=deltas)
        good = link_pb2.ReceiptDelta(
            user_ordinal=alice, user_id="alice", device_id="phone", conversation_id=chats[0], delivered_seq=9, read_seq=9
        )
        await one.batch(receipts=[good])
        await one.delivery(lambda frame: frame.HasField("receipt"))
        assert not tried


class Log:
    """A chat whose entries can't be told while they are poisoned, and letters as the store keeps them."""

    def __init__(self, last: int) -> None:
        self.chat = chat("g", 1, 1, 2)
        self.chat.last_seq = last
        self.poisoned: set[int] = set()
        self.letter: pb.DeadLetter | None = None
        self.away = False
        self.told: set[int] = set()

    async def get_conversations(self, _: GetConversationsRequest) -> GetConversationsResponse:
        return GetConversationsResponse(conversations=[self.chat])

    async def list_entries(self, request: ListEntriesRequest) -> ListEntriesResponse:
        if self.away:
            raise errors.unavailable("away")
        seqs = range(request.after_seq + 1, min(request.after_seq + request.page_size, self.chat.last_seq) + 1)
        if self.poisoned & set(seqs):
            raise errors.internal("can't be decoded")
        entries = [LogEntry(conversation_id="g", seq=seq) for seq in seqs]
        more = bool(seqs) and seqs[-1] < self.chat.last_seq
        return ListEntriesResponse(entries=entries, last_seq=self.chat.last_seq, has_more=more)

    async def put_dead_letters(self, request: pb.PutDeadLettersRequest) -> pb.PutDeadLettersResponse:
        [new] = request.dead_letters
        known = self.letter or pb.DeadLetter(dead_letter_id="dl", from_seq=new.from_seq, to_seq=new.to_seq)
        known.from_seq = min(known.from_seq, new.from_seq)
        known.to_seq = max(known.to_seq, new.to_seq) if known.to_seq and new.to_seq else 0
        known.attempts += new.attempts
        known.replaying = False
        known.update_time.seconds += 1
        known.subject = "g"
        self.letter = known
        return pb.PutDeadLettersResponse(dead_letter_ids=["dl"])

    async def list_dead_letters(self, _: pb.ListDeadLettersRequest) -> pb.ListDeadLettersResponse:
        found = [self.letter] if self.letter is not None and self.letter.replaying else []
        return pb.ListDeadLettersResponse(dead_letters=found)

    async def discard_dead_letter(self, request: pb.DiscardDeadLetterRequest) -> pb.DiscardDeadLetterResponse:
        if self.letter is not None and (not request.HasField("update_time") or self.letter.update_time == request.update_time):
            self.letter = None
        return pb.DiscardDeadLetterResponse()

    def entry(self, conversation: Membership, seq: int, _: bytes) -> None:
        """As `FanOut.entry`."""
        self.told.add(seq)


def alone() -> Peers:
    """The only router there is."""
    peers = Peers("a")
    peers.update({"a": Instance(instance_id="a")})
    return peers


async def _told_or_kept(log: Any, steps: list[tuple[str, set[int]]], last: int) -> None:
    """Whatever happens, an entry was told or is in a letter, once the first run is through."""
    directory = Directory(MembershipCache(100), log)
    entries = LogFanOut(log, directory, log, DispatchMarks(0), DeadLetters(log))
    replays = Replays(log, entries, alone(), 1.0)
    assert await entries.run("g", 0)
    for step, seqs in steps:
        log.away = step == "away"
        log.poisoned = seqs if step == "spoil" else log.poisoned - seqs
        if log.letter is not None and step != "spoil":
            log.letter.replaying = True
        try:
            await replays._take_up()
        except errors.TidingsError:
            assert log.away
        for _ in range(2):
            for dead_letter_id, put_at in replays._told.turn({}, {}).items():
                await replays._discard(dead_letter_id, put_at)
        kept = set(range(log.letter.from_seq, (log.letter.to_seq or last) + 1)) if log.letter is not None else set()
        assert not kept or log.away or log.poisoned & kept or step == "spoil", "mended and replayed, it goes"
        assert log.told | kept == set(range(1, last + 1))


seqs = st.sets(st.integers(1, 30))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), seqs, st.lists(st.tuples(st.sampled_from(["spoil", "mend", "away"]), seqs), max_size=6))
def test_no_entry_is_lost_however_replays_go(last: int, poisoned: set[int], steps: list[tuple[str, set[int]]]) -> None:
    log = Log(last)
    log.poisoned = poisoned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("router.dead_letters._RETRY_SECONDS", (0.0,))
        asyncio.run(_told_or_kept(log, steps, last))


async def test_a_replay_tells_what_is_in_the_letter_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.dead_letters._RETRY_SECONDS", (0.0,))
    log: Any = Log(500)
    log.poisoned = {7, 300}
    marks: DispatchMarks[Any] = DispatchMarks(9)
    directory = Directory(MembershipCache(100), log)
    assert await LogFanOut(log, directory, log, marks, DeadLetters(log)).run("g", 0)
    assert marks.turn({}, {}) == {} and marks.turn({}, {}) == {"g": 300}  # what was told is noted by who tells it
    assert log.told == set(range(1, 501)) - {7, 300} and (log.letter.from_seq, log.letter.to_seq) == (7, 300)
    log.poisoned, log.told, log.letter.replaying = set(), set(), True
    await Replays(log, LogFanOut(log, directory, log, DispatchMarks(0), DeadLetters(log)), alone(), 1.0)._take_up()
    assert log.told == set(range(7, 301))


async def test_a_store_that_is_away_makes_no_letters() -> None:
    log: Any = Log(3)
    log.away = True
    entries = LogFanOut(log, Directory(MembershipCache(100), log), log, DispatchMarks(9), DeadLetters(log))
    with pytest.raises(errors.TidingsError, match="away"):
        await entries.run("g", 0)
    assert log.letter is None and not log.told
