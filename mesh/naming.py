"""Identifiers, and who owns what.

The formats are a public contract (see conversation.proto and notification.proto in proto/tidings/common/v1). Everything here is
pure but for the functions that make new ids.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable

import uuid_utils

USER_ID = re.compile(r"[A-Za-z0-9._@+-]{1,128}")
DEVICE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_MSG_ID = re.compile(r"[\x21-\x7e]{1,64}")
CONVERSATION_ID = re.compile(r"[dg][a-z2-7]{26}")
NOTIFICATION_ID = re.compile(r"n[a-z2-7]{26}")
DEAD_LETTER_ID = re.compile(r"dl-[a-z2-7]{26}")

_ORDERED = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "234567abcdefghijklmnopqrstuvwxyz")  # digits sort before letters


def new_instance_id(service: str) -> str:
    """An id for a process just started, for example ``edge-01j9…``: ordered by time, never reused."""
    return f"{service}-{_ordered_base32(uuid_utils.uuid7().bytes)}"


def new_group_id() -> str:
    """A random group id: knowing one is no right, but it can't be guessed either."""
    return "g" + _base32(secrets.token_bytes(16))


def new_notification_id() -> str:
    """An id for a notification just uploaded: ordered by time."""
    return "n" + _ordered_base32(uuid_utils.uuid7().bytes)


def new_dead_letter_id() -> str:
    """An id for work just put aside: ordered by time."""
    return "dl-" + _ordered_base32(uuid_utils.uuid7().bytes)


def direct_conversation_id(one: str, other: str) -> str:
    """The id of the only direct conversation between two users, whichever of them asks."""
    first, second = sorted((one, other))
    # A user id cannot hold a NUL, so the pair is read back in one way only.
    return "d" + _base32(hashlib.blake2b(f"{first}\0{second}".encode(), digest_size=16).digest())


def message_id(conversation_id: str, seq: int) -> str:
    """A message's id is its place: unique, never reused, and found without an index."""
    return f"{conversation_id}:{seq}"


def parse_message_id(text: str) -> tuple[str, int]:
    """Take a message id apart.

    Raises:
        ValueError: it isn't one.
    """
    conversation_id, _, seq = text.partition(":")
    if not CONVERSATION_ID.fullmatch(conversation_id) or not seq.isascii() or not seq.isdigit() or len(seq) > 18:
        raise ValueError(f"{text!r} is not a message id: it should look like gabc…:17")
    return conversation_id, int(seq)


def owner(key: str, nodes: Iterable[str]) -> str | None:
    """The node that owns a key: highest random weight (Thaler & Ravishankar 1998). None when there are no nodes.

    When a node joins or leaves, only the keys it takes or had change owner.
    """
    return max(nodes, key=lambda node: (_weight(node, key), node), default=None)


def _weight(node: str, key: str) -> bytes:
    return hashlib.blake2b(f"{node}\0{key}".encode(), digest_size=8).digest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _ordered_base32(data: bytes) -> str:
    """The same characters, put to other values: texts of equal length sort as the bytes do."""
    return _base32(data).translate(_ORDERED)
