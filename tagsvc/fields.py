"""Bounds of what callers send, as the contract tells them. Each breach is INVALID_FIELD with the field's path."""

import hashlib
import re
from collections.abc import Mapping

from google.protobuf.message import Message

from mesh import errors
from mesh.naming import USER_ID
from tagset import names

MAX_DESCRIPTION = 1024  # characters; all of these are the contract's
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE = 256  # characters of a key or value
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # tab and newline may stand in a text
_REQUEST_ID = re.compile(r"[\x21-\x7e]{0,64}")
_DIGEST_BYTES = 16


def name(field: str, text: str) -> str:
    """A name that a tag, combination or alias may have."""
    fault = names.fault(text)
    if fault is not None:
        raise errors.invalid_field(field, f"{fault[1]} (character {fault[0] + 1})")
    return text


def description(text: str) -> str:
    """A text for people."""
    if len(text) > MAX_DESCRIPTION:
        raise errors.invalid_field("description", f"at most {MAX_DESCRIPTION:,} characters")
    if found := _CONTROL_IN_TEXT.search(text):
        raise errors.invalid_field("description", f"no control characters but tab and newline, not {found[0]!r}")
    return text


def attributes(values: Mapping[str, str]) -> dict[str, str]:
    """The business's own."""
    if len(values) > MAX_ATTRIBUTES:
        raise errors.invalid_field("attributes", f"at most {MAX_ATTRIBUTES}")
    if "" in values:
        raise errors.invalid_field("attributes", "keys of at least one character")
    for key, value in values.items():
        if len(key) > MAX_ATTRIBUTE or len(value) > MAX_ATTRIBUTE:
            raise errors.invalid_field("attributes", f"keys and values of at most {MAX_ATTRIBUTE} characters; see {key[:40]!r}")
        if found := _CONTROL.search(key + value):
            raise errors.invalid_field("attributes", f"no control characters, not {found[0]!r}; see {key[:40]!r}")
    return dict(values)


def room(field: str, kind: str, number: int, fresh: int, most: int) -> None:
    """So many more of a kind of names may be created."""
    if fresh and number + fresh > most:
        advice = "delete some first, or raise the setting `max_tags`"
        raise errors.invalid_field(field, f"{fresh:,} more would make more than {most:,} {kind}; there are {number:,}: {advice}")


def user_id(text: str) -> str:
    """A user's id."""
    if not USER_ID.fullmatch(text):
        raise errors.invalid_field("user_id", "1-128 characters of [A-Za-z0-9._@+-]")
    return text


def request_id(text: str) -> str:
    """A request's id; empty for none."""
    if not _REQUEST_ID.fullmatch(text):
        raise errors.invalid_field("request_id", "1-64 printable ASCII characters without spaces, or none")
    return text


def request_digest(request: Message) -> bytes:
    """Of a whole request: equal ones have equal digests, other kinds of request never."""
    hashed = hashlib.blake2b(request.DESCRIPTOR.full_name.encode(), digest_size=_DIGEST_BYTES)
    hashed.update(request.SerializeToString(deterministic=True))
    return hashed.digest()
