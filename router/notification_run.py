"""One notification under way at its owner: the core. Events in (who came online, who has it, what the store said, time), and out
what is to be written next: whom it goes to now, or that it is over.

A run is PREPARING until its recipients are known, SENDING while somebody may still get it, FINISHING while the store hasn't heard
that it is over, and OVER then, or when it belongs to another.

Rules: nobody outside the expansion, nor before its time. Nobody twice, unless the resend interval has passed or they came back.
Whoever is chosen is written before they are sent to, and sent to only under a lease that holds. What the store may have written
without our hearing of it is written again as it was. Times are monotonic seconds, passed in; it must not know the store, links, or
what a frame says.
"""

import math
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from pyroaring import BitMap

from router.pace import Pace
from router.resends import Resends
from tidings.common.v1.notification_pb2 import (
    NOTIFICATION_STATE_COMPLETED,
    NOTIFICATION_STATE_EXPIRED,
    NOTIFICATION_STATE_FAILED,
    NOTIFICATION_STATE_SENDING,
    NOTIFICATION_STATE_UNSPECIFIED,
    NotificationReport,
    NotificationState,
)

LOOK_AGAIN_SECONDS = 5.0  # a run that only we believe to be over is offered to the store again after this
STEP = 20_000  # recipients in one step at most, so that neither the store nor a link is long at one
FIRST_STEP = 1_000  # the first is small, so that somebody has it soon; each further one may be GROWTH times as large
GROWTH = 4


class Phase(Enum):
    """Where a run is."""

    PREPARING = auto()
    SENDING = auto()
    FINISHING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Terms:
    """What its upload settled.

    Attributes:
        rate: recipients in a second at most; None for no bound.
        due: when it was to begin, in unix seconds: the earlier first among equals.
        expires: monotonic seconds from which nobody is sent it.
        expire_time_us: the same in microseconds since 1970, for the edges.
        frame: the encoded ServerFrame.
        begins: monotonic seconds before which nobody is sent it.
    """

    rate: int | None
    due: float
    expires: float
    expire_time_us: int
    frame: bytes
    begins: float = -math.inf


@dataclass(frozen=True, slots=True)
class Recipients:
    """Bitmaps of ordinals as the store has them."""

    expansion: BitMap
    sent: BitMap = field(default_factory=BitMap)
    delivered: BitMap = field(default_factory=BitMap)
    failed: BitMap = field(default_factory=BitMap)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written now. Nothing but defaults: only that it is still under way.

    Attributes:
        sent: who is about to be sent it.
        finish: COMPLETED, EXPIRED or FAILED; UNSPECIFIED while it isn't over.
        reason: why it FAILED.
    """

    sent: BitMap = field(default_factory=BitMap)
    finish: NotificationState.ValueType = NOTIFICATION_STATE_UNSPECIFIED
    reason: str = ""

    def __bool__(self) -> bool:
        """Whether it says more than that the run is still under way."""
        return bool(self.sent) or self.finish != NOTIFICATION_STATE_UNSPECIFIED


class NotificationRun:
    """See above.

    Args:
        started: monotonic seconds.
        resends: empty; first and longest interval as configured.

    Attributes:
        fence: under which all of it is written.
        priority: 0 to 9.
        lease_until: monotonic seconds until which nobody else can own it.
        heard: number of the last `Newcomers` it was told of.
        weight: bytes it was last found to hold.
    """

    def __init__(self, notification_id: str, fence: int, started: float, resends: Resends) -> None:
        self.notification_id = notification_id
        self.fence = fence
        self.started = started
        self.priority = 0
        self.phase = Phase.PREPARING
        self.lease_until = started  # from which on it is to be renewed before anybody is sent anything
        self.heard = 0
        self.weight = 0
        self._resends = resends
        self._terms: Terms | None = None
        self._pace = Pace(None, started)
        self._unsent = BitMap()
        self._unacknowledged = BitMap()
        self._ready = BitMap()
        self._step: BitMap | None = None
        self._width = FIRST_STEP
        self._finish = Plan()
        self._resting_until = started
        self._any_sent = False
        self._begun = False
        self._told_early = BitMap()  # who was said to have it while it was prepared

    @property
    def terms(self) -> Terms:
        """What its upload settled; once `describe` was called."""
        assert self._terms is not None  # noqa: S101
        return self._terms

    @property
    def described(self) -> bool:
        """Whether `terms` are known."""
        return self._terms is not None

    @property
    def since(self) -> float:
        """When it could begin: it may have come to us ahead of its time."""
        return self.started if self._terms is None else max(self.started, self._terms.begins)

    @property
    def remaining(self) -> int:
        """Recipients who may still get it."""
        return len(self._unsent) + len(self._unacknowledged)

    @property
    def bitmaps(self) -> list[BitMap]:
        """All it holds, to be measured."""
        return [self._unsent, self._unacknowledged, self._ready, self._step or BitMap(), *self._resends.bitmaps]

    def describe(self, terms: Terms, priority: int, now: float) -> None:
        """Its record was read."""
        self._terms = terms
        self.priority = priority
        self._pace = Pace(terms.rate, now)

    def first(self, expansion: BitMap, online: BitMap, now: float) -> BitMap:
        """Whom it would go to first, if these are its recipients: to be stored with them, and then given to `begin`."""
        if self._early(now) or self._expired(now):
            return BitMap()
        room = self._pace.room(now)
        size = self._width if room is None else max(0, min(self._width, room))
        return (expansion & online)[:size]

    def begin(self, recipients: Recipients, online: BitMap, now: float, step: BitMap | None = None) -> None:
        """Its recipients are known: those online can be sent it. Who was sent it before and hasn't acknowledged waits a resend
        interval, for they may have it.

        Args:
            step: the first one, if it is stored already; its users aren't among those sent it.
        """
        done = recipients.delivered | recipients.failed | (self._told_early & recipients.sent)
        self._told_early = BitMap()
        self._unsent = recipients.expansion - recipients.sent - done
        self._unacknowledged = (recipients.expansion & recipients.sent) - done
        self._ready = self._unsent & online
        if step:
            self._step = step
            self._ready -= step
        self._any_sent = bool(recipients.sent)
        self._resends.sent(self._unacknowledged & online, now)
        for bitmap in (self._unsent, self._unacknowledged):
            bitmap.run_optimize()
        self.phase = Phase.SENDING
        self._begun = True

    def fail(self, reason: str) -> None:
        """It can't be sent."""
        self._end(NOTIFICATION_STATE_FAILED, reason)

    def close(self) -> None:
        """It is over, or another's: let go of everything."""
        self.phase = Phase.OVER
        self._unsent, self._unacknowledged, self._ready, self._step = BitMap(), BitMap(), BitMap(), None
        self._told_early = BitMap()
        self._resends = Resends(1.0, 1.0)

    def came(self, ordinals: BitMap) -> bool:
        """These came online; whether any of them is to be sent it. Who is in the step under way is sent it with that."""
        if ordinals.isdisjoint(self._unsent) and ordinals.isdisjoint(self._unacknowledged):
            return False  # the usual answer, and the quickest: also of a run that isn't SENDING, for it has neither
        again = ordinals & self._unacknowledged
        if again:
            self._resends.came(again)
        news = (ordinals & self._unsent) | again
        if self._step is not None:
            news -= self._step
        self._ready |= news
        return bool(news)

    def delivered(self, ordinals: BitMap) -> None:
        """The store has it that these have it."""
        if self.phase is Phase.PREPARING:
            self._told_early |= ordinals
        known = ordinals & self._unacknowledged
        if known:
            self._unacknowledged -= known
            self._ready -= known
            self._resends.acknowledged(known)

    def told(self, report: NotificationReport) -> None:
        """The store's numbers: acknowledgements may have come to it by other ways than through us."""
        self._any_sent = self._any_sent or report.sent > 0
        if self.phase is Phase.SENDING and report.state == NOTIFICATION_STATE_SENDING and not report.pending:
            self._end(NOTIFICATION_STATE_COMPLETED)

    def unfinished(self, expires: float, now: float) -> bool:
        """The store didn't take the end: by its clock there is time left. Nobody is sent anything while it has expired by ours,
        which is looked at again after a while.

        Args:
            expires: when it does, as it is known now.

        Returns:
            False when it can't go on with what it holds.
        """
        if self._terms is None or not self._begun or not self.remaining:
            return False
        self.phase = Phase.SENDING
        self._terms = replace(self._terms, expires=expires)
        self._resting_until = now + LOOK_AGAIN_SECONDS
        return True

    def early(self, begins: float) -> None:
        """The store didn't take the step: by its clock the time hasn't come. Those in it are ready again, for then.

        Args:
            begins: when its time comes, as it is known now.
        """
        if self._terms is not None:
            self._terms = replace(self._terms, begins=begins)
            self._ready |= self.targets
            self._step = None

    def plan(self, online: BitMap, now: float, limit: int = STEP) -> Plan:
        """What to write now.

        Args:
            online: everyone online.
            limit: most recipients of a new step.
        """
        if self.phase is Phase.FINISHING:
            return self._finish
        if self._expired(now):
            return Plan() if now < self._resting_until else self._expire()
        if self.phase is Phase.PREPARING:
            return Plan()
        if not self.remaining:
            return self._end(NOTIFICATION_STATE_COMPLETED)
        if self._step is None:
            self._step = self._choose(online, now, limit)
        return Plan(self._step or BitMap())

    def may_send(self, now: float) -> bool:
        """Whether the step just written may go out: the lease holds and it hasn't expired."""
        return self._step is not None and now < self.lease_until and now < self.terms.expires

    @property
    def targets(self) -> BitMap:
        """Whom the step under way goes to: without those who have it by now."""
        return (self._step or BitMap()) & (self._unsent | self._unacknowledged)

    def sent(self, now: float, missed: BitMap) -> None:
        """The step went out, but to those missed, for whom a link had no room."""
        step, self._step = self._step or BitMap(), None
        news = step & self._unsent
        self._unsent -= news
        self._unacknowledged |= news
        self._any_sent = True
        self._width = min(STEP, self._width * GROWTH)
        again = step & self._unacknowledged
        self._pace.passed(now, len(again))
        self._resends.sent(again - missed, now)
        self._resends.missed(again & missed, now)

    def when(self, now: float) -> float | None:
        """When `plan` has something to say beyond a renewal; None while it is prepared."""
        if self.phase is not Phase.FINISHING and self._expired(now):
            return max(now, self._resting_until)
        if self.phase is Phase.FINISHING or self._step or (self.phase is Phase.SENDING and not self.remaining):
            return now
        if self._terms is None or self.phase is Phase.OVER:
            return None
        moments = [self._terms.expires]
        if self.phase is Phase.SENDING and self._ready:
            moments.append(max(self._terms.begins, self._pace.when(now, len(self._ready))))
        if self.phase is Phase.SENDING and self._resends.next is not None:
            moments.append(self._resends.next)
        return max(now, min(moments))

    def hungry(self, now: float) -> bool:
        """Whether it would send more at once, on top of the step under way."""
        if not self._ready or self._early(now) or self._expired(now):
            return False
        room = self._pace.room(now)
        return room is None or room > len(self._step or ())

    def _expire(self) -> Plan:
        return self._end(NOTIFICATION_STATE_COMPLETED if self._any_sent else NOTIFICATION_STATE_EXPIRED)

    def _early(self, now: float) -> bool:
        return self._terms is not None and now < self._terms.begins

    def _expired(self, now: float) -> bool:
        return self._terms is not None and now >= self._terms.expires

    def _choose(self, online: BitMap, now: float, limit: int) -> BitMap | None:
        self._ready |= self._resends.due(now) & self._unacknowledged
        self._ready &= online
        room = self._pace.room(now)
        size = min(limit, self._width) if room is None else min(limit, self._width, room)
        if size <= 0 or not self._ready or self._early(now):
            return None
        step = (self._ready & self._unsent)[:size]  # first who never had it: resends must not starve them under a rate
        if len(step) < size:
            step |= (self._ready - step)[: size - len(step)]
        self._ready -= step
        return step

    def _end(self, state: NotificationState.ValueType, reason: str = "") -> Plan:
        self.phase = Phase.FINISHING
        self._finish = Plan(finish=state, reason=reason)
        return self._finish
