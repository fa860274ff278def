"""Client frames, made by hand: all but the client_msg_id of a message is the same each time, so it is encoded once.

A message is then three pieces of bytes joined; encoding it anew would take the generator ten times as long.
"""

from collections.abc import Iterable

from bench.wire import client_frame, frame_header
from tidings.client.v1 import frames_pb2
from tidings.common.v1 import content_pb2, conversation_pb2

NUMBER_DIGITS = 12  # a client_msg_id is the message's number in the run, in so many digits
_REQUEST_ID = b"\x08\x01"  # request_id = 1, for every request that awaits an answer
_SEND_MESSAGE = b"\x2a"  # field 5, length-delimited
_CLIENT_MSG_ID = b"\x0a"  # field 1, length-delimited


def text_of(size: int) -> str:
    """A text of so many bytes."""
    return ("All the news that fits the wire, " * (size // 33 + 1))[:size]


class MessageMould:
    """All messages of one sender to one conversation.

    Args:
        target: the conversation's id, or with `recipient` the other user's.
        size: bytes of text.
        recipient: address the user, so that their conversation comes into being.
    """

    def __init__(self, target: str, size: int, *, recipient: bool = False) -> None:
        content = content_pb2.Content(text=content_pb2.Text(text=text_of(size)))
        rest = frames_pb2.SendMessage(recipient_id=target, content=content) if recipient else _to(target, content)
        self._tail = rest.SerializeToString()
        body_length = 2 + NUMBER_DIGITS + len(self._tail)
        head = _REQUEST_ID + _SEND_MESSAGE + _varint(body_length) + _CLIENT_MSG_ID + bytes([NUMBER_DIGITS])
        self._head = frame_header(len(head) + NUMBER_DIGITS + len(self._tail)) + head

    def frame(self, number: int) -> bytes:
        """The WebSocket frame of message `number`."""
        return b"%b%012d%b" % (self._head, number, self._tail)


def hello(device_id: str) -> bytes:
    """The first frame."""
    return client_frame(
        frames_pb2.ClientFrame(hello=frames_pb2.Hello(device_id=device_id, client="tidings-bench")).SerializeToString()
    )


def heartbeat() -> bytes:
    """ "I am here." """
    return client_frame(frames_pb2.ClientFrame(heartbeat=frames_pb2.Heartbeat()).SerializeToString())


def acknowledge(marks: Iterable[tuple[str, int]]) -> bytes:
    """Everything up to these seqs, per conversation, is safely kept."""
    positions = [conversation_pb2.Position(conversation_id=where, seq=seq) for where, seq in marks]
    frame = frames_pb2.ClientFrame(acknowledge=frames_pb2.Acknowledge(positions=positions))
    return client_frame(frame.SerializeToString())


def fetch_after(conversation_id: str, seq: int, limit: int) -> bytes:
    """Ask for the page after `seq`."""
    fetch = frames_pb2.FetchMessages(conversation_id=conversation_id, after_seq=seq, limit=limit)
    return client_frame(frames_pb2.ClientFrame(request_id=1, fetch_messages=fetch).SerializeToString())


def _to(conversation_id: str, content: content_pb2.Content) -> frames_pb2.SendMessage:
    return frames_pb2.SendMessage(conversation_id=conversation_id, content=content)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
