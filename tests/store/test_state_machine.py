"""Random histories: the store answers as the simple one does, on both engines, over gRPC."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import grpc
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mesh.times import clock
from store.serve import open_database
from store.settings import StoreSettings
from store.sweeper import Sweeper
from tests.store.client import StoreClient, content, reason, running_store
from tests.store.simple_store import MEMBER, OWNER, SimpleConversation, SimpleMember
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1.error_pb2 import ErrorCode
from tidings.store.v1 import message_log_pb2 as pb
from tidings.store.v1.conversation_pb2 import GetConversationsRequest

T = TypeVar("T")
USERS = ("alice", "bob", "carol")
CHATS = ("direct", "group", "fleeting")
chats, users = st.sampled_from(CHATS), st.sampled_from(USERS)
devices = st.sampled_from(("phone", "laptop"))
seqs = st.integers(0, 12)
_examples = itertools.count(1)


class Fixture:
    """A running store, and a loop to talk to it from functions that can't await."""

    def __init__(self, runner: asyncio.Runner, store: StoreClient, sweeper: Sweeper) -> None:
        self.runner = runner
        self.store = store
        self.sweeper = sweeper

    def wait(self, call: Awaitable[T]) -> T:
        """Await it here."""

        async def awaited() -> T:
            return await call

        return self.runner.run(awaited())


@pytest.fixture
def fixture(database_url: str) -> Iterator[Fixture]:
    """Both, and a sweeper on the same database."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        options: dict[str, Any] = {"database": database_url}
        store = runner.run(stack.enter_async_context(running_store(database_url)))
        database, _ = runner.run(stack.enter_async_context(open_database(StoreSettings(**options))))
        yield Fixture(runner, store, Sweeper(database, clock, 1_000_000_000_000))
        runner.run(stack.aclose())


class Machine(RuleBasedStateMachine):
    """One direct chat and two groups of three users, new ones in each example."""

    def __init__(self, fixture: Fixture) -> None:
        super().__init__()
        self.store, self.wait, self.sweeper = fixture.store, fixture.wait, fixture.sweeper
        number = next(_examples)
        self.ids = {user: f"{user}{number}" for user in USERS}
        self.names = {name: user for user, name in self.ids.items()}
        self.ordinals = dict(zip(USERS, self.wait(self.store.ordinals(*self.ids.values())), strict=True))
        alice, bob = self.ids["alice"], self.ids["bob"]
        fleeting = common.Retention(kind=common.RETENTION_KIND_UNTIL_DELIVERED)
        self.where = {
            "direct": self.wait(self.store.direct(alice, bob)),
            "group": self.wait(self.store.group(alice, bob)).conversation_id,
            "fleeting": self.wait(self.store.group(alice, bob, retention=fleeting)).conversation_id,
        }
        self.model = {name: SimpleConversation(direct=name == "direct", until_delivered=name == "fleeting") for name in CHATS}
        for name, chat in self.model.items():
            roles = {"alice": MEMBER if name == "direct" else OWNER, "bob": MEMBER}
            chat.members = {user: SimpleMember(role) for user, role in roles.items()}
            if name != "direct":
                chat._tell("alice")
                chat.version = 1

    @rule(
        entries=st.lists(
            st.tuples(chats, users, st.sampled_from("tuvwxyz"), st.one_of(st.just(0), seqs), st.booleans()), max_size=6
        )
    )
    def append(self, entries: list[tuple[str, str, str, int, bool]]) -> None:
        sent, expected = [], []
        for n, (chat, user, name, target, deleting) in enumerate(entries):
            words = "" if deleting and target else f"text {n}"
            body = content(words) if words else None
            sent.append(
                pb.NewEntry(
                    conversation_id=self.where[chat],
                    sender_ordinal=self.ordinals[user],
                    client_msg_id=name,
                    target_seq=target,
                    content=body,
                )
            )
            outcome = self.model[chat].append(user, name, target, words)
            expected.append((*outcome, self.model[chat].version))
        results = self.wait(self.store.append(*sent))
        assert [(_outcome(result), result.seq, result.membership_version) for result in results] == expected

    @rule(chat=chats, actor=users, member=users, role=st.integers(0, 3))
    def put(self, chat: str, actor: str, member: str, role: int) -> None:
        number = common.Role.ValueType(role)
        call = self.store.put(self.ids[actor], self.where[chat], self.ids[member], number)
        assert self.refusal(call) == self.model[chat].put(actor, member, role)

    @rule(chat=chats, actor=users, member=users)
    def remove(self, chat: str, actor: str, member: str) -> None:
        call = self.store.remove(self.ids[actor], self.where[chat], self.ids[member])
        assert self.refusal(call) == self.model[chat].remove(actor, member)

    @rule(advances=st.lists(st.tuples(chats, users, st.one_of(st.just(""), devices), seqs, seqs), max_size=5))
    def advance(self, advances: list[tuple[str, str, str, int, int]]) -> None:
        sent = [
            pb.MarkAdvance(
                conversation_id=self.where[chat],
                user_ordinal=self.ordinals[user],
                device_id=device,
                delivered_seq=delivered,
                read_seq=read,
            )
            for chat, user, device, delivered, read in advances
        ]
        marks = self.wait(self.store.advance(*sent))
        for (chat, *advance), mark in zip(advances, marks, strict=True):
            answer = _reason(mark.refusal) or (mark.delivered_seq, mark.read_seq)
            assert answer == self.model[chat].advance(*advance)  # type: ignore[arg-type]

    @rule(chat=chats, user=users, at=seqs, size=st.integers(1, 4), back=st.booleans())
    def page(self, chat: str, user: str, at: int, size: int, back: bool) -> None:
        request = pb.ListEntriesRequest(conversation_id=self.where[chat], user_ordinal=self.ordinals[user], page_size=size)
        if back:
            request.before_seq = at
        else:
            request.after_seq = at
        if user not in self.model[chat].members:
            assert self.refusal(self.store.messages.ListEntries(request)) == "NOT_A_MEMBER"
            return
        visible = self.model[chat].visible(user)
        beyond = [seq for seq in visible if (seq < at if back else seq > at)]
        answer = self.wait(self.store.messages.ListEntries(request))
        assert [entry.seq for entry in answer.entries] == (beyond[-size:] if back else beyond[:size])
        assert answer.has_more == (len(beyond) > size)
        self.check_entries(chat, answer.entries)

    @rule(user=users, device=devices, size=st.integers(1, 5), history=st.integers(0, 4))
    def sync(self, user: str, device: str, size: int, history: int) -> None:
        got: dict[str, tuple[list[int], bool]] = {}
        question = pb.DeviceSync(user_ordinal=self.ordinals[user], device_id=device, page_size=size, history_limit=history)
        while True:
            [page] = self.wait(self.store.sync(question))
            for run in page.runs:
                [chat] = [name for name, where in self.where.items() if where == run.conversation_id]
                known, truncated = got.get(chat, ([], False))
                got[chat] = (known + [entry.seq for entry in run.entries], truncated or run.truncated)
                self.check_entries(chat, run.entries)
            if not page.next_page_token:
                break
            question.page_token = page.next_page_token
        expected = {name: chat.missed(user, device, history) for name, chat in self.model.items()}
        assert got == {name: missed for name, missed in expected.items() if missed is not None}

    @rule()
    def sweep(self) -> None:
        self.wait(self.sweeper.sweep(clock()))
        for chat in self.model.values():
            chat.sweep()

    @invariant()
    def conversations_agree(self) -> None:
        request = GetConversationsRequest(conversation_ids=[self.where[name] for name in self.model])
        answer = self.wait(self.store.conversations.GetConversations(request))
        for chat, found in zip(self.model.values(), answer.conversations, strict=True):
            assert (found.last_seq, found.membership_version) == (len(chat.log), chat.version)
            assert found.retained_from_seq == chat.retained_from
            members = {
                self.names[member.user_id]: SimpleMember(
                    int(member.role), member.visible_from_seq, member.delivered_seq, member.read_seq
                )
                for member in found.members
            }
            assert members == chat.members

    def check_entries(self, chat: str, entries: Any) -> None:
        """What entries say is what the model says."""
        for entry in entries:
            simple = self.model[chat].log[entry.seq - 1]
            kind = entry.WhichOneof("body")
            assert (kind, self.names[entry.sender_id], entry.client_msg_id) == (simple.kind, simple.sender, simple.client_msg_id)
            if kind in ("edit", "deletion"):
                assert getattr(entry, kind).target_seq == simple.target
            if kind in ("edit", "content"):
                body = entry.edit.content if kind == "edit" else entry.content
                assert body.text.text == simple.text

    def refusal(self, call: Awaitable[object]) -> str:
        """ "" or the reason."""
        try:
            self.wait(call)
        except grpc.RpcError as error:
            return reason(error)
        return ""


def _outcome(result: pb.AppendResult) -> str:
    return _reason(result.refusal) or ("duplicate" if result.duplicate else "stored")


def _reason(code: ErrorCode.ValueType) -> str:
    return ErrorCode.Name(code).removeprefix("ERROR_CODE_") if code else ""


def test_the_store_is_the_simple_store(fixture: Fixture) -> None:
    short = settings(max_examples=25, stateful_step_count=25, deadline=None, database=None)
    run_state_machine_as_test(lambda: Machine(fixture), settings=short)  # type: ignore[arg-type]
