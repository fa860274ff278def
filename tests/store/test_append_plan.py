"""The pure cores of the hot path against what they promise."""

from hypothesis import given
from hypothesis import strategies as st

from store.append_plan import AppendPlan, Held, Log, Target
from store.appender import _Job, gather
from store.marks import MemberState, device_cursors, member_marks, walk
from store.model import Advance, Draft, Kind, Marks, Refusal

CHATS = ["d" + letter * 26 for letter in "abc"]
drafts = st.builds(
    Draft,
    conversation_id=st.sampled_from(CHATS),
    sender=st.integers(1, 3),
    client_msg_id=st.sampled_from("uvwxyz"),
    target_seq=st.one_of(st.just(0), st.integers(1, 12)),
    body=st.sampled_from([b"text", None]),
).filter(lambda draft: draft.target_seq or draft.body is not None)


def held(last_seq: int = 5) -> Held:
    """Two chats of users 1 and 2; entry 1 was swept, 2 to 4 are user 1's, the last is an event."""
    logs = {name: Log(last_seq, 2, 1_000, 7) for name in CHATS[:2]}
    members = {(name, user) for name in logs for user in (1, 2)}
    targets = {(name, seq): Target(1, Kind.MESSAGE, erased=False) for name in logs for seq in range(1, last_seq)}
    targets |= {(name, last_seq): Target(1, Kind.EVENT, erased=False) for name in logs}
    return Held(logs, members, {}, targets)


@given(st.lists(drafts, max_size=40), st.integers(0, 2_000))
def test_seqs_are_dense_times_never_fall_and_repeats_agree(batch: list[Draft], now: int) -> None:
    plan = AppendPlan(held(), now)
    outcomes = plan.decide(batch)
    for name in CHATS[:2]:
        placed = [one for one in plan.placed if one.draft.conversation_id == name]
        assert [one.seq for one in placed] == list(range(6, 6 + len(placed)))
        assert all(one.stored_at >= 1_000 for one in placed)
    by_identity: dict[tuple[str, int, str], int] = {}
    for draft, outcome in zip(batch, outcomes, strict=True):
        assert bool(outcome.seq) != bool(outcome.refusal)
        if outcome.seq:
            assert outcome.duplicate == (draft.identity in by_identity)
            assert by_identity.setdefault(draft.identity, outcome.seq) == outcome.seq
    assert all(outcome.refusal for draft, outcome in zip(batch, outcomes, strict=True) if draft.conversation_id == CHATS[2])


@given(st.lists(drafts, max_size=40))
def test_in_one_batch_or_in_many_the_end_is_the_same(batch: list[Draft]) -> None:
    together, apart = AppendPlan(held(), 5_000), held()
    outcomes = together.decide(batch)
    singly = [AppendPlan(apart, 5_000).decide([draft])[0] for draft in batch]
    assert outcomes == singly


def test_what_a_target_must_be() -> None:
    def refusal(sender: int, target: int, body: bytes | None = None) -> Refusal:
        return AppendPlan(held(), 0).decide([Draft(CHATS[0], sender, "x", target, body)])[0].refusal

    assert refusal(1, 3) is Refusal.NONE
    assert refusal(2, 3) is Refusal.NOT_YOUR_MESSAGE
    assert refusal(1, 5) is Refusal.NOT_YOUR_MESSAGE
    assert refusal(1, 1) is Refusal.MESSAGE_NOT_FOUND
    assert refusal(1, 9, b"text") is Refusal.MESSAGE_NOT_FOUND
    assert refusal(3, 3) is Refusal.NOT_A_MEMBER


advances = st.builds(
    Advance,
    conversation_id=st.sampled_from(CHATS),
    user_ordinal=st.integers(1, 3),
    device_id=st.sampled_from(["", "phone", "laptop"]),
    delivered_seq=st.integers(0, 9),
    read_seq=st.integers(0, 9),
)


@given(st.lists(advances, max_size=30))
def test_marks_never_fall_never_pass_the_end_and_reading_delivers(batch: list[Advance]) -> None:
    states = {(name, user): MemberState(6, Marks(2, 1) if user < 3 else None) for name in CHATS[:2] for user in (1, 2, 3)}
    moved = walk(batch, states)
    for one, result in zip(batch, moved, strict=True):
        if one.conversation_id == CHATS[2]:
            assert result.refusal is Refusal.INVALID_CHAT_ID
        elif one.user_ordinal == 3:
            assert result.refusal is Refusal.NOT_A_MEMBER
        else:
            assert result.before.delivered_seq <= result.after.delivered_seq <= 6
            assert result.before.read_seq <= result.after.read_seq <= result.after.delivered_seq
            assert result.after.delivered_seq >= min(6, max(one.delivered_seq, one.read_seq))
    written = {(name, user): (delivered, read) for name, user, delivered, read in member_marks(batch, moved)}
    for (name, user), marks in written.items():
        last = [
            result.after
            for one, result in zip(batch, moved, strict=True)
            if (one.conversation_id, one.user_ordinal) == (name, user)
        ]
        assert marks == (last[-1].delivered_seq, last[-1].read_seq)
    cursors = device_cursors(batch, moved, states)
    assert all(device and 0 < seq <= 6 and (name, user) in states for user, device, name, seq in cursors)


@given(st.lists(st.integers(0, 1_000), max_size=20), st.integers(1, 2_000))
def test_jobs_are_grouped_in_order_within_the_bound(sizes: list[int], limit: int) -> None:
    draft = Draft(CHATS[0], 1, "x", 0, b"")
    jobs = [_Job([draft] * size, None) for size in sizes]  # type: ignore[arg-type]
    groups = list(gather(jobs, limit))
    assert [job for group in groups for job in group] == jobs
    assert all(len(group) == 1 or sum(len(job.drafts) for job in group) <= limit for group in groups)
