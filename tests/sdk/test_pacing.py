"""Rates, heartbeats, acknowledgements and the reconnect policy, all by a clock of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.common.v1 import error_pb2
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings_client.acknowledgements import INTERVAL, MANY, Acknowledgements, ReadMarks
from tidings_client.model import ConnectionState
from tidings_client.pacing import Heartbeats, TokenBucket
from tidings_client.reconnect import FALLBACK_AFTER, MAX_REFUSALS, Again, Ended, Reconnect, Stop


@given(
    rate=st.floats(1, 1000),
    burst=st.integers(1, 500),
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 300)), max_size=30),
)
def test_the_bucket_never_lets_more_through_than_the_server_takes(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    tokens, now = float(burst), 0.0
    for wait, wanted in steps:
        now += wait
        tokens = min(burst, tokens + wait * rate)
        going = min(bucket.room(now), wanted)
        bucket.spend(going)
        tokens -= going
        assert tokens > -1e-3


def test_the_bucket_says_when_there_is_room() -> None:
    bucket = TokenBucket(10, 1, 0.0)
    assert bucket.room(0.0) == 1
    bucket.spend(1)
    assert bucket.room(0.05) == 0
    assert bucket.room(bucket.deadline()) == 1


def test_heartbeats_are_sent_when_silent_and_when_the_server_is() -> None:
    beats = Heartbeats(10.0, 0.0)
    assert not beats.due(9.9)
    assert beats.due(10.0)
    beats.on_sent(10.0)
    beats.on_heard(10.1)
    beats.on_sent(19.0)
    assert beats.due(20.1), "we spoke, but heard nothing"
    beats.on_sent(20.1)
    assert not beats.due(21.0), "asked once"
    assert not beats.lost(35.0)
    assert beats.lost(35.2)


def test_a_lone_acknowledgement_goes_at_once_and_many_go_together() -> None:
    acknowledgements = Acknowledgements()
    acknowledgements.add("a", 1)
    [frame] = acknowledgements.take(0.0)
    assert frame.acknowledge.positions[0].seq == 1
    acknowledgements.add("a", 2)
    acknowledgements.add("a", 3)
    acknowledgements.add("b", 1)
    assert acknowledgements.take(INTERVAL / 2) == []
    assert acknowledgements.deadline() == INTERVAL
    [frame] = acknowledgements.take(INTERVAL)
    assert {position.conversation_id: position.seq for position in frame.acknowledge.positions} == {"a": 3, "b": 1}
    assert acknowledgements.deadline() is None


def test_fifty_messages_do_not_wait() -> None:
    acknowledgements = Acknowledgements()
    acknowledgements.add("a", 1)
    acknowledgements.take(0.0)
    acknowledgements.add("a", MANY + 1)
    acknowledgements.count([LogEntry(conversation_id="a")] * MANY)
    assert len(acknowledgements.take(0.001)) == 1


def test_where_more_time_is_granted_an_acknowledgement_waits_for_a_moment_of_it_and_goes_with_what_came_meanwhile() -> None:
    acknowledgements = Acknowledgements(lambda limit: limit / 2)
    for seq in range(1, 2 * MANY):
        acknowledgements.grant("g", 4.0, now=seq / 100)
        acknowledgements.add("g", seq)
        acknowledgements.count([LogEntry(conversation_id="g")])
        assert acknowledgements.take(seq / 100) == []
    assert acknowledgements.deadline() == pytest.approx(2.01), "half of the time granted to the first"
    [frame] = acknowledgements.take(2.01)
    assert [position.seq for position in frame.acknowledge.positions] == [2 * MANY - 1]
    acknowledgements.grant("g", 4.0, now=3.0)
    acknowledgements.add("g", 2 * MANY)
    acknowledgements.add("a", 1)
    [frame] = acknowledgements.take(3.0)
    assert len(frame.acknowledge.positions) == 2, "what may wait goes with what may not"


def test_acknowledgements_held_back_stay() -> None:
    acknowledgements = Acknowledgements()
    acknowledgements.held = True
    acknowledgements.add("a", 1)
    assert acknowledgements.take(100.0) == []
    assert acknowledgements.deadline() is None
    acknowledgements.held = False
    assert len(acknowledgements.take(100.0)) == 1


def test_more_positions_than_a_frame_holds_take_several() -> None:
    acknowledgements = Acknowledgements()
    for number in range(1_001):
        acknowledgements.add(str(number), 1)
    assert [len(frame.acknowledge.positions) for frame in acknowledgements.take(0.0)] == [1_000, 1]


def test_a_read_mark_goes_again_until_a_heartbeat_confirmed_it() -> None:
    marks = ReadMarks()
    assert marks.add("a", 5)
    assert not marks.add("a", 4)
    assert len(marks.take(10)) == 1
    marks.on_disconnected()
    assert marks.waiting
    [frame] = marks.take(10)
    assert frame.mark_read.seq == 5
    asked = marks.on_heartbeat_sent()
    marks.add("a", 6)
    assert marks.on_confirmed(asked) == [], "a newer one is on its way"
    marks.take(10)
    assert marks.on_confirmed(marks.on_heartbeat_sent()) == [("a", 6)]
    marks.on_disconnected()
    assert not marks.waiting


def policy(*, can_renew: bool = False, share: float = 1.0) -> Reconnect:
    return Reconnect(lambda limit: share * limit, can_renew=can_renew)


LOST = Ended("session", 0, "lost")


def test_waits_double_up_to_the_longest_and_begin_anew_once_caught_up() -> None:
    reconnect = policy()
    reconnect.on_hints(1.0, 5.0)
    assert [reconnect.decide(LOST) for _ in range(4)] == [Again(1.0), Again(2.0), Again(4.0), Again(5.0)]
    reconnect.on_caught_up()
    assert reconnect.decide(LOST) == Again(1.0)


def test_who_was_cut_off_goes_straight_back_after_the_usual_wait_and_only_once_until_caught_up() -> None:
    reconnect, cut = policy(), Ended("session", 0, "reset", cut="ws://edge")
    assert reconnect.decide(cut) == Again(0.5, straight_to="ws://edge")
    assert reconnect.decide(cut) == Again(1.0), "it welcomed us and cut us off again: others may be better"
    reconnect.on_caught_up()
    assert reconnect.decide(LOST) == Again(0.5)
    assert reconnect.decide(cut) == Again(1.0)
    reconnect.on_caught_up()
    assert reconnect.decide(cut) == Again(0.5, straight_to="ws://edge")


def test_who_has_an_appointment_does_not_go_straight_back() -> None:
    assert policy(share=0.0).decide(Ended("session", 0, "reset", 3.0, "ws://edge")) == Again(3.0)


@given(st.floats(0, 1), st.integers(0, 40))
def test_jitter_is_full(share: float, failures: int) -> None:
    reconnect = policy(share=share)
    for _ in range(failures):
        reconnect.decide(LOST)
    decision = reconnect.decide(LOST)
    assert isinstance(decision, Again)
    assert decision.wait == pytest.approx(share * min(30.0, 0.5 * 2.0**failures))


def test_what_the_server_asks_for_goes_first() -> None:
    reconnect = policy(share=0.0)
    assert reconnect.decide(Ended("connect", 429, "", 7.0)) == Again(7.0)
    assert reconnect.decide(Ended("session", error_pb2.ERROR_CODE_GOING_AWAY, "", 0.0)) == Again(0.0)


def test_a_replaced_session_stops() -> None:
    decision = policy().decide(Ended("session", error_pb2.ERROR_CODE_SESSION_REPLACED, ""))
    assert isinstance(decision, Stop)
    assert decision.state is ConnectionState.REPLACED


def test_refused_credentials_are_renewed_a_few_times() -> None:
    reconnect = policy(can_renew=True)
    unauthenticated = Ended("session", error_pb2.ERROR_CODE_UNAUTHENTICATED, "expired")
    for _ in range(MAX_REFUSALS):
        decision = reconnect.decide(unauthenticated)
        assert isinstance(decision, Again)
        assert decision.renew
    assert reconnect.decide(unauthenticated) == Stop(ConnectionState.REFUSED, "UNAUTHENTICATED: expired")


def test_a_fixed_token_the_balancer_refuses_is_final_but_a_stale_ticket_is_not() -> None:
    assert isinstance(policy().decide(Ended("connect", 401, "")), Stop)
    reconnect = policy(can_renew=True)
    decisions = [reconnect.decide(Ended("open", 401, "an edge whose clock is ahead refuses every ticket")) for _ in range(10)]
    assert decisions == [Again(min(30.0, 0.5 * 2.0**failures)) for failures in range(10)]


@pytest.mark.parametrize("code", range(4500, 4506))
def test_codes_that_are_nobodys_fault_reconnect_for_ever(code: int) -> None:
    reconnect = policy()
    assert all(isinstance(reconnect.decide(Ended("session", code, "")), Again) for _ in range(20))


@pytest.mark.parametrize("code", [4402, 4403, 4404, 4405, 4407, 4409])
def test_codes_that_are_our_fault_stop_after_a_few(code: int) -> None:
    reconnect = policy()
    decisions = [reconnect.decide(Ended("session", code, "")) for _ in range(MAX_REFUSALS + 1)]
    assert [isinstance(decision, Stop) for decision in decisions] == [False] * MAX_REFUSALS + [True]


def test_websockets_that_will_not_open_lead_to_the_long_poll_until_one_does() -> None:
    reconnect = policy()
    for _ in range(FALLBACK_AFTER):
        reconnect.decide(Ended("open", 503, "an edge is full, or leaves", 1.0))
    for _ in range(FALLBACK_AFTER):
        assert not reconnect.prefers_poll
        reconnect.decide(Ended("open", 403, "blocked"))
    assert reconnect.prefers_poll
    reconnect.on_opened(websocket=True)
    assert not reconnect.prefers_poll
