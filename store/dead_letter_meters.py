"""What a store tells about dead letters: how many there are, how many it put aside, how many went for want of room."""

import asyncio
import contextlib
from functools import partial

import structlog

from mesh.errors import TidingsError
from mesh.telemetry import Telemetry
from store import dead_letters
from store.dead_letter import Kind
from store.dead_letters import Kept
from store.ports import Database

_LEAST_SECONDS = 1.0  # between two counts, however many letters come
_log = structlog.get_logger(__name__)


class DeadLetterMeters:
    """The instruments, made once per store. The number of letters is counted in the database: when this store changed it, and now
    and then, because others change it too."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._counts = dict.fromkeys(Kind, 0)
        self._changed = asyncio.Event()
        self._put = telemetry.counter("store_dead_letters_total", "Work put aside as dead letters, by kind")
        self._dropped = telemetry.counter("store_dead_letters_dropped_total", "Dead letters forgotten for want of room")
        for kind in Kind:
            telemetry.gauge("store_dead_letters", "Dead letters, by kind", partial(self._count, kind), kind=name(kind))

    def kept(self, kept: Kept) -> None:
        """These were put aside."""
        for letter in kept.letters:
            _log.error(
                "put aside as a dead letter",
                dead_letter=letter.dead_letter_id,
                kind=name(letter.kind),
                subject=letter.subject,
                reason=letter.reason,
                detail=letter.detail[:300],
                attempts=letter.attempts,
            )
            self._put.add(1, {"kind": name(letter.kind)})
        if kept.dropped:
            _log.error("dead letters forgotten for want of room: look at them and raise the bound", letters=kept.dropped)
            self._dropped.add(kept.dropped)
        if kept.letters:
            self.changed()

    def changed(self) -> None:
        """There may be more of them, or fewer."""
        self._changed.set()

    async def run(self, database: Database, pause: float) -> None:
        """Count, at least every `pause` seconds, until cancelled."""
        while True:
            self._changed.clear()
            try:
                self._counts = await database.read(dead_letters.count)
            except TidingsError as error:
                _log.warning("dead letters not counted", error=error.message)
            await asyncio.sleep(min(_LEAST_SECONDS, pause))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause)

    def _count(self, kind: Kind) -> float:
        return self._counts[kind]


def name(kind: Kind) -> str:
    """As labels and logs have it."""
    return kind.name.lower()
