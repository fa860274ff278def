"""The runs of this router, by notification, and what happens to them: the core that ties runs, their agenda, and comings together.

Rules: one run a notification; a claim under a higher fence replaces it, any other is known already. Bounded: what finds no room is
refused, and claimed again later. It must not know the store or links; time is passed in.
"""

from collections.abc import Callable, Iterator

import structlog
from pyroaring import BitMap

from router import bitmaps
from router.agenda import Agenda, Entry
from router.newcomers import Newcomers
from router.notification_run import NotificationRun, Phase, Recipients, Terms
from router.resends import Resends
from tidings.common.v1.notification_pb2 import (
    NOTIFICATION_STATE_EXPANDING,
    NOTIFICATION_STATE_SENDING,
    NotificationReport,
    NotificationState,
)

_RUN_BYTES = 2_500  # what a run takes beside its bitmaps and its frame
_log = structlog.get_logger(__name__)
_RUNNING = (NOTIFICATION_STATE_EXPANDING, NOTIFICATION_STATE_SENDING)


class RunTable:
    """See above.

    Args:
        capacity: most runs.
        max_bytes: bytes that the runs hold, past which none is entered; the last ones may pass it.
        lease: seconds for which a write confirms ownership.
        resend: seconds to the first resend, and to each at most.
        wake: called when something may be due.
        ended: called with the reason when a run ends.
        gave_up: called with the id, the fence and the reason when one can't go on.
    """

    def __init__(
        self,
        capacity: int,
        max_bytes: int,
        lease: float,
        resend: tuple[float, float],
        wake: Callable[[], None],
        ended: Callable[[str], None],
        gave_up: Callable[[str, int, Exception], None],
    ) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._bytes = 0
        self._resend = resend
        self._wake = wake
        self._ended = ended
        self._gave_up = gave_up
        self._runs: dict[str, NotificationRun] = {}
        self._newcomers = Newcomers()
        self.agenda = Agenda(lease)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[NotificationRun]:
        return iter(list(self._runs.values()))

    def get(self, notification_id: str) -> NotificationRun | None:
        """The run of a notification."""
        return self._runs.get(notification_id)

    def room_for(self, notification_id: str) -> bool:
        """Whether a notification can be entered."""
        return notification_id in self._runs or (len(self._runs) < self._capacity and self._bytes < self._max_bytes)

    def crowded_out(self, run: NotificationRun) -> bool:
        """Whether the others hold as many bytes as all may."""
        return self._bytes - run.weight >= self._max_bytes

    @property
    def bytes(self) -> int:
        """About how many the runs hold."""
        return self._bytes

    def enter(self, notification_id: str, fence: int, now: float) -> NotificationRun | None:
        """A claim: the run it makes, or None when it is known, or an older one, which harms nobody."""
        before = self._runs.get(notification_id)
        if before is not None:
            if fence <= before.fence:
                return None
            self.end(before, "replaced", now)
        run = NotificationRun(notification_id, fence, now, Resends(*self._resend))
        self._runs[notification_id] = run
        return run

    def end(self, run: NotificationRun, why: str, now: float) -> None:
        """It is over, or another's; nothing is kept of it."""
        if self._runs.get(run.notification_id) is run:
            del self._runs[run.notification_id]
            self._bytes -= run.weight
            self._ended(why)
        run.close()
        self.agenda.drop(run, now)
        self._wake()

    def give_up(self, run: NotificationRun, why: str, error: Exception, now: float) -> None:
        """It can't go on here, for a reason nobody foresaw."""
        _log.error("notification given up", notification=run.notification_id, why=why, error=repr(error))
        self.end(run, why, now)
        self._gave_up(run.notification_id, run.fence, error)

    def describe(self, run: NotificationRun, terms: Terms, priority: int, now: float, size: int = 0) -> None:
        """Its record was read, of that many bytes; it is to be prepared."""
        run.describe(terms, priority, now)
        self._weigh(run, size)
        self.agenda.preparing(run)
        self.agenda.put(run, now)
        self._wake()

    def begin(self, run: NotificationRun, recipients: Recipients, online: BitMap, now: float, step: BitMap | None = None) -> None:
        """It is prepared. Whoever came until now is among those online. `step` is the first one, if it is stored already."""
        run.heard = self._newcomers.close()
        run.begin(recipients, online, now, step)
        self.weigh(run)
        self.agenda.prepared(run, now)
        self._wake()

    def weigh(self, run: NotificationRun) -> None:
        """What it holds has changed."""
        self._weigh(run, bitmaps.size(run.bitmaps) + len(run.terms.frame))

    def _weigh(self, run: NotificationRun, size: int) -> None:
        if self._runs.get(run.notification_id) is run:
            self._bytes += _RUN_BYTES + size - run.weight
            run.weight = _RUN_BYTES + size

    def prioritize(self, run: NotificationRun, priority: int, now: float) -> None:
        """Its priority is this now."""
        run.priority = priority
        self.agenda.put(run, now)
        self._wake()

    def fail(self, run: NotificationRun, reason: str, now: float) -> None:
        """It can't be prepared."""
        run.fail(reason)
        self.agenda.prepared(run, now)
        self._wake()

    def delayed(self, run: NotificationRun, now: float) -> None:
        """It can't be prepared yet: nothing waits for it any longer."""
        self.agenda.prepared(run, now)
        self._wake()

    def told(self, run: NotificationRun, report: NotificationReport, now: float) -> bool:
        """What the store says of one; whether it goes on."""
        if run.phase is Phase.OVER:
            return False
        if report.state not in _RUNNING:
            self.end(run, NotificationState.Name(report.state).removeprefix("NOTIFICATION_STATE_").lower(), now)
            return False
        run.told(report)
        return True

    def unfinished(self, run: NotificationRun, expires: float, now: float) -> None:
        """The store didn't take its end. One that can't go on with what it holds is given up, to be claimed and read anew."""
        if not run.unfinished(expires, now):
            self.end(run, "unfinished", now)

    def recorded(self, notification_id: str, ordinals: BitMap, report: NotificationReport, now: float) -> None:
        """The store has it that these have one, whoever runs it; without numbers it doesn't know it."""
        run = self._runs.get(notification_id)
        if run is None or report.notification_id != notification_id:
            return
        run.delivered(ordinals)
        if run.phase is Phase.SENDING:
            self.weigh(run)
        if self.told(run, report, now) and run.phase is Phase.FINISHING:
            self.agenda.put(run, now)
            self._wake()

    def came(self, ordinals: BitMap) -> None:
        """These came online."""
        if ordinals and self._runs:
            self._newcomers.add(ordinals)
            self._wake()

    @property
    def news(self) -> bool:
        """Whether somebody came whom not all runs have heard of."""
        return bool(self._newcomers)

    def spread(self, now: float) -> Iterator[None]:
        """Tell all runs who came; a pause may be made at each step."""
        number = self._newcomers.close()
        for run in self:
            self._spread_to(run, now)
            yield
        self._newcomers.forget(number)

    def batch(self, online: BitMap, now: float) -> list[Entry]:
        """See `Agenda.batch`. A run that fails is given up."""
        return self.agenda.batch(online, now, self.hear, lambda run, error: self.give_up(run, "faulty", error, now))

    def hear(self, run: NotificationRun) -> bool:
        """Tell a run who came since it last heard; whether any of them is to be sent it."""
        number = self._newcomers.close()
        if run.heard >= number:
            return False
        came = self._newcomers.since(run.heard)
        run.heard = number
        return run.came(came)

    def _spread_to(self, run: NotificationRun, now: float) -> None:
        try:
            if self.hear(run):
                self.agenda.put(run, now)
        except Exception as error:
            _log.exception("a run failed", notification=run.notification_id)
            self.give_up(run, "faulty", error, now)
