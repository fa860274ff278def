"""Dead letters in the database: kept, listed, marked for replay, forgotten. What two about one subject come to is decided in
`store.dead_letter`.

Whoever puts waits for the others to have put, so that one subject has one letter; what locks rows of another aggregate too locks
those first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from mesh import naming
from store import dead_letter_codec
from store.dead_letter import DeadLetter, Kind
from store.sql import DEAD_LETTERS_LOCK, Statement, take_turns

_BRIEF = "kind, subject, reason, detail, attempts, from_seq, to_seq, dead_letter_id, created_at, updated_at, replaying"
_FIND = Statement(
    f"""
    SELECT {_BRIEF}, payload FROM dead_letters
    JOIN {{wanted}} ON wanted.letter_kind = dead_letters.kind AND wanted.letter_subject = dead_letters.subject
    """,  # noqa: S608
    wanted="letter_kind integer, letter_subject text",
)
_GET = Statement(f"SELECT {_BRIEF}, payload FROM dead_letters WHERE dead_letter_id = :dead_letter_id")  # noqa: S608
_PAGE = f"""
    SELECT {_BRIEF} FROM dead_letters
    WHERE {{which}} dead_letter_id < :before_id AND (:kind = 0 OR kind = :kind)
    ORDER BY dead_letter_id DESC LIMIT :page_size
"""  # noqa: S608
_LIST = Statement(_PAGE.format(which=""))
_LIST_REPLAYING = Statement(_PAGE.format(which="replaying = 1 AND"))
_SAVE = text(
    """
    INSERT INTO dead_letters (dead_letter_id, kind, subject, payload, reason, detail, attempts, created_at, updated_at, from_seq,
      to_seq, replaying)
    VALUES (:dead_letter_id, :kind, :subject, :payload, :reason, :detail, :attempts, :created_at, :updated_at, :from_seq, :to_seq,
      :replaying)
    ON CONFLICT (dead_letter_id) DO UPDATE SET payload = excluded.payload, reason = excluded.reason, detail = excluded.detail,
      attempts = excluded.attempts, updated_at = excluded.updated_at, from_seq = excluded.from_seq, to_seq = excluded.to_seq,
      replaying = excluded.replaying
    """
)
_TRIM = Statement(
    """
    DELETE FROM dead_letters WHERE dead_letter_id <= (
      SELECT dead_letter_id FROM dead_letters ORDER BY dead_letter_id DESC LIMIT 1 OFFSET :letters)
    """
)
_REPLAY = Statement("UPDATE dead_letters SET replaying = 1 WHERE dead_letter_id = :dead_letter_id")
_REMOVE = Statement(
    "DELETE FROM dead_letters WHERE dead_letter_id = :dead_letter_id AND (:updated_at = 0 OR updated_at = :updated_at)"
)
_FORGET = Statement("DELETE FROM dead_letters WHERE kind = :kind AND subject = :subject")
_COUNT = Statement("SELECT kind, count(*) AS number FROM dead_letters GROUP BY kind")


class Kept(NamedTuple):
    """Letters as they are kept now, in order; and how many others went for want of room."""

    letters: Sequence[DeadLetter] = ()
    dropped: int = 0


def put(connection: Connection, letters: Sequence[DeadLetter], most: int, now: int, *, of_replay: bool = False) -> Kept:
    """Keep these, and altogether at most so many; `of_replay` when it was their replay that failed."""
    if not letters:
        return Kept()
    take_turns(connection, DEAD_LETTERS_LOCK)
    known = _find(connection, letters)
    kept = [_keep(letter, known, now, of_replay=of_replay) for letter in letters]
    connection.execute(_SAVE, [_values(letter) for letter in known.values()])
    return Kept(kept, _TRIM(connection, letters=most).rowcount)


def get(connection: Connection, dead_letter_id: str) -> DeadLetter | None:
    """One with its payload."""
    row = _GET(connection, dead_letter_id=dead_letter_id).one_or_none()
    return None if row is None else _letter(row)


def list_page(connection: Connection, kind: int, replaying: bool, before_id: str, page_size: int) -> tuple[list[DeadLetter], str]:
    """Letters with lower ids than `before_id`, the newest first, without their payloads; of one kind unless that is 0. And the id
    before which the next page begins, empty on the last."""
    statement = _LIST_REPLAYING if replaying else _LIST
    rows = statement(connection, kind=kind, before_id=before_id, page_size=page_size + 1).all()
    page = [_letter(row) for row in rows[:page_size]]
    return page, page[-1].dead_letter_id if len(rows) > page_size else ""


def replay(connection: Connection, dead_letter_id: str) -> bool:
    """Have a router take it up; False when it isn't kept."""
    return _REPLAY(connection, dead_letter_id=dead_letter_id).rowcount > 0


def failed_again(connection: Connection, dead_letter_id: str, reason: str, detail: str, now: int) -> None:
    """Its replay failed."""
    take_turns(connection, DEAD_LETTERS_LOCK)
    letter = get(connection, dead_letter_id)
    if letter is not None:
        connection.execute(_SAVE, _values(letter.failed_again(reason, detail, now)))


def remove(connection: Connection, dead_letter_id: str, updated_at: int = 0) -> None:
    """Forget one; with a time, only as it was put then."""
    _REMOVE(connection, dead_letter_id=dead_letter_id, updated_at=updated_at)


def forget(connection: Connection, kind: Kind, subject: str) -> None:
    """Forget the one about a subject."""
    _FORGET(connection, kind=int(kind), subject=subject)


def count(connection: Connection) -> dict[Kind, int]:
    """How many there are of each kind."""
    found = {Kind(row.kind): int(row.number) for row in _COUNT(connection)}
    return {kind: found.get(kind, 0) for kind in Kind}


def _find(connection: Connection, letters: Iterable[DeadLetter]) -> dict[tuple[Kind, str], DeadLetter]:
    wanted = sorted({(int(letter.kind), letter.subject) for letter in letters})
    return {(found.kind, found.subject): found for found in map(_letter, _FIND(connection, wanted=wanted))}


def _keep(letter: DeadLetter, known: dict[tuple[Kind, str], DeadLetter], now: int, *, of_replay: bool) -> DeadLetter:
    key = (letter.kind, letter.subject)
    before = known.get(key)
    if before is None:
        known[key] = letter.put(naming.new_dead_letter_id(), now)
    else:
        known[key] = before.united(letter, dead_letter_codec.united_payload(before, letter), now, of_replay=of_replay)
    return known[key]


def _letter(row: Any) -> DeadLetter:
    fields = row._asdict()
    letter = DeadLetter(**fields)
    return replace(letter, kind=Kind(letter.kind), payload=bytes(letter.payload), replaying=bool(letter.replaying))


def _values(letter: DeadLetter) -> dict[str, object]:
    return {
        "dead_letter_id": letter.dead_letter_id,
        "kind": int(letter.kind),
        "subject": letter.subject,
        "payload": letter.payload,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "created_at": letter.created_at,
        "updated_at": letter.updated_at,
        "from_seq": letter.from_seq,
        "to_seq": letter.to_seq,
        "replaying": int(letter.replaying),
    }
