"""Handing over to routers that refuse, say nothing, or fail as nobody foresaw: what is given back, and what isn't."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from mesh import errors
from mesh.telemetry import Telemetry
from scheduler.aside import Aside
from scheduler.claims import Claims
from scheduler.handover import Handover
from scheduler.meters import Meters
from tidings.store.v1.notification_pb2 import Claim

CLAIMS = [Claim(notification_id=f"n{number}", fence=1) for number in range(6)]
IDS = [claim.notification_id for claim in CLAIMS]


class Router:
    """Answers each call as the next of `answers` does, and takes everything when there is none left."""

    router_id = "router-1"

    def __init__(self, *answers: Callable[[list[str]], set[str]]) -> None:
        self.answers = list(answers)
        self.calls: list[list[str]] = []
        self.called = asyncio.Semaphore(0)
        self.gone = asyncio.Event()

    async def start(self, claims: Sequence[Claim]) -> set[str]:
        """Take these."""
        ids = [claim.notification_id for claim in claims]
        self.calls.append(ids)
        self.called.release()
        return self.answers.pop(0)(ids) if self.answers else set()

    async def refresh(self, notification_ids: Sequence[str]) -> None:
        """Nobody here asks."""

    async def left(self) -> None:
        """Wait until it leaves."""
        await self.gone.wait()

    def owner(self, notification_id: str) -> "Router":
        """The only one."""
        return self


class Released(Claims):
    """Takes down what is released."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give these up."""
        self.ids += [claim.notification_id for claim in claims]


class Bench:
    """A hand-over to one router."""

    def __init__(self, telemetry: Telemetry, router: Router, capacity: int = 100, lease: float = 60.0) -> None:
        self.claims = Released()
        self.aside = Aside(capacity, lease)
        self.freed = asyncio.Semaphore(0)
        self.handover = Handover(router, self.claims, Meters(telemetry), self.aside, 1_000, self.freed.release)

    async def until_released(self) -> None:
        """Wait until one more group was let go."""
        async with asyncio.timeout(5):
            await self.freed.acquire()


@pytest.fixture
def telemetry() -> Telemetry:
    """Of nobody else."""
    return Telemetry("test")


def refuse(ids: list[str]) -> set[str]:
    """No room."""
    return set(ids)


def say_nothing(ids: list[str]) -> set[str]:
    """The call ends without an answer."""
    raise errors.unavailable("a service needed for this did not answer (DEADLINE_EXCEEDED); send it again")


def break_down(ids: list[str]) -> set[str]:
    """As nobody foresaw."""
    raise ZeroDivisionError


async def told(router: Router) -> None:
    """Wait for one more call, and let the hand-over go on after it."""
    async with asyncio.timeout(5):
        await router.called.acquire()
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_was_refused_does_not_count_and_is_given_back_at_the_stop(telemetry: Telemetry) -> None:
    router = Router(refuse)
    bench = Bench(telemetry, router)
    bench.handover.give(CLAIMS)
    await told(router)
    assert (len(bench.handover), len(bench.aside)) == (0, 6)
    await bench.handover.close()
    assert (bench.claims.ids, len(bench.aside)) == (IDS, 0)


async def test_one_group_is_tried_soon_and_the_others_when_the_router_takes_things_again(telemetry: Telemetry) -> None:
    router = Router(refuse, refuse, refuse)
    bench = Bench(telemetry, router)
    for number in range(3):
        bench.handover.give(CLAIMS[2 * number : 2 * number + 2])
        await told(router)
    await bench.until_released()
    assert bench.claims.ids == IDS[:2]
    bench.handover.give(CLAIMS[:2])
    await bench.until_released()
    assert (bench.claims.ids, len(bench.aside)) == (IDS[:4], 2)
    await bench.handover.close()


async def test_refused_claims_are_given_back_before_their_lease_ends(telemetry: Telemetry) -> None:
    router = Router(refuse, refuse)
    bench = Bench(telemetry, router, lease=0.2)
    for number in range(2):
        bench.handover.give(CLAIMS[number : number + 1])
        await told(router)
    await bench.until_released()
    await bench.until_released()
    assert (sorted(bench.claims.ids), len(bench.aside)) == (IDS[:2], 0)


async def test_what_there_is_no_room_to_hold_apart_counts_until_it_is_given_back(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.backoff.FIRST_SECONDS", 60.0)
    router = Router(refuse, refuse)
    bench = Bench(telemetry, router, capacity=4)
    for number in range(2):
        bench.handover.give(CLAIMS[3 * number : 3 * number + 3])
        await told(router)
    assert (len(bench.handover), len(bench.aside)) == (3, 3)
    await bench.handover.close()
    assert (sorted(bench.claims.ids), len(bench.handover), len(bench.aside)) == (IDS, 0, 0)


@pytest.mark.parametrize("answer", [say_nothing, break_down])
@pytest.mark.parametrize("capacity", [0, 100])
async def test_without_an_answer_nothing_is_given_back(
    telemetry: Telemetry, answer: Callable[[list[str]], set[str]], capacity: int
) -> None:
    router = Router(answer)
    bench = Bench(telemetry, router, capacity)
    bench.handover.give(CLAIMS[:3])
    await told(router)
    bench.handover.give(CLAIMS[3:])
    await told(router)
    assert router.calls == [IDS[:3], IDS[3:]], "it is told what comes later"
    assert len(bench.handover) + len(bench.aside) == 3
    await bench.handover.close()
    assert (bench.claims.ids, len(bench.handover), len(bench.aside)) == ([], 0, 0)


async def test_without_an_answer_a_lease_is_waited_for_and_no_longer(telemetry: Telemetry) -> None:
    bench = Bench(telemetry, Router(say_nothing), lease=0.1)
    bench.handover.give(CLAIMS)
    await bench.until_released()
    assert (bench.claims.ids, len(bench.handover), len(bench.aside)) == ([], 0, 0)


async def test_without_an_answer_of_a_router_that_leaves_everything_is_given_back(telemetry: Telemetry) -> None:
    router = Router(say_nothing)
    bench = Bench(telemetry, router)
    bench.handover.give(CLAIMS)
    await told(router)
    assert not bench.claims.ids
    router.gone.set()
    await bench.until_released()
    assert (bench.claims.ids, len(bench.aside)) == (IDS, 0)
