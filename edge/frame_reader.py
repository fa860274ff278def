"""Takes messages out of what comes from WebSockets: aiohttp's parser, without a queue for each connection.

A parser keeps what is incomplete, and so belongs to one connection; the queue it puts messages into is emptied before anybody else
reads, so that one does for all. It must not know sessions.
"""

from aiohttp import WSCloseCode, WSMessage
from aiohttp._websocket.reader import WebSocketDataQueue  # what the parser's public constructor takes
from aiohttp.http import WebSocketError, WebSocketReader

Outcome = tuple[list[WSMessage], int | None]


class FrameReader:
    """Reads for all WebSockets of an edge, one piece of one connection at a time.

    Args:
        max_bytes: of a message; one larger is a failure.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tray = _Tray()

    def parser(self) -> WebSocketReader:
        """A new connection's."""
        most = self._max_bytes + 1  # aiohttp refuses a message of exactly this size
        return WebSocketReader(self._tray, most, compress=False, decode_text=True)

    def read(self, parser: WebSocketReader, data: bytes) -> Outcome:
        """The whole messages, control frames too, and the close code of RFC 6455 for what is wrong after them, or None.

        After a failure the parser gives nothing more.
        """
        parser.feed_data(data)
        return self._tray.take()


class _Tray(WebSocketDataQueue):
    """What parsers take for their queue. It is never full, for it is emptied after every piece."""

    def __init__(self) -> None:
        super().__init__(None, 1, loop=None)  # type: ignore[arg-type]  # it pauses nobody, and wakes nobody
        self._messages: list[WSMessage] = []
        self._failure: int | None = None

    def feed_data(self, data: WSMessage, size: int) -> None:  # type: ignore[override]
        self._messages.append(data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        self._failure = exc.code if isinstance(exc, WebSocketError) else WSCloseCode.INTERNAL_ERROR

    def take(self) -> Outcome:
        found = self._messages, self._failure
        self._messages, self._failure = [], None
        return found
