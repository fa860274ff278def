"""An honest message log in memory: what the store promises, in a few lines, so that a client can be held against it."""

from collections import defaultdict
from dataclasses import dataclass, field

from tidings.client.v1.frames_pb2 import MessagePage
from tidings.common.v1 import conversation_pb2 as pb
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry
from tidings_client.naming import direct_conversation_id


@dataclass
class Room:
    """One conversation."""

    conversation: Conversation
    entries: dict[int, LogEntry] = field(default_factory=dict)
    by_client_msg_id: dict[tuple[str, str], int] = field(default_factory=dict)

    def member(self, user_id: str) -> pb.Member | None:
        return next((member for member in self.conversation.members if member.user_id == user_id), None)


class FakeLog:
    """All conversations and every device's cursors."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.cursors: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)

    def direct(self, one: str, other: str) -> Room:
        name = direct_conversation_id(one, other)
        if name not in self.rooms:
            members = [pb.Member(user_id=user, role=pb.ROLE_MEMBER, visible_from_seq=1) for user in (one, other)]
            kind = pb.CONVERSATION_KIND_DIRECT
            self.rooms[name] = Room(Conversation(conversation_id=name, kind=kind, members=members, retained_from_seq=1))
        return self.rooms[name]

    def group(self, name: str, owner: str, members: list[str]) -> Room:
        conversation_id = "g" + "abcdefghijklmnopqrstuvwxyz"[len(self.rooms) % 20] * 26
        everyone = [pb.Member(user_id=user, role=pb.ROLE_MEMBER, visible_from_seq=1) for user in [owner, *members]]
        conversation = Conversation(conversation_id=conversation_id, kind=pb.CONVERSATION_KIND_GROUP, name=name, members=everyone)
        conversation.retained_from_seq = 1
        room = self.rooms[conversation_id] = Room(conversation)
        event = pb.MembershipEvent(change=pb.MEMBERSHIP_CHANGE_CREATED, user_ids=members, name=name)
        self.append(room, LogEntry(sender_id=owner, membership=event))
        return room

    def append(self, room: Room, entry: LogEntry) -> tuple[LogEntry, bool]:
        """Store; gives the entry as stored, and whether it is new."""
        key = (entry.sender_id, entry.client_msg_id)
        if entry.client_msg_id and key in room.by_client_msg_id:
            return room.entries[room.by_client_msg_id[key]], False
        seq = room.conversation.last_seq = room.conversation.last_seq + 1
        stored = LogEntry()
        stored.CopyFrom(entry)
        stored.conversation_id, stored.seq = room.conversation.conversation_id, seq
        stored.message_id = f"{stored.conversation_id}:{seq}"
        stored.store_time.GetCurrentTime()
        room.entries[seq] = stored
        room.by_client_msg_id[key] = seq
        if stored.HasField("deletion") and room.entries[stored.deletion.target_seq].HasField("content"):
            room.entries[stored.deletion.target_seq].content.Clear()
        return stored, True

    def retain_from(self, room: Room, seq: int) -> None:
        """The sweeper removes what is below."""
        room.conversation.retained_from_seq = seq
        room.entries = {key: entry for key, entry in room.entries.items() if key >= seq}

    def available_from(self, room: Room, user_id: str) -> int:
        member = room.member(user_id)
        assert member is not None
        return max(member.visible_from_seq, room.conversation.retained_from_seq, 1)

    def page_after(self, room: Room, user_id: str, after: int, limit: int) -> MessagePage:
        first = max(after + 1, self.available_from(room, user_id))
        last = min(room.conversation.last_seq, first + limit - 1)
        return self._page(room, user_id, first, last, has_more=last < room.conversation.last_seq)

    def page_before(self, room: Room, user_id: str, before: int, limit: int) -> MessagePage:
        last = min(before - 1, room.conversation.last_seq)
        first = max(last - limit + 1, self.available_from(room, user_id))
        return self._page(room, user_id, first, last, has_more=first > self.available_from(room, user_id))

    def missed(self, user_id: str, device_id: str, history_limit: int, page: int) -> list[MessagePage]:
        """What a device hasn't acknowledged, in pages."""
        pages = []
        cursors = self.cursors[user_id, device_id]
        for room in self.rooms.values():
            name, last = room.conversation.conversation_id, room.conversation.last_seq
            if room.member(user_id) is None or cursors.get(name, 0) >= last:
                continue
            available = self.available_from(room, user_id)
            cursor = cursors[name] if name in cursors else max(available - 1, last - history_limit)
            truncated = cursor < available - 1 or (name not in cursors and cursor >= available)
            while cursor < last:
                next_page = self.page_after(room, user_id, cursor, page)
                next_page.truncated = truncated
                pages.append(next_page)
                cursor, truncated = next_page.entries[-1].seq, False
        return pages

    def _page(self, room: Room, user_id: str, first: int, last: int, *, has_more: bool) -> MessagePage:
        return MessagePage(
            conversation_id=room.conversation.conversation_id,
            entries=[room.entries[seq] for seq in range(first, last + 1)],
            last_seq=room.conversation.last_seq,
            first_available_seq=self.available_from(room, user_id),
            has_more=has_more,
        )
