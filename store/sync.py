"""What devices missed, decided: pure. `store.sync_sql` fetches what this asks for.

A sync goes through a list of conversations, made on its first page: those with something the device has not had, the most recently
active first. The page token is what is left of the list, and how far the first of them has come. So messages that arrive meanwhile
move nothing: a conversation in the list is given up to its present end, one that is not in it got all it has after the sync began,
and comes live.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh import errors, naming
from store.entries import PAGE_BYTES, Range, within_bytes
from store.model import Entry

MAX_PAGE = 1_000  # entries in a device's page
RESPONSE_ENTRIES = 5_000  # entries for all devices of a request: what is left over comes with their next pages
_ID_LENGTH = 27  # of a conversation id


@dataclass(frozen=True, slots=True)
class Question:
    """One device's question; see DeviceSync in the contract. `token` is None on the first page."""

    user_ordinal: int
    device_id: str
    positions: Mapping[str, int]
    history_limit: int
    token: "Token | None"
    page_size: int


@dataclass(frozen=True, slots=True)
class Token:
    """What is left of a sync: conversations, and the seq up to which the first of them has been given (0: not begun)."""

    conversation_ids: tuple[str, ...]
    after_seq: int = 0

    def __str__(self) -> str:
        return f"{self.after_seq}.{''.join(self.conversation_ids)}" if self.conversation_ids else ""

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Read a page token.

        Raises:
            TidingsError: INVALID_FIELD.
        """
        after_seq, dot, ids = text.partition(".")
        names = tuple(ids[at : at + _ID_LENGTH] for at in range(0, len(ids), _ID_LENGTH))
        well_formed = dot and after_seq.isascii() and after_seq.isdigit() and len(after_seq) < 19
        if not well_formed or not all(map(naming.CONVERSATION_ID.fullmatch, names)):
            raise errors.invalid_field("page_token", "the token of the last page, as it was given")
        return cls(names, int(after_seq))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a device stands in one conversation. `cursor` is None without one, `last_entry_at` the time of entry `last_seq`."""

    last_seq: int
    first_available_seq: int
    visible_from_seq: int
    cursor: int | None
    last_entry_at: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A dense run to send; see ConversationRun in the contract."""

    conversation_id: str
    entries: list[Entry]
    last_seq: int
    first_available_seq: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class SyncPage:
    """One device's page, and what is left after it."""

    runs: list[Run]
    left: Token


@dataclass(slots=True)
class Budget:
    """What may still go into a response."""

    entries: int = RESPONSE_ENTRIES
    bytes: int = 2 * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run as planned, before its entries are read. `left` is what is left of the sync when it has not been given."""

    standing: Standing
    range: Range
    truncated: bool
    left: Token


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What makes a device's page, and what is left after it."""

    stretches: list[Stretch]
    left: Token

    @property
    def ranges(self) -> list[Range]:
        """What to read."""
        return [stretch.range for stretch in self.stretches]


def window(question: Question, token: Token) -> tuple[str, ...]:
    """The conversations that may come into a device's page: each takes at least one entry's room."""
    return token.conversation_ids[: min(question.page_size, MAX_PAGE)]


def plan(question: Question, token: Token, standings: Mapping[str, Standing], budget: Budget) -> DevicePlan:
    """Choose the next entries of a device within its page and the budget.

    Args:
        question: what the device asks.
        token: what is left of its sync.
        standings: of the conversations in its window; one that is missing (no member any more) is passed over.
        budget: reduced by what is chosen.
    """
    room = min(question.page_size, MAX_PAGE, budget.entries)
    stretches: list[Stretch] = []
    left = token
    for at, conversation_id in enumerate(window(question, token), 1):
        if room <= 0:
            break
        standing = standings.get(conversation_id)
        stretch = None if standing is None else _stretch(question, left, standing, room)
        left = Token(token.conversation_ids[at:])
        if stretch is None:
            continue
        stretches.append(stretch)
        size = stretch.range.final - stretch.range.first + 1
        room -= max(1, size)  # a run without entries takes room as well
        budget.entries -= size
        if stretch.range.final < stretch.standing.last_seq:
            left = Token(stretch.left.conversation_ids, stretch.range.final)
            break
    return DevicePlan(stretches, left)


def page(chosen: DevicePlan, entries: Mapping[str, Sequence[Entry]], budget: Budget) -> SyncPage:
    """Make the page of what was read; it ends early where the budget's bytes end.

    Args:
        chosen: the plan.
        entries: what its ranges held, by conversation, ascending.
        budget: reduced by the bodies' sizes.
    """
    runs: list[Run] = []
    for stretch in chosen.stretches:
        found = entries.get(stretch.range.conversation_id, ())
        if found and budget.bytes <= 0:
            return SyncPage(runs, stretch.left)
        taken = within_bytes(found, budget.bytes)
        budget.bytes -= sum(len(entry.body or b"") for entry in taken)
        runs.append(_run(stretch, taken))
        if len(taken) < len(found):
            return SyncPage(runs, Token(stretch.left.conversation_ids, taken[-1].seq))
    return SyncPage(runs, chosen.left)


def _stretch(question: Question, left: Token, standing: Standing, room: int) -> Stretch | None:
    """The next run of the first conversation left; None when the device has missed nothing of it."""
    conversation_id = left.conversation_ids[0]
    position = question.positions.get(conversation_id, standing.cursor)
    had = max(position or 0, standing.visible_from_seq - 1, left.after_seq)
    start = max(had, standing.first_available_seq - 1)
    if position is None and not left.after_seq:
        start = max(start, standing.last_seq - question.history_limit)
    if had >= standing.last_seq:
        return None
    final = min(start + room, standing.last_seq)
    return Stretch(standing, Range(conversation_id, start + 1, final), start > had, left)


def _run(stretch: Stretch, entries: list[Entry]) -> Run:
    standing = stretch.standing
    return Run(stretch.range.conversation_id, entries, standing.last_seq, standing.first_available_seq, stretch.truncated)
