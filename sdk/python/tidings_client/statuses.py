"""How far one's own messages have come, from the marks of the others.

Rules: DELIVERED when every other member of the conversation has it on some device, READ when every other has read it; a member
who joined after a message doesn't count for it. In a direct conversation that is the other side. In a group it needs the member
list: until that is known, messages stay SENT. A status never goes back, whatever the member list later says. Pure.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tidings_client.model import Status

MAX_AWAITED = 1_000  # messages per conversation whose progress is told one by one; the oldest are let go of


@dataclass(slots=True)
class Marks:
    """One member's marks, and the first seq that member may see."""

    delivered_seq: int = 0
    read_seq: int = 0
    visible_from_seq: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A message came further."""

    client_msg_id: str
    seq: int
    status: Status


class Statuses:
    """The own messages of one conversation.

    Args:
        members_known: whether every member's marks will be known: so in a direct conversation; in a group after `on_members`.
        delivered_upto: highest seq already declared delivered.
        read_upto: highest seq already declared read.
    """

    def __init__(self, *, members_known: bool, delivered_upto: int = 0, read_upto: int = 0) -> None:
        self._members_known = members_known
        self._others: dict[str, Marks] = {}
        self.delivered_upto = delivered_upto
        self.read_upto = read_upto
        self._undelivered: deque[tuple[int, str]] = deque()
        self._unread: deque[tuple[int, str]] = deque()

    @property
    def unsettled(self) -> bool:
        """Whether some message isn't read by all yet."""
        return bool(self._unread)

    @property
    def members_known(self) -> bool:
        """Whether the member list is known."""
        return self._members_known

    def status(self, seq: int) -> Status:
        """Of a stored message."""
        if seq <= self.read_upto:
            return Status.READ
        return Status.DELIVERED if seq <= self.delivered_upto else Status.SENT

    def on_sent(self, seq: int, client_msg_id: str) -> Status:
        """A message of ours got its place; gives its status."""
        status = self.status(seq)
        if status < Status.READ:
            _await(self._unread, seq, client_msg_id)
        if status < Status.DELIVERED:
            _await(self._undelivered, seq, client_msg_id)
        return status

    def on_marks(self, user_id: str, delivered_seq: int, read_seq: int) -> list[Progress]:
        """Another member's marks moved."""
        self._raise(user_id, delivered_seq, read_seq)
        return self._advance()

    def on_members(self, others: Iterable[tuple[str, Marks]]) -> list[Progress]:
        """The whole list of the other members."""
        before = self._others
        self._others = {}
        for user_id, marks in others:
            known = before.get(user_id, Marks())
            self._others[user_id] = Marks(known.delivered_seq, known.read_seq, marks.visible_from_seq)
            self._raise(user_id, marks.delivered_seq, marks.read_seq)
        self._members_known = True
        return self._advance()

    def on_joined(self, users: Iterable[str], seq: int) -> None:
        """Members were added by the entry at `seq`; they don't count for what was before it."""
        for user_id in users:
            self._others.setdefault(user_id, Marks(visible_from_seq=seq))

    def on_left(self, users: Iterable[str]) -> list[Progress]:
        """Members are gone: nothing waits for them any more."""
        for user_id in users:
            self._others.pop(user_id, None)
        return self._advance()

    def _raise(self, user_id: str, delivered_seq: int, read_seq: int) -> None:
        marks = self._others.setdefault(user_id, Marks())
        marks.read_seq = max(marks.read_seq, read_seq)
        marks.delivered_seq = max(marks.delivered_seq, delivered_seq, marks.read_seq)

    def _advance(self) -> list[Progress]:
        if not self._members_known or not self._others:
            return []
        others = self._others.values()
        delivered = min(max(marks.delivered_seq, marks.visible_from_seq - 1) for marks in others)
        read = min(max(marks.read_seq, marks.visible_from_seq - 1) for marks in others)
        self.read_upto = max(self.read_upto, read)
        self.delivered_upto = max(self.delivered_upto, delivered, self.read_upto)
        done = [Progress(name, seq, Status.DELIVERED) for seq, name in _take(self._undelivered, self.delivered_upto)]
        done = [progress for progress in done if progress.seq > self.read_upto]
        return done + [Progress(name, seq, Status.READ) for seq, name in _take(self._unread, self.read_upto)]


def _await(awaited: deque[tuple[int, str]], seq: int, client_msg_id: str) -> None:
    item = (seq, client_msg_id)
    if not awaited or awaited[-1] < item:
        awaited.append(item)
    elif item not in awaited:
        insort(awaited, item)
    if len(awaited) > MAX_AWAITED:
        awaited.popleft()


def _take(awaited: deque[tuple[int, str]], upto: int) -> list[tuple[int, str]]:
    taken = []
    while awaited and awaited[0][0] <= upto:
        taken.append(awaited.popleft())
    return taken
