"""Rows of notifications: finding, locking, inserting, saving. Which change is right is decided in `store.notification`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, text

from store import notification_names
from store.notification import Notification
from store.notification_life import State
from store.recipient_blocks import Counts
from store.sql import Statement

COLUMNS = """
    notification_id, state, priority, send_at, expire_at, type, series_id, occurrence, request_id, request_digest, created_at,
    fence, lease_owner, lease_until, snapshot_version, expansion, sent, delivered, failed, reason, started_at, finished_at,
    status_report, estimated_audience, failures, recipients_kept, settled, awaits_next
"""
_COUNTS = COLUMNS.split().index("expansion,")  # where they begin
_FLAGS = 3  # at the end
_FIND = Statement(
    f"SELECT {COLUMNS} FROM notifications WHERE notification_id IN (SELECT notification_id FROM {{wanted}})",  # noqa: S608
    wanted="notification_id text",
)
_FIND_REQUEST = Statement(f"SELECT {COLUMNS} FROM notifications WHERE request_id = :request_id")  # noqa: S608
# In one order, whoever asks: so that nobody waits in a circle.
_LOCK = Statement(
    f"""
    SELECT {COLUMNS} FROM notifications WHERE notification_id IN (SELECT notification_id FROM {{wanted}})
    ORDER BY notification_id {{for_update}}
    """,  # noqa: S608
    wanted="notification_id text",
)
_INSERT = text(
    f"""
    INSERT INTO notifications ({COLUMNS})
    VALUES (:notification_id, :state, :priority, :send_at, :expire_at, :type, :series_id, :occurrence, :request_id, :request_digest,
      :created_at, :fence, :lease_owner, :lease_until, :snapshot_version, :expansion, :sent, :delivered, :failed, :reason,
      :started_at, :finished_at, :status_report, :estimated_audience, :failures, :recipients_kept, :settled, :awaits_next)
    ON CONFLICT (notification_id) DO NOTHING
    """  # noqa: S608
)
# What renewing a lease comes to: so frequent that it is worth a statement of its own.
_RENEW = Statement(
    """
    UPDATE notifications SET lease_until = renewed.lease_until FROM {renewed}
    WHERE notifications.notification_id = renewed.notification_id
    """,
    renewed="notification_id text, lease_until integer",
)
_CHANGING = (
    "state integer, priority integer, send_at integer, expire_at integer, fence integer, lease_owner text, lease_until integer, "
    "snapshot_version integer, expansion integer, sent integer, delivered integer, failed integer, reason text, "
    "started_at integer, finished_at integer, failures integer, settled integer, awaits_next integer"
)
_SAVE = Statement(
    """
    UPDATE notifications SET state = changed.state, priority = changed.priority, send_at = changed.send_at,
      expire_at = changed.expire_at, fence = changed.fence, lease_owner = changed.lease_owner, lease_until = changed.lease_until,
      snapshot_version = changed.snapshot_version, expansion = changed.expansion, sent = changed.sent,
      delivered = changed.delivered, failed = changed.failed, reason = changed.reason, started_at = changed.started_at,
      finished_at = changed.finished_at, failures = changed.failures, settled = changed.settled, awaits_next = changed.awaits_next
    FROM {changed}
    WHERE notifications.notification_id = changed.notification_id
    """,
    changed=f"notification_id text, {_CHANGING}",
)


def from_row(row: Sequence[Any]) -> Notification:
    """A notification from the `COLUMNS`, which are its fields in order, its counts being four of them and its flags the last."""
    notification_id, state, *others = row[:_COUNTS]
    after_counts = _COUNTS + len(Counts._fields)
    counts = Counts(*row[_COUNTS:after_counts])
    fields = [notification_id, State(state), *others, counts, *row[after_counts:-_FLAGS], *map(bool, row[-_FLAGS:])]
    return Notification(*fields)


def find(connection: Connection, notification_ids: Iterable[str]) -> dict[str, Notification]:
    """Those that exist."""
    return _by_id(_FIND.rows(connection, wanted=_keys(notification_ids)))


def find_request(connection: Connection, request_id: str) -> Notification | None:
    """The one that was uploaded under this request_id."""
    rows = _FIND_REQUEST.rows(connection, request_id=request_id)
    return from_row(rows[0]) if rows else None


def lock(connection: Connection, notification_ids: Iterable[str]) -> dict[str, Notification]:
    """Those that exist; nobody else changes them, or their blocks, till the transaction ends."""
    return _by_id(_LOCK.rows(connection, wanted=_keys(notification_ids)))


def insert(connection: Connection, notification: Notification) -> bool:
    """Add one; False, and nothing is done, when its id is taken."""
    values = _values(notification) | {
        "type": notification.type,
        "series_id": notification.series_id,
        "occurrence": notification.occurrence,
        "request_id": notification.request_id,
        "request_digest": notification.request_digest,
        "created_at": notification.created_at,
        "status_report": notification.status_report,
        "recipients_kept": int(notification.recipients_kept),
        "estimated_audience": notification.estimated_audience,
    }
    return connection.execute(_INSERT, values).rowcount > 0


def save(connection: Connection, before: Mapping[str, Notification], after: Mapping[str, Notification]) -> None:
    """Write what has changed of rows that are locked. What is over, and has a successor if it needs one, loses its names."""
    changed = [one for notification_id, one in sorted(after.items()) if one != before[notification_id]]
    renewed = {one.notification_id: one.lease_until for one in changed if _is_renewal(before[one.notification_id], one)}
    others = [one for one in changed if one.notification_id not in renewed]
    if renewed:
        _RENEW.rows(connection, renewed=renewed.items())
    if others:
        _SAVE.rows(connection, changed=[tuple(_values(one).values()) for one in others])
    forgetful = [one.notification_id for one in changed if before[one.notification_id].names_matter and not one.names_matter]
    if forgetful:
        notification_names.forget(connection, forgetful)


def _is_renewal(before: Notification, after: Notification) -> bool:
    return replace(before, lease_until=after.lease_until) == after


def _values(one: Notification) -> dict[str, object]:
    """The id, and what may change, in the order of `_SAVE`."""
    return {
        "notification_id": one.notification_id,
        "state": int(one.state),
        "priority": one.priority,
        "send_at": one.send_at,
        "expire_at": one.expire_at,
        "fence": one.fence,
        "lease_owner": one.lease_owner,
        "lease_until": one.lease_until,
        "snapshot_version": one.snapshot_version,
        **one.counts._asdict(),
        "reason": one.reason,
        "started_at": one.started_at,
        "finished_at": one.finished_at,
        "failures": one.failures,
        "settled": int(one.settled),
        "awaits_next": int(one.awaits_next),
    }


def _by_id(rows: Iterable[Sequence[Any]]) -> dict[str, Notification]:
    return {one.notification_id: one for one in map(from_row, rows)}


def _keys(notification_ids: Iterable[str]) -> list[tuple[str]]:
    return [(notification_id,) for notification_id in sorted(set(notification_ids))]
