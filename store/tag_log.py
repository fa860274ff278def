"""The log of changes to tags: opaque records under versions 1, 2, 3 …, and where it stands.

The only row of `tag_log` is its head. An append moves the head on condition that it stands where the caller thinks, so of two at
once, in whatever processes, one finds it moved. Records up to the head's `kept_after_version` may be gone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mesh import errors
from store.sql import Statement

_PAGE_BYTES = 4 * 1024 * 1024  # as the contract says
_PAGE_RECORDS = 1_000
_POSITION = Statement(
    """
    SELECT last_version, kept_after_version, (SELECT coalesce(max(ordinal), 0) FROM users) AS highest_user_ordinal
    FROM tag_log WHERE log_id = 1
    """
)
_MOVE = Statement("UPDATE tag_log SET last_version = last_version + :number WHERE log_id = 1 AND last_version = :expected_version")
_SIZES = Statement("SELECT length(record) AS size FROM tag_records WHERE version > :after_version ORDER BY version LIMIT :records")
_RECORDS = Statement("SELECT record FROM tag_records WHERE version > :after_version AND version <= :version ORDER BY version")
# Records are bytes, which the JSON of a `Statement` can't carry.
_INSERT_SQLITE = "INSERT INTO tag_records (version, record) VALUES (?, ?)"
_INSERT_POSTGRESQL = "INSERT INTO tag_records (version, record) SELECT * FROM unnest(%b::bigint[], %b::bytea[])"


@dataclass(frozen=True, slots=True)
class Position:
    """How far the log and the directory of users have come.

    Attributes:
        version: of the log's last record; 0 when there never was one.
        highest_user_ordinal: 0 when there is no user.
    """

    version: int = 0
    highest_user_ordinal: int = 0

    def joined(self, other: "Position") -> "Position":
        """The further of the two, in each respect."""
        return Position(max(self.version, other.version), max(self.highest_user_ordinal, other.highest_user_ordinal))


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of an append: the log's version now, and whether it went otherwise than expected."""

    version: int
    conflict: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order.

    Attributes:
        records: at most 4 MiB, but at least one when there is one.
        version: of the last of them; where the page was asked for when there is none.
        position: how far all had come when it was read.
    """

    records: Sequence[bytes]
    version: int
    position: Position

    @property
    def is_last(self) -> bool:
        """Whether there was nothing more when it was read."""
        return self.version >= self.position.version


def read_position(connection: Connection) -> Position:
    """How far all has come."""
    head = _POSITION(connection).one()
    return Position(head.last_version, head.highest_user_ordinal)


def append_records(connection: Connection, expected_version: int, records: Sequence[bytes]) -> Appended:
    """Add records if the log's version is the expected one, else nothing."""
    number = len(records)
    if not _MOVE(connection, expected_version=expected_version, number=number).rowcount:
        return Appended(read_position(connection).version, conflict=True)
    versions = range(expected_version + 1, expected_version + 1 + number)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_INSERT_POSTGRESQL, (list(versions), list(records)))
    else:
        connection.exec_driver_sql(_INSERT_SQLITE, list(zip(versions, records, strict=True)))
    return Appended(expected_version + number, conflict=False)


def read_page(connection: Connection, after_version: int) -> Page:
    """The records after a version, as many as a page holds.

    Raises:
        TidingsError: SNAPSHOT_GONE when some of them are not kept any more, or the log isn't there yet.
    """
    head = _POSITION(connection).one()
    if not head.kept_after_version <= after_version <= head.last_version:
        raise errors.snapshot_gone(after_version, head.kept_after_version, head.last_version)
    sizes = _SIZES(connection, after_version=after_version, records=_PAGE_RECORDS).scalars()
    version = after_version + fitting(sizes, _PAGE_BYTES)
    records: list[bytes] = []
    if version > after_version:
        records.extend(_RECORDS(connection, after_version=after_version, version=version).scalars())
    return Page(records, version, Position(head.last_version, head.highest_user_ordinal))


def fitting(sizes: Iterable[int], limit: int) -> int:
    """How many of the first have at most `limit` bytes together; the first alone may have more."""
    number, total = 0, 0
    for size in sizes:
        total += size
        if number and total > limit:
            break
        number += 1
    return number
