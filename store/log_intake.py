"""From what callers say about logs to the store's values."""

from store import checks, codec
from store.model import Advance
from tidings.store.v1 import message_log_pb2 as pb


def askable(conversation_id: str) -> str:
    """No id has a NUL, and PostgreSQL couldn't even be asked for one."""
    return conversation_id.replace("\0", "?")


def advance(one: pb.MarkAdvance) -> Advance:
    """One device's marks to move.

    Raises:
        TidingsError: INVALID_FIELD.
    """
    if one.device_id:
        checks.device_id("advances.device_id", one.device_id)
    return Advance(
        askable(one.conversation_id), one.user_ordinal, one.device_id, codec.seq(one.delivered_seq), codec.seq(one.read_seq)
    )
