"""Sends a run's step to those who are online: one broadcast for each edge.

Rules: only a step that the store has, and only while the run may send, by its lease and its time. It must not know the store.
"""

import time
from collections.abc import Callable

from pyroaring import BitMap

from router import bitmaps
from router.link import EdgeLink
from router.meters import Meters
from router.notification_run import NotificationRun, Phase
from router.notification_table import RunTable
from router.roster import Roster


class Sender:
    """See above.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self, table: RunTable, roster: Roster[EdgeLink], meters: Meters, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._roster = roster
        self._meters = meters
        self._clock = clock

    @property
    def online(self) -> BitMap:
        """Everybody online."""
        return self._roster.online

    def send(self, run: NotificationRun) -> None:
        """Send the step just stored. What may not go any more stays the run's step, to be stored again."""
        now = self._clock()
        if run.phase is not Phase.SENDING or not run.may_send(now):
            return
        self._table.hear(run)  # who came meanwhile gets it with this step, not by another one at once
        run.sent(now, self._broadcast(run))
        self._table.weigh(run)

    def _broadcast(self, run: NotificationRun) -> BitMap:
        """Gives for whom a link had no room."""
        missed, terms, targets = BitMap(), run.terms, run.targets
        for link, here in self._roster.where_bitmap(targets):
            if not link.broadcast(bitmaps.write(here), terms.frame, run.notification_id, terms.expire_time_us):
                missed |= here
        self._meters.notified(len(targets) - len(missed))
        return missed
