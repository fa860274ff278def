"""What makes a request the same as an earlier one. Pure."""

import hashlib
from dataclasses import dataclass

from google.protobuf.message import Message

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The id that a business gave a request, and a digest of all of it."""

    request_id: str
    digest: bytes


def request_key(request_id: str, request: Message) -> RequestKey:
    """The key of a request: another body, or another method's request, has another digest."""
    named = request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return RequestKey(request_id, digest(named))


def digest(data: bytes) -> bytes:
    """A digest as the store takes it."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
