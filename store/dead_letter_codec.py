"""Between the store's dead letters and the contract's messages. Bounds are as in `store.checks`: a breach is a bug of a service of
ours, named, and the whole request refused; what is only for reading is cut instead."""

from google.protobuf.message import DecodeError

from mesh import errors, naming
from mesh.times import timestamp
from store import checks, codec, log_intake
from store.dead_letter import DeadLetter, Kind, further
from store.model import Advance
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1.message_log_pb2 import MarkAdvance

MAX_PAYLOAD = 64 * 1024  # bytes
_MAX_SUBJECT = 512  # characters: as a key, PostgreSQL takes 2,700 bytes
_MAX_REASON = 100  # characters
_MAX_DETAIL = 4_000  # characters
_MAX_ATTEMPTS = 1_000_000


def new_letter(message: pb.DeadLetter) -> DeadLetter:
    """A letter to keep.

    Raises:
        TidingsError: INVALID_FIELD, INVALID_CHAT_ID.
    """
    if message.kind == pb.DEAD_LETTER_KIND_DISPATCH:
        _check_dispatch(message)
    elif message.kind == pb.DEAD_LETTER_KIND_MARKS:
        mark_advance(message.payload)
    else:
        raise errors.invalid_field("dead_letters.kind", "DISPATCH or MARKS: the store itself puts notifications aside")
    if not 1 <= len(message.subject) <= _MAX_SUBJECT or "\0" in message.subject:
        raise errors.invalid_field("dead_letters.subject", f"1-{_MAX_SUBJECT} characters, none of them NUL")
    return DeadLetter(
        kind=Kind(message.kind),
        subject=message.subject,
        reason=reason(message.reason),
        detail=detail(message.detail),
        attempts=min(max(1, message.attempts), _MAX_ATTEMPTS),
        payload=message.payload,
        from_seq=codec.seq(message.from_seq),
        to_seq=codec.seq(message.to_seq),
    )


def reason(text: str) -> str:
    """A reason, as far as it can be kept."""
    return text.replace("\0", "?")[:_MAX_REASON]


def detail(text: str) -> str:
    """A failure in words, as far as it can be kept."""
    return text.replace("\0", "?")[:_MAX_DETAIL]


def message(letter: DeadLetter) -> pb.DeadLetter:
    """A letter as others see it."""
    return pb.DeadLetter(
        dead_letter_id=letter.dead_letter_id,
        kind=pb.DeadLetterKind.ValueType(letter.kind),
        subject=letter.subject,
        payload=letter.payload,
        reason=letter.reason,
        detail=letter.detail,
        attempts=min(letter.attempts, 2**32 - 1),
        create_time=timestamp(letter.created_at),
        update_time=timestamp(letter.updated_at),
        from_seq=letter.from_seq,
        to_seq=letter.to_seq,
        replaying=letter.replaying,
    )


def mark_advance(payload: bytes) -> Advance:
    """The marks in a letter.

    Raises:
        TidingsError: INVALID_FIELD.
    """
    if len(payload) > MAX_PAYLOAD:
        raise errors.invalid_field("dead_letters.payload", f"at most {MAX_PAYLOAD:,} bytes")
    try:
        return log_intake.advance(MarkAdvance.FromString(payload))
    except DecodeError:
        raise errors.invalid_field("dead_letters.payload", "an encoded MarkAdvance") from None


def united_payload(kept: DeadLetter, newer: DeadLetter) -> bytes:
    """The work of both: of marks the furthest."""
    if kept.kind is not Kind.MARKS:
        return newer.payload
    both = further(mark_advance(kept.payload), mark_advance(newer.payload))
    return MarkAdvance(
        conversation_id=both.conversation_id,
        user_ordinal=both.user_ordinal,
        device_id=both.device_id,
        delivered_seq=both.delivered_seq,
        read_seq=both.read_seq,
    ).SerializeToString()


def letter_id(text: str) -> str:
    """A letter's id; what can't be one isn't kept either."""
    return text if naming.DEAD_LETTER_ID.fullmatch(text) else ""


def page_token(text: str) -> str:
    """The id before which a page begins: the last one of the page before, or one after all ids."""
    if text and not letter_id(text):
        raise errors.invalid_field("page_token", "the token of the last page, as it was given")
    return text or "e"  # ids begin with a d


def unknown(dead_letter_id: str) -> errors.TidingsError:
    """No such letter."""
    return errors.invalid_field("dead_letter_id", f"that of a letter that is kept, not {dead_letter_id[:64]!r}")


def _check_dispatch(message: pb.DeadLetter) -> None:
    checks.conversation_id(message.subject)
    if message.payload:
        raise errors.invalid_field("dead_letters.payload", "empty: the entries are in the log")
    if not message.from_seq or (message.to_seq and message.to_seq < message.from_seq):
        raise errors.invalid_field("dead_letters.from_seq", "1 to to_seq")
