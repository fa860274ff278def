"""A client of a Tidings mesh. Begin with `Client`; README.md shows it at work."""

from tidings.common.v1.content_pb2 import Content, Custom, Text
from tidings.common.v1.conversation_pb2 import Conversation, Retention
from tidings_client.client import Client
from tidings_client.errors import (
    BusinessError,
    ClientStopped,
    NotConnected,
    OutboxFull,
    RequestFailed,
    RequestTimedOut,
    SendFailed,
    StateFileError,
    TidingsClientError,
)
from tidings_client.model import (
    ConnectionEvent,
    ConnectionState,
    ConversationEvent,
    Event,
    HistoryGapEvent,
    Kind,
    Message,
    Notification,
    PresenceEvent,
    ReceiptEvent,
    Status,
    StatusEvent,
    TypingEvent,
)
from tidings_client.naming import direct_conversation_id
from tidings_client.outgoing import Outgoing

__all__ = [
    "BusinessError",
    "Client",
    "ClientStopped",
    "ConnectionEvent",
    "ConnectionState",
    "Content",
    "Conversation",
    "ConversationEvent",
    "Custom",
    "Event",
    "HistoryGapEvent",
    "Kind",
    "Message",
    "NotConnected",
    "Notification",
    "OutboxFull",
    "Outgoing",
    "PresenceEvent",
    "ReceiptEvent",
    "RequestFailed",
    "RequestTimedOut",
    "Retention",
    "SendFailed",
    "StateFileError",
    "Status",
    "StatusEvent",
    "Text",
    "TidingsClientError",
    "TypingEvent",
    "direct_conversation_id",
]
