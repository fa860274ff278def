"""How marks move: forward only, never past the last seq, read implying delivered. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from store.model import Advance, Marks, Moved, Refusal

MemberKey = tuple[str, int]  # conversation id, user ordinal


@dataclass(frozen=True, slots=True)
class MemberState:
    """A member's marks and the last seq of the log they are in. `marks` is None for somebody who is no member."""

    last_seq: int
    marks: Marks | None


def walk(advances: Sequence[Advance], states: Mapping[MemberKey, MemberState]) -> list[Moved]:
    """One result per advance, in order; a later one in the batch begins where an earlier one ended.

    Args:
        advances: what is asked.
        states: by member; a missing one means that there is no such conversation.
    """
    now: dict[MemberKey, Marks] = {key: state.marks for key, state in states.items() if state.marks is not None}
    moved = []
    for advance in advances:
        key = (advance.conversation_id, advance.user_ordinal)
        if key not in states:
            moved.append(Moved(refusal=Refusal.INVALID_CHAT_ID))
        elif key not in now:
            moved.append(Moved(refusal=Refusal.NOT_A_MEMBER))
        else:
            before, now[key] = now[key], _step(now[key], advance, states[key].last_seq)
            moved.append(Moved(before, now[key]))
    return moved


def member_marks(advances: Sequence[Advance], moved: Sequence[Moved]) -> list[tuple[str, int, int, int]]:
    """(conversation id, ordinal, delivered, read) of the members whose marks are other than before the batch."""
    after: dict[MemberKey, Marks] = {}
    for advance, result in zip(advances, moved, strict=True):
        if result.before != result.after:
            after[advance.conversation_id, advance.user_ordinal] = result.after
    return sorted((*key, marks.delivered_seq, marks.read_seq) for key, marks in after.items())


def device_cursors(
    advances: Iterable[Advance], moved: Iterable[Moved], states: Mapping[MemberKey, MemberState]
) -> list[tuple[int, str, str, int]]:
    """(ordinal, device id, conversation id, seq): where the devices' cursors are to be at least."""
    cursors: dict[tuple[int, str, str], int] = {}
    for advance, result in zip(advances, moved, strict=True):
        reached = _reached(advance)
        if result.refusal or not advance.device_id or not reached:
            continue
        key = (advance.user_ordinal, advance.device_id, advance.conversation_id)
        last_seq = states[advance.conversation_id, advance.user_ordinal].last_seq
        cursors[key] = max(cursors.get(key, 0), min(reached, last_seq))
    return sorted((*key, seq) for key, seq in cursors.items() if seq)


def _reached(advance: Advance) -> int:
    return max(advance.delivered_seq, advance.read_seq)


def _step(marks: Marks, advance: Advance, last_seq: int) -> Marks:
    delivered = max(marks.delivered_seq, min(_reached(advance), last_seq))
    return Marks(delivered, max(marks.read_seq, min(advance.read_seq, last_seq)))
