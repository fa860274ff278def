"""Mutations: a good history with exactly one breach put in is accused of exactly that breach, by exactly the check that owns it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.checker.checks import CHECKS, judge
from tests.checker.history import (
    Call,
    CaughtUp,
    Closed,
    Entry,
    Failure,
    Membership,
    Operation,
    Page,
    Receipt,
    Receive,
    Send,
)
from tests.checker.model import DIRECT, GROUP, PerfectServer
from tests.checker.views import View

Mutation = Callable[[list[Operation]], list[Operation]]


@pytest.fixture(scope="module")
def good() -> list[Operation]:
    return PerfectServer(seed=7).run(steps=90)


def stored(history: Iterable[Operation]) -> Send:
    """A stored message of bob in the direct chat, somewhere in the middle, that alice's phone got live."""
    mine = [one for one in history if isinstance(one, Send) and one.outcome == "stored" and one.client == "bob/phone"]
    mine = [one for one in mine if one.conversation == DIRECT]
    return mine[len(mine) // 2]


def unanswered(history: Iterable[Operation]) -> int:
    """Seq of an entry in the group that nobody was answered for, but the first: a membership event in the middle."""
    history = list(history)
    view = View(history)
    return next(seq for seq, entry in sorted(view.log[GROUP].items()) if entry.kind == "membership" and seq > 1)


def edit_pages(history: list[Operation], change: Callable[[Page], Page]) -> list[Operation]:
    return [change(one) if isinstance(one, Page) else one for one in history]


def without(entries: tuple[Entry, ...], seq: int) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.seq != seq)


def lost_everywhere(history: list[Operation]) -> list[Operation]:
    send = stored(history)
    kept = [one for one in history if not (isinstance(one, Receive) and one.entry.message_id == send.message_id)]
    return edit_pages(kept, lambda page: replace(page, entries=without(page.entries, send.seq)) if final(page, DIRECT) else page)


def final(page: Page, conversation: str) -> bool:
    return bool(page.sweep) and page.conversation == conversation


def lost_in_history(history: list[Operation]) -> list[Operation]:
    send = stored(history)

    def lose(page: Page) -> Page:
        mine = final(page, DIRECT) and page.client == "alice/phone"
        return replace(page, entries=without(page.entries, send.seq)) if mine else page

    return edit_pages(history, lose)


def lost_live(history: list[Operation]) -> list[Operation]:
    name = stored(history).message_id
    return [
        one for one in history if not (isinstance(one, Receive) and (one.client, one.entry.message_id) == ("alice/phone", name))
    ]


def given_to_alice(history: list[Operation]) -> int:
    name = stored(history).message_id
    mine = (
        n
        for n, one in enumerate(history)
        if isinstance(one, Receive) and (one.client, one.entry.message_id) == ("alice/phone", name)
    )
    return next(mine)


def duplicated(history: list[Operation]) -> list[Operation]:
    place = given_to_alice(history)
    return [*history[: place + 1], history[place], *history[place + 1 :]]


def two_seqs(history: list[Operation]) -> list[Operation]:
    """The last message of the direct chat is a second copy of an earlier one."""
    send, last = stored(history), max(View(history).log[DIRECT])

    def twin(entry: Entry) -> Entry:
        return replace(entry, sender=send.user, client_msg_id=send.client_msg_id, content=send.content)

    kept = [one for one in history if not (isinstance(one, Send) and (one.conversation, one.seq) == (DIRECT, last))]
    return rewrite(kept, DIRECT, last, lambda client, entry: twin(entry))


def rewrite(history: list[Operation], where: str, seq: int, change: Callable[[str, Entry], Entry]) -> list[Operation]:
    """Change one entry wherever it was shown; `change` is told to which client."""
    out: list[Operation] = []
    for one in history:
        if isinstance(one, Receive) and (one.conversation, one.entry.seq) == (where, seq):
            one = replace(one, entry=change(one.client, one.entry))
        elif isinstance(one, Page) and one.conversation == where:
            entries = tuple(change(one.client, entry) if entry.seq == seq else entry for entry in one.entries)
            one = replace(one, entries=entries)
        out.append(one)
    return out


def not_dense(history: list[Operation]) -> list[Operation]:
    """A seq that nobody was answered and nobody ever saw: the last entries move up by one."""
    last = max(View(history).log[DIRECT])

    def move(entry: Entry) -> Entry:
        return replace(entry, seq=last + 1, message_id=f"{DIRECT}:{last + 1}") if entry.seq == last else entry

    out = rewrite(history, DIRECT, last, lambda client, entry: move(entry))
    return [
        replace(one, seq=last + 1, message_id=f"{DIRECT}:{last + 1}")
        if isinstance(one, Send) and one.outcome == "stored" and (one.conversation, one.seq) == (DIRECT, last)
        else one
        for one in out
    ]


def disagreement(history: list[Operation]) -> list[Operation]:
    seq = stored(history).seq
    return rewrite(history, DIRECT, seq, lambda client, e: replace(e, content="something else") if client == "alice/phone" else e)


def reordered(history: list[Operation]) -> list[Operation]:
    """Two neighbours reach alice's phone the wrong way round."""
    mine = [
        n for n, one in enumerate(history) if isinstance(one, Receive) and (one.client, one.conversation) == ("alice/phone", DIRECT)
    ]
    first, second = next((a, b) for a, b in pairwise(mine) if via(history[a]) == via(history[b]) == "live")
    out = list(history)
    one, other = out[first], out[second]
    assert isinstance(one, Receive) and isinstance(other, Receive)
    out[first], out[second] = replace(one, entry=other.entry), replace(other, entry=one.entry)
    return out


def via(one: Operation) -> str:
    assert isinstance(one, Receive)
    return one.via


def skipped(history: list[Operation]) -> list[Operation]:
    """An entry nobody was answered for never reaches alice's laptop, though later ones do."""
    seq = unanswered(history)
    return [
        one
        for one in history
        if not (isinstance(one, Receive) and (one.client, one.conversation, one.entry.seq) == ("alice/laptop", GROUP, seq))
    ]


def sender_reordered(history: list[Operation]) -> list[Operation]:
    """Bob's application sent two messages in the other order."""
    mine = [one for one in history if isinstance(one, Send) and one.client == "bob/phone" and one.outcome == "stored"]
    one, other = [send for send in mine if send.conversation == DIRECT][:2]
    numbers = {one.client_msg_id: other.number, other.client_msg_id: one.number}
    return [
        replace(op, number=numbers[op.client_msg_id]) if isinstance(op, Send) and op.client_msg_id in numbers else op
        for op in history
    ]


def stale_read(history: list[Operation]) -> list[Operation]:
    """Just after the last answer, the newest page ends one entry too early."""
    last = max(
        n for n, one in enumerate(history) if isinstance(one, Send) and one.outcome == "stored" and one.conversation == DIRECT
    )
    send = history[last]
    assert isinstance(send, Send) and send.completed is not None
    entries = tuple(entry for seq, entry in sorted(View(history).log[DIRECT].items()) if seq < send.seq)
    time = send.completed + 0.001
    return [
        *history[: last + 1],
        Page(send.client, send.user, DIRECT, "before", None, entries, False, time, time),
        *history[last + 1 :],
    ]


def hole(history: list[Operation]) -> list[Operation]:
    """Bob's page along the way lacks an entry between two others."""
    entries = tuple(entry for seq, entry in sorted(View(history).log[DIRECT].items()) if seq != stored(history).seq)
    return [*history, Page("bob/phone", "bob", DIRECT, "after", 0, entries, True, 1e6, 1e6)]


def final_hole(history: list[Operation]) -> list[Operation]:
    """A final reading lacks an entry nobody was answered for."""
    seq = unanswered(history)

    def lose(page: Page) -> Page:
        mine = final(page, GROUP) and (page.client, page.direction) == ("bob/phone", "after")
        return replace(page, entries=without(page.entries, seq)) if mine else page

    return edit_pages(whole_sweeps(history), lose)


def whole_sweeps(history: list[Operation]) -> list[Operation]:
    """The same with each final reading as one page."""
    view = View(history)
    rest = [one for one in history if not (isinstance(one, Page) and one.sweep)]
    whole = [Page(s.client, s.user, s.conversation, s.direction, None, s.entries, False, 1e6, 1e6, "final") for s in view.sweeps]
    return [*rest, *whole]


def id_reused(history: list[Operation]) -> list[Operation]:
    """Two entries of the direct chat carry one message id, to every reader."""
    log = View(history).log[DIRECT]
    one, other = sorted(log)[:2]
    return rewrite(history, DIRECT, other, lambda client, entry: replace(entry, message_id=log[one].message_id))


def paging_unequal(history: list[Operation]) -> list[Operation]:
    """Backwards, bob finds another text than forwards."""
    seq = stored(history).seq

    def alter(page: Page) -> Page:
        if not (final(page, DIRECT) and (page.client, page.direction) == ("bob/phone", "before")):
            return page
        return replace(page, entries=tuple(replace(e, content="else") if e.seq == seq else e for e in page.entries))

    return edit_pages(history, alter)


def receipts(history: list[Operation]) -> Receipt:
    return [one for one in history if isinstance(one, Receipt) and one.delivered_seq > 1][-1]


def receipt_back(history: list[Operation]) -> list[Operation]:
    last = receipts(history)
    return [*history, replace(last, delivered_seq=last.delivered_seq - 1, read_seq=0, time=last.time + 1000)]


def receipt_past_last(history: list[Operation]) -> list[Operation]:
    return [*history, replace(receipts(history), delivered_seq=max(View(history).log[DIRECT]) + 1, time=1e6)]


def receipt_too_early(history: list[Operation]) -> list[Operation]:
    """A mark on the last message before anyone asked for it to be sent."""
    send = [one for one in history if isinstance(one, Send) and one.outcome == "stored" and one.conversation == DIRECT][-1]
    mark = Receipt("carol/phone", "carol", DIRECT, "alice", send.seq, 0, send.invoked - 0.001)
    return [*history, mark]


def leaked_page(history: list[Operation]) -> list[Operation]:
    """Carol reads a page of a chat between two others."""
    entries = tuple(entry for _, entry in sorted(View(history).log[DIRECT].items()))
    return [*history, Page("carol/phone", "carol", DIRECT, "after", 0, entries, False, 1e6, 1e6)]


def leaked_live(history: list[Operation]) -> list[Operation]:
    """Carol is given the group's second entry, from before she was first added."""
    added = min(seq for seq, entry in View(history).log[GROUP].items() if "carol" in entry.users)
    assert added > 2
    first = next(
        n for n, one in enumerate(history) if isinstance(one, Receive) and (one.client, one.conversation) == ("carol/phone", GROUP)
    )
    leak = Receive("carol/phone", "carol", GROUP, View(history).log[GROUP][added - 1], 0.5)
    return [*history[:first], leak, *history[first:]]


def leaked_after_removal(history: list[Operation]) -> list[Operation]:
    """The server forgot a removal it had answered: the log has no event of it, and bob goes on reading."""
    send = next(
        one
        for one in history
        if isinstance(one, Send) and (one.client, one.outcome, one.conversation) == ("alice/phone", "stored", DIRECT)
    )
    removal = Membership("alice/phone", DIRECT, "removed", ("bob",), send.invoked - 0.002, send.invoked - 0.001, "done")
    return [removal, *history]


def leaked_to_blocker(history: list[Operation]) -> list[Operation]:
    send = stored(history)
    block = Membership("alice/phone", DIRECT, "blocked", ("alice", "bob"), send.invoked - 0.002, send.invoked - 0.001, "done")
    unblock = Membership("alice/phone", DIRECT, "unblocked", ("alice", "bob"), (send.completed or 0) + 0.001, 1e6, "done")
    return [*history, block, unblock]


def resume_short(history: list[Operation]) -> list[Operation]:
    """Alice's phone is told it is caught up just before it is given something stored before it connected."""
    place = given_to_alice(history)
    given = history[place]
    assert isinstance(given, Receive)
    invoked = (stored(history).completed or 0) + 0.001
    return [*history[:place], CaughtUp("alice/phone", "alice", invoked, given.time - 0.0001, {}), *history[place:]]


def refused_unnamed(history: list[Operation]) -> list[Operation]:
    return [*history, Failure("bob/phone", "send", "", None, "connection reset", 1e6)]


def refused_without_time(history: list[Operation]) -> list[Operation]:
    return [*history, Failure("bob/phone", "send", "OVERLOADED", None, "no room", 1e6)]


def refused_but_stored(history: list[Operation]) -> list[Operation]:
    send = stored(history)
    refused = replace(send, outcome="refused", error="OVERLOADED", seq=0, message_id="")
    return [refused if one is send else one for one in history]


def two_answers(history: list[Operation]) -> list[Operation]:
    call = next(one for one in history if isinstance(one, Call))
    return [*history, replace(call, answer="g-another")]


MUTATIONS: dict[Mutation, tuple[str, str]] = {
    lost_everywhere: ("G1", "lost_live lost_in_history"),
    lost_in_history: ("G1", "lost_in_history"),
    lost_live: ("G1", "lost_live"),
    duplicated: ("G2", "duplicated"),
    two_seqs: ("G2", "two_seqs"),
    not_dense: ("G3", "not_dense"),
    disagreement: ("G3", "disagreement"),
    reordered: ("G3", "reordered"),
    skipped: ("G3", "skipped"),
    sender_reordered: ("G4", "sender_reordered"),
    stale_read: ("G4", "stale_read"),
    hole: ("G5", "hole"),
    final_hole: ("G5", "hole"),
    id_reused: ("G5", "id_reused"),
    paging_unequal: ("G5", "paging_unequal"),
    receipt_back: ("G6", "receipt_back"),
    receipt_past_last: ("G6", "receipt_past_last"),
    receipt_too_early: ("G6", "receipt_past_last"),
    leaked_page: ("G7", "leaked"),
    leaked_live: ("G7", "leaked"),
    leaked_after_removal: ("G7", "leaked_by_time"),
    leaked_to_blocker: ("G7", "leaked_by_time"),
    resume_short: ("G8", "resume_short"),
    refused_unnamed: ("G15", "refused_unnamed"),
    refused_without_time: ("G15", "refused_without_time"),
    refused_but_stored: ("G15", "refused_but_stored"),
    two_answers: ("G17", "two_answers"),
}


def test_good_history_passes(good: list[Operation]) -> None:
    assert judge(good) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_breach_is_caught_by_its_check_alone(good: list[Operation], mutation: Mutation) -> None:
    promise, names = MUTATIONS[mutation]
    breaches = judge(mutation(good))
    assert {(breach.promise, breach.name) for breach in breaches} == {(promise, name) for name in names.split()}


def test_every_check_has_a_mutation() -> None:
    assert {promise for promise, _ in MUTATIONS.values()} == set(CHECKS)


def test_a_device_that_left_is_owed_nothing(good: list[Operation]) -> None:
    assert judge([*lost_live(good), Closed("alice/phone", 1e6)]) == []


def test_a_truncated_resume_excuses_what_it_left_out(good: list[Operation]) -> None:
    send = stored(good)
    told = CaughtUp("alice/phone", "alice", 0.0, 0.0, {DIRECT: send.seq + 1})
    assert judge([told, *lost_live(good)]) == []


def test_who_was_out_while_resuming_is_owed_nothing_then(good: list[Operation]) -> None:
    history, given = resume_short(good), good[given_to_alice(good)]
    resume = next(one for one in history if isinstance(one, CaughtUp) and one not in good)
    assert isinstance(given, Receive)
    for where, excused in ((given.conversation, True), ("g" + "a" * 26, False)):
        left = Membership("bob/phone", where, "removed", ("alice",), resume.completed - 2e-6, resume.completed - 2e-6, "done")
        back = Membership("bob/phone", where, "added", ("alice",), resume.completed - 1e-6, resume.invoked + 1.0, "done")
        short = [one for one in judge([*history, left, back]) if one.name == "resume_short" and given.conversation in one.evidence]
        assert (not short) is excused
