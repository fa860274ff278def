"""Which tags, aliases and combinations notifications name."""

from collections.abc import Iterable

from sqlalchemy import Connection

from store.sql import Statement

_INSERT = Statement(
    "INSERT INTO notification_names (name, notification_id) SELECT name, :notification_id FROM {names}", names="name text"
)
_INHERIT = Statement(
    """
    INSERT INTO notification_names (name, notification_id)
    SELECT name, :notification_id FROM notification_names WHERE notification_id = :predecessor_id
    """
)
_FORGET = Statement(
    "DELETE FROM notification_names WHERE notification_id IN (SELECT notification_id FROM {over})", over="notification_id text"
)
_FORGET_SERIES = Statement(
    """
    DELETE FROM notification_names WHERE notification_id IN (
      SELECT notification_id FROM notifications WHERE series_id <> '' AND series_id = :series_id AND state > 4)
    """
)
_NAMING = Statement(
    """
    SELECT notification_id FROM notifications
    WHERE state <= 4 AND notification_id IN (
      SELECT notification_names.notification_id FROM notification_names WHERE name IN (SELECT name FROM {names}))
    ORDER BY send_at, notification_id LIMIT :most
    """,
    names="name text",
)


def insert(connection: Connection, notification_id: str, names: Iterable[str]) -> None:
    """Keep what a notification names."""
    _INSERT(connection, notification_id=notification_id, names=[(name,) for name in sorted(set(names))])


def inherit(connection: Connection, notification_id: str, predecessor_id: str) -> None:
    """Let an occurrence name what the one before it names."""
    _INHERIT(connection, notification_id=notification_id, predecessor_id=predecessor_id)


def forget(connection: Connection, notification_ids: Iterable[str]) -> None:
    """These are over."""
    _FORGET(connection, over=[(notification_id,) for notification_id in sorted(notification_ids)])


def forget_series(connection: Connection, series_id: str) -> None:
    """A series is over."""
    _FORGET_SERIES(connection, series_id=series_id)


def naming(connection: Connection, names: Iterable[str], most: int) -> list[str]:
    """Ids of notifications that aren't over and name one of these, the soonest first."""
    return list(_NAMING(connection, names=[(name,) for name in sorted(set(names))], most=most).scalars())
