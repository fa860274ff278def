"""What a business changes of a notification: each in one transaction with its answer."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from mesh import errors
from store import (
    dead_letters,
    notification_codec,
    notification_names,
    notification_requests,
    notification_rows,
    notification_uploads,
)
from store.dead_letter import Kind
from store.notification import ActionRefusedError, Notification
from store.notification_requests import Request
from store.sql import Statement

Change = Callable[[Connection, Notification, int], Notification]  # the notification and the time now -> the notification after
_OVER = "only what isn't over can be changed"
_NEEDED = "pausing and cancelling need one that isn't over, resuming a paused one, rescheduling one that nobody was sent yet"
# What `Notification.cancelled` does, to all of a series at once: there may be thousands. What is over but awaits the next one only
# has its fence raised, so that whoever is making that one is refused.
_END_SERIES = Statement(
    """
    UPDATE notifications SET fence = fence + 1, awaits_next = 0, lease_owner = NULL, lease_until = 0,
      reason = CASE WHEN state <= 4 THEN '' ELSE reason END,
      finished_at = CASE WHEN state <= 4 THEN :now ELSE finished_at END,
      state = CASE WHEN state <= 4 THEN 6 ELSE state END
    WHERE series_id <> '' AND series_id = :series_id AND (state <= 4 OR awaits_next = 1)
    """
)


def control(connection: Connection, request: Request, notification_id: str, change: Change, now: int) -> bytes:
    """Change one; gives the encoded StoredNotification as it is after.

    Raises:
        TidingsError: NOTIFICATION_NOT_FOUND, NOTIFICATION_STATE_CONFLICT, REQUEST_ID_CONFLICT; INVALID_FIELD by `change`.
    """
    before = notification_rows.lock(connection, [notification_id])
    # Only now: another store may have been at the same request.
    if answer := request.first_answer(connection):
        return answer
    if notification_id not in before:
        raise errors.notification_not_found(notification_id)
    after = change(connection, before[notification_id], now)
    [stored] = notification_uploads.read(connection, [after])
    answer = notification_codec.answer(stored, now)
    if not notification_requests.keep(connection, request, answer, now):
        request.first_answer(connection)  # raises what it was refused for meanwhile, or that the id is another request's
        raise errors.unavailable("the first answer to this request was removed just now; send it again")
    return answer


def cancel(*, whole_series: bool) -> Change:
    """Ends it; with its whole series."""
    return _end_series if whole_series else partial(_change, how=Notification.cancelled)


def pause() -> Change:
    """Holds it back."""
    return partial(_change, how=lambda one, _: one.paused())


def resume() -> Change:
    """Lets it go on, also what was held back: then it isn't put aside any more."""
    return _resume


def prioritize(priority: int) -> Change:
    """Sets its priority, 0 to 9."""
    return partial(_change, how=lambda one, _: one.prioritized(priority))


def reschedule(send_at: int, expire_at: int | None) -> Change:
    """Moves it; None moves the expiry along."""
    return partial(_change, how=partial(_rescheduled, send_at=send_at, expire_at=expire_at))


def _resume(connection: Connection, one: Notification, now: int) -> Notification:
    after = _change(connection, one, now, Notification.resumed)
    if one.held_back:
        dead_letters.forget(connection, Kind.NOTIFICATION, one.notification_id)
    return after


def _rescheduled(one: Notification, now: int, send_at: int, expire_at: int | None) -> Notification:
    moved = one.rescheduled(send_at, expire_at, now)
    if moved.expire_at <= max(send_at, now):
        raise errors.invalid_field("reschedule.expire_time", "later than the send time, and than now")
    return moved


def _change(connection: Connection, one: Notification, now: int, how: Callable[[Notification, int], Notification]) -> Notification:
    if one.state.over:
        raise errors.notification_state_conflict(one.notification_id, one.state.name, _OVER)
    if one.expire_at <= now:
        raise errors.notification_state_conflict(one.notification_id, "past its expiry", _OVER)
    try:
        after = how(one, now)
    except ActionRefusedError:
        raise errors.notification_state_conflict(one.notification_id, one.state.name, _NEEDED) from None
    notification_rows.save(connection, {one.notification_id: one}, {one.notification_id: after})
    return after


def _end_series(connection: Connection, one: Notification, now: int) -> Notification:
    if not one.series_id:
        return _change(connection, one, now, Notification.cancelled)
    ended = 0
    # Again till there is nothing left: an occurrence may have been made while the first look waited for the one before it. None is
    # made after that one is locked.
    while number := _END_SERIES(connection, series_id=one.series_id, now=now).rowcount:
        ended += number
    if not ended:
        raise errors.notification_state_conflict(one.notification_id, one.state.name, "all of its series is over")
    notification_names.forget_series(connection, one.series_id)
    return notification_rows.find(connection, [one.notification_id])[one.notification_id]
