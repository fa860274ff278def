"""Random histories of notifications: the store answers as the simple one does, on both engines, over gRPC."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.store.client import reason
from tests.store.notifications import SECOND, START, Clock, NotificationClient, notification_store, parts, step, timestamp
from tests.store.simple_notifications import RefusedError, SimpleNotification, SimpleNotifications
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb

T = TypeVar("T")
ORDINALS = (1, 2, 2**18 - 1, 2**18, 2**18 + 1, 10_000_000)
OUTCOMES = ("expansion", "sent", "delivered", "pending", "failed", "expired", "cancelled")
which = st.integers(0, 3)
priorities = st.sampled_from((0, 5, 9))
audiences = st.sets(st.sampled_from(ORDINALS))
ordinals = st.sets(st.sampled_from((*ORDINALS, 77)))  # some of whom no notification is for
seconds = st.integers(0, 25)
leases = st.sampled_from((2, 20))
fences_behind = st.sampled_from((0, 0, 0, 0, 1))
LIVELY = ("SCHEDULED", "EXPANDING", "SENDING")
_names = itertools.count(1)


class Fixture:
    """A running store, and a loop to talk to it from functions that can't await."""

    def __init__(self, runner: asyncio.Runner, store: NotificationClient) -> None:
        self.runner = runner
        self.store = store

    def wait(self, call: Awaitable[T]) -> T:
        """Await it here."""

        async def awaited() -> T:
            return await call

        return self.runner.run(awaited())


@pytest.fixture
def fixture(database_url: str) -> Iterator[Fixture]:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        yield Fixture(runner, runner.run(stack.enter_async_context(notification_store(database_url, Clock()))))
        runner.run(stack.aclose())


class Machine(RuleBasedStateMachine):
    """A few notifications in a database without any others that aren't over."""

    def __init__(self, fixture: Fixture) -> None:
        super().__init__()
        self.store, self.wait, self.clock = fixture.store, fixture.wait, fixture.store.clock
        self.model = SimpleNotifications()
        self.fences: dict[str, int] = {}
        self.answers: list[tuple[Any, Any]] = []

    @property
    def now(self) -> int:
        """Seconds since the beginning."""
        return (self.clock.now - START) // SECOND

    def those(self, *states: str) -> list[SimpleNotification]:
        """All in these states; in any, when none is named."""
        return [one for one in self.model.all.values() if one.state in states or not states]

    @initialize(order=st.permutations(ORDINALS), series=st.booleans())
    def begin(self, order: list[int], series: bool) -> None:
        """With one that has gone out to some, another that waits for its audience, and a third for its time."""
        self.create(send=0, life=90, priority=5, audience=set(ORDINALS), series=series)
        self.create(send=0, life=60, priority=9, audience=None, series=False)
        self.claim(limit=2, lease=20)
        self.progress([(self.those("SENDING")[0], 0, set(order[:4]), {order[4], order[5]}, "")], 20)
        self.deliver(0, {order[0]})
        self.create(send=30, life=30, priority=0, audience=set() if series else {1, 2}, series=True)

    @precondition(lambda self: len(self.model.all) < 5)
    @rule(
        send=seconds, life=st.integers(10, 90), priority=priorities, audience=st.one_of(st.none(), audiences), series=st.booleans()
    )
    def create(self, send: int, life: int, priority: int, audience: set[int] | None, series: bool) -> None:
        request, simple = self._upload(send, life, priority, audience)
        if series:
            request.series_id, request.occurrence = request.notification_id, 1
            simple.series, simple.awaits_next = request.notification_id, True
        if audience is not None:
            simple.expand(audience)
        self.model.all[simple.name] = simple
        self.answers.append((request, self.wait(self.store.make(request))))

    @precondition(lambda self: any(one.series for one in self.those()) and len(self.model.all) < 7)
    @rule(number=which, old=fences_behind, send=seconds, audience=st.one_of(st.none(), audiences))
    def make_next(self, number: int, old: int, send: int, audience: set[int] | None) -> None:
        before = _pick([one for one in self.those() if one.series], number)
        request, simple = self._upload(send, 20, 5, audience)
        request.series_id, request.occurrence = before.series, len(self.model.all) + 1
        request.predecessor.CopyFrom(pb.Claim(notification_id=before.name, fence=max(0, before.fence - old)))
        simple.series, simple.awaits_next = before.series, True
        if audience is not None:
            simple.expand(audience)
        answer = self.agreed(
            self.store.make(request), lambda: self.model.make_next(before.name, max(0, before.fence - old), simple)
        )
        if answer is not None:
            self.answers.append((request, answer))

    @rule(passed=st.sampled_from((1, 1, 2, 5, 30)))
    def time_passes(self, passed: int) -> None:
        self.clock.advance(passed)

    @rule(limit=st.integers(1, 3), lease=leases, ahead=st.sampled_from((0, 0, 1, 19)))
    def claim(self, limit: int, lease: int, ahead: int = 0) -> None:
        ahead = min(ahead, lease - 1)
        answer = self.wait(self.store.claim_response(limit, lease, ahead))
        assert [one.notification_id for one in answer.notifications] == self.model.claim(self.now, limit, lease, ahead)
        expected = self.model.next_due(ahead)
        if expected is None:
            assert not answer.HasField("next_due_time")
        else:
            assert answer.next_due_time == timestamp(START + expected * SECOND)

    @precondition(lambda self: self.those("EXPANDING"))
    @rule(number=which, audience=audiences, first=ordinals, lease=leases)
    def expand(self, number: int, audience: set[int], first: set[int], lease: int) -> None:
        self.expand_at(_pick(self.those("EXPANDING"), number), 0, audience, first, lease)

    @rule(number=which, old=fences_behind, audience=audiences, first=ordinals, lease=leases)
    def expand_any(self, number: int, old: int, audience: set[int], first: set[int], lease: int) -> None:
        self.expand_at(_pick(self.those(), number), old, audience, first, lease)

    def expand_at(self, one: SimpleNotification, old: int, audience: set[int], first: set[int], lease: int) -> None:
        """Save an expansion under a fence so far behind, and who is sent it first."""
        fence, taken = max(0, one.fence - old), []
        answer = self.agreed(
            self.store.expand_and_send(one.name, fence, audience, first, lease=lease),
            lambda: taken.append(self.model.expand(one.name, fence, audience, first, self.now, lease)),
        )
        assert taken == ([] if answer is None else [answer.sent_stored])

    @precondition(lambda self: self.those("SENDING"))
    @rule(number=which, sending=ordinals, failing=st.one_of(st.just(set()), ordinals), lease=leases)
    def send(self, number: int, sending: set[int], failing: set[int], lease: int) -> None:
        self.progress([(_pick(self.those("SENDING"), number), 0, sending, failing, "")], lease)

    @precondition(lambda self: self.those("SENDING", "EXPANDING"))
    @rule(number=which, finish=st.sampled_from(("COMPLETED", "EXPIRED", "FAILED")))
    def finish(self, number: int, finish: str) -> None:
        self.progress([(_pick(self.those("SENDING", "EXPANDING"), number), 0, set(), set(), finish)], 1)

    @rule(steps=st.lists(st.tuples(which, fences_behind, ordinals, ordinals), min_size=1, max_size=3), lease=leases)
    def progress_of_any(self, steps: list[tuple[int, int, set[int], set[int]]], lease: int) -> None:
        self.progress([(_pick(self.those(), number), old, sent, failed, "") for number, old, sent, failed in steps], lease)

    def progress(self, steps: list[tuple[SimpleNotification, int, set[int], set[int], str]], lease: int) -> None:
        """Save progress under fences so far behind."""
        sent, expected = [], []
        for one, old, sending, failing, finish in steps:
            fence = max(0, one.fence - old)
            state = common.NotificationState.Value(f"NOTIFICATION_STATE_{finish or 'UNSPECIFIED'}")
            sent.append(step(one.name, fence, sent=sending, failed=failing, finish_state=state))
            early = bool(sending) and one.early(self.now)
            fenced = self.model.progress(one.name, fence, sending, failing, finish, self.now, lease)
            expected.append((fenced or early, early and not fenced, *_numbers(one), one.priority))
        results = self.wait(self.store.progress(*sent, lease=lease))
        found = [(result.fenced, result.early, *_reported(result.report), result.priority) for result in results]
        assert found == expected

    @precondition(lambda self: any(one.sent for one in self.those()))
    @rule(number=which, acknowledged=ordinals)
    def deliver(self, number: int, acknowledged: set[int]) -> None:
        one = _pick([one for one in self.those() if one.sent], number)
        self.model.deliver(one.name, acknowledged)
        assert _reported(self.wait(self.store.deliver(one.name, acknowledged))) == _numbers(one)

    @precondition(lambda self: self.those("SENDING", "EXPANDING"))
    @rule(number=which, old=fences_behind)
    def release(self, number: int, old: int) -> None:
        one = _pick(self.those("SENDING", "EXPANDING"), number)
        claim = pb.Claim(notification_id=one.name, fence=max(0, one.fence - old))
        self.wait(self.store.stub.ReleaseNotifications(pb.ReleaseNotificationsRequest(claims=[claim])))
        self.model.release(one.name, claim.fence, self.now)

    @precondition(lambda self: self.those(*LIVELY))
    @rule(number=which)
    def pause(self, number: int) -> None:
        self.control(_pick(self.those(*LIVELY), number), "pause")

    @precondition(lambda self: self.those("PAUSED"))
    @rule(number=which)
    def resume(self, number: int) -> None:
        self.control(_pick(self.those("PAUSED"), number), "resume")

    @rule(number=which, action=st.sampled_from(("pause", "resume", "prioritize", "reschedule")), argument=seconds)
    def control_any(self, number: int, action: str, argument: int) -> None:
        self.control(_pick(self.those(), number), action, argument)

    @rule(number=which, action=st.sampled_from(("cancel", "cancel_series")))
    def cancel(self, number: int, action: str) -> None:
        self.control(_pick(self.those(), number), action)

    def control(self, one: SimpleNotification, action: str, argument: int = 0) -> None:
        """Change one."""
        actions: dict[str, Any] = {
            "cancel": pb.CancelAction(),
            "cancel_series": pb.CancelAction(whole_series=True),
            "pause": pb.PauseAction(),
            "resume": pb.ResumeAction(),
            "prioritize": pb.PrioritizeAction(priority=argument % 10),
            "reschedule": pb.RescheduleAction(send_time=timestamp(START + (self.now + argument) * SECOND)),
        }
        name = f"machine-{next(_names)}"
        request = self.store.control_request(one.name, name, **{action.removesuffix("_series"): actions[action]})
        answer = self.agreed(self.store.change(request), lambda: self.model.control(one.name, action, self.now, argument))
        if answer is not None:
            self.answers.append((request, answer))

    @precondition(lambda self: self.answers)
    @rule(number=which)
    def repeat(self, number: int) -> None:
        """A repeated request gets the first answer, whatever happened since: G17."""
        request, known = self.answers[number % len(self.answers)]
        again = self.store.make if isinstance(request, pb.CreateNotificationRequest) else self.store.change
        assert self.wait(again(request)) == known

    @invariant()
    def all_agree(self) -> None:
        """Reports are the model's, their parts sum up (G10), and fences never go back (G12)."""
        names = list(self.model.all)
        answer = self.wait(self.store.stub.GetNotifications(pb.GetNotificationsRequest(notification_ids=names)))
        for one, found in zip(self.model.all.values(), answer.notifications, strict=True):
            assert (found.notification_id, found.fence) == (one.name, one.fence)
            assert _reported(found.report) == _numbers(one)
            assert parts(found.report)[0] == len(one.expansion)
            assert found.fence >= self.fences.get(one.name, 0)
            self.fences[one.name] = found.fence
            assert one.delivered <= one.sent <= one.expansion

    @rule(number=which)
    def recipients(self, number: int) -> None:
        one = _pick(self.those(), number)
        outcomes = [common.Outcome.Value(f"OUTCOME_{name.upper()}") for name in OUTCOMES]
        found = dict(zip(OUTCOMES, self.wait(self.store.recipients(one.name, *outcomes)), strict=True))
        assert found == {"expansion": one.expansion, "sent": one.sent} | one.parts()

    def teardown(self) -> None:
        """Leave nothing behind that could be claimed."""
        for one in self.model.all.values():
            with contextlib.suppress(grpc.RpcError):
                self.wait(self.store.control(one.name, f"end-{next(_names)}", cancel=pb.CancelAction(whole_series=True)))
        self.clock.advance(3600)
        assert self.wait(self.store.claim(100)) == []

    def agreed(self, call: Awaitable[T], simple: Callable[[], None]) -> T | None:
        """The store's answer when both did it; both refuse it for the same reason otherwise."""
        expected = ""
        try:
            simple()
        except RefusedError as error:
            expected = str(error)
        try:
            answer = self.wait(call)
        except grpc.RpcError as error:
            assert reason(error) == expected
            return None
        assert expected == ""
        return answer

    def _upload(
        self, send: int, life: int, priority: int, audience: set[int] | None
    ) -> tuple[pb.CreateNotificationRequest, SimpleNotification]:
        spec = common.NotificationSpec(priority=priority)
        request = self.store.upload(send_in=send, expire_in=send + life, audience=audience, spec=spec)
        request.request_id = f"machine-{next(_names)}"
        return request, SimpleNotification(request.notification_id, priority, self.now + send, self.now + send + life)


def _pick(ones: list[SimpleNotification], number: int) -> SimpleNotification:
    return ones[number % len(ones)]


def _numbers(one: SimpleNotification) -> tuple[str, dict[str, int]]:
    parts = {name: len(ordinals) for name, ordinals in one.parts().items()}
    return one.state, parts | {"expansion": len(one.expansion), "sent": len(one.sent)}


def _reported(report: common.NotificationReport) -> tuple[str, dict[str, int]]:
    state = common.NotificationState.Name(report.state).removeprefix("NOTIFICATION_STATE_")
    return state, {name: getattr(report, name) for name in OUTCOMES}


def test_the_store_is_the_simple_store(fixture: Fixture) -> None:
    # A shorter history of the same fault is not looked for: by way of a running store that takes longer than a test may.
    phases = [Phase.generate]
    short = settings(max_examples=20, stateful_step_count=20, deadline=None, database=None, phases=phases, print_blob=True)
    run_state_machine_as_test(lambda: Machine(fixture), settings=short)  # type: ignore[arg-type]
