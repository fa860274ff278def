"""Page tokens: opaque to callers, and of use only for the list they came from.

A page of people is told by the snapshot, by how many clients were known when the first page was read, and by the last ordinal
given; a page of names by the last name given.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from mesh import errors

_DIGEST_BYTES = 8
_PEOPLE = struct.Struct(">QII8s")


@dataclass(frozen=True, slots=True)
class PeopleToken:
    """Where the next page of people begins.

    Attributes:
        version: the snapshot's.
        known: highest user ordinal there was.
        after: last ordinal given.
    """

    version: int
    known: int
    after: int


def people_token(token: PeopleToken, listed: str) -> str:
    """Write a token for a list, which `listed` names: the kind of list and what it was asked for."""
    return _write(_PEOPLE.pack(token.version, token.known, token.after, _digest(listed)))


def read_people_token(text: str, listed: str) -> PeopleToken:
    """Read a token.

    Raises:
        TidingsError: INVALID_FIELD when it isn't one, or is another list's.
    """
    data = _read(text)
    if len(data) != _PEOPLE.size:
        raise _invalid()
    version, known, after, digest = _PEOPLE.unpack(data)
    if digest != _digest(listed):
        raise errors.invalid_field("page_token", "the token of the last page of this very list, not of another")
    return PeopleToken(version, known, after)


def name_token(name: str, listed: str) -> str:
    """Write a token for a list of names."""
    return _write(_digest(listed) + name.encode())


def read_name_token(text: str, listed: str) -> str:
    """The last name given; empty for the first page, whose token is empty.

    Raises:
        TidingsError: as `read_people_token`.
    """
    if not text:
        return ""
    data = _read(text)
    if data[:_DIGEST_BYTES] != _digest(listed):
        raise errors.invalid_field("page_token", "the token of the last page of this very list, not of another")
    try:
        return data[_DIGEST_BYTES:].decode()
    except UnicodeDecodeError:
        raise _invalid() from None


def page_size(asked: int, default: int, limit: int) -> int:
    """How many to give.

    Raises:
        TidingsError: INVALID_FIELD when more than `limit` are asked for.
    """
    if asked > limit:
        raise errors.invalid_field("page_size", f"0 for {default:,}, or 1 to {limit:,}")
    return asked or default


def _digest(listed: str) -> bytes:
    return hashlib.blake2b(listed.encode(), digest_size=_DIGEST_BYTES).digest()


def _write(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise _invalid() from None


def _invalid() -> errors.TidingsError:
    return errors.invalid_field("page_token", "the token of the last page, as it was given")
