"""`tidings bench notify`: a tag expression over millions of clients, of whom thousands are connected.

Measured: how long the expansion takes, how long after its due time the first device is shown it, when all who are connected have
acknowledged, what the report says meanwhile (its parts must sum at every reading), what it costs in memory: of several, one after
the other, the median and the worst. Then a paced one, cancelled half-way. Beside it: pyroaring alone, and a bare fan-out of a frame
of the same size to as many WebSockets.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

from pyroaring import BitMap

from bench import headroom
from bench.fan_out import bare_fan_out
from bench.figures import Figures
from bench.frames import text_of
from bench.mesh import Target, fleet, one_process
from bench.people import fill, user_id
from bench.remote import RemoteGenerator, generator
from bench.resources import measure
from bench.tags import EXPRESSION, by_pyroaring, operands
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.tag.v1.audience_pb2 import ExpandExpressionRequest
from tidings_client.business import Business, BusinessError, new_request_id

EXPANSION_MS, FIRST_MS, ALL_SECONDS, BYTES = 50.0, 100.0, 1.0, 40.0
DELIVERED = "deliveries"
EXPANDED, FIRST, LAST = "expansion, over gRPC", "first device shown, after due", "last connected device shown, after due"
ACKNOWLEDGED = "all connected acknowledged, by the report, after due"
LEAD_SECONDS = 2.0  # from the upload until it is due: so that what is measured is not the upload
READ_SECONDS = 0.05  # between two readings of a report
AWAIT_SECONDS = 60.0
PARTS = ("delivered", "pending", "failed", "expired", "cancelled")
_PACED_RATE = 1_000
_PACED_SECONDS = 2.0
_CALM_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class NotifyOptions:
    """What to measure.

    Attributes:
        clients: known clients.
        connected: of them, in the audience.
        size: bytes of text.
        mode: process or fleet.
        shots: notifications to all at once, one after the other.
    """

    clients: int = 10_000_000
    connected: int = 10_000
    size: int = 120
    mode: str = "fleet"
    baselines: bool = True
    shots: int = 5


@dataclass(slots=True)
class Readings:
    """A report read again and again."""

    count: int = 0
    unequal: int = 0
    last: common.NotificationReport = field(default_factory=common.NotificationReport)
    acknowledged_at: float = 0.0

    def take(self, report: common.NotificationReport, wanted: int) -> None:
        """Note a reading; `wanted` acknowledgements are all there can be."""
        self.count += 1
        self.unequal += sum(getattr(report, part) for part in PARTS) != report.expansion
        self.last = report
        if not self.acknowledged_at and report.delivered >= wanted:
            self.acknowledged_at = time.time()


@dataclass(frozen=True, slots=True)
class Shot:
    """What became of one to all at once.

    Attributes:
        first, last: seconds after due at which a device was shown it.
        acknowledged: seconds after due at which the report said that all connected had.
        rate: devices shown it in a second, from the first to the last.
    """

    first: float
    last: float
    acknowledged: float
    rate: float


def run(options: NotifyOptions) -> Figures:
    """Measure.

    Raises:
        GeneratorFailedError, BusinessError, TimeoutError, OSError: the mesh did not serve.
    """
    settings = {"mode": options.mode, "clients": options.clients, "connected": options.connected, "bytes": options.size}
    figures = Figures("notify", settings)
    tags = operands(options.clients)
    audience = _by_pyroaring(figures, tags, options.clients)

    def seed(database: str) -> None:
        fill(database, options.clients, tags)

    with one_process(seed) if options.mode == "process" else fleet(seed=seed) as target, generator("bench.listeners") as clients:
        there = _spread(audience, options.connected)
        started = time.monotonic()
        clients.do("connect", url=target.url, tokens={user_id(one): target.token(user_id(one)) for one in there})
        figures.add("connected", options.connected / (time.monotonic() - started), "sessions/s")
        asyncio.run(_measure(figures, target, clients, options, len(audience)))
    if options.baselines:
        bare = bare_fan_out(options.connected, options.size + 60)
        figures.beside("bare fan-out of such a frame, until the last has it", bare * 1e3, "ms", LAST, "aiohttp, nothing else")
        figures.could_drive(*headroom.of_listeners(options.connected, options.size, figures.value(DELIVERED)))
    return figures


def _by_pyroaring(figures: Figures, tags: dict[str, BitMap], clients: int) -> BitMap:
    started = time.perf_counter()
    found = by_pyroaring(tags, clients)
    figures.beside(
        "pyroaring alone: the expression", (time.perf_counter() - started) * 1e3, "ms", EXPANDED, f"{len(found):,} clients"
    )
    return found


def _spread(audience: BitMap, count: int) -> list[int]:
    """So many of them, evenly from the lowest to the highest."""
    return [audience[number * len(audience) // count] for number in range(count)]


async def _measure(figures: Figures, target: Target, clients: RemoteGenerator, options: NotifyOptions, expected: int) -> None:
    async with Business.connect(target.scheduler, target.tags, timeout=60.0) as business:
        await _expansion(figures, business, expected)
        pids = {**target.pids, "listeners": clients.pid}
        before, started = measure(pids), time.monotonic()
        shots = [await _all_at_once(figures, business, clients, options, expected)]
        once = measure(pids)
        shots += [await _all_at_once(figures, business, clients, options, expected) for _ in range(options.shots - 1)]
        after = measure(pids)
        _tell(figures, shots)
        figures.spend("all at once", before, after, options.shots * options.connected, time.monotonic() - started)
        figures.drove(figures.costs["all at once"]["listeners"].cpu_share)
        cpu = sum(after[one].cpu_seconds - before[one].cpu_seconds for one in target.pids) / options.shots
        figures.add("CPU of the whole, all services, each", cpu, "s")
        grown = sum(once[one].memory_mb - before[one].memory_mb for one in target.pids if one != "postgresql")
        figures.add(
            "memory grown", max(0.0, grown) * 2**20 / expected, "bytes a recipient", BYTES, note="all services, by the first"
        )
        await _cancelled(figures, business, clients, options)


def _tell(figures: Figures, shots: list[Shot]) -> None:
    median = Shot(*map(statistics.median, zip(*map(astuple, shots), strict=True)))
    worst = max(shot.first for shot in shots)
    each = f"median of {len(shots)}; worst"
    figures.add(FIRST, median.first * 1e3, "ms", FIRST_MS, note=f"{each} {worst * 1e3:.0f}")
    figures.add(f"{FIRST}, the worst of {len(shots)}", worst * 1e3, "ms")
    figures.add(LAST, median.last * 1e3, "ms", note=f"{each} {max(shot.last for shot in shots) * 1e3:.0f}")
    slowest = max(shot.acknowledged for shot in shots)
    figures.add(ACKNOWLEDGED, median.acknowledged, "s", ALL_SECONDS, note=f"{each} {slowest:.2f}")
    figures.add(DELIVERED, median.rate, "/s", note="first to last")


async def _expansion(figures: Figures, business: Business, expected: int) -> None:
    times, count = [], 0
    for _ in range(5):
        started = time.perf_counter()
        count = 0
        async for chunk in business.audience.ExpandExpression(ExpandExpressionRequest(expression=EXPRESSION)):
            count += len(BitMap.deserialize(chunk.user_ordinals))
        times.append((time.perf_counter() - started) * 1e3)
    figures.add(EXPANDED, statistics.median(times), "ms", EXPANSION_MS, note=f"{EXPRESSION}: {count:,} clients")
    figures.faults["expanded wrongly"] = abs(count - expected)


async def _all_at_once(
    figures: Figures, business: Business, clients: RemoteGenerator, options: NotifyOptions, expected: int
) -> Shot:
    due = time.time() + LEAD_SECONDS
    name = await _upload(business, options, due)
    async with _read(business, name, options.connected) as readings:
        seen = await asyncio.to_thread(clients.do, "await", name=name, count=options.connected, seconds=AWAIT_SECONDS)
        until = time.time() + AWAIT_SECONDS
        while not readings.acknowledged_at and time.time() < until:  # noqa: ASYNC110  (reports can only be read)
            await asyncio.sleep(READ_SECONDS)
    _judge(figures, readings, seen, options, expected)
    early = seen["shown"] > 0 and seen["first"] < due
    _count(figures, {"shown before due": int(early)})
    acknowledged = (readings.acknowledged_at or float("inf")) - due
    rate = options.connected / max(1e-9, seen["last"] - seen["first"])
    return Shot(seen["first"] - due, seen["last"] - due, acknowledged, rate)


def _judge(figures: Figures, readings: Readings, seen: dict[str, Any], options: NotifyOptions, expected: int) -> None:
    _count(
        figures,
        {
            "readings whose parts don't sum": readings.unequal,
            "connected and not shown": options.connected - seen["shown"],
            "shown twice": seen["repeated"],
            "expansion other than expected": abs(readings.last.expansion - expected),
            "delivered other than shown": abs(readings.last.delivered - seen["shown"]),
            "reports never read": int(not readings.count),
        },
    )


def _count(figures: Figures, found: dict[str, int]) -> None:
    """Add to what was found so far."""
    figures.faults |= {name: figures.faults.get(name, 0) + number for name, number in found.items()}


async def _cancelled(figures: Figures, business: Business, clients: RemoteGenerator, options: NotifyOptions) -> None:
    name = await _upload(business, options, time.time(), _PACED_RATE)
    async with _read(business, name, options.connected) as readings:
        await asyncio.sleep(_PACED_SECONDS)
        request = pb.CancelNotificationRequest(request_id=new_request_id(), notification_id=name)
        started = time.perf_counter()
        answer = await business.notifications.CancelNotification(request)
        figures.add("cancel, until answered", (time.perf_counter() - started) * 1e3, "ms", note=f"{answer.sent:,} had gone")
        await asyncio.sleep(_CALM_SECONDS)
        seen = await asyncio.to_thread(clients.do, "await", name=name, count=answer.sent + 1, seconds=0.5)
    rate = answer.sent / _PACED_SECONDS
    figures.add("paced", rate, "recipients/s", _PACED_RATE * 1.05, better="less", note=f"asked for {_PACED_RATE:,}")
    _count(
        figures,
        {
            "shown after the cancel": max(0, seen["shown"] - answer.sent),
            "sent after the cancel": abs(readings.last.sent - answer.sent),
            "readings of the paced one that don't sum": readings.unequal,
        },
    )


async def _upload(business: Business, options: NotifyOptions, due: float, rate: int | None = None) -> str:
    spec = common.NotificationSpec(
        audience=common.Audience(expression=EXPRESSION),
        content=Content(text=Text(text=text_of(options.size))),
        rate_per_second=rate,
    )
    spec.send_time.FromNanoseconds(int(due * 1e9))
    request = pb.UploadNotificationRequest(request_id=new_request_id(), spec=spec)
    return (await business.notifications.UploadNotification(request)).notification.notification_id


@asynccontextmanager
async def _read(business: Business, name: str, wanted: int) -> AsyncIterator[Readings]:
    """Read a notification's report all through the context."""
    readings = Readings()

    async def read() -> None:
        while True:
            try:
                answer = await business.notifications.GetNotification(pb.GetNotificationRequest(notification_id=name))
                readings.take(answer.notification.report, wanted)
            except BusinessError:
                continue  # it is asked again at once, as a business would
            await asyncio.sleep(READ_SECONDS)

    reading = asyncio.create_task(read())
    try:
        yield readings
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
