"""Which runs of notifications are to be looked at when, and which of them go first: the core of sending.

What is due goes in order of priority, the highest first, then the earliest. While a run could send more at once than one call
takes, lower ones wait; so do those just started, for a moment, while a higher one started with them is still being prepared. No
run's lease waits for another's turn: before it ends it is renewed ahead of all that is sent.

Rules: a run with a call under way is in no other. Time is passed in: monotonic seconds.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import structlog
from pyroaring import BitMap

from router.notification_run import STEP, NotificationRun, Phase, Plan

CALL_RUNS = 500  # runs in one call: half the store's bound, and some milliseconds to gather
RENEWED_AFTER = 0.3  # share of a lease after which it is renewed
_URGENT_AFTER = 0.6  # share of a lease after which it is renewed before anybody is sent anything
_URGENT_RUNS = CALL_RUNS // 2  # such renewals in one call: the rest is for those that send
_LOOK_SECONDS = 30.0  # each run is looked at this often at least, so that what is put here stays here no longer
_TOGETHER_SECONDS = 0.3  # how long what was started lately waits for what is higher and was started lately too
_AGAIN_SECONDS = 0.001  # a run that says now, but then had nothing to say, is asked again after this
_log = structlog.get_logger(__name__)

R = TypeVar("R", float, tuple[int, float, str])


class Entry(NamedTuple):
    """What is to be written of one run."""

    run: NotificationRun
    plan: Plan


class Agenda:
    """The runs' moments.

    Args:
        lease: seconds for which a write confirms ownership.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._count = itertools.count()
        self._heap: list[tuple[float, int, NotificationRun]] = []
        self._due: list[tuple[tuple[int, float, str], int, NotificationRun]] = []  # in the order in which they go
        self._places: dict[NotificationRun, int] = {}  # a heap's entry counts while its number is here
        self._preparing: set[NotificationRun] = set()
        self._under_way: set[NotificationRun] = set()
        self._urgent: dict[NotificationRun, None] = {}  # in the order in which they were found
        self._held: set[NotificationRun] = set()

    def __contains__(self, run: NotificationRun) -> bool:
        return run in self._places

    def preparing(self, run: NotificationRun) -> None:
        """It is being prepared for the first time."""
        self._preparing.add(run)

    def prepared(self, run: NotificationRun, now: float) -> None:
        """It can send, or failed, or takes longer."""
        self._preparing.discard(run)
        self._release(now)
        self.put(run, now)

    def put(self, run: NotificationRun, now: float) -> None:
        """Look at it when it says, and at once when it is to be renewed."""
        when = run.when(now)
        if when is not None and run not in self._under_way:
            self.later(run, min(when, now + _LOOK_SECONDS))

    def later(self, run: NotificationRun, when: float) -> None:
        """Look at it then, whatever it says."""
        place = self._places[run] = next(self._count)
        heapq.heappush(self._heap, (when, place, run))

    def drop(self, run: NotificationRun, now: float) -> None:
        """Look at it no more."""
        self._places.pop(run, None)
        self._preparing.discard(run)
        self._under_way.discard(run)
        self._urgent.pop(run, None)
        self._release(now)

    def renew(self, runs: Iterator[NotificationRun], now: float) -> None:
        """Look at all whose lease is to be renewed."""
        for run in runs:
            if run in self._under_way or not self._lapses(run, now):
                continue
            self.later(run, now)
            if self._lapses(run, now, _URGENT_AFTER):
                self._urgent[run] = None

    @property
    def next(self) -> float | None:
        """When something is due, 0 for at once; None when nothing is."""
        _clear(self._heap, self._places)
        _clear(self._due, self._places)
        if self._due:
            return 0.0
        return self._heap[0][0] if self._heap else None

    def leads(self, run: NotificationRun, now: float) -> bool:
        """Whether a run may be sent with its preparation, beside all calls: nothing waits, and nothing higher is on its way."""
        following = self.next
        return run.priority >= max(self._floor(now), self._awaited(now)) and (following is None or following > now)

    def batch(
        self,
        online: BitMap,
        now: float,
        hear: Callable[[NotificationRun], object],
        give_up: Callable[[NotificationRun, Exception], object],
    ) -> list[Entry]:
        """What to write in one call now; its runs are under way until `written`.

        Args:
            hear: tells a run who came online, before it is asked.
            give_up: told of a run that fails here, and how; it is to be dropped.
        """
        self._collect(now)
        floor, awaited = self._floor(now), self._awaited(now)
        entries = self._urgent_renewals(now)
        room = STEP
        while len(entries) < CALL_RUNS and room > 0 and (run := self._pop()) is not None:
            try:
                hear(run)
                held = run.priority < floor or (run.priority < awaited and now - run.since < _TOGETHER_SECONDS)
                plan = run.plan(online, now, 0 if held else room)
                hungry = run.hungry(now)
                if not plan and not self._lapses(run, now):
                    self._again(run, now)
            except Exception as error:
                _log.exception("a run failed", notification=run.notification_id)
                give_up(run, error)
                continue
            room -= len(plan.sent)
            if hungry:
                floor = max(floor, run.priority)
            if plan or self._lapses(run, now):
                entries.append(self._take(run, plan))
        return entries

    def written(self, run: NotificationRun, now: float) -> None:
        """Its call is over: look at it when it says."""
        self._under_way.discard(run)
        self._release(now)
        if run.phase is not Phase.OVER:
            self.put(run, now)

    def failed(self, run: NotificationRun, now: float, delay: float) -> None:
        """Its call failed: look at it after a delay."""
        self._under_way.discard(run)
        if run.phase is not Phase.OVER:
            self.later(run, now + delay)

    def _urgent_renewals(self, now: float) -> list[Entry]:
        """Those whose lease is about to end, renewed and nothing else."""
        entries: list[Entry] = []
        while self._urgent and len(entries) < _URGENT_RUNS:
            run = next(iter(self._urgent))
            del self._urgent[run]
            if run not in self._under_way and run.phase is not Phase.OVER and self._lapses(run, now, _URGENT_AFTER):
                self._places.pop(run, None)
                entries.append(self._take(run, Plan()))
        return entries

    def _take(self, run: NotificationRun, plan: Plan) -> Entry:
        self._under_way.add(run)
        return Entry(run, plan)

    def _collect(self, now: float) -> None:
        """Move what is due to where it goes by rank."""
        while self._heap and self._heap[0][0] <= now:
            _, place, run = heapq.heappop(self._heap)
            if self._places.get(run) == place:
                heapq.heappush(self._due, (rank(run), place, run))

    def _pop(self) -> NotificationRun | None:
        """The first of those due."""
        _clear(self._due, self._places)
        if not self._due:
            return None
        run = heapq.heappop(self._due)[2]
        del self._places[run]
        return run

    def _floor(self, now: float) -> int:
        """Priority below which nothing new is sent: a call of a higher run is under way, which would send more."""
        return max((run.priority for run in self._under_way if run.hungry(now)), default=0)

    def _awaited(self, now: float) -> int:
        """Priority below which what was started lately waits for what was started with it."""
        return max((run.priority for run in self._preparing if run.described and run.since <= now), default=0)

    def _again(self, run: NotificationRun, now: float) -> None:
        if run.hungry(now):  # held back: looked at when a call ends, or a run is prepared
            self._held.add(run)
            self.later(run, now + _TOGETHER_SECONDS)
        else:
            when = run.when(now)
            if when is not None:
                self.later(run, min(max(when, now + _AGAIN_SECONDS), now + _LOOK_SECONDS))

    def _release(self, now: float) -> None:
        held, self._held = self._held, set()
        for run in held:
            if run in self._places:
                self.later(run, now)

    def _lapses(self, run: NotificationRun, now: float, after: float = RENEWED_AFTER) -> bool:
        return run.lease_until - now <= self._lease * (1 - after)


def _clear(heap: list[tuple[R, int, NotificationRun]], places: dict[NotificationRun, int]) -> None:
    """Drop entries from the front that don't count any more."""
    while heap and places.get(heap[0][2]) != heap[0][1]:
        heapq.heappop(heap)


def rank(run: NotificationRun) -> tuple[int, float, str]:
    """The order in which runs go."""
    return -run.priority, run.terms.due if run.described else 0.0, run.notification_id
