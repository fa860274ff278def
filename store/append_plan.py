"""What a batch of drafts does to the logs it is for: pure, given what the database holds under the conversations' locks.

Rules, in this order, for each draft in turn:
1. no such conversation: INVALID_CHAT_ID;
2. stored before, in the table or earlier in the batch: the original's place, also when the sender has left since;
3. not a member: NOT_A_MEMBER;
4. an edit or deletion names a message that is not there or not kept: MESSAGE_NOT_FOUND; somebody else's, or no message but an
   edit, deletion or event: NOT_YOUR_MESSAGE; an edit of a deleted message: MESSAGE_NOT_FOUND (deleting it again is harmless);
5. else it takes the next seq. A deletion erases its target's body and those of the target's edits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from store.model import Draft, Kind, Outcome, Refusal


@dataclass(slots=True)
class Log:
    """A conversation's log as locked; the plan moves it on."""

    last_seq: int
    retained_from_seq: int
    last_entry_at: int
    membership_version: int


@dataclass(slots=True)
class Target:
    """An entry that an edit or deletion names."""

    sender: int
    kind: Kind
    erased: bool


@dataclass(slots=True)
class Held:
    """What the database holds that bears on a batch.

    Attributes:
        logs: by conversation id; those that exist.
        members: (conversation id, ordinal) of those senders who are members.
        stored: identity -> (seq, time) of drafts stored before.
        targets: (conversation id, seq) -> entry, of those named that are still there.
    """

    logs: dict[str, Log] = field(default_factory=dict)
    members: set[tuple[str, int]] = field(default_factory=set)
    stored: dict[tuple[str, int, str], tuple[int, int]] = field(default_factory=dict)
    targets: dict[tuple[str, int], Target] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """A draft with its place."""

    draft: Draft
    seq: int
    stored_at: int


class AppendPlan:
    """Decides draft by draft; afterwards holds what to write.

    Args:
        held: what the database holds; the plan changes it as it goes.
        now: microseconds since 1970. An entry's time is never before the one under it, whatever the clocks of several stores say.

    Attributes:
        placed: entries to insert.
        erased: (conversation id, seq) of messages whose bodies, and whose edits' bodies, are to go after the insert.
    """

    def __init__(self, held: Held, now: int) -> None:
        self._held = held
        self._now = now
        self.placed: list[Placed] = []
        self.erased: list[tuple[str, int]] = []

    def decide(self, drafts: Iterable[Draft]) -> list[Outcome]:
        """One outcome per draft, in order."""
        return [self._decide(draft) for draft in drafts]

    @property
    def moved_logs(self) -> Mapping[str, Log]:
        """The logs that got entries, as they are then."""
        return {placed.draft.conversation_id: self._held.logs[placed.draft.conversation_id] for placed in self.placed}

    def _decide(self, draft: Draft) -> Outcome:
        log = self._held.logs.get(draft.conversation_id)
        if log is None:
            return Outcome(refusal=Refusal.INVALID_CHAT_ID)
        version = log.membership_version
        original = self._held.stored.get(draft.identity)
        if original is not None:
            return Outcome(*original, version, duplicate=True)
        refusal = self._refusal(draft, log)
        if refusal:
            return Outcome(membership_version=version, refusal=refusal)
        seq, stored_at = self._place(draft, log)
        return Outcome(seq, stored_at, version)

    def _refusal(self, draft: Draft, log: Log) -> Refusal:
        if (draft.conversation_id, draft.sender) not in self._held.members:
            return Refusal.NOT_A_MEMBER
        if draft.kind is Kind.MESSAGE:
            return Refusal.NONE
        target = self._held.targets.get((draft.conversation_id, draft.target_seq))
        if target is None or draft.target_seq < log.retained_from_seq:
            return Refusal.MESSAGE_NOT_FOUND
        if target.sender != draft.sender or target.kind is not Kind.MESSAGE:
            return Refusal.NOT_YOUR_MESSAGE
        return Refusal.MESSAGE_NOT_FOUND if target.erased and draft.kind is Kind.EDIT else Refusal.NONE

    def _place(self, draft: Draft, log: Log) -> tuple[int, int]:
        log.last_seq += 1
        log.last_entry_at = max(self._now, log.last_entry_at)
        place = (log.last_seq, log.last_entry_at)
        self._held.stored[draft.identity] = place
        self._held.targets[draft.conversation_id, log.last_seq] = Target(draft.sender, draft.kind, draft.body is None)
        self.placed.append(Placed(draft, *place))
        if draft.kind is Kind.DELETION:
            self._held.targets[draft.conversation_id, draft.target_seq].erased = True
            self.erased.append((draft.conversation_id, draft.target_seq))
        return place
