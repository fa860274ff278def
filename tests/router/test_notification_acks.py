"""Acknowledgements from links to the store: where they wait, in which order they are written, what is taken before it is said."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyroaring import BitMap

from mesh.telemetry import Telemetry
from router.links import Links
from router.meters import Meters
from router.notification_acks import GatheredAcks, NotificationAcks
from tests.router.notification_twin import notification
from tidings.common.v1.notification_pb2 import NotificationReport
from tidings.router.v1.link_pb2 import ClientEnvelope, EdgeBatch, NotificationAcknowledgement, ReceiptDelta
from tidings.store.v1.notification_pb2 import RecordDeliveredRequest, RecordDeliveredResponse

BIT = BitMap([5]).serialize()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Store:
    """Records what is delivered."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.changed = asyncio.Condition()

    async def record_delivered(self, request: RecordDeliveredRequest) -> RecordDeliveredResponse:
        async with self.changed:
            self.calls.append([one.notification_id for one in request.delivered])
            self.changed.notify_all()
        return RecordDeliveredResponse(reports=[NotificationReport() for _ in request.delivered])

    async def until(self, calls: int) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: len(self.calls) >= calls), 10)


class Bench:
    """Acknowledgements; what begins with `r` runs here."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.store = Store()
        self.here, self.elsewhere = GatheredAcks(10_000, 10**8), GatheredAcks(50, 10**6)
        runs_here = lambda name: name.startswith("nr")  # noqa: E731
        store: Any = self.store
        meters, told = Meters(telemetry), lambda *_: None
        self.acks = NotificationAcks(self.here, self.elsewhere, runs_here, store, meters, 30.0, told)

    def accept(self, *names: str) -> list[str]:
        ids = [notification(name) for name in names]
        self.acks.accept("edge", [NotificationAcknowledgement(notification_id=one, user_ordinals=BIT) for one in ids])
        return ids


def _names(first: str, count: int) -> list[str]:
    return [first + LETTERS[n // 676] + LETTERS[n // 26 % 26] + LETTERS[n % 26] for n in range(count)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    telemetry = Telemetry("test")
    yield Bench(telemetry)
    telemetry.close()


async def test_made_up_ids_displace_nobody_and_wait_for_the_rest(bench: Bench) -> None:
    true = bench.accept("rabc")
    for made_up in (_names("x", 12_000), _names("y", 12_000)):
        bench.accept(*made_up)
    assert len(bench.acks) == 51
    running = asyncio.create_task(bench.acks.run())
    await bench.store.until(2)
    assert bench.store.calls[0] == true and len(bench.store.calls[1]) == 50
    running.cancel()


async def test_it_does_not_pause_while_a_full_call_waits(bench: Bench) -> None:
    """It would for half a minute."""
    ids = bench.accept(*_names("r", 3_500))
    (unknown,) = bench.accept("xyz")
    running = asyncio.create_task(bench.acks.run())
    await bench.store.until(4)
    assert [len(call) for call in bench.store.calls[:3]] == [1000, 1000, 1000] and bench.store.calls[2][-1] == ids[2999]
    assert bench.store.calls[3] == [unknown] and len(bench.acks) == 500
    running.cancel()


class Link:
    """Notes what it is told to say."""

    edge_id = "edge"
    gone = False

    def __init__(self, taken: list[str]) -> None:
        self.taken = taken

    def received(self, sequence: int, *, tell_now: bool) -> None:
        self.taken.append(f"said {sequence}")


class Receipts:
    """Has room or not."""

    def __init__(self, taken: list[str], room: bool) -> None:
        self.taken, self.room = taken, room

    def room_for(self, count: int) -> bool:
        return self.room

    async def accept(self, deltas: object) -> None:
        self.taken.append("receipts")


class Others:
    """Whoever else is told; notes acknowledgements only."""

    def __init__(self, taken: list[str]) -> None:
        self.taken = taken

    def accept(self, edge_id: str, acknowledgements: object) -> None:
        self.taken.append("acknowledgements")

    def came(self, *_: object) -> None: ...

    def opened(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("opened", "room", "order"),
    [
        ([], False, ["acknowledgements", "receipts", "said 3"]),
        ([1], True, ["acknowledgements", "receipts", "said 3"]),
        ([1], False, ["acknowledgements", "said 3"]),
    ],
)
async def test_what_is_said_to_be_acted_on_has_been_taken(opened: list[int], room: bool, order: list[str]) -> None:
    """Also when the link ends while its reader waits."""
    taken = list[str]()
    others, link, receipts = Others(taken), Link(taken), Receipts(taken, room)
    begun = asyncio.Event()

    async def wait(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    other: Any = others
    written: Any = receipts
    links = Links(other, other, written, other, other, {"typing": wait})
    envelope = ClientEnvelope(user_ordinal=1)
    envelope.typing.SetInParent()
    acknowledgement = NotificationAcknowledgement(notification_id=notification("a"), user_ordinals=BIT)
    batch = EdgeBatch(
        opened_user_ordinals=opened,
        envelopes=[envelope],
        receipts=[ReceiptDelta(user_ordinal=1)],
        notification_acknowledgements=[acknowledgement],
    )
    one: Any = link
    reading = asyncio.create_task(links.on_batch(one, 3, batch))
    await asyncio.wait_for(begun.wait(), 10)
    reading.cancel()
    assert taken == order
