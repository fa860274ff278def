"""Client frames, checked and turned into what routers understand. Pure functions; each raises the named error of what is wrong.

Whether a conversation exists and who is in it is the routers' business: here only forms and sizes are checked.
"""

import functools
from collections.abc import Collection, Iterable

from edge.rules import Rules
from mesh import errors, naming
from tidings.client.v1 import frames_pb2
from tidings.common.v1.content_pb2 import Content
from tidings.common.v1.conversation_pb2 import Position
from tidings.router.v1 import link_pb2

MAX_POSITIONS = 1_000  # in one frame; see frames.proto
MAX_NOTIFICATIONS = 1_000  # likewise
MAX_SEQ = 2**63 - 1  # what the store can number
MAX_CLIENT_NAME = 128  # characters
MAX_TYPE_NAME = 128  # characters
DEFAULT_PAGE = 100  # entries of a page when the client names none

REMEMBERED_PAIRS = 65_536  # about 20 MB; deriving an id costs as much as all the other checks of a send together

_direct_id = functools.lru_cache(REMEMBERED_PAIRS)(naming.direct_conversation_id)
_CONVERSATION = naming.CONVERSATION_ID.fullmatch
_NOTIFICATION = naming.NOTIFICATION_ID.fullmatch
_USER = naming.USER_ID.fullmatch
_CLIENT_MSG = naming.CLIENT_MSG_ID.fullmatch


def check_hello(hello: frames_pb2.Hello) -> None:
    """Refuse a Hello with a field out of bounds."""
    if not naming.DEVICE_ID.fullmatch(hello.device_id):
        raise errors.invalid_field("hello.device_id", "give 1-64 characters of [A-Za-z0-9._-], the same at every start")
    if len(hello.client) > MAX_CLIENT_NAME:
        raise errors.invalid_field("hello.client", f"give at most {MAX_CLIENT_NAME} characters")
    positions(hello.resume, "hello.resume")


def positions(given: Iterable[Position], field: str) -> dict[str, int]:
    """Conversation -> seq of a list of positions."""
    found: dict[str, int] = {}
    for count, position in enumerate(given, 1):
        if count > MAX_POSITIONS:
            raise errors.invalid_field(field, f"give at most {MAX_POSITIONS} positions a frame")
        _check_position(position.conversation_id, position.seq, field)
        found[position.conversation_id] = max(position.seq, found.get(position.conversation_id, 0))
    return found


def mark_read(mark: frames_pb2.MarkRead) -> tuple[str, int]:
    """Conversation and seq of a read mark."""
    _check_position(mark.conversation_id, mark.seq, "mark_read.seq")
    return mark.conversation_id, mark.seq


def send(message: frames_pb2.SendMessage, user_id: str, rules: Rules) -> link_pb2.ClientEnvelope:
    """An envelope that stores a message."""
    _check_client_msg_id(message.client_msg_id, "send_message.client_msg_id")
    _check_content(message.content, "send_message.content", rules)
    envelope = link_pb2.ClientEnvelope()
    append = envelope.append_entry
    if message.conversation_id:
        append.conversation_id = conversation(message.conversation_id)
    elif message.WhichOneof("target") == "recipient_id":
        append.conversation_id = direct(user_id, message.recipient_id)
        append.recipient_id = message.recipient_id
    else:
        raise errors.invalid_field("send_message.conversation_id", "name a conversation_id or a recipient_id")
    append.client_msg_id = message.client_msg_id
    append.content.CopyFrom(message.content)
    return envelope


def edit(message: frames_pb2.EditMessage, rules: Rules) -> link_pb2.ClientEnvelope:
    """An envelope that stores an edit."""
    _check_client_msg_id(message.client_msg_id, "edit_message.client_msg_id")
    _check_content(message.content, "edit_message.content", rules)
    envelope = _change(message.client_msg_id, message.conversation_id, message.target_seq, "edit_message.target_seq")
    envelope.append_entry.content.CopyFrom(message.content)
    return envelope


def delete(message: frames_pb2.DeleteMessage) -> link_pb2.ClientEnvelope:
    """An envelope that stores a deletion."""
    _check_client_msg_id(message.client_msg_id, "delete_message.client_msg_id")
    return _change(message.client_msg_id, message.conversation_id, message.target_seq, "delete_message.target_seq")


def typing(conversation_id: str, *, started: bool) -> link_pb2.ClientEnvelope:
    """An envelope that tells a typing state."""
    return link_pb2.ClientEnvelope(typing=link_pb2.Typing(conversation_id=conversation(conversation_id), typing=started))


def fetch(frame: frames_pb2.FetchMessages, rules: Rules) -> link_pb2.ClientEnvelope:
    """An envelope that asks for a page of history."""
    if frame.limit > rules.max_page_entries:
        raise errors.invalid_field("fetch_messages.limit", f"ask for at most {rules.max_page_entries} entries")
    entries = link_pb2.FetchEntries(
        conversation_id=conversation(frame.conversation_id), limit=frame.limit or min(DEFAULT_PAGE, rules.max_page_entries)
    )
    position = frame.WhichOneof("position")
    if position == "after_seq":
        entries.after_seq = _seq(frame.after_seq, "fetch_messages.after_seq")
    elif position == "before_seq":
        entries.before_seq = _seq(frame.before_seq, "fetch_messages.before_seq")
    return link_pb2.ClientEnvelope(fetch_entries=entries)


def watched(user_ids: Iterable[str], field: str) -> list[str]:
    """Users to watch, each checked."""
    found = list(user_ids)
    for user_id in found:
        if not _USER(user_id):
            raise errors.invalid_field(field, "each is 1-128 characters of [A-Za-z0-9._@+-]")
    return found


def notifications(notification_ids: Collection[str], field: str) -> Collection[str]:
    """Ids of notifications, each checked."""
    if len(notification_ids) > MAX_NOTIFICATIONS:
        raise errors.invalid_field(field, f"give at most {MAX_NOTIFICATIONS} notifications a frame")
    if not all(map(_NOTIFICATION, notification_ids)):
        raise errors.invalid_field(field, 'each is "n" followed by 26 characters of [a-z2-7], as the notification named itself')
    return notification_ids


def conversation(conversation_id: str) -> str:
    """A conversation id of the right form."""
    if not _CONVERSATION(conversation_id):
        raise errors.invalid_chat_id(conversation_id[:64])
    return conversation_id


def direct(user_id: str, recipient_id: str) -> str:
    """The id of a user's direct conversation with another."""
    if recipient_id == user_id or not _USER(recipient_id):
        raise errors.invalid_recipient(recipient_id[:128])
    return _direct_id(user_id, recipient_id)


def _change(client_msg_id: str, conversation_id: str, target_seq: int, field: str) -> link_pb2.ClientEnvelope:
    if target_seq == 0:
        raise errors.invalid_field(field, "name the seq of a message, 1 or more")
    append = link_pb2.AppendEntry(
        conversation_id=conversation(conversation_id), client_msg_id=client_msg_id, target_seq=_seq(target_seq, field)
    )
    return link_pb2.ClientEnvelope(append_entry=append)


def _check_client_msg_id(client_msg_id: str, field: str) -> None:
    if not _CLIENT_MSG(client_msg_id):
        raise errors.invalid_field(field, "give 1-64 printable ASCII characters, new for each message")


def _check_content(content: Content, field: str, rules: Rules) -> None:
    size = content.ByteSize()
    if size > rules.max_content_bytes:
        raise errors.content_too_large(size, rules.max_content_bytes)
    body = content.WhichOneof("body")
    if body == "text":
        if not content.text.text:
            raise errors.invalid_field(f"{field}.text.text", "say something: the text is empty")
    elif body == "custom":
        if not 0 < len(content.custom.type) <= MAX_TYPE_NAME:
            raise errors.invalid_field(f"{field}.custom.type", f"give 1-{MAX_TYPE_NAME} characters")
    elif size == 0:  # an arm newer than this edge has a size, and passes
        raise errors.invalid_field(field, "set exactly one arm")


def _check_position(conversation_id: str, seq: int, field: str) -> None:
    conversation(conversation_id)
    _seq(seq, field)


def _seq(seq: int, field: str) -> int:
    if seq > MAX_SEQ:
        raise errors.invalid_field(field, f"a seq is at most {MAX_SEQ}")
    return seq
