"""Who works on what: claims and their end; and what ends by itself.

What is due is found in priority order without going through what isn't: per priority by send time, and by lease. Several stores may
claim at once: each passes over the rows that another one has locked. What is given away ahead of its time never takes the place of
what is due.

An occurrence of a series isn't ended before the next one is made: it is given away though it has expired, so that its owner does
both.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from store import notification_rows, notification_uploads
from store.notification import GRACE, Notification
from store.notification_life import State
from store.notification_rows import COLUMNS, from_row
from store.notification_uploads import Stored, View
from store.sql import Statement

PRIORITIES = range(10)
_ENDED = 1_000  # in one transaction; more wait for the next claim
_EVER = -1  # before all times
_CLAIMED_BYTES = 8 * 1024 * 1024  # of uploads in one answer, with room for all else below the limit of gRPC
_EXPIRED = Statement(
    f"""
    SELECT {COLUMNS} FROM notifications
    WHERE state IN (1, 2, 3, 4) AND state <= 4 AND expire_at <= :now AND awaits_next = 0
      AND (lease_until <= :now OR expire_at <= :overdue)
    ORDER BY notification_id LIMIT :most {{for_update}} {{skip_locked}}
    """  # noqa: S608
)
_LAPSED = Statement(
    f"""
    SELECT {COLUMNS} FROM notifications
    WHERE state IN (2, 3) AND lease_until <= :now AND (expire_at > :now OR awaits_next = 1)
    ORDER BY priority DESC, send_at, notification_id LIMIT :most {{for_update}} {{skip_locked}}
    """  # noqa: S608
)
_MISSED = Statement(
    f"""
    SELECT {COLUMNS} FROM notifications
    WHERE state = 4 AND state <= 4 AND expire_at <= :now AND awaits_next = 1
    ORDER BY priority DESC, send_at, notification_id LIMIT :most {{for_update}} {{skip_locked}}
    """  # noqa: S608
)
_DUE = Statement(
    f"""
    SELECT {COLUMNS} FROM notifications
    WHERE state = 1 AND priority = :priority AND send_at > :after AND send_at <= :until AND (expire_at > :now OR awaits_next = 1)
    ORDER BY send_at, notification_id LIMIT :most {{for_update}} {{skip_locked}}
    """  # noqa: S608
)
_SEND_TIMES = Statement(
    """
    SELECT priorities.priority,
      (SELECT min(send_at) FROM notifications WHERE state = 1 AND notifications.priority = priorities.priority) AS send_at
    FROM {priorities}
    """,
    priorities="priority integer",
)
# Not of occurrences that are given away instead: those are due by their send time or lease.
_EXPIRY_TIMES = Statement(
    """
    SELECT states.state,
      (SELECT min(expire_at) FROM notifications
       WHERE notifications.state <= 4 AND notifications.state = states.state
         AND (awaits_next = 0 OR notifications.state = 4)) AS expire_at
    FROM {states}
    """,
    states="state integer",
)
_LEASE_TIME = Statement("SELECT min(lease_until) FROM notifications WHERE state IN (2, 3)")


def end_expired(connection: Connection, now: int) -> int:
    """End what has expired and has no owner to do it, or one who is late; gives how many."""
    rows = _EXPIRED(connection, now=now, overdue=now - GRACE, most=_ENDED)
    before = {one.notification_id: one for one in map(from_row, rows)}
    notification_rows.save(connection, before, {notification_id: one.expired(now) for notification_id, one in before.items()})
    return len(before)


def claim(connection: Connection, claimer_id: str, limit: int, lease: int, now: int, ahead: int = 0) -> list[Stored]:
    """Give at most `limit` to a claimer, for `lease` microseconds: what is due, the highest priority first, then the earliest; and
    after it what is due within `ahead` microseconds, in the same order."""
    send_times = _send_times(connection)
    others = (row for statement in (_LAPSED, _MISSED) for row in statement(connection, now=now, most=limit))
    found = [*map(from_row, others), *_waiting(connection, send_times, limit, now, (_EVER, now))]
    found = sorted(found, key=lambda one: (one.early(now), *_order(one)))[:limit]
    found += sorted(_waiting(connection, send_times, limit - len(found), now, (now, now + ahead)), key=_order)
    chosen = notification_uploads.first_within(connection, found, View.BRIEF, _CLAIMED_BYTES)
    before = {one.notification_id: one for one in chosen}
    after = {notification_id: one.claimed(claimer_id, now + lease) for notification_id, one in before.items()}
    notification_rows.save(connection, before, after)
    return notification_uploads.read(connection, after.values(), View.BRIEF)


def release(connection: Connection, claims: Sequence[tuple[str, int]], now: int) -> None:
    """Give up ownership, by id and fence. What isn't owned under that fence is passed over."""
    before = notification_rows.lock(connection, (notification_id for notification_id, _ in claims))
    given_up = [before[claim[0]] for claim in claims if claim[0] in before and before[claim[0]].fence == claim[1]]
    after = {one.notification_id: one.released(now) for one in given_up if one.state.running}
    notification_rows.save(connection, before, after)


def next_due(connection: Connection, ahead: int = 0) -> int | None:
    """When the next one is due, less `ahead` microseconds, or a lease runs out, or something expires; None when nothing waits."""
    times = [
        *(time - ahead for time in _send_times(connection).values() if time is not None),
        *_LEASE_TIME(connection).scalars(),
        *_expiry_times(connection),
    ]
    return min((time for time in times if time is not None), default=None)


def _order(one: Notification) -> tuple[int, int, str]:
    """The order in which they begin."""
    return -one.priority, one.send_at, one.notification_id


def _waiting(
    connection: Connection, send_times: dict[int, int | None], limit: int, now: int, times: tuple[int, int]
) -> Iterator[Notification]:
    """Those SCHEDULED for after the first of two times, up to the second."""
    found, (after, until) = 0, times
    waiting = (priority for priority, send_at in send_times.items() if send_at is not None and send_at <= until)
    for priority in sorted(waiting, reverse=True):
        if found >= limit:
            return
        rows = _DUE(connection, priority=priority, now=now, after=after, until=until, most=limit - found).all()
        found += len(rows)
        yield from map(from_row, rows)


def _send_times(connection: Connection) -> dict[int, int | None]:
    """Priority -> the earliest send time of what is SCHEDULED."""
    rows = _SEND_TIMES(connection, priorities=[(priority,) for priority in PRIORITIES])
    return {row.priority: row.send_at for row in rows}


def _expiry_times(connection: Connection) -> Iterator[int]:
    """When expiry ends something, state by state; owners are given their grace, lapsed leases are due anyway."""
    states = [state for state in State if not state.over]
    for state, expire_at in _EXPIRY_TIMES(connection, states=[(int(state),) for state in states]):
        if expire_at is not None:
            yield expire_at + (GRACE if State(state).running else 0)
