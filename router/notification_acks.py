"""Who says that they have which notification: gathered from all links, and written to the store in batches.

An acknowledgement is true whoever brings it, so those of notifications that others run are written too. A run here hears of one
once it is stored: what is lost on the way is sent again, and acknowledged again.

Rules: at most one call under way. What a call failed for is kept and tried again. What can't be acknowledgements harms no others.
Those of notifications that don't run here, which anybody could make up, wait apart: in less room, and until the others are written.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import structlog
from pyroaring import BitMap

from mesh import errors, patience
from mesh.naming import NOTIFICATION_ID
from router import bitmaps
from router.meters import Meters
from router.ports import NotificationStore
from tidings.common.v1.notification_pb2 import NotificationReport
from tidings.router.v1.link_pb2 import NotificationAcknowledgement
from tidings.store.v1.notification_pb2 import Delivered, RecordDeliveredRequest

Recorded = Callable[[str, BitMap, NotificationReport], None]
_CALL_NOTIFICATIONS = 1000  # in one call: the store's bound
_CALL_BYTES = 4 * 1024 * 1024  # in one call, far under gRPC's bound
_ENTRY_BYTES = 300  # what a notification takes beside its bitmap
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    """One notification's, and the bytes they are taken for."""

    ordinals: BitMap = field(default_factory=BitMap)
    size: int = _ENTRY_BYTES


class GatheredAcks:
    """Bitmaps by notification, the longest waiting first.

    Args:
        max_notifications, max_bytes: bounds; past them the longest waiting go, and are counted.
    """

    def __init__(self, max_notifications: int, max_bytes: int) -> None:
        self._max_notifications = max_notifications
        self._max_bytes = max_bytes
        self._waiting: dict[str, _Waiting] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, notification_id: str, ordinals: BitMap, size: int) -> int:
        """These have it; `size` is of the bitmap in bytes. Gives how many acknowledgements had to go for want of room."""
        known = self._waiting.get(notification_id)
        if known is None:
            known = self._waiting[notification_id] = _Waiting()
            self._bytes += known.size
        known.ordinals |= ordinals
        known.size += size
        self._bytes += size
        return self._shed()

    @property
    def plenty(self) -> bool:
        """Whether a full call's worth waits."""
        return len(self._waiting) >= _CALL_NOTIFICATIONS or self._bytes >= _CALL_BYTES

    def take(self) -> dict[str, BitMap]:
        """What goes in one call; at least one notification when any waits."""
        names = list(islice(self._fitting(), _CALL_NOTIFICATIONS))
        return {name: self._pop(name) for name in names}

    def _fitting(self) -> Iterator[str]:
        total = 0
        for name, one in self._waiting.items():
            if total and total + one.size > _CALL_BYTES:
                return
            total += one.size
            yield name

    def _shed(self) -> int:
        shed = 0
        while len(self._waiting) > self._max_notifications or (self._bytes > self._max_bytes and len(self._waiting) > 1):
            shed += len(self._pop(next(iter(self._waiting))))
        return shed

    def _pop(self, name: str) -> BitMap:
        one = self._waiting.pop(name)
        self._bytes -= one.size
        return one.ordinals


class NotificationAcks:
    """From links to the store, and then to the runs.

    Args:
        here: gathers those of notifications that run here.
        elsewhere: gathers all others.
        runs: whether a notification runs here.
        every: seconds between two rounds of calls; less while more waits `here` than a call takes.
        recorded: told of what is stored, with the notification's numbers.
    """

    def __init__(
        self,
        here: GatheredAcks,
        elsewhere: GatheredAcks,
        runs: Callable[[str], bool],
        store: NotificationStore,
        meters: Meters,
        every: float,
        recorded: Recorded,
    ) -> None:
        self._here = here
        self._elsewhere = elsewhere
        self._runs = runs
        self._store = store
        self._meters = meters
        self._every = every
        self._recorded = recorded
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Notifications with acknowledgements waiting."""
        return len(self._here) + len(self._elsewhere)

    def accept(self, edge_id: str, acknowledgements: Iterable[NotificationAcknowledgement]) -> None:
        """Take what an edge says. The oldest go for want of room: their devices are asked again."""
        for one in acknowledgements:
            try:
                ordinals = bitmaps.read(one.user_ordinals)
            except errors.TidingsError as error:
                _log.warning("acknowledgement passed over", edge=edge_id, reason=error.reason, error=error.message)
                continue
            if ordinals and NOTIFICATION_ID.fullmatch(one.notification_id):
                self._add(one.notification_id, ordinals, len(one.user_ordinals))

    async def run(self) -> None:
        """Write what gathers, until cancelled."""
        delays = patience.delays()
        while True:
            await self._wake.wait()
            self._wake.clear()
            begun, delay = time.monotonic(), self._every
            try:
                await self._write_round()
                delays = patience.delays()
            except errors.TidingsError as error:
                _log.warning("acknowledgements not written yet", reason=error.reason, error=error.message)
                delay = max(delay, next(delays))
            except Exception:
                _log.exception("acknowledgements lost: their devices are asked again")
            (self._wake if len(self) else self._idle).set()
            await asyncio.sleep(max(0.0, begun + delay - time.monotonic()))

    async def idle(self, within: float) -> None:
        """Wait until all is written, or time is up."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within)

    def _add(self, notification_id: str, ordinals: BitMap, size: int) -> None:
        gathered = self._here if self._runs(notification_id) else self._elsewhere
        shed = gathered.add(notification_id, ordinals, size)
        if shed:
            self._meters.acknowledgements_dropped(shed)
        self._idle.clear()
        self._wake.set()

    async def _write_round(self) -> None:
        """One call of what is for here, and more while a full one waits; one of what is for elsewhere when nothing is left."""
        await self._write(self._here.take())
        while self._here.plenty:
            await self._write(self._here.take())
        await self._write(self._elsewhere.take())

    async def _write(self, taken: dict[str, BitMap]) -> None:
        """Write; what fails for a passing reason goes back. One that stores refuse must not fail its neighbours."""
        if not taken:
            return
        parts = {name: bitmaps.write(ordinals) for name, ordinals in taken.items()}
        request = RecordDeliveredRequest(
            delivered=[Delivered(notification_id=name, user_ordinals=data) for name, data in parts.items()]
        )
        try:
            response = await self._store.record_delivered(request)
        except errors.TidingsError as error:
            if error.code not in patience.PASSING and len(taken) > 1:
                await self._write_halves(taken)
                return
            if error.code not in patience.PASSING:
                _log.error("acknowledgements refused", notification=next(iter(taken)), reason=error.reason, error=error.message)
                return
            for name, ordinals in taken.items():
                self._add(name, ordinals, len(parts[name]))
            raise
        self._meters.acknowledged(sum(map(len, taken.values())))
        for (name, ordinals), report in zip(taken.items(), response.reports, strict=True):
            self._recorded(name, ordinals, report)

    async def _write_halves(self, taken: dict[str, BitMap]) -> None:
        names = list(taken)
        middle = len(names) // 2
        for half in (names[:middle], names[middle:]):
            try:
                await self._write({name: taken[name] for name in half})
            except errors.TidingsError:
                _log.warning("acknowledgements not written yet", notifications=len(half))
