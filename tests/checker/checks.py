"""The promises G1-G8, and what chat shows of G15 and G17, each as a pure function: a view of a history -> breaches.

A fault is named once, by the promise it breaks first. What was answered `stored` and is missing is G1's, wherever it is missing;
other missing entries (indeterminate sends, membership events) are G3's in a stream and G5's in a page. What came late is G4's or
G8's, what came twice is G2's. So a breach points at one thing to repair.

The checks trust what clients were told and shown, never the server's own account of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.checker.history import Call, CaughtUp, Entry, Failure, History, Page, Send
from tests.checker.views import Exclusion, Sweep, View

RETRY_LATER = {"RATE_LIMITED", "OVERLOADED", "UNAVAILABLE"}  # refusals that must say when to try again


@dataclass(frozen=True, slots=True)
class Breach:
    """One promise broken once: which, the fault's name, and the evidence for a reader."""

    promise: str
    name: str
    evidence: str


Check = Callable[[View], list[Breach]]


def judge(history: History) -> list[Breach]:
    """All breaches of all promises."""
    view = View(history)
    return [breach for check in CHECKS.values() for breach in check(view)]


def check_g1(view: View) -> list[Breach]:
    """What was answered `stored` is read back by every member: live, and in history."""
    return [*_lost_in_history(view), *_lost_live(view)]


def _lost_in_history(view: View) -> Iterator[Breach]:
    for sweep in view.sweeps:
        for seq in sorted(_stored_but_absent(view, sweep)):
            text = f"{_at(sweep.conversation, seq)} was answered stored; {sweep.client} reading {sweep.direction} had no such entry"
            yield Breach("G1", "lost_in_history", text)


def _stored_but_absent(view: View, sweep: Sweep) -> set[int]:
    have = {entry.seq for entry in sweep.entries}
    wanted = view.answered.get(sweep.conversation, set()) - have
    return {seq for seq in wanted if seq >= sweep.first_available and view.owed(sweep.conversation, sweep.user, seq)}


def _lost_live(view: View) -> Iterator[Breach]:
    for client, user in view.devices.items():
        for send in () if client in view.gone else view.stored:
            where, seq = send.conversation, send.seq
            wanted = send.client != client and view.owed(where, user, seq) and seq >= view.first_given.get((client, where), 1)
            if wanted and seq not in view.arrivals.get((client, where), {}):
                yield Breach("G1", "lost_live", f"{_at(where, seq)} was answered stored and never reached {client}")


def check_g2(view: View) -> list[Breach]:
    """One client_msg_id, one message, one seq; no application is given a message twice."""
    return [*_duplicated(view), *_two_seqs(view)]


def _duplicated(view: View) -> Iterator[Breach]:
    for (client, where), stream in view.streams.items():
        seen: set[int] = set()
        for one in stream:
            if one.entry.seq in seen:
                yield Breach("G2", "duplicated", f"{client} was given {_at(where, one.entry.seq)} more than once")
            seen.add(one.entry.seq)


def _two_seqs(view: View) -> Iterator[Breach]:
    seqs: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for _, _, where, entry in view.readings:
        if entry.client_msg_id:
            seqs[where, entry.sender, entry.client_msg_id].add(entry.seq)
    for send in view.stored:
        seqs[send.conversation, send.user, send.client_msg_id].add(send.seq)
    for (where, sender, name), found in seqs.items():
        if len(found) > 1:
            yield Breach("G2", "two_seqs", f"{name} of {sender} in {where} is at {sorted(found)}")


def check_g3(view: View) -> list[Breach]:
    """One order per conversation: seqs dense from 1, the same entry for every reader, given in order and without a skip."""
    return [*_not_dense(view), *_disagreement(view), *_reordered(view), *_skipped(view)]


def _not_dense(view: View) -> Iterator[Breach]:
    for where in view.log.keys() | view.answered.keys():
        known = set(view.log.get(where, {})) | view.answered.get(where, set())
        missing = sorted(set(range(view.retained_from(where), max(known, default=0) + 1)) - known)
        if missing:
            yield Breach("G3", "not_dense", f"{where} has entries up to {max(known)}, but nobody saw {missing[:10]}")


def _disagreement(view: View) -> Iterator[Breach]:
    first: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for client, _, where, entry in view.readings:
        content = "" if (where, entry.seq) in view.touched else entry.content
        first.setdefault((client, where, entry.seq), (*entry.identity, content, entry.change, *entry.users))
    agreed: dict[tuple[str, int], tuple[str, tuple[str, ...]]] = {}
    for (client, where, seq), said in first.items():
        other, before = agreed.setdefault((where, seq), (client, said))
        if said != before:
            yield Breach("G3", "disagreement", f"{_at(where, seq)} is {before} to {other} but {said} to {client}")


def _reordered(view: View) -> Iterator[Breach]:
    for (client, where), stream in view.streams.items():
        top, seen = 0, set()
        for one in stream:
            seq = one.entry.seq
            if seq < top and seq not in seen:
                yield Breach("G3", "reordered", f"{client} was given {_at(where, seq)} after {top}")
            top = max(top, seq)
            seen.add(seq)


def _skipped(view: View) -> Iterator[Breach]:
    for (client, where), stream in view.streams.items():
        given = {one.entry.seq for one in stream}
        user, own = stream[0].user, _own(view, client, where)
        start = max(view.first_given.get((client, where), 1), view.retained_from(where))
        expected = {seq for seq in view.log.get(where, {}) if start <= seq <= max(given) and view.owed(where, user, seq)}
        skipped = sorted(expected - given - own - view.answered.get(where, set()))
        if skipped:
            yield Breach("G3", "skipped", f"{client} was given {where} up to {max(given)} without {skipped[:10]}")


def _own(view: View, client: str, where: str) -> set[int]:
    """Seqs this very client sent; its application need not be given those."""
    names = {send.client_msg_id for send in view.sends if send.client == client and send.conversation == where}
    return {seq for seq, entry in view.log.get(where, {}).items() if entry.client_msg_id in names}


def check_g4(view: View) -> list[Breach]:
    """One sender's messages keep their order, and what was answered `stored` is in every page the sender asks for afterwards."""
    return [*_sender_reordered(view), *_stale_reads(view)]


def _sender_reordered(view: View) -> Iterator[Breach]:
    sent: dict[tuple[str, str], list[Send]] = defaultdict(list)
    for send in view.stored:
        sent[send.client, send.conversation].append(send)
    for (client, where), mine in sent.items():
        mine.sort(key=lambda send: send.number)
        for one, following in pairwise(mine):
            if following.seq < one.seq:
                text = f"{client} sent number {one.number} before {following.number}, but they are at {one.seq} and {following.seq}"
                yield Breach("G4", "sender_reordered", f"{text} in {where}")


def _stale_reads(view: View) -> Iterator[Breach]:
    stored: dict[tuple[str, str], list[Send]] = defaultdict(list)
    for send in view.stored:
        stored[send.user, send.conversation].append(send)
    for page in view.pages:
        for send in stored.get((page.user, page.conversation), []):
            if _ends_before(page, send) and send.seq in view.log.get(page.conversation, {}) and not page.sweep:
                text = f"{page.client} asked for history after {_at(send.conversation, send.seq)} was stored and didn't get it"
                yield Breach("G4", "stale_read", text)


def _ends_before(page: Page, send: Send) -> bool:
    """The page reaches to the log's end as it was read, was asked for after the answer, and yet ends before the message."""
    to_the_end = page.position is None if page.direction == "before" else not page.more
    last = page.entries[-1].seq if page.entries else 0
    asked_below = page.position is None or send.seq > page.position
    return to_the_end and asked_below and send.seq > last and send.completed is not None and send.completed < page.invoked


def check_g5(view: View) -> list[Breach]:
    """History has no hole; ids are never reused; both ways of paging give the same list."""
    return [*_holes(view), *_reused_ids(view), *_unequal_paging(view)]


def _holes(view: View) -> Iterator[Breach]:
    for page in view.pages:
        lost = view.answered.get(page.conversation, set()) if page.sweep else set()  # in a final reading those are G1's
        others = view.log[page.conversation].keys() - lost if page.entries else set()  # what nobody saw is G3's
        for one, following in pairwise(page.entries):
            hole = [seq for seq in range(one.seq + 1, following.seq) if seq in others]
            if any(view.allowed(page.conversation, page.user, seq) for seq in hole):
                yield Breach(
                    "G5", "hole", f"{page.client} read {page.direction} {page.position} in {page.conversation}: no {hole[:10]}"
                )


def _reused_ids(view: View) -> Iterator[Breach]:
    places: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for _, _, where, entry in view.readings:
        places[entry.message_id].add((where, entry.seq))
    for name, found in places.items():
        if len(found) > 1:
            yield Breach("G5", "id_reused", f"{name} names {sorted(found)}")


def _unequal_paging(view: View) -> Iterator[Breach]:
    ways: dict[tuple[str, str], dict[str, Sweep]] = defaultdict(dict)
    for sweep in view.sweeps:
        ways[sweep.client, sweep.conversation][sweep.direction] = sweep
    for (client, where), both in ways.items():
        if len(both) == 2 and (differing := _differing(view, both["after"], both["before"])):
            yield Breach("G5", "paging_unequal", f"{client} reading {where} both ways found {differing[:10]} unequal")


def _differing(view: View, one: Sweep, other: Sweep) -> list[int]:
    here, there = ({entry.seq: entry for entry in sweep.entries} for sweep in (one, other))
    lost = view.answered.get(one.conversation, set())
    ends = {seq for seq in here if _beyond(seq, there)} | {seq for seq in there if _beyond(seq, here)}
    return sorted((ends - lost) | {seq for seq in here.keys() & there.keys() if here[seq] != there[seq]})


def _beyond(seq: int, entries: dict[int, Entry]) -> bool:
    """Past either end of a reading; what is missing within it is a hole, and named so."""
    return not entries or seq < min(entries) or seq > max(entries)


def check_g6(view: View) -> list[Breach]:
    """Marks never go back and never pass the last seq."""
    return [*_receipts_back(view), *_receipts_past_last(view)]


def _receipts_back(view: View) -> Iterator[Breach]:
    top: dict[tuple[str, str, str], tuple[int, int]] = {}
    for one in view.receipts:
        key, marks = (one.client, one.conversation, one.member), (one.delivered_seq, one.read_seq)
        before = top.get(key, (0, 0))
        if marks[0] < before[0] or marks[1] < before[1]:
            yield Breach("G6", "receipt_back", f"{one.client} was told {one.member} in {one.conversation}: {before}, then {marks}")
        top[key] = (max(before[0], marks[0]), max(before[1], marks[1]))


def _receipts_past_last(view: View) -> Iterator[Breach]:
    asked = _asked(view)
    for one in view.receipts:
        last = next((seq for seq, invoked in asked.get(one.conversation, []) if invoked <= one.time), 0)
        mark = max(one.delivered_seq, one.read_seq)
        if mark > last:
            text = f"{one.client} was told {one.member} in {one.conversation} has {mark} when the last seq was at most {last}"
            yield Breach("G6", "receipt_past_last", text)


def _asked(view: View) -> dict[str, list[tuple[int, float]]]:
    """conversation -> its entries from the last to the first, each with when it was asked for (0 where that isn't known)."""
    invoked = {(send.conversation, send.seq): send.invoked for send in view.stored}
    known = {
        where: view.log.get(where, {}).keys() | view.answered.get(where, set()) for where in view.log.keys() | view.answered.keys()
    }
    return {where: [(seq, invoked.get((where, seq), 0.0)) for seq in sorted(seqs, reverse=True)] for where, seqs in known.items()}


def check_g7(view: View) -> list[Breach]:
    """Nobody sees a message outside their membership, or from someone they blocked."""
    return [*_leaked_by_seq(view), *_leaked_by_time(view)]


def _leaked_by_seq(view: View) -> Iterator[Breach]:
    known = {where for where, _ in view.spans}
    leaks = {
        (where, entry.seq, client)
        for client, user, where, entry in view.readings
        if where in known and not view.allowed(where, user, entry.seq)
    }
    for where, seq, client in sorted(leaks):
        yield Breach("G7", "leaked", f"{client} saw {_at(where, seq)} outside its membership {view.spans.get((where, client))}")


def _leaked_by_time(view: View) -> Iterator[Breach]:
    shown = {(user, where, entry.seq) for _, user, where, entry in view.readings}
    for exclusion in view.exclusions:
        user, where = exclusion.user, exclusion.conversation
        for send in view.stored:
            if send.conversation == where and (user, where, send.seq) in shown and _within(send, exclusion):
                text = f"{user} saw {_at(where, send.seq)}, sent by {send.user} while {user} was out of it"
                yield Breach("G7", "leaked_by_time", text)


def _within(send: Send, exclusion: Exclusion) -> bool:
    whole = send.completed is not None and exclusion.start < send.invoked and send.completed < exclusion.end
    return whole and send.user != exclusion.user and exclusion.sender in ("", send.user)


def check_g8(view: View) -> list[Breach]:
    """A resume brings exactly what was missed, or says that it can't."""
    return [breach for resume in view.resumes for breach in _resume_short(view, resume)]


def _resume_short(view: View, resume: CaughtUp) -> Iterator[Breach]:
    for send in view.stored:
        where = send.conversation
        before = send.completed is not None and send.completed < resume.invoked
        if not before or send.client == resume.client or not view.allowed(where, resume.user, send.seq):
            continue
        given = view.arrivals.get((resume.client, where), {}).get(send.seq, 0.0)  # one that never came is G1's
        late = given > resume.completed and send.seq >= resume.truncated.get(where, 1)
        if late and not view.perhaps_out(resume.user, where, resume.invoked, resume.completed):
            text = (
                f"{resume.client} was caught up at {resume.completed:.3f} without {_at(where, send.seq)}, stored before it resumed"
            )
            yield Breach("G8", "resume_short", text)


def check_g15(view: View) -> list[Breach]:
    """A refusal has a name, says when to try again where that helps, and left nothing behind."""
    return [*_unnamed(view), *_refused_but_stored(view)]


def _unnamed(view: View) -> Iterator[Breach]:
    for one in view.history:
        if isinstance(one, Failure):
            if not one.reason:
                yield Breach("G15", "refused_unnamed", f"{one.client}: {one.action} failed without a named error: {one.message}")
            elif one.reason in RETRY_LATER and one.retry_after is None:
                yield Breach("G15", "refused_without_time", f"{one.client}: {one.action} got {one.reason} without a time to retry")


def _refused_but_stored(view: View) -> Iterator[Breach]:
    stored = {(where, e.sender, e.client_msg_id): e.seq for where, log in view.log.items() for e in log.values() if e.client_msg_id}
    for send in view.sends:
        seq = stored.get((send.conversation, send.user, send.client_msg_id))
        if send.outcome == "refused" and seq is not None:
            text = f"{send.client} was told {send.error} for {send.client_msg_id}, but it is {_at(send.conversation, seq)}"
            yield Breach("G15", "refused_but_stored", text)


def check_g17(view: View) -> list[Breach]:
    """The same request_id and body give the same answer."""
    answers: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for one in view.history:
        if isinstance(one, Call) and one.answer:
            answers[one.user, one.method, one.request_id, one.body].add(one.answer)
    return [
        Breach("G17", "two_answers", f"{method} {request_id} of {user} was answered {sorted(found)}")
        for (user, method, request_id, _), found in answers.items()
        if len(found) > 1
    ]


def _at(conversation: str, seq: int) -> str:
    return f"{conversation}:{seq}"


CHECKS: dict[str, Check] = {
    "G1": check_g1,
    "G2": check_g2,
    "G3": check_g3,
    "G4": check_g4,
    "G5": check_g5,
    "G6": check_g6,
    "G7": check_g7,
    "G8": check_g8,
    "G15": check_g15,
    "G17": check_g17,
}
