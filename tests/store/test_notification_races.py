"""Two stores over one PostgreSQL, and one with many callers: what one transaction promises holds between them."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest

from tests.store.client import reason
from tests.store.notifications import SECOND, Clock, NotificationClient, notification_store, parts, step
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb

pytestmark = pytest.mark.postgresql
BLOCK = 2**18
Stores = tuple[NotificationClient, NotificationClient]


@pytest.fixture
async def stores(postgres_url: str) -> AsyncIterator[Stores]:
    """Two, going by one clock."""
    clock = Clock()
    async with notification_store(postgres_url, clock) as one, notification_store(postgres_url, clock) as other:
        yield one, other


async def test_nothing_is_given_to_two(stores: Stores) -> None:
    one, _ = stores
    names = [await one.create(spec=common.NotificationSpec(priority=n % 3)) for n in range(60)]
    given: Counter[tuple[str, int]] = Counter()
    for _ in range(3):

        async def claim_all(store: NotificationClient) -> None:
            while claimed := await store.claim(limit=7):
                given.update((found.notification_id, found.fence) for found in claimed)

        await asyncio.gather(*(claim_all(store) for store in (*stores, *stores)))
        await claim_all(one)  # what another had locked when it was passed over
        one.clock.advance(10)
    assert given == Counter({(name, fence): 1 for name in names for fence in (1, 2, 3)})


class Sender:
    """Sends one ordinal after the other till it is fenced, and remembers which were accepted; from several stores at once."""

    def __init__(self, name: str, fence: int, enough: int) -> None:
        self.accepted: set[int] = set()
        self.reached = asyncio.Event()
        self._name, self._fence, self._enough = name, fence, enough

    async def send(self, store: NotificationClient, ordinals: Iterable[int]) -> None:
        """Till it is fenced."""
        for ordinal in ordinals:
            if (await store.step(self._name, self._fence, sent=[ordinal])).fenced:
                return
            self.accepted.add(ordinal)
            if len(self.accepted) >= self._enough:
                self.reached.set()

    async def cancel(self, store: NotificationClient) -> int:
        """Once enough were accepted; gives how many had gone."""
        await self.reached.wait()
        return (await store.control(self._name, cancel=pb.CancelAction())).report.sent


async def test_cancel_against_progress(stores: Stores) -> None:
    """What the cancel answers is all that was ever sent; every step is either in it, or fenced: G11."""
    plan = random.Random(3)
    for _ in range(8):
        one, other = plan.sample(stores, 2)
        name, fence = await one.running(range(1, 200))
        sender = Sender(name, fence, plan.randint(1, 30))
        work = [sender.cancel(other), sender.send(one, range(1, 200, 2)), sender.send(other, range(2, 200, 2))]
        sent, *_ = await asyncio.gather(*work)
        assert sent == len(sender.accepted) == (await one.report(name)).sent
        assert await one.recipients(name, common.OUTCOME_SENT) == [sender.accepted]


async def test_bitmaps_and_totals_agree_under_load(stores: Stores) -> None:
    """Steps and acknowledgements of several notifications, in any order, from both, over several blocks: no deadlock, none lost."""
    one, _ = stores
    everyone = [block * BLOCK + n for block in range(1, 4) for n in range(40)]
    owned = [await one.running(everyone) for _ in range(4)]
    plan = random.Random(5)
    members = {name: plan.sample(everyone, 90) for name, _ in owned}
    reach = {name: (set(chosen[:70]), set(chosen[60:])) for name, chosen in members.items()}

    async def owner(store: NotificationClient, seed: int) -> None:
        own = random.Random(seed)
        for n in range(0, 90, 6):
            steps = []
            for name, fence in own.sample(owned, 4):
                chosen = members[name][n : n + 6]
                sent, failed = reach[name]
                steps.append(step(name, fence, sent=sent & set(chosen), failed=failed & set(chosen)))
            assert not any(result.fenced for result in await store.progress(*steps, lease=3600))

    async def recipients(store: NotificationClient, seed: int) -> None:
        own = random.Random(seed)
        for _ in range(15):
            delivered = [
                pb.Delivered(notification_id=name, user_ordinals=_bits(own.sample(everyone, 40)))
                for name, _ in own.sample(owned, 4)
            ]
            await store.stub.RecordDelivered(pb.RecordDeliveredRequest(delivered=delivered))

    work = [act(store, seed) for seed, store in enumerate((*stores, *stores)) for act in (owner, recipients)]
    await asyncio.gather(*work)
    for name, _ in owned:
        await one.deliver(name, everyone)
        sent, failed = reach[name]
        report = await stores[1].report(name)
        assert (report.sent, report.delivered) == (len(sent), len(sent))
        assert parts(report) == (120, 70, 30, 20, 0, 0)
        found = await one.recipients(name, common.OUTCOME_SENT, common.OUTCOME_DELIVERED, common.OUTCOME_FAILED)
        assert found == [sent, sent, failed - sent]


async def test_one_request_at_two_stores(stores: Stores) -> None:
    one, other = stores
    for _ in range(10):
        request = one.upload(names=["x"], audience=[1])
        again = pb.CreateNotificationRequest()
        again.CopyFrom(request)
        again.notification_id = f"n{request.notification_id[:0:-1]}"
        answers = await asyncio.gather(one.make(request), other.make(again), other.make(request))
        assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
        name = answers[0].notification_id
        pausing = one.control_request(name, pause=pb.PauseAction())
        changed = await asyncio.gather(*(store.change(pausing) for store in (*stores, *stores)))
        assert {answer.fence for answer in changed} == {1}
        assert len({answer.SerializeToString(deterministic=True) for answer in changed}) == 1
    assert len(await one.listed()) == 10


async def test_the_end_of_a_series_against_its_next_one(stores: Stores) -> None:
    """Whichever comes first, none of the series goes on."""
    plan = random.Random(7)
    for _ in range(10):
        one, other = plan.sample(stores, 2)
        request = one.upload(occurrence=1)
        request.series_id = request.notification_id
        await one.create(request)
        [claimed] = await one.claim()
        following = one.upload(
            series=request.series_id, occurrence=2, predecessor=(request.notification_id, claimed.fence), send_in=60
        )

        async def make(store: NotificationClient, following: pb.CreateNotificationRequest = following) -> None:
            with contextlib.suppress(grpc.RpcError):
                await store.make(following)

        end = other.control_request(request.notification_id, cancel=pb.CancelAction(whole_series=True))
        await asyncio.gather(make(one), other.change(end))
        listed = await one.listed(series_id=request.series_id)
        states = {(await one.report(name)).state for name in listed}
        assert states == {common.NOTIFICATION_STATE_CANCELLED}
    one.clock.advance(120)
    assert await one.claim() == []


async def test_a_paused_owner_that_wakes_does_no_harm(stores: Stores) -> None:
    """As when a process is stopped for longer than its lease: G12."""
    one, other = stores
    name, fence = await one.running([1, 2, 3])
    await one.step(name, fence, sent=[1])
    one.clock.now += 11 * SECOND
    taken = await other.take(name)
    results = await asyncio.gather(one.step(name, fence, sent=[2]), one.step(name, fence, failed=[3]))
    assert [result.fenced for result in results] == [True, True]
    with pytest.raises(grpc.RpcError) as caught:
        await one.expand(name, taken - 1, [9])
    assert reason(caught.value) == "FENCED"
    assert parts(await other.report(name)) == (3, 0, 3, 0, 0, 0)


def _bits(ordinals: list[int]) -> bytes:
    return step("", 0, sent=ordinals).sent_ordinals
