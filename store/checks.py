"""Bounds of what callers send. Callers are services of ours, so a breach is a bug there: it is named, and the whole request
refused."""

from collections.abc import Sized
from re import Pattern

from mesh import errors, naming
from store.model import Draft, Refusal

MAX_LIST = 1_000  # items in any list of a request
MAX_NAME = 128  # characters of a group's name
_MAX_REQUEST_ID = 64
MAX_ORDINAL = 2**31 - 1


def listed(field: str, items: Sized) -> None:
    """A list is short enough.

    Raises:
        TidingsError: INVALID_FIELD, as all in this module.
    """
    if len(items) > MAX_LIST:
        raise errors.invalid_field(field, f"at most {MAX_LIST:,} items")


def page_size(number: int) -> int:
    """A page size within bounds."""
    if not 1 <= number <= MAX_LIST:
        raise errors.invalid_field("page_size", f"1 to {MAX_LIST:,}")
    return number


def user_id(field: str, text: str) -> str:
    """A user id."""
    return _matching(field, text, naming.USER_ID, "1-128 characters of [A-Za-z0-9._@+-]")


def is_user_id(text: str) -> bool:
    """Whether it could be one."""
    return naming.USER_ID.fullmatch(text) is not None


def device_id(field: str, text: str) -> str:
    """A device id."""
    return _matching(field, text, naming.DEVICE_ID, "1-64 characters of [A-Za-z0-9._-]")


def group_name(text: str) -> str:
    """A group's name."""
    if not 1 <= len(text) <= MAX_NAME or "\0" in text:
        raise errors.invalid_field("name", f"1-{MAX_NAME} characters, none of them NUL")
    return text


def request_id(text: str) -> str:
    """A request id."""
    if not 1 <= len(text) <= _MAX_REQUEST_ID or "\0" in text:
        raise errors.invalid_field("request_id", f"1-{_MAX_REQUEST_ID} characters, none of them NUL")
    return text


def conversation_id(text: str) -> str:
    """A conversation id.

    Raises:
        TidingsError: INVALID_CHAT_ID.
    """
    if not naming.CONVERSATION_ID.fullmatch(text):
        raise errors.invalid_chat_id(text)
    return text


def conversation_token(text: str) -> str:
    """A page token that is the last conversation's id; empty on the first page."""
    return _matching("page_token", text, naming.CONVERSATION_ID, "the token of the last page, as it was given") if text else ""


def draft_refusal(draft: Draft) -> Refusal:
    """Why an entry can't even be tried; one bad entry doesn't spoil its batch."""
    if not naming.CONVERSATION_ID.fullmatch(draft.conversation_id):
        return Refusal.INVALID_CHAT_ID
    if not naming.CLIENT_MSG_ID.fullmatch(draft.client_msg_id) or (draft.target_seq == 0 and draft.body is None):
        return Refusal.INVALID_FIELD
    return Refusal.NONE


def _matching(field: str, text: str, pattern: Pattern[str], allowed: str) -> str:
    if not pattern.fullmatch(text):
        raise errors.invalid_field(field, allowed)
    return text
