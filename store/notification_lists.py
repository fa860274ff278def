"""Reading notifications: by id, in pages, by the names they name, and their recipients."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyroaring import BitMap
from sqlalchemy import Connection

from mesh import errors
from store import notification_block_rows, notification_names, notification_rows, notification_uploads
from store.notification import Notification
from store.notification_life import Part, State
from store.notification_rows import COLUMNS, from_row
from store.notification_uploads import Stored, View
from store.recipient_blocks import parts_of, union
from store.sql import Statement

_READ_BYTES = 12 * 1024 * 1024  # of uploads in one answer by id, with room for all else below the limit of gRPC
_PAGE_BYTES = 1024 * 1024  # of uploads in one page; one alone may have 2.6 MB, so the page stays below gRPC's usual 4 MiB
_REFERENCES = 100
_CHUNK_BITMAPS = 24  # of 32 KiB at most: a chunk stays below 1 MiB
_PAGE = f"""
    SELECT {COLUMNS} FROM notifications
    WHERE {{place}} notification_id < :before_id
      AND (:type = '' OR type = :type) AND send_at >= :send_after AND send_at < :send_before
    ORDER BY notification_id DESC LIMIT :page_size
"""  # noqa: S608
_NEWEST = Statement(_PAGE.format(place=""))
_NEWEST_OVER = Statement(_PAGE.format(place="state > 4 AND state = :state AND"))
_NEWEST_NOT_OVER = Statement(_PAGE.format(place="state <= 4 AND state = :state AND"))
_NEWEST_IN_SERIES = Statement(
    _PAGE.format(place="series_id <> '' AND series_id = :series_id AND state IN (SELECT state FROM {states}) AND"),
    states="state integer",
)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a listing is narrowed to; times in microseconds, the first included, the second not. Empty: all."""

    states: frozenset[State]
    type: str
    series_id: str
    send_after: int
    send_before: int


def get(connection: Connection, notification_ids: Sequence[str], view: View) -> list[Stored]:
    """Those that exist, in the order asked for.

    Raises:
        TidingsError: INVALID_FIELD, they are more than one answer can hold.
    """
    found = notification_rows.find(connection, notification_ids)
    wanted = [found[notification_id] for notification_id in dict.fromkeys(notification_ids) if notification_id in found]
    if len(notification_uploads.first_within(connection, wanted, view, _READ_BYTES)) < len(wanted):
        raise errors.invalid_field("notification_ids", f"fewer: these have more than {_READ_BYTES:,} bytes together")
    return notification_uploads.read(connection, wanted, view)


def list_page(connection: Connection, narrow: Filter, before_id: str, page_size: int) -> tuple[list[Stored], str]:
    """Notifications with lower ids than `before_id`, the newest first; and the id before which the next page begins, empty on the
    last. A page ends early where it would be too large."""
    found = _newest(connection, narrow, before_id, page_size + 1)
    page = notification_uploads.first_within(connection, found[:page_size], View.FULL, _PAGE_BYTES)
    following = page[-1].notification_id if len(found) > len(page) else ""
    return notification_uploads.read(connection, page), following


def list_references(connection: Connection, names: Iterable[str]) -> list[str]:
    """Ids of notifications that aren't over and name one of these, the soonest first."""
    return notification_names.naming(connection, names, _REFERENCES)


def read_recipients(
    connection: Connection, notification_id: str, parts: Sequence[Part], after_block: int
) -> tuple[list[BitMap], int] | None:
    """Recipients of the next blocks after one, by part, and the last of these blocks; None when there are no more.

    Raises:
        TidingsError: NOTIFICATION_NOT_FOUND, REPORT_GONE.
    """
    one = notification_rows.find(connection, [notification_id]).get(notification_id)
    if one is None:
        raise errors.notification_not_found(notification_id)
    if not one.recipients_kept:
        raise errors.report_gone(notification_id)
    blocks = notification_block_rows.read_after(connection, notification_id, after_block, max(1, _CHUNK_BITMAPS // len(parts)))
    if not blocks:
        return None
    read = [parts_of(bitmaps, one.state) for bitmaps in blocks.values()]
    return [union(block[part] for block in read) for part in parts], max(blocks)


def _newest(connection: Connection, narrow: Filter, before_id: str, most: int) -> list[Notification]:
    bounds = {"send_after": narrow.send_after, "send_before": narrow.send_before, "type": narrow.type}
    page = {"before_id": before_id, "page_size": most}
    if narrow.series_id:
        states = [(int(state),) for state in narrow.states or State]
        rows = _NEWEST_IN_SERIES(connection, series_id=narrow.series_id, states=states, **bounds, **page).all()
    elif narrow.states:
        rows = []
        for state in sorted(narrow.states):
            newest = _NEWEST_OVER if state.over else _NEWEST_NOT_OVER
            rows += newest(connection, state=int(state), **bounds, **page).all()
    else:
        rows = _NEWEST(connection, **bounds, **page).all()
    return sorted(map(from_row, rows), key=lambda one: one.notification_id, reverse=True)[:most]
