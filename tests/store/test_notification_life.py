"""The life of a notification as a value: what may happen when, and what it comes to."""

import pytest

from store.notification import ActionRefusedError, Notification
from store.notification_life import Action, State, after
from store.recipient_blocks import Counts

NOW = 1_000
ALL = set(State)


def made(state: State = State.SCHEDULED, counts: Counts = Counts(), **fields: object) -> Notification:  # noqa: B008  (immutable)
    """A notification."""
    values: dict[str, object] = {
        "notification_id": "n",
        "state": state,
        "priority": 0,
        "send_at": 100,
        "expire_at": 2_000,
        "type": "t",
        "series_id": "",
        "occurrence": 0,
        "request_id": "r",
        "request_digest": b"",
        "created_at": 0,
        "fence": 3,
        "lease_owner": "somebody",
        "lease_until": 1_500,
        "snapshot_version": 0,
        "counts": counts,
        "reason": "",
        "started_at": None,
        "finished_at": None,
        "status_report": 1,
        "estimated_audience": 0,
        "failures": 0,
        "recipients_kept": True,
        "settled": bool(counts.expansion),
        "awaits_next": False,
    }
    return Notification(**(values | fields))  # type: ignore[arg-type]


def test_nothing_happens_any_more_once_it_is_over() -> None:
    for state in State:
        possible = [action for action in Action if after(state, action) is not None]
        assert bool(possible) != state.over


def test_only_what_is_not_over_ends() -> None:
    going_on = {state for state in ALL if not state.over}
    for action in (Action.CANCEL, Action.EXPIRE_UNSENT, Action.PAUSE, Action.PRIORITIZE):
        assert {state for state in ALL if after(state, action) is not None} == going_on


def test_pausing_and_cancelling_put_the_owner_out() -> None:
    running = made(State.SENDING, Counts(expansion=2))
    for out in (running.paused(), running.cancelled(NOW)):
        assert (out.fence, out.lease_owner, out.lease_until) == (4, None, 0)
    assert running.paused().paused() == running.paused()
    assert running.cancelled(NOW).finished_at == NOW


def test_settled_when_nobody_is_left_also_while_paused() -> None:
    for state in (State.SENDING, State.PAUSED):
        one = made(state, Counts(expansion=3, sent=2, delivered=1))
        assert one.progressed(Counts(delivered=1), NOW).state is state
        ended = one.progressed(Counts(delivered=1, failed=1), NOW)
        assert (ended.state, ended.finished_at) == (State.COMPLETED, NOW)
    late = made(State.CANCELLED, Counts(expansion=1, sent=1), finished_at=5).progressed(Counts(delivered=1), NOW)
    assert (late.state, late.finished_at, late.counts.delivered) == (State.CANCELLED, 5, 1)


def test_it_starts_with_the_first_one_sent() -> None:
    one = made(State.SENDING, Counts(expansion=3)).progressed(Counts(failed=1), 50)
    assert one.started_at is None
    assert one.progressed(Counts(sent=1), 60).progressed(Counts(sent=1), 70).started_at == 60


def test_what_a_series_ends_with() -> None:
    nobody = made(awaits_next=True).expanded(0, 1, NOW)
    assert (nobody.state, nobody.settled) == (State.SCHEDULED, True)
    assert nobody.claimed("x", 5).state is State.EXPANDING
    assert made().expanded(0, 1, NOW).state is State.COMPLETED
    over = made(awaits_next=True).cancelled(NOW)
    assert over.names_matter and not over.succeeded().names_matter


def test_resumed_to_where_it_was() -> None:
    assert made(State.PAUSED, Counts(expansion=2, sent=1)).resumed(NOW).state is State.SENDING
    assert made(State.PAUSED, Counts(expansion=2)).resumed(NOW).state is State.SCHEDULED
    with pytest.raises(ActionRefusedError, match="resumed, nobody sent it yet while SENDING"):
        made(State.SENDING).resumed(NOW)


def test_the_expiry_moves_along() -> None:
    assert made().rescheduled(150, None, NOW).expire_at == 2_050
    assert made().rescheduled(150, 300, NOW).expire_at == 300
    with pytest.raises(ActionRefusedError):
        made(State.PAUSED, Counts(expansion=2, sent=1)).rescheduled(150, None, NOW)
