"""The statuses of one's own messages over all conversations: loads what is known of each when it is first touched, and remembers
for which ones the others' marks should be asked for."""

from tidings.common.v1 import conversation_pb2 as pb
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry
from tidings_client.model import Status, StatusEvent
from tidings_client.state import State
from tidings_client.statuses import MAX_AWAITED, Marks, Progress, Statuses

MAX_ASKED = 20  # conversations whose marks are asked for after reconnecting; the rest catch up with their next receipt


class ProgressBook:
    """See the top of this file."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._user_id = state.identity("user_id")
        self._statuses: dict[str, Statuses] = {}
        self._wanted: dict[str, None] = {}

    def identify(self, user_id: str) -> None:
        """Who we are."""
        if user_id != self._user_id:
            self._user_id = user_id
            self.forget()

    def forget(self) -> None:
        """Read everything from the state again."""
        self._statuses.clear()

    def on_sent(self, conversation_id: str, seq: int, client_msg_id: str) -> Status:
        """A message of ours got its place."""
        statuses = self._of(conversation_id)
        if not statuses.members_known:
            self.want(conversation_id)
        return statuses.on_sent(seq, client_msg_id)

    def on_marks(self, conversation_id: str, user_id: str, delivered_seq: int, read_seq: int) -> list[StatusEvent]:
        """Another member's marks moved."""
        made = self._of(conversation_id).on_marks(user_id, delivered_seq, read_seq)
        return _events(conversation_id, made)

    def on_conversation(self, conversation: Conversation) -> list[StatusEvent]:
        """A conversation with all its members."""
        others = [
            (member.user_id, Marks(member.delivered_seq, member.read_seq, member.visible_from_seq))
            for member in conversation.members
            if member.user_id != self._user_id
        ]
        if not conversation.members:
            return []
        self._wanted.pop(conversation.conversation_id, None)
        return _events(conversation.conversation_id, self._of(conversation.conversation_id).on_members(others))

    def on_membership(self, entry: LogEntry) -> list[StatusEvent]:
        """Members came or went, as the log tells it."""
        statuses = self._of(entry.conversation_id)
        change, others = entry.membership.change, [name for name in entry.membership.user_ids if name != self._user_id]
        made: list[Progress] = []
        if change == pb.MEMBERSHIP_CHANGE_CREATED:
            created = {*others, entry.sender_id} - {self._user_id}
            made = statuses.on_members((name, Marks(visible_from_seq=entry.seq)) for name in created)
        elif change == pb.MEMBERSHIP_CHANGE_ADDED:
            statuses.on_joined(others, entry.seq)
        elif change in (pb.MEMBERSHIP_CHANGE_REMOVED, pb.MEMBERSHIP_CHANGE_LEFT):
            made = statuses.on_left(others or [entry.sender_id])
        return _events(entry.conversation_id, made)

    def on_caught_up(self) -> None:
        """Receipts sent while we were away are gone: ask for the marks where some message isn't read by all."""
        for name in self._state.unread_by_others(MAX_ASKED):
            self.want(name)

    def want(self, conversation_id: str) -> None:
        """Ask for its members and marks."""
        self._wanted[conversation_id] = None

    def take_wanted(self) -> list[str]:
        """Conversations whose members and marks should be asked for."""
        wanted, self._wanted = list(self._wanted), {}
        return wanted

    def upto(self, conversation_id: str) -> tuple[int, int]:
        """Own messages are delivered, and read, up to these seqs."""
        statuses = self._of(conversation_id)
        return statuses.delivered_upto, statuses.read_upto

    def status(self, conversation_id: str, seq: int) -> Status:
        """Of a stored message of ours."""
        return self._of(conversation_id).status(seq)

    def _of(self, conversation_id: str) -> Statuses:
        statuses = self._statuses.get(conversation_id)
        if statuses is None:
            statuses = self._statuses[conversation_id] = self._load(conversation_id)
        return statuses

    def _load(self, conversation_id: str) -> Statuses:
        delivered, read, _ = self._state.progress(conversation_id)
        direct = conversation_id.startswith("d")
        statuses = Statuses(members_known=direct, delivered_upto=delivered, read_upto=read)
        for seq, client_msg_id in self._state.own_after(conversation_id, read, self._user_id, MAX_AWAITED):
            statuses.on_sent(seq, client_msg_id)
        return statuses


def _events(conversation_id: str, made: list[Progress]) -> list[StatusEvent]:
    return [StatusEvent(conversation_id, one.client_msg_id, one.status, one.seq) for one in made]
