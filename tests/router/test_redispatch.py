"""Fanning out from the log: to whom, while members come and go."""

from typing import Any

from router.dead_letters import DeadLetters
from router.directory import Directory
from router.dispatch import DispatchMarks
from router.log_fan_out import LogFanOut
from router.membership import Membership, MembershipCache
from tests.router.test_membership import chat
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings.store.v1.conversation_pb2 import GetConversationsResponse
from tidings.store.v1.message_log_pb2 import ListEntriesResponse


class Store:
    """A group that user 2 leaves just before its log is read."""

    def __init__(self) -> None:
        self.group = chat("g", 1, 1, 2)
        self.group.last_seq = 1

    async def get_conversations(self, _: Any) -> GetConversationsResponse:
        return GetConversationsResponse(conversations=[self.group])

    async def list_entries(self, _: Any) -> ListEntriesResponse:
        self.group = chat("g", 2, 1)
        self.group.last_seq = 3
        entries = [LogEntry(conversation_id="g", seq=seq) for seq in (1, 2, 3)]
        return ListEntriesResponse(entries=entries, last_seq=3)


class Pushes:
    """Remembers who was told what."""

    def __init__(self) -> None:
        self.told: dict[int, set[int]] = {}

    def entry(self, conversation: Membership, seq: int, _: bytes) -> None:
        self.told[seq] = set(conversation.user_ids)


async def test_who_left_meanwhile_is_not_told_what_came_after() -> None:
    store: Any = Store()
    pushes: Any = Pushes()
    directory = Directory(MembershipCache(100), store)
    await directory.load(["g"])
    await LogFanOut(store, directory, pushes, DispatchMarks(10), DeadLetters(store)).run("g", 0)
    assert pushes.told[3] == {1}
