"""The two subprotocols: what a frame looks like on the wire. Server frames come encoded from the routers and stay as they are
for binary clients; for JSON clients each distinct frame is converted once a batch, however many they are, and the frame of a
broadcast once for all of its batches."""

import json
from collections import deque
from typing import Any, Protocol, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1.error_pb2 import ErrorCode

M = TypeVar("M", bound=Message)
TEXT, BINARY = 1, 2  # opcodes, RFC 6455 section 5.2
MAX_VALUES = 20_000  # in one JSON text; each costs a few microseconds of everybody's event loop, whoever sent it


class UndecodableError(Exception):
    """These bytes are not a frame of the subprotocol."""


class Encoding(Protocol):
    """One subprotocol."""

    name: str
    opcode: int

    def decode(self, message: bytes | str) -> ClientFrame:
        """A client's frame.

        Raises:
            UndecodableError: text where binary was agreed, or the other way round, or garbage.
        """

    def encode(self, frame: bytes) -> bytes:
        """What is sent for an encoded ServerFrame."""


class BinaryEncoding:
    """tidings.v1.proto: a binary message is an encoded frame."""

    name = "tidings.v1.proto"
    opcode = BINARY

    def decode(self, message: bytes | str) -> ClientFrame:
        """See Encoding."""
        if isinstance(message, str):
            raise UndecodableError("text came where binary was agreed")
        try:
            return ClientFrame.FromString(message)
        except DecodeError as error:
            raise UndecodableError("these bytes are not a frame") from error

    def encode(self, frame: bytes) -> bytes:
        """See Encoding."""
        return frame


class JsonEncoding:
    """tidings.v1.json: a text message is a frame in protobuf's JSON mapping, with the proto's field names."""

    name = "tidings.v1.json"
    opcode = TEXT

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}
        self._held = b""

    def decode(self, message: bytes | str) -> ClientFrame:
        """See Encoding."""
        if not isinstance(message, str):
            raise UndecodableError("binary came where text was agreed")
        return from_json(message, ClientFrame())

    def encode(self, frame: bytes) -> bytes:
        """See Encoding."""
        text = self._texts.get(frame)
        if text is None:
            text = self._texts[frame] = to_json(ServerFrame.FromString(frame)).encode()
        return text

    def hold(self, frame: bytes) -> None:
        """Batches to come will have this frame again: don't forget its text until another is held."""
        self._held = frame

    def forget(self) -> None:
        """The batch is over: its texts are not needed again."""
        if self._texts:
            text = self._texts.get(self._held)
            self._texts.clear()
            if text is not None:
                self._texts[self._held] = text


def from_json(text: str | bytes, into: M) -> M:
    """Parse protobuf's JSON mapping; unknown fields are skipped, as in binary.

    Raises:
        UndecodableError: it is not JSON, or does not fit the message.
    """
    try:
        parsed = json.loads(text)
        if not isinstance(parsed, dict):
            raise UndecodableError("a frame is a JSON object")
        _check_values(parsed)
        return json_format.ParseDict(parsed, into, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise UndecodableError(f"this is not a frame in JSON: {str(error)[:200]}") from error


def to_json(message: Message) -> str:
    """Protobuf's JSON mapping with proto field names, in one line; error codes are numbers, as in close frames."""
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    _number_codes(fields)
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def _check_values(parsed: dict[str, Any]) -> None:
    """Refuse what would take long to turn into a message, before it does."""
    count, waiting = 0, deque[Any]([parsed])
    while waiting:
        value = waiting.pop()
        inside = value.values() if isinstance(value, dict) else value
        count += len(inside)
        if count > MAX_VALUES:
            raise UndecodableError(f"more than {MAX_VALUES} values are too many for one text")
        waiting.extend(one for one in inside if isinstance(one, dict | list))


def _number_codes(fields: dict[str, Any]) -> None:
    """Turn the error codes of an Error, of a frame, or of the frames of a poll's answer into their numbers."""
    code = fields.get("code")
    if isinstance(code, str) and code.startswith("ERROR_CODE_"):
        fields["code"] = ErrorCode.Value(code)
    for name in ("error", "go_away"):
        if name in fields:
            _number_codes(fields[name])
    for frame in fields.get("frames", ()):
        _number_codes(frame)
