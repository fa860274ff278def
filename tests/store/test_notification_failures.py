"""Notifications whose owners fail: tried again for a while, then put aside, and what an operator and a business do with those."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest

from mesh import rpc
from mesh.telemetry import Telemetry
from store.dead_letter import Policy
from store.dead_letter_meters import DeadLetterMeters
from store.dead_letter_replay import Replays
from store.notification import RETRY
from store.notification_life import State
from store.serve import open_database
from store.service_dead_letters import DeadLetterServicer
from store.settings import StoreSettings
from tests.store.behind import execute
from tests.store.client import reason
from tests.store.notifications import Clock, NotificationClient, notification_store
from tests.store.test_notification_life import NOW, made
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import dead_letter_pb2 as letters_pb
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub, add_DeadLetterServiceServicer_to_server

MOST = Policy().runs
PAUSED, FAILED, SENDING = (common.NotificationState.Value(f"NOTIFICATION_STATE_{name}") for name in ("PAUSED", "FAILED", "SENDING"))


class Bench:
    """A store's notifications and its letters."""

    def __init__(self, store: NotificationClient, letters: Any) -> None:
        self.store, self.letters, self.clock = store, letters, store.clock

    async def fail(self, notification_id: str, fence: int, detail: str = "it broke") -> None:
        """Its owner can't go on."""
        claim = pb.Claim(notification_id=notification_id, fence=fence)
        run = pb.FailedRun(claim=claim, reason="INTERNAL", detail=detail)
        await self.store.stub.ReleaseNotifications(pb.ReleaseNotificationsRequest(failed_runs=[run]))

    async def fail_for_good(self, notification_id: str) -> None:
        """Every owner it gets fails, until nobody gets it any more."""
        for turn in range(MOST):
            fence = await self.store.take(notification_id)
            await self.fail(notification_id, fence)
            self.clock.advance(2**turn)
        assert await self.store.claim() == []

    async def all(self) -> list[letters_pb.DeadLetter]:
        """The letters there are, in full."""
        page = await self.letters.ListDeadLetters(letters_pb.ListDeadLettersRequest())
        wanted = [letters_pb.GetDeadLetterRequest(dead_letter_id=one.dead_letter_id) for one in page.dead_letters]
        return [(await self.letters.GetDeadLetter(one)).dead_letter for one in wanted]

    async def replay(self) -> None:
        """The only one there is."""
        [letter] = await self.all()
        await self.letters.ReplayDeadLetter(letters_pb.ReplayDeadLetterRequest(dead_letter_id=letter.dead_letter_id))

    async def discard(self) -> None:
        """The only one there is."""
        [letter] = await self.all()
        await self.letters.DiscardDeadLetter(letters_pb.DiscardDeadLetterRequest(dead_letter_id=letter.dead_letter_id))


async def refused(call: Awaitable[object]) -> str:
    """The reason a call is refused for."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return reason(caught.value)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    clock, telemetry = Clock(), Telemetry("store-test")
    options: dict[str, Any] = {"database": database_url}
    async with notification_store(database_url, clock) as store, open_database(StoreSettings(**options)) as (database, log):
        servicer = DeadLetterServicer(database, Replays(database, log, clock), DeadLetterMeters(telemetry), Policy(), clock)
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.store.v1.DeadLetterService": lambda server: add_DeadLetterServiceServicer_to_server(servicer, server)
        }
        async with (
            rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=1) as port,
            rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
        ):
            yield Bench(store, DeadLetterServiceStub(channel))
    telemetry.close()


async def test_one_that_nobody_can_run_is_put_aside_and_the_others_go_on(bench: Bench) -> None:
    poisoned = await bench.store.create(audience={1, 2}, spec=common.NotificationSpec(priority=9))
    await bench.fail_for_good(poisoned)
    other = await bench.store.create(audience={3})
    assert await bench.store.take(other)
    report = await bench.store.report(poisoned)
    assert (report.state, report.reason, report.pending) == (PAUSED, "INTERNAL: it broke", 2)
    [letter] = await bench.all()
    assert (letter.kind, letter.subject) == (letters_pb.DEAD_LETTER_KIND_NOTIFICATION, poisoned)
    assert (letter.reason, letter.detail, letter.attempts) == ("INTERNAL", "it broke", MOST)
    assert common.NotificationReport.FromString(letter.payload).expansion == 2


async def test_it_is_due_again_later_each_time(bench: Bench) -> None:
    name = await bench.store.create(audience={1})
    for seconds in (1, 2, 4):
        await bench.fail(name, await bench.store.take(name))
        bench.clock.advance(seconds - 0.001)
        assert await bench.store.claim() == []
        assert (await bench.store.claim_response()).next_due_time.ToMicroseconds() == bench.clock.now + RETRY // 1_000
        bench.clock.advance(0.001)
    assert await bench.all() == []


async def test_an_older_owner_fails_for_itself_only(bench: Bench) -> None:
    name, fence = await bench.store.running({1})
    await bench.fail(name, fence - 1)
    await bench.fail("n" + "b" * 26, 1)
    assert not (await bench.store.step(name, fence, sent={1})).fenced


async def test_replayed_it_goes_out(bench: Bench) -> None:
    name = await bench.store.create(audience={1, 2})
    await bench.fail_for_good(name)
    before = (await bench.store.get(name)).fence
    await bench.replay()
    assert await bench.all() == []
    fence = await bench.store.take(name)
    assert fence > before and (await bench.store.report(name)).reason == ""
    assert (await bench.store.step(name, fence, sent={1, 2})).report.sent == 2
    assert (await bench.store.deliver(name, {1, 2})).state == common.NOTIFICATION_STATE_COMPLETED


async def test_failing_again_it_comes_back_and_counts_on(bench: Bench) -> None:
    name = await bench.store.create(audience={1})
    for attempts in (MOST, 2 * MOST):
        await bench.fail_for_good(name)
        [letter] = await bench.all()
        assert letter.attempts == attempts
        await bench.replay()


async def test_what_was_sent_to_somebody_begins_to_count_anew(bench: Bench) -> None:
    name = await bench.store.create(audience=range(1, 20))
    for turn in range(1, 3 * MOST):
        fence = await bench.store.take(name)
        if turn % (MOST - 1) == 0:
            assert not (await bench.store.step(name, fence, sent={turn})).fenced
        await bench.fail(name, fence)
        bench.clock.advance(2**MOST)
    assert await bench.all() == []


async def test_discarded_it_has_failed_for_good(bench: Bench) -> None:
    name = await bench.store.create(audience={1, 2})
    await bench.fail_for_good(name)
    await bench.discard()
    report = await bench.store.report(name)
    assert (report.state, report.reason, report.failed) == (FAILED, "INTERNAL: it broke", 2)
    assert await bench.all() == [] and await bench.store.claim() == []


async def test_a_business_does_with_it_what_it_does_with_any_other(bench: Bench) -> None:
    resumed, cancelled, paused = [await bench.store.create(audience={1}) for _ in range(3)]
    await bench.store.control(cancelled, pause=pb.PauseAction())
    await bench.store.control(paused, pause=pb.PauseAction())
    await bench.fail_for_good(resumed)
    await bench.store.control(resumed, resume=pb.ResumeAction())
    assert await bench.all() == [], "it isn't put aside any more"
    await bench.store.control(resumed, cancel=pb.CancelAction())

    await bench.store.control(cancelled, resume=pb.ResumeAction())
    await bench.fail_for_good(cancelled)
    assert (await bench.store.control(cancelled, cancel=pb.CancelAction())).report.reason == ""
    assert await refused(bench.replay()) == "NOTIFICATION_STATE_CONFLICT"
    await bench.discard()
    assert (await bench.store.report(cancelled)).state == common.NOTIFICATION_STATE_CANCELLED

    await bench.store.control(paused, resume=pb.ResumeAction())
    await bench.fail_for_good(paused)
    await bench.store.control(paused, pause=pb.PauseAction())
    await bench.replay()
    assert (await bench.store.report(paused)).state == PAUSED, "the business wants it so"


async def test_expiry_ends_it_also_while_it_is_put_aside(bench: Bench) -> None:
    name = await bench.store.create(audience={1}, expire_in=600)
    await bench.fail_for_good(name)
    bench.clock.advance(601)
    assert await refused(bench.replay()) == "NOTIFICATION_STATE_CONFLICT"
    await bench.store.claim()
    report = await bench.store.report(name)
    assert (report.state, report.reason) == (common.NOTIFICATION_STATE_EXPIRED, "")
    await bench.discard()
    assert (await bench.store.report(name)).state == common.NOTIFICATION_STATE_EXPIRED


async def test_a_series_whose_next_occurrence_can_not_be_made_ends(bench: Bench) -> None:
    request = bench.store.upload(audience={1}, expire_in=5)
    request.series_id, request.occurrence = request.notification_id, 1
    name = await bench.store.create(request)
    bench.clock.advance(6)
    await bench.fail_for_good(name)
    report = await bench.store.report(name)
    assert (report.state, report.reason) == (FAILED, "INTERNAL: it broke")
    [letter] = await bench.all()
    assert letter.subject == name


async def test_one_that_can_not_even_be_read_holds_up_no_claim(bench: Bench, database_url: str) -> None:
    spoilt = await bench.store.create(audience={1}, spec=common.NotificationSpec(priority=9))
    execute(database_url, "UPDATE notification_uploads SET spec = :spec WHERE notification_id = :name", spec=b"\xff", name=spoilt)
    other = await bench.store.create(audience={2})
    assert await bench.store.take(other)
    for _ in range(MOST):
        bench.clock.advance(2**MOST)
        await bench.store.claim(lease=3600)
    [letter] = await bench.all()
    assert letter.subject == spoilt and "DecodeError" in letter.detail
    execute(database_url, "UPDATE notification_uploads SET spec = :spec WHERE notification_id = :name", spec=b"", name=spoilt)
    await bench.replay()
    assert await bench.store.take(spoilt)


def test_its_life_when_owners_fail() -> None:
    first = made(State.SENDING, failures=0).failed_run("why", 2, NOW)
    assert (first.state, first.failures, first.lease_owner, first.lease_until) == (State.SENDING, 1, None, NOW + RETRY)
    held = first.failed_run("why", 2, NOW)
    assert (held.state, held.reason, held.held_back, held.fence) == (State.PAUSED, "why", True, first.fence + 1)
    assert held.resumed(NOW).reason == "" and not held.paused().held_back
    over = made(State.EXPANDING, failures=1, awaits_next=True, expire_at=NOW).failed_run("why", 2, NOW)
    assert (over.state, over.reason, over.names_matter) == (State.FAILED, "why", False)
    assert held.given_up(NOW).reason == "why" and held.expired(NOW).reason == "" and held.cancelled(NOW).reason == ""
