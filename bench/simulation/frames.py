"""The bytes of what goes over a link, of the real messages: what one more of a kind adds to a batch, and what a batch takes."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from bench.frames import text_of
from mesh.naming import direct_conversation_id
from router import frames
from tidings.client.v1.frames_pb2 import PRESENCE_STATE_ONLINE, Presence, Watermark
from tidings.common.v1.content_pb2 import Content, Text
from tidings.router.v1 import link_pb2 as pb

_USER, _OTHER, _DEVICE, _NAME = "user-000000017", "user-000000042", "0191e6c2a7f14c9b", "0191e6c2-a7f1-7c9b-8d3e"
_WHERE = direct_conversation_id(_USER, _OTHER)
_ORDINAL, _SEQ, _SESSION, _ENVELOPE = 123_456_789, 1_234, 4_321, 9_876_543
_MANY = 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes. Of an empty batch, and of each part in it."""

    batch: float
    append: float  # a message to be stored
    reply: float  # that it is stored
    delivery: float  # a message for one user
    mark: float  # a device has it, or read it
    receipt: float  # the sender is told so
    opening: float  # a session's two questions
    opened: float  # their two answers, nothing missed
    online: float  # a user came or went
    presence: float  # a watcher is told so


def sizes(message_bytes: int) -> Sizes:
    """Of messages with so many bytes of text."""
    content = Content(text=Text(text=text_of(message_bytes)))
    asked = pb.AppendEntry(conversation_id=_WHERE, client_msg_id=_NAME, content=content)
    presence = frames.presences(0, [Presence(user_id=_USER, state=PRESENCE_STATE_ONLINE)])
    marks = frames.receipt(_WHERE, [Watermark(user_id=_USER, delivered_seq=_SEQ, read_seq=_SEQ)])
    return Sizes(
        batch=len(pb.LinkRequest(sequence=_ENVELOPE, processed_sequence=_ENVELOPE, batch=pb.EdgeBatch()).SerializeToString()),
        append=_envelope(append_entry=asked),
        reply=_reply(pb.Reply(frame=frames.stored(7, _NAME, _WHERE, _SEQ, _now()))),
        delivery=_delivery(frames.new_message(_WHERE, _SEQ, _USER, asked, _now()), _WHERE, _SEQ),
        mark=_up(pb.EdgeBatch(receipts=[_mark()])),
        receipt=_delivery(marks, "", 0),
        opening=_envelope(open_session=pb.OpenSession(device_id=_DEVICE)) + _envelope(sync_device=pb.SyncDevice(device_id=_DEVICE)),
        opened=_reply(pb.Reply(session_opened=pb.SessionOpened(user_ordinal=_ORDINAL))) + _reply(pb.Reply(sync_page=pb.SyncPage())),
        online=_up(pb.EdgeBatch(opened_user_ordinals=[_ORDINAL])),
        presence=_delivery(presence, "", 0, _SESSION),
    )


def _envelope(**body: object) -> float:
    one = pb.ClientEnvelope(
        envelope_id=_ENVELOPE,
        session=_SESSION,
        user_ordinal=_ORDINAL,
        user_id=_USER,
        request_id=7,
        **body,  # type: ignore[arg-type]
    )
    return _up(pb.EdgeBatch(envelopes=[one]))


def _mark() -> pb.ReceiptDelta:
    return pb.ReceiptDelta(user_ordinal=_ORDINAL, user_id=_USER, device_id=_DEVICE, conversation_id=_WHERE, delivered_seq=_SEQ)


def _reply(reply: pb.Reply) -> float:
    reply.envelope_id, reply.session = _ENVELOPE, _SESSION
    return _down(pb.RouterBatch(replies=[reply]))


def _delivery(frame: bytes, where: str, seq: int, session: int = 0) -> float:
    one = pb.Delivery(user_ordinals=[_ORDINAL], traffic_class=pb.TRAFFIC_CLASS_CHAT, conversation_id=where, seq=seq, frame=frame)
    one.only_sessions.extend([session] if session else [])
    return _down(pb.RouterBatch(deliveries=[one]))


def _up(batch: pb.EdgeBatch) -> float:
    """What one part adds, in a batch that has a hundred such."""
    many = pb.EdgeBatch()
    for _ in range(_MANY):
        many.MergeFrom(batch)
    return len(many.SerializeToString()) / _MANY


def _down(batch: pb.RouterBatch) -> float:
    many = pb.RouterBatch()
    for _ in range(_MANY):
        many.MergeFrom(batch)
    return len(many.SerializeToString()) / _MANY


def _now() -> Timestamp:
    return Timestamp(seconds=1_790_000_000, nanos=123_456_000)
