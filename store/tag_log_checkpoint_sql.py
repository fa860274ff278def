"""Checkpoints of the tag log in the database, each function one small transaction, for appends wait for them.

Parts are staged under a number of their own, and seen all at once when the log's head names that number. Staged parts are garbage
when a checkpoint as new is shown, when they are an hour old, or when their save was given up.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from mesh import errors
from store.sql import Statement
from store.tag_log import fitting

KEPT_RECORDS = 10_000  # below a checkpoint, so that a follower somewhat behind goes on without it
_STALE = 3600 * 1_000_000  # microseconds: no save takes as long
_REMOVED_BYTES = 8 * 1024 * 1024  # in one transaction
_REMOVED_ROWS = 1_000

_CURRENT = Statement("SELECT checkpoint_id, checkpoint_version, checkpoint_parts FROM tag_log WHERE log_id = 1")
_LOCK = Statement("SELECT checkpoint_id, checkpoint_version, kept_after_version FROM tag_log WHERE log_id = 1 {for_update}")
_BEGIN = Statement(
    """
    UPDATE tag_log SET last_save_id = last_save_id + 1 WHERE log_id = 1
    RETURNING last_save_id, last_version, checkpoint_version
    """
)
# A transaction may have been committed though it looked lost, and is then run again.
_STAGE = Statement(
    """
    INSERT INTO tag_checkpoint_parts (checkpoint_id, number, version, staged_at, part)
    VALUES (:checkpoint_id, :number, :version, :now, :part)
    ON CONFLICT (checkpoint_id, number) DO NOTHING
    """
)
_COUNT = Statement("SELECT count(*) FROM tag_checkpoint_parts WHERE checkpoint_id = :checkpoint_id")
_SHOW = Statement(
    """
    UPDATE tag_log SET
      checkpoint_id = :checkpoint_id, checkpoint_version = :version, checkpoint_parts = :parts,
      kept_after_version = {greatest}(kept_after_version, :version - :kept_records)
    WHERE log_id = 1
    """
)
_PART = Statement("SELECT part FROM tag_checkpoint_parts WHERE checkpoint_id = :checkpoint_id AND number = :number")
_GARBAGE = Statement(
    """
    SELECT checkpoint_id, number, length(part) AS size FROM tag_checkpoint_parts
    WHERE checkpoint_id <> :current_id
      AND (version <= :current_version OR staged_at < :stale_before OR checkpoint_id = :given_up_id)
    ORDER BY checkpoint_id, number LIMIT :rows
    """
)
_REMOVE_PARTS = Statement(
    """
    DELETE FROM tag_checkpoint_parts WHERE EXISTS (
      SELECT 1 FROM {garbage}
      WHERE garbage.checkpoint_id = tag_checkpoint_parts.checkpoint_id AND garbage.number = tag_checkpoint_parts.number)
    """,
    garbage="checkpoint_id integer, number integer",
)
_NEEDLESS = Statement(
    "SELECT version, length(record) AS size FROM tag_records WHERE version <= :kept_after_version ORDER BY version LIMIT :rows"
)
_REMOVE_RECORDS = Statement("DELETE FROM tag_records WHERE version <= :version")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        checkpoint_id: the number its parts are under.
        version: what it adds up to.
        parts: how many; 0 when there is no checkpoint.
    """

    checkpoint_id: int
    version: int
    parts: int


def read_newest(connection: Connection) -> Checkpoint:
    """The one that is shown."""
    head = _CURRENT(connection).one()
    return Checkpoint(head.checkpoint_id, head.checkpoint_version, head.checkpoint_parts)


def read_part(connection: Connection, checkpoint_id: int, number: int) -> bytes | None:
    """A part, counted from 0; None when it is gone."""
    part: bytes | None = _PART(connection, checkpoint_id=checkpoint_id, number=number).scalar_one_or_none()
    return part


def begin(connection: Connection, version: int) -> tuple[int, int]:
    """A number for a new checkpoint's parts, and the version of the newest one shown.

    Raises:
        TidingsError: INVALID_FIELD when the log isn't that far.
    """
    head = _BEGIN(connection).one()
    if version > head.last_version:
        raise errors.invalid_field("version", f"at most the log's, which is {head.last_version}")
    return head.last_save_id, head.checkpoint_version


def stage(connection: Connection, save: Checkpoint, part: bytes, now: int) -> None:
    """Lay a part by; it is the one after the `save.parts` there are."""
    _STAGE(connection, checkpoint_id=save.checkpoint_id, number=save.parts, version=save.version, now=now, part=part)


def show(connection: Connection, save: Checkpoint) -> bool:
    """Make a checkpoint the newest; False when a newer one is. One as new stays.

    Raises:
        TidingsError: UNAVAILABLE when staging took so long that parts are gone again.
    """
    newest = _LOCK(connection).one().checkpoint_version
    if save.version <= newest:
        return bool(save.version == newest)
    if _COUNT(connection, checkpoint_id=save.checkpoint_id).scalar_one() != save.parts:
        raise errors.unavailable("the checkpoint took so long that its first parts are gone: save it again")
    values = {"checkpoint_id": save.checkpoint_id, "version": save.version, "parts": save.parts}
    _SHOW(connection, kept_records=KEPT_RECORDS, **values)
    return True


def remove_some(connection: Connection, given_up_id: int, now: int) -> int:
    """Remove some of what isn't needed any more; gives how many rows, 0 when nothing was left."""
    head = _LOCK(connection).one()
    garbage = _GARBAGE(
        connection,
        current_id=head.checkpoint_id,
        current_version=head.checkpoint_version,
        stale_before=now - _STALE,
        given_up_id=given_up_id,
        rows=_REMOVED_ROWS,
    ).all()
    if garbage:
        number = fitting((row.size for row in garbage), _REMOVED_BYTES)
        _REMOVE_PARTS(connection, garbage=[(row.checkpoint_id, row.number) for row in garbage[:number]])
        return number
    return _remove_records(connection, head.kept_after_version)


def _remove_records(connection: Connection, kept_after_version: int) -> int:
    needless = _NEEDLESS(connection, kept_after_version=kept_after_version, rows=_REMOVED_ROWS).all()
    number = fitting((row.size for row in needless), _REMOVED_BYTES)
    if number:
        _REMOVE_RECORDS(connection, version=needless[number - 1].version)
    return number
