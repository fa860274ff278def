"""The life of a notification: a table of states and actions, and what each state means for those who haven't got it.

The table is the documentation. Pure: no SQL, no protobuf, no clock. Numbers are the contract's.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum


class State(IntEnum):
    """As the contract's NotificationState; from COMPLETED on it is over."""

    SCHEDULED = 1
    EXPANDING = 2
    SENDING = 3
    PAUSED = 4
    COMPLETED = 5
    CANCELLED = 6
    EXPIRED = 7
    FAILED = 8

    @property
    def over(self) -> bool:
        """Whether nothing can happen to it any more, but for acknowledgements that come late."""
        return self >= State.COMPLETED

    @property
    def running(self) -> bool:
        """Whether it has an owner, or waits for the next one."""
        return self in {State.EXPANDING, State.SENDING}


class Action(Enum):
    """What can happen to a notification. Where two differ only in what was before, the name says what."""

    CLAIM = "claimed, its audience not settled"
    CLAIM_EXPANDED = "claimed, its audience settled"
    EXPAND = "its audience settled"
    EXPAND_TO_NOBODY = "its audience settled: nobody"
    EXPAND_TO_NOBODY_YET = "its audience settled: nobody, but it is claimed once more for the next of its series"
    PAUSE = "paused"
    RESUME_UNSENT = "resumed, nobody sent it yet"
    RESUME_SENT = "resumed, somebody sent it"
    PRIORITIZE = "given another priority"
    RESCHEDULE = "moved to another time"
    CANCEL = "cancelled"
    SETTLE = "everybody has it or can't be sent it"
    EXPIRE_UNSENT = "expired, nobody sent it"
    EXPIRE_SENT = "expired, somebody sent it"
    FAIL = "given up by its owner, or by an operator while held back"


# Resuming what nobody was sent makes it SCHEDULED again, so that it never goes out before its time, however it was moved meanwhile.
_TABLE: Mapping[Action, Mapping[State, State]] = {
    Action.CLAIM: {State.SCHEDULED: State.EXPANDING, State.EXPANDING: State.EXPANDING},
    Action.CLAIM_EXPANDED: {State.SCHEDULED: State.SENDING, State.SENDING: State.SENDING},
    Action.EXPAND: {State.SCHEDULED: State.SCHEDULED, State.EXPANDING: State.SENDING},
    Action.EXPAND_TO_NOBODY_YET: {State.SCHEDULED: State.SCHEDULED},
    Action.EXPAND_TO_NOBODY: {State.SCHEDULED: State.COMPLETED, State.EXPANDING: State.COMPLETED},
    Action.PAUSE: {
        State.SCHEDULED: State.PAUSED,
        State.EXPANDING: State.PAUSED,
        State.SENDING: State.PAUSED,
        State.PAUSED: State.PAUSED,
    },
    Action.RESUME_UNSENT: {State.PAUSED: State.SCHEDULED},
    Action.RESUME_SENT: {State.PAUSED: State.SENDING},
    Action.PRIORITIZE: {
        State.SCHEDULED: State.SCHEDULED,
        State.EXPANDING: State.EXPANDING,
        State.SENDING: State.SENDING,
        State.PAUSED: State.PAUSED,
    },
    Action.RESCHEDULE: {
        State.SCHEDULED: State.SCHEDULED,
        State.EXPANDING: State.SCHEDULED,  # these two only before its time
        State.SENDING: State.SCHEDULED,
        State.PAUSED: State.PAUSED,
    },
    Action.CANCEL: {
        State.SCHEDULED: State.CANCELLED,
        State.EXPANDING: State.CANCELLED,
        State.SENDING: State.CANCELLED,
        State.PAUSED: State.CANCELLED,
    },
    Action.SETTLE: {State.SENDING: State.COMPLETED, State.PAUSED: State.COMPLETED},
    Action.EXPIRE_UNSENT: {
        State.SCHEDULED: State.EXPIRED,
        State.EXPANDING: State.EXPIRED,
        State.SENDING: State.EXPIRED,
        State.PAUSED: State.EXPIRED,
    },
    Action.EXPIRE_SENT: {State.SENDING: State.COMPLETED, State.PAUSED: State.COMPLETED},
    Action.FAIL: {State.EXPANDING: State.FAILED, State.SENDING: State.FAILED, State.PAUSED: State.FAILED},
}


def after(state: State, action: Action) -> State | None:
    """The state after an action; None where it can't happen."""
    return _TABLE[action].get(state)


class Part(IntEnum):
    """A part of an audience by what became of it: the contract's Outcome. Those in `KEPT` are bitmaps, the others follow."""

    EXPANSION = 1
    SENT = 2
    DELIVERED = 3
    PENDING = 4
    FAILED = 5
    EXPIRED = 6
    CANCELLED = 7


KEPT = (Part.EXPANSION, Part.SENT, Part.DELIVERED, Part.FAILED)
_REMAINDER: Mapping[State, Part] = {
    State.SCHEDULED: Part.PENDING,
    State.EXPANDING: Part.PENDING,
    State.SENDING: Part.PENDING,
    State.PAUSED: Part.PENDING,
    State.COMPLETED: Part.EXPIRED,
    State.CANCELLED: Part.CANCELLED,
    State.EXPIRED: Part.EXPIRED,
    State.FAILED: Part.FAILED,
}


def remainder(state: State) -> Part:
    """What those of the expansion count as who neither have it nor failed: every recipient is in one part, so parts sum up."""
    return _REMAINDER[state]
