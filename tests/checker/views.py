"""A history, arranged for the checks: the log as everybody together saw it, who was a member when, who saw what in what order.

Membership is known in two ways. By seq: the log's own membership events say from where to where a user may see it. By time: a
removal that was answered, with no adding asked for since, is a span in which nothing sent may reach that user, whatever the log
says.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.checker.history import (
    CaughtUp,
    Closed,
    Entry,
    History,
    Membership,
    Opened,
    Page,
    Receipt,
    Receive,
    Send,
)

FOREVER = float("inf")
_JOINS = {"created", "added"}
_LEAVES = {"removed", "left"}


@dataclass(frozen=True, slots=True)
class Exclusion:
    """From `start` to `end` nothing sent in `conversation` (by `sender`, when given) may reach `user`."""

    conversation: str
    user: str
    sender: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """One whole reading of a conversation's history by one client, in one direction; entries ascending by seq."""

    client: str
    user: str
    conversation: str
    direction: str
    entries: tuple[Entry, ...]
    first_available: int


class View:
    """Everything the checks ask of a history; computed once, when first asked for."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.sends = [one for one in history if isinstance(one, Send)]
        self.pages = [one for one in history if isinstance(one, Page)]
        self.receipts = [one for one in history if isinstance(one, Receipt)]
        self.resumes = [one for one in history if isinstance(one, CaughtUp)]
        self.devices = {one.client: one.user for one in history if isinstance(one, Opened)}
        self.gone = {one.client for one in history if isinstance(one, Closed)}
        self.stored = [one for one in self.sends if one.outcome == "stored"]

    @cached_property
    def streams(self) -> dict[tuple[str, str], list[Receive]]:
        """(client, conversation) -> what its application was given, in that order."""
        streams: dict[tuple[str, str], list[Receive]] = defaultdict(list)
        for one in self.history:
            if isinstance(one, Receive):
                streams[one.client, one.conversation].append(one)
        return dict(streams)

    @cached_property
    def readings(self) -> list[tuple[str, str, str, Entry]]:
        """(client, user, conversation, entry) for every time someone was shown an entry, live or in history."""
        return list(self._read())

    def _read(self) -> Iterator[tuple[str, str, str, Entry]]:
        for one in self.history:
            if isinstance(one, Receive):
                yield one.client, one.user, one.conversation, one.entry
            elif isinstance(one, Page):
                for entry in one.entries:
                    yield one.client, one.user, one.conversation, entry

    @cached_property
    def log(self) -> dict[str, dict[int, Entry]]:
        """conversation -> seq -> the entry, as first seen by anybody."""
        log: dict[str, dict[int, Entry]] = defaultdict(dict)
        for _, _, conversation, entry in self.readings:
            log[conversation].setdefault(entry.seq, entry)
        return dict(log)

    @cached_property
    def answered(self) -> dict[str, set[int]]:
        """conversation -> seqs that some sender was told to be stored."""
        answered: dict[str, set[int]] = defaultdict(set)
        for send in self.stored:
            answered[send.conversation].add(send.seq)
        return answered

    @cached_property
    def touched(self) -> set[tuple[str, int]]:
        """Messages that were edited or deleted, whose content may so differ from reading to reading."""
        by_entry = {(where, entry.target_seq) for _, _, where, entry in self.readings if entry.target_seq}
        return by_entry | {(send.conversation, send.target_seq) for send in self.sends if send.target_seq}

    @cached_property
    def sweeps(self) -> list[Sweep]:
        """The final readings, each put together from its pages."""
        pages: dict[tuple[str, str, str, str, str], list[Page]] = defaultdict(list)
        for page in self.pages:
            if page.sweep:
                pages[page.client, page.user, page.conversation, page.direction, page.sweep].append(page)
        return [
            Sweep(client, user, conversation, direction, _in_order(parts), max(part.first_available for part in parts))
            for (client, user, conversation, direction, _), parts in pages.items()
        ]

    @cached_property
    def spans(self) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """(conversation, user) -> spans of seqs, both ends included, that the user may see."""
        spans: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        for one in self.history:
            if isinstance(one, Membership) and one.change == "direct":
                for user in one.users:
                    spans[one.conversation, user] = [(1, FOREVER)]
        for conversation, log in self.log.items():
            for seq in sorted(log):
                _move(spans, conversation, log[seq])
        return spans

    def allowed(self, conversation: str, user: str, seq: int) -> bool:
        """Whether the user was a member when `seq` was written."""
        return any(first <= seq <= last for first, last in self.spans.get((conversation, user), []))

    def owed(self, conversation: str, user: str, seq: int) -> bool:
        """Whether the user must end up with `seq`: a member still, since before it. What was missed of an earlier stay is gone."""
        spans = self.spans.get((conversation, user), [])
        return bool(spans) and spans[-1][0] <= seq and spans[-1][1] == FOREVER

    @cached_property
    def exclusions(self) -> list[Exclusion]:
        """Spans of time in which a user was certainly no member, or had certainly blocked someone."""
        out: list[Exclusion] = []
        for change in self.memberships:
            if change.outcome == "done" and change.change in _LEAVES:
                out += [_excluded(change, user, "", self.memberships, _JOINS) for user in change.users]
            elif change.outcome == "done" and change.change == "blocked":
                out.append(_excluded(change, change.users[0], change.users[1], self.memberships, {"unblocked"}))
        return out

    def perhaps_out(self, user: str, where: str, start: float, end: float) -> bool:
        """Whether somebody may have been no member at some moment from `start` to `end`."""
        changes = [one for one in self.memberships if user in one.users and one.conversation == where]
        joins = [one for one in changes if one.change in _JOINS and one.completed is not None]
        for left in (one for one in changes if one.change in _LEAVES and one.invoked <= end):
            back = min((one.completed or 0.0 for one in joins if one.invoked > left.invoked), default=math.inf)
            if back >= start:
                return True
        return False

    @cached_property
    def memberships(self) -> list[Membership]:
        """All changes of who is a member, or who blocks whom."""
        return [one for one in self.history if isinstance(one, Membership)]

    @cached_property
    def arrivals(self) -> dict[tuple[str, str], dict[int, float]]:
        """(client, conversation) -> seq -> when its application was first given it."""
        return {key: {one.entry.seq: one.time for one in reversed(stream)} for key, stream in self.streams.items()}

    @cached_property
    def first_given(self) -> dict[tuple[str, str], int]:
        """(client, conversation) -> lowest seq it must have been given, where it was told that older ones are left out."""
        first: dict[tuple[str, str], int] = defaultdict(int)
        for resume in self.resumes:
            for conversation, seq in resume.truncated.items():
                first[resume.client, conversation] = max(first[resume.client, conversation], seq)
        return dict(first)

    def retained_from(self, conversation: str) -> int:
        """Lowest seq that is still kept, as the readers that may see all of it were told."""
        marks = [page.first_available for page in self.pages if page.conversation == conversation]
        return min(marks, default=1)


def _in_order(pages: list[Page]) -> tuple[Entry, ...]:
    ordered = pages if pages[0].direction == "after" else reversed(pages)
    return tuple(entry for page in ordered for entry in page.entries)


def _move(spans: dict[tuple[str, str], list[tuple[int, float]]], conversation: str, entry: Entry) -> None:
    if entry.kind != "membership":
        return
    users = {*entry.users, entry.sender} if entry.change == "created" else set(entry.users)
    for user in users:
        mine = spans[conversation, user]
        inside = bool(mine) and mine[-1][1] == FOREVER
        if entry.change in _JOINS and not inside:
            mine.append((entry.seq, FOREVER))
        elif entry.change in _LEAVES and inside:
            mine[-1] = (mine[-1][0], entry.seq)


def _excluded(change: Membership, user: str, sender: str, changes: list[Membership], ends: set[str]) -> Exclusion:
    """From when the change was answered to when its contrary was asked for; empty when the two were under way together."""
    start = FOREVER if change.completed is None else change.completed
    contrary = (one for one in changes if _undoes(one, change, user, sender, ends))
    end = min((one.invoked for one in contrary), default=FOREVER)
    return Exclusion(change.conversation, user, sender, start, end)


def _undoes(one: Membership, change: Membership, user: str, sender: str, ends: set[str]) -> bool:
    before = one.completed is not None and one.completed < change.invoked
    same = one.conversation == change.conversation and user in one.users and (not sender or sender in one.users)
    return same and one.change in ends and not before
