"""Storing uploads."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mesh import errors
from store import (
    notification_block_rows,
    notification_codec,
    notification_names,
    notification_requests,
    notification_rows,
    notification_uploads,
)
from store.notification import Notification
from store.notification_requests import Request, RequestKind
from store.notification_uploads import SpecParts, Stored, Upload
from store.recipient_blocks import Blocks


@dataclass(frozen=True, slots=True)
class Expansion:
    """Whom a notification is for, by blocks, and the snapshot of the tags that says so."""

    blocks: Blocks
    snapshot_version: int

    @property
    def number(self) -> int:
        """How many."""
        return sum(map(len, self.blocks.values()))


@dataclass(frozen=True, slots=True)
class NewNotification:
    """An upload.

    Attributes:
        request: what makes it idempotent.
        notification: SCHEDULED.
        spec: what was uploaded, encoded.
        recipient_ordinals: a bitmap as given.
        excluded_ordinals: a bitmap as given.
        names: what it is found by; the predecessor's when there is one.
        expansion: whom it is for, when that is settled.
        predecessor: id and fence of the occurrence before it.
    """

    request: Request
    notification: Notification
    spec: SpecParts
    recipient_ordinals: bytes
    excluded_ordinals: bytes
    names: Sequence[str]
    expansion: Expansion | None
    predecessor: tuple[str, int] | None


def create(connection: Connection, new: NewNotification, now: int) -> tuple[bytes, bool]:
    """Store an upload; gives the encoded StoredNotification, and whether it is new.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT; FENCED, NOTIFICATION_NOT_FOUND about the predecessor; INVALID_FIELD when the id is taken.
    """
    if new.predecessor is not None:
        # First of all, so that whoever makes the same occurrence waits here, then finds it made.
        notification_rows.lock(connection, [new.predecessor[0]])
    if answered := find_answer(connection, new.request.request_id, new.request.digest, now, new.request.kind):
        return answered, False
    notification = _settled(new, now)
    upload = Upload(new.spec.whole, new.recipient_ordinals, new.excluded_ordinals)
    answer = notification_codec.answer(Stored(notification, upload), now)
    if not notification_requests.keep(connection, new.request, answer, now):
        return _answered_elsewhere(connection, new.request), False
    _insert(connection, new, notification)
    return answer, True


def find_answer(connection: Connection, request_id: str, digest: bytes, now: int, kind: RequestKind | None = None) -> bytes | None:
    """What a request was answered, as an encoded StoredNotification; None when it is new. When its answer is forgotten but the
    notification is there, it is answered as it is now.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT.
    """
    # In this order: an answer that comes into being after the first look has its notification, too.
    notification = notification_rows.find_request(connection, request_id)
    first = notification_requests.first_answer(connection, request_id, digest, kind)
    if first is not None or notification is None:
        return first
    if notification.request_digest != digest:
        raise errors.request_id_conflict(request_id)
    [stored] = notification_uploads.read(connection, [notification])
    return notification_codec.answer(stored, now)


def refuse(connection: Connection, request: Request, refusal: bytes, now: int) -> bytes | None:
    """Keep an encoded Error as the answer to a request; gives the first answer when there is one, None when there was none.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT; what it was refused for before.
    """
    answered = find_answer(connection, request.request_id, request.digest, now)
    if answered is not None or notification_requests.keep(connection, request, refusal, now):
        return answered
    return find_answer(connection, request.request_id, request.digest, now) or _answered_elsewhere(connection, request)


def _answered_elsewhere(connection: Connection, request: Request) -> bytes:
    """What another store answered to the same request just now."""
    answer = request.first_answer(connection)
    if answer is None:
        raise errors.unavailable("the first answer to this request was removed just now; send it again")
    return answer


def _settled(new: NewNotification, now: int) -> Notification:
    if new.expansion is None:
        return new.notification
    return new.notification.expanded(new.expansion.number, new.expansion.snapshot_version, now)


def _insert(connection: Connection, new: NewNotification, notification: Notification) -> None:
    notification_id = notification.notification_id
    if not notification_rows.insert(connection, notification):
        raise errors.invalid_field("notification_id", "one that no other notification has")
    notification_uploads.insert(connection, notification_id, new.spec, new.recipient_ordinals, new.excluded_ordinals)
    if new.expansion is not None:
        notification_block_rows.write_expansion(connection, notification_id, new.expansion.blocks)
    if new.predecessor is not None:
        notification_names.inherit(connection, notification_id, new.predecessor[0])
        _succeed(connection, new)
    elif notification.names_matter:
        notification_names.insert(connection, notification_id, new.names)


def _succeed(connection: Connection, new: NewNotification) -> None:
    """Let the predecessor know that it has its successor."""
    notification_id, fence = new.predecessor or ("", 0)
    before = notification_rows.lock(connection, [notification_id])
    if notification_id not in before:
        raise errors.notification_not_found(notification_id)
    predecessor = before[notification_id]
    if predecessor.series_id != new.notification.series_id or predecessor.occurrence >= new.notification.occurrence:
        raise errors.invalid_field("predecessor", "an earlier occurrence of the same series")
    if predecessor.fence != fence or not predecessor.awaits_next:
        raise errors.fenced(notification_id)
    notification_rows.save(connection, before, {notification_id: predecessor.succeeded()})
