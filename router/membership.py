"""What a router keeps of a conversation: who is in it, and who wrote its newest entries. And the bounded cache of those.

Rules: a copy is only ever replaced by a newer membership version. Whoever joined later than an entry is not among its readers.
It must not know the store, links, or who is online.
"""

from collections import OrderedDict
from collections.abc import Iterable

from pyroaring import BitMap

from tidings.common.v1.conversation_pb2 import Conversation

RECENT_SENDERS = 64  # entries whose senders are remembered, so that a receipt finds whom to tell; two typical batches
FEW = 32  # users for whom asking bitmaps one by one beats an intersection
LARGE = 100  # members past which typing, prompt receipts and the list of members itself cost more than they tell
MARKS_PER_MS = 1  # acknowledgements of one entry by a large conversation's devices: five seconds' worth for the largest
_NO_ONE: dict[int, int] = {}  # one for all conversations, and never changed


class Membership:
    """One conversation's members at one membership version.

    Attributes:
        version: the membership version this is.
        user_ids: user ordinal -> user id, of every member.
        last_seq: highest seq seen here; a hint.
    """

    __slots__ = ("_bitmap", "_newest", "_senders", "_visible_from", "conversation_id", "last_seq", "user_ids", "version")

    def __init__(self, conversation: Conversation) -> None:
        self.conversation_id = conversation.conversation_id
        self.last_seq = 0
        self._senders: dict[int, int] | None = None  # by seq, the oldest first
        self._bitmap: BitMap | None = None
        self._renew(conversation)

    def __len__(self) -> int:
        return len(self.user_ids)

    def __contains__(self, ordinal: int) -> bool:
        return ordinal in self.user_ids

    @property
    def small(self) -> bool:
        """Whether its members are few enough to be handled one by one."""
        return len(self.user_ids) <= FEW

    @property
    def large(self) -> bool:
        """Whether its members are so many that not everything is told to all of them, nor at once."""
        return len(self.user_ids) > LARGE

    @property
    def acknowledge_within_ms(self) -> int:
        """In how many milliseconds its devices are to acknowledge an entry; 0 for soon."""
        return len(self.user_ids) // MARKS_PER_MS if self.large else 0

    @property
    def bitmap(self) -> BitMap:
        """All members' ordinals; made when first asked for. Not to be changed."""
        if self._bitmap is None:
            self._bitmap = BitMap(self.user_ids)
        return self._bitmap

    def renew(self, conversation: Conversation) -> bool:
        """Take over a newer version; False when it isn't newer."""
        if conversation.membership_version <= self.version:
            return False
        self._renew(conversation)
        return True

    def _renew(self, conversation: Conversation) -> None:
        self.version = conversation.membership_version
        self.last_seq = max(self.last_seq, conversation.last_seq)
        self.user_ids = {member.user_ordinal: member.user_id for member in conversation.members}
        later = {member.user_ordinal: member.visible_from_seq for member in conversation.members if member.visible_from_seq > 1}
        self._visible_from = later or _NO_ONE
        self._newest = max(self._visible_from.values(), default=0)
        self._bitmap = None

    def barred(self, seq: int) -> list[int]:
        """Members who joined after this entry and may not see it: nearly always nobody."""
        if seq >= self._newest:
            return []
        return [ordinal for ordinal, visible_from in self._visible_from.items() if visible_from > seq]

    def wrote(self, seq: int, ordinal: int) -> None:
        """Remember an entry's sender."""
        if self._senders is None:
            self._senders = {}
        elif len(self._senders) >= RECENT_SENDERS:
            del self._senders[next(iter(self._senders))]
        self._senders[seq] = ordinal
        self.last_seq = max(self.last_seq, seq)

    def senders(self, after: int, upto: int) -> set[int] | None:
        """Who wrote the entries after one seq up to another; None when not all of them are remembered."""
        known = self._senders
        if known is None or upto - after > RECENT_SENDERS:
            return None
        found = {known.get(seq) for seq in range(after + 1, upto + 1)}
        return None if None in found else found  # type: ignore[return-value]

    def recent_senders(self, after: int, upto: int) -> set[int]:
        """As `senders`, as far as is remembered."""
        return {ordinal for seq, ordinal in (self._senders or {}).items() if after < seq <= upto}


class MembershipCache:
    """The least recently used conversations go first.

    Args:
        capacity: most members held, over all conversations; past it the conversations least recently used are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: OrderedDict[str, Membership] = OrderedDict()
        self._members = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def members(self) -> int:
        """Members held, over all conversations."""
        return self._members

    def get(self, conversation_id: str) -> Membership | None:
        """The conversation, if it is held; it counts as used."""
        held = self._held.get(conversation_id)
        if held is not None:
            self._held.move_to_end(conversation_id)
        return held

    def put(self, conversations: Iterable[Conversation]) -> None:
        """Learn conversations with their members; older versions than what is held are ignored."""
        for conversation in conversations:
            self._learn(conversation)
        while self._members > self._capacity and len(self._held) > 1:
            _, evicted = self._held.popitem(last=False)
            self._members -= len(evicted)

    def _learn(self, conversation: Conversation) -> None:
        held = self._held.get(conversation.conversation_id)
        if held is None:
            held = Membership(conversation)
            self._held[held.conversation_id] = held  # its own string: protobuf makes another at each look
            self._members += len(held)
        else:
            before = len(held)
            held.renew(conversation)
            self._members += len(held) - before
        self._held.move_to_end(held.conversation_id)
