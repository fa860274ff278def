"""First answers to requests that change something: whoever repeats one gets the same answer again. A refusal is one, too.

Whoever keeps an answer waits for another who is about to keep one for the same request, so that there is one answer, whatever is
under way elsewhere.
"""

from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import Connection, text

from mesh import errors
from store.sql import Statement
from tidings.common.v1 import error_pb2

_FIND = Statement("SELECT kind, digest, answer FROM notification_requests WHERE request_id = :request_id")
_KEEP = text(
    """
    INSERT INTO notification_requests (request_id, kind, digest, answer, created_at)
    VALUES (:request_id, :kind, :digest, :answer, :now)
    ON CONFLICT (request_id) DO NOTHING
    """
)
_FORGET = Statement(
    """
    DELETE FROM notification_requests WHERE request_id IN (
      SELECT request_id FROM notification_requests WHERE created_at <= :until ORDER BY created_at LIMIT :most)
    """
)


class RequestKind(IntEnum):
    """What a request did. The answer to one that was refused is an encoded Error."""

    CREATE = 1
    CONTROL = 2
    REFUSED = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a repeat a repeat: the id, and the digest of all of the business's request."""

    request_id: str
    kind: RequestKind
    digest: bytes

    def first_answer(self, connection: Connection) -> bytes | None:
        """See the function."""
        return first_answer(connection, self.request_id, self.digest, self.kind)


def first_answer(connection: Connection, request_id: str, digest: bytes, kind: RequestKind | None = None) -> bytes | None:
    """What this request was answered before, as an encoded StoredNotification; None when it is new. Without a kind it may be any.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT, another request has the same id; what it was refused for.
    """
    found = _FIND(connection, request_id=request_id).one_or_none()
    if found is None:
        return None
    if bytes(found.digest) != digest or (kind not in {None, found.kind} and found.kind != RequestKind.REFUSED):
        raise errors.request_id_conflict(request_id)
    if found.kind == RequestKind.REFUSED:
        raise errors.TidingsError.from_frame(error_pb2.Error.FromString(bytes(found.answer)))
    return bytes(found.answer)


def keep(connection: Connection, request: Request, answer: bytes, now: int) -> bool:
    """Remember the answer; False when another store was faster, and its transaction is done."""
    values = {"request_id": request.request_id, "kind": int(request.kind), "digest": request.digest, "answer": answer, "now": now}
    return connection.execute(_KEEP, values).rowcount > 0


def forget(connection: Connection, until: int, most: int) -> int:
    """Remove answers given at `until` or before; gives how many."""
    return int(_FORGET(connection, until=until, most=most).rowcount)
