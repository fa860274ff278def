"""Identifiers, as proto/tidings/common/v1/{conversation,notification}.proto define them. Pure but for the two functions
that make random ids."""

import base64
import binascii
import hashlib
import json
import re
import secrets
from functools import lru_cache

USER_ID = re.compile(r"[A-Za-z0-9._@+-]{1,128}")
DEVICE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_MSG_ID = re.compile(r"[\x21-\x7e]{1,64}")
CONVERSATION_ID = re.compile(r"[dg][a-z2-7]{26}")
NOTIFICATION_ID = re.compile(r"n[a-z2-7]{26}")


def is_conversation_id(text: str) -> bool:
    """Whether the text names a conversation rather than a user."""
    return CONVERSATION_ID.fullmatch(text) is not None


@lru_cache(maxsize=4_096)  # asked for with each message sent
def direct_conversation_id(one: str, other: str) -> str:
    """The id of the only direct conversation between two users, whichever of them asks."""
    first, second = sorted((one, other))
    digest = hashlib.blake2b(f"{first}\0{second}".encode(), digest_size=16).digest()
    return "d" + base64.b32encode(digest).decode().rstrip("=").lower()


def checked_user_id(user_id: str) -> str:
    """The id, if it can be one.

    Raises:
        ValueError: it can't.
    """
    if USER_ID.fullmatch(user_id) is None:
        raise ValueError(f"{user_id!r} is neither a conversation's id nor a user's: 1-128 characters of [A-Za-z0-9._@+-]")
    return user_id


def new_device_id() -> str:
    """An id for an installation that has none yet."""
    return "python-" + secrets.token_hex(8)


def new_client_msg_id() -> str:
    """An id for a message about to be sent: 96 random bits."""
    return secrets.token_hex(12)


def subject_of(token: str) -> str:
    """The user id inside a JWT, unverified; empty when the token isn't one. Good for naming conversations before the first
    connection, never for trust."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        subject = claims["sub"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return ""
    return subject if isinstance(subject, str) and USER_ID.fullmatch(subject) else ""
