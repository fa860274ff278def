"""What was uploaded of notifications: it never changes, and is read no further than somebody wants to see it.

An encoded protobuf message is put together from encodings of its parts, so the spec is kept as three: without its audience, the
audience without ids, and the ids, of which there may be 2.6 MB.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import Connection, text

from store.notification import Notification
from store.sql import Statement


class View(IntEnum):
    """How much to read, as the contract's NotificationView."""

    FULL = 1
    ORDINALS = 2
    BRIEF = 3


@dataclass(frozen=True, slots=True)
class Upload:
    """What was uploaded.

    Attributes:
        spec: an encoded NotificationSpec, as far as it was read.
        recipient_ordinals: a bitmap as given; empty when not read.
        excluded_ordinals: as `recipient_ordinals`.
    """

    spec: bytes
    recipient_ordinals: bytes = b""
    excluded_ordinals: bytes = b""


@dataclass(frozen=True, slots=True)
class Stored:
    """A notification with what was uploaded."""

    notification: Notification
    upload: Upload


@dataclass(frozen=True, slots=True)
class SpecParts:
    """An encoded NotificationSpec in three."""

    spec: bytes
    audience: bytes
    named_ids: bytes

    @property
    def whole(self) -> bytes:
        """All of it."""
        return self.spec + self.audience + self.named_ids


_COLUMNS = {
    View.FULL: ("spec", "audience", "named_ids", "recipient_ordinals", "excluded_ordinals"),
    View.ORDINALS: ("spec", "audience", "recipient_ordinals", "excluded_ordinals"),
    View.BRIEF: ("spec",),
}
_READ = {
    view: Statement(
        f"""
        SELECT notification_id, {", ".join(columns)} FROM notification_uploads
        WHERE notification_id IN (SELECT notification_id FROM {{wanted}})
        """,  # noqa: S608
        wanted="notification_id text",
    )
    for view, columns in _COLUMNS.items()
}
_SIZES = {
    view: Statement(
        f"""
        SELECT notification_id, {" + ".join(f"length({column})" for column in columns)} AS size FROM notification_uploads
        WHERE notification_id IN (SELECT notification_id FROM {{wanted}})
        """,  # noqa: S608
        wanted="notification_id text",
    )
    for view, columns in _COLUMNS.items()
}
_INSERT = text(
    """
    INSERT INTO notification_uploads (notification_id, spec, audience, named_ids, recipient_ordinals, excluded_ordinals)
    VALUES (:notification_id, :spec, :audience, :named_ids, :recipient_ordinals, :excluded_ordinals)
    """
)


def insert(connection: Connection, notification_id: str, spec: SpecParts, recipients: bytes, excluded: bytes) -> None:
    """Keep an upload."""
    values = {"spec": spec.spec, "audience": spec.audience, "named_ids": spec.named_ids}
    bitmaps = {"recipient_ordinals": recipients, "excluded_ordinals": excluded}
    connection.execute(_INSERT, {"notification_id": notification_id} | values | bitmaps)


def read(connection: Connection, notifications: Iterable[Notification], view: View = View.FULL) -> list[Stored]:
    """Each notification with what was uploaded, in order."""
    listed = list(notifications)
    uploads = {row.notification_id: _upload(row._asdict()) for row in _READ[view](connection, wanted=_keys(listed))}
    return [Stored(one, uploads[one.notification_id]) for one in listed]


def first_within(connection: Connection, notifications: Iterable[Notification], view: View, most: int) -> list[Notification]:
    """As many of the first as have at most so many bytes together; at least one."""
    listed = list(notifications)
    sizes = {row.notification_id: row.size for row in _SIZES[view](connection, wanted=_keys(listed))}
    total = 0
    for number, one in enumerate(listed):
        total += sizes[one.notification_id]
        if total > most and number:
            return listed[:number]
    return listed


def _upload(columns: dict[str, bytes]) -> Upload:
    parts = (bytes(columns[name]) for name in ("spec", "audience", "named_ids") if name in columns)
    bitmaps = {name: bytes(columns[name]) for name in ("recipient_ordinals", "excluded_ordinals") if name in columns}
    return Upload(b"".join(parts), **bitmaps)


def _keys(notifications: Iterable[Notification]) -> list[tuple[str]]:
    return [(one.notification_id,) for one in notifications]
