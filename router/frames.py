"""Encoded ServerFrames: everything a router ever says to a client, one function each.

A frame is encoded once, whoever gets it. It must not know who that is.
"""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import TidingsError
from mesh.naming import message_id
from tidings.client.v1.frames_pb2 import (
    ConversationChanged,
    MessagePage,
    MessageStored,
    Notification,
    Presence,
    PresenceUpdate,
    Receipt,
    ServerFrame,
    TypingIndicator,
    Watermark,
)
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry
from tidings.common.v1.notification_pb2 import NotificationSpec
from tidings.router.v1.link_pb2 import AppendEntry


def stored(request_id: int, client_msg_id: str, conversation_id: str, seq: int, store_time: Timestamp) -> bytes:
    """The entry is durable."""
    said = MessageStored(
        client_msg_id=client_msg_id,
        message_id=message_id(conversation_id, seq),
        conversation_id=conversation_id,
        seq=seq,
        store_time=store_time,
    )
    return ServerFrame(request_id=request_id, message_stored=said).SerializeToString()


def new_message(
    conversation_id: str, seq: int, sender_id: str, asked: AppendEntry, store_time: Timestamp, acknowledge_within_ms: int = 0
) -> bytes:
    """What was asked to be stored, as the log entry it has become. Fills the frame in place: the hot path's one encoding."""
    frame = ServerFrame()
    frame.new_message.acknowledge_within_ms = acknowledge_within_ms
    entry = frame.new_message.entry
    entry.conversation_id = conversation_id
    entry.seq = seq
    entry.message_id = message_id(conversation_id, seq)
    entry.sender_id = sender_id
    entry.client_msg_id = asked.client_msg_id
    entry.store_time.CopyFrom(store_time)
    if not asked.target_seq:
        entry.content.CopyFrom(asked.content)
    elif asked.HasField("content"):
        entry.edit.target_seq = asked.target_seq
        entry.edit.content.CopyFrom(asked.content)
    else:
        entry.deletion.target_seq = asked.target_seq
    return frame.SerializeToString()


def log_entry(entry: LogEntry, acknowledge_within_ms: int = 0) -> bytes:
    """An entry read from the log."""
    frame = ServerFrame()
    frame.new_message.acknowledge_within_ms = acknowledge_within_ms
    frame.new_message.entry.CopyFrom(entry)
    return frame.SerializeToString()


def page(request_id: int, said: MessagePage) -> bytes:
    """A run of log entries."""
    return ServerFrame(request_id=request_id, message_page=said).SerializeToString()


def receipt(conversation_id: str, watermarks: Iterable[Watermark]) -> bytes:
    """Marks that moved."""
    said = Receipt(conversation_id=conversation_id, watermarks=watermarks)
    return ServerFrame(receipt=said).SerializeToString()


def typing(conversation_id: str, user_id: str, *, is_typing: bool) -> bytes:
    """Someone started or stopped typing."""
    said = TypingIndicator(conversation_id=conversation_id, user_id=user_id, typing=is_typing)
    return ServerFrame(typing_indicator=said).SerializeToString()


def presences(request_id: int, said: Iterable[Presence]) -> bytes:
    """Presences now."""
    return ServerFrame(request_id=request_id, presence_update=PresenceUpdate(presences=said)).SerializeToString()


def conversation_changed(conversation: Conversation, *, members: bool = True) -> bytes:
    """The conversation as it is now, with or without its members."""
    shown = for_client(conversation)
    if not members:
        shown.ClearField("members")
    said = ConversationChanged(conversation=shown)
    return ServerFrame(conversation_changed=said).SerializeToString()


def conversation_removed(conversation_id: str) -> bytes:
    """The conversation is no longer this user's."""
    said = ConversationChanged(conversation=Conversation(conversation_id=conversation_id), removed=True)
    return ServerFrame(conversation_changed=said).SerializeToString()


def notification(notification_id: str, spec: NotificationSpec) -> bytes:
    """A message of the business."""
    said = Notification(
        notification_id=notification_id,
        type=spec.type or "notification",
        content=spec.content,
        priority=spec.priority,
        send_time=spec.send_time,
        expire_time=spec.expire_time,
    )
    return ServerFrame(notification=said).SerializeToString()


def error(request_id: int, failure: TidingsError, client_msg_id: str = "") -> bytes:
    """The request failed."""
    return ServerFrame(request_id=request_id, error=failure.to_frame(client_msg_id)).SerializeToString()


def for_client(conversation: Conversation) -> Conversation:
    """A copy without what is internal: the members' ordinals."""
    copy = Conversation()
    copy.CopyFrom(conversation)
    for member in copy.members:
        member.ClearField("user_ordinal")
    return copy
