"""The directory of users: ids of the business's choosing, dense ordinals of ours."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from store.model import User
from store.sql import USERS_LOCK, Statement, take_turns

_FIND = Statement(
    """
    SELECT users.user_id, users.ordinal, users.last_seen_at
    FROM {wanted} JOIN users ON users.user_id = wanted.user_id
    """,
    wanted="user_id text",
)
_LIST = Statement(
    """
    SELECT users.user_id, users.ordinal, users.last_seen_at
    FROM {wanted} JOIN users ON users.ordinal = wanted.ordinal
    """,
    wanted="ordinal integer",
)
_HIGHEST = Statement("SELECT coalesce(max(ordinal), 0) FROM users")
_INSERT = Statement(
    """
    INSERT INTO users (ordinal, user_id, created_at)
    SELECT ordinal, user_id, :now FROM {fresh}
    """,
    fresh="ordinal integer, user_id text",
)
_SEEN_LOCK = Statement(
    "SELECT 1 FROM users WHERE ordinal IN (SELECT ordinal FROM {seen}) ORDER BY ordinal {for_update}",
    seen="ordinal integer, last_seen_at integer",
)
_SEEN = Statement(
    """
    UPDATE users SET last_seen_at = seen.last_seen_at
    FROM {seen}
    WHERE users.ordinal = seen.ordinal AND coalesce(users.last_seen_at, -1) < seen.last_seen_at
    """,
    seen="ordinal integer, last_seen_at integer",
)


def find_users(connection: Connection, user_ids: Iterable[str]) -> dict[str, User]:
    """The users of these ids that exist."""
    found = _FIND(connection, wanted=[(user_id,) for user_id in set(user_ids)])
    return {user_id: User(user_id, ordinal, last_seen_at) for user_id, ordinal, last_seen_at in found}


def list_users(connection: Connection, ordinals: Iterable[int]) -> dict[int, User]:
    """The users of these ordinals that exist."""
    found = _LIST(connection, wanted=[(ordinal,) for ordinal in set(ordinals)])
    return {ordinal: User(user_id, ordinal, last_seen_at) for user_id, ordinal, last_seen_at in found}


def ensure_users(connection: Connection, user_ids: Sequence[str], now: int) -> dict[str, User]:
    """The users of these ids; new ones get the next ordinals, in the order given."""
    known = find_users(connection, user_ids)
    if len(known) == len(set(user_ids)):
        return known
    take_turns(connection, USERS_LOCK)
    known = find_users(connection, user_ids)
    highest = _HIGHEST(connection).scalar_one()
    missing = [user_id for user_id in dict.fromkeys(user_ids) if user_id not in known]
    fresh = [(highest + n, user_id) for n, user_id in enumerate(missing, 1)]
    _INSERT(connection, fresh=fresh, now=now)
    return known | {user_id: User(user_id, ordinal, None) for ordinal, user_id in fresh}


def record_last_seen(connection: Connection, seen: Mapping[int, int]) -> None:
    """Note when users (by ordinal) were last online; an older time than the one known changes nothing."""
    rows = sorted(seen.items())
    _SEEN_LOCK(connection, seen=rows)
    _SEEN(connection, seen=rows)
