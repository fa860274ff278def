"""Rows of recipients: one bitmap for each notification, block and part. Whoever writes has locked the notification's row."""

from collections.abc import Iterable, Mapping

from pyroaring import BitMap
from sqlalchemy import Connection, text

from store.notification_life import Part
from store.recipient_blocks import Blocks, RecipientBlock, decode, encode
from store.sql import Statement

_READ = Statement(
    """
    SELECT notification_blocks.notification_id, notification_blocks.block, notification_blocks.part, notification_blocks.ordinals
    FROM {wanted} JOIN notification_blocks ON notification_blocks.notification_id = wanted.notification_id
      AND notification_blocks.block = wanted.block AND notification_blocks.part = wanted.part
    """,
    wanted="notification_id text, block integer, part integer",
)
# Every block of a notification has its expansion.
_READ_AFTER = Statement(
    """
    SELECT block, part, ordinals FROM notification_blocks
    WHERE notification_id = :notification_id AND block IN (
      SELECT block FROM notification_blocks
      WHERE notification_id = :notification_id AND block > :after_block AND part = 1 ORDER BY block LIMIT :blocks)
    ORDER BY block, part
    """
)
_WRITE = text(
    """
    INSERT INTO notification_blocks (notification_id, block, part, ordinals) VALUES (:notification_id, :block, :part, :ordinals)
    ON CONFLICT (notification_id, block, part) DO UPDATE SET ordinals = excluded.ordinals
    """
)
_REMOVE = Statement("DELETE FROM notification_blocks WHERE notification_id = :notification_id")

Place = tuple[str, int]  # notification id, block


def read(connection: Connection, wanted: Iterable[tuple[str, int, Part]]) -> dict[Place, RecipientBlock]:
    """Blocks with those of their parts that are wanted."""
    found: dict[Place, dict[Part, BitMap]] = {}
    places = sorted(set(wanted))
    for notification_id, block, part in places:
        found.setdefault((notification_id, block), {})[part] = BitMap()
    for notification_id, block, part, ordinals in _READ.rows(connection, wanted=places) if places else ():
        found[notification_id, block][Part(part)] = decode(ordinals)
    return {place: RecipientBlock(bitmaps) for place, bitmaps in found.items()}


def read_after(connection: Connection, notification_id: str, after_block: int, blocks: int) -> dict[int, dict[Part, BitMap]]:
    """At most so many blocks beyond one, ascending, with all their parts."""
    found: dict[int, dict[Part, BitMap]] = {}
    rows = _READ_AFTER.rows(connection, notification_id=notification_id, after_block=after_block, blocks=blocks)
    for block, part, ordinals in rows:
        found.setdefault(block, {})[Part(part)] = decode(ordinals)
    return found


def write(connection: Connection, changed: Mapping[Place, RecipientBlock]) -> None:
    """Keep what is otherwise than it was read."""
    _write(
        connection,
        (
            (notification_id, block, part, ordinals)
            for (notification_id, block), recipients in changed.items()
            for part, ordinals in recipients.changes().items()
        ),
    )


def write_expansion(connection: Connection, notification_id: str, blocks: Blocks) -> None:
    """Keep whom a notification is for."""
    _write(connection, ((notification_id, block, Part.EXPANSION, ordinals) for block, ordinals in blocks.items()))


def remove(connection: Connection, notification_id: str) -> None:
    """Forget all recipients of a notification."""
    _REMOVE(connection, notification_id=notification_id)


def _write(connection: Connection, rows: Iterable[tuple[str, int, Part, BitMap]]) -> None:
    values = [
        {"notification_id": notification_id, "block": block, "part": int(part), "ordinals": encode(ordinals)}
        for notification_id, block, part, ordinals in rows
    ]
    if values:
        connection.execute(_WRITE, values)
