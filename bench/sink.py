"""A mesh that does nothing: it lets generators in, answers and passes on what they send, and keeps none of it.

Against it a generator shows what it could drive, and that it isn't what a bench measured. As a process (`python -m bench.sink`) it
prints its port; for each line on stdin, "name bytes", it sends a notification of that name to all who are connected. A token is
taken for the user's id, and a ticket too.
"""

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvloop

from bench.frames import text_of
from bench.sink_wire import Connection, Write, server_frame
from mesh.naming import direct_conversation_id
from tidings.client.v1.frames_pb2 import (
    CaughtUp,
    ClientFrame,
    MessageStored,
    NewMessage,
    Notification,
    Receipt,
    SendMessage,
    ServerFrame,
    Watermark,
    Welcome,
)
from tidings.common.v1.content_pb2 import Content, Text
from tidings.common.v1.conversation_pb2 import LogEntry

_RECEIPTED = 3  # receipts that follow an entry, for a mesh would gather those of the others; and none in crowds
_CROWD = 100  # members above which it does as a mesh that is pressed: a crowd is told together, and given time to acknowledge
_TOGETHER_SECONDS, _ACKNOWLEDGE_MS = 0.1, 2_500


@dataclass(slots=True, eq=False)
class User:
    """One of them, connected or not."""

    name: str
    write: Write | None = None
    chats: list["Chat"] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)

    def send(self, message: bytes) -> None:
        """Send a message framed by `server_frame`, if connected."""
        if self.write is not None:
            self.write(message)


@dataclass(slots=True)
class Chat:
    """Who is in it, and the last entry, for who was away."""

    name: str
    members: list[User]
    seq: int = 0
    last: bytes = b""
    receipted: int = 0
    waiting: list[tuple["User | None", bytes]] = field(default_factory=list)

    @property
    def crowd(self) -> bool:
        """Whether it is a large one."""
        return len(self.members) > _CROWD

    def tell(self) -> None:
        """Give everybody what waits, in one write, but to nobody what is their own."""
        waiting, self.waiting = self.waiting, []
        senders, everything = [one for one, _ in waiting], b"".join(entry for _, entry in waiting)
        for member in self.members:
            own = member in senders
            member.send(b"".join(entry for sender, entry in waiting if sender is not member) if own else everything)


class Sink:
    """All of them."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self._chats: dict[str, Chat] = {}
        self._welcome = server_frame(ServerFrame(welcome=Welcome()))
        self._caught_up = server_frame(ServerFrame(caught_up=CaughtUp()))

    def user(self, name: str) -> User:
        """By name."""
        return self.users.setdefault(name, User(name))

    def found(self, names: list[str]) -> Chat:
        """A chat of these users, who hear of it."""
        name = f"g{len(self._chats)}" if len(names) != 2 else direct_conversation_id(*names)
        chat = self._chats[name] = Chat(name, [self.user(one) for one in names])
        for member in chat.members:
            member.chats.append(chat)
        return chat

    def append(self, chat: Chat, sender: User | None, client_msg_id: str, content: Content) -> int:
        """Give an entry to all but its sender; gives its seq."""
        chat.seq, chat.receipted = chat.seq + 1, 0
        entry = LogEntry(conversation_id=chat.name, seq=chat.seq, client_msg_id=client_msg_id, content=content)
        within = _ACKNOWLEDGE_MS if chat.crowd else 0
        chat.last = server_frame(ServerFrame(new_message=NewMessage(entry=entry, acknowledge_within_ms=within)))
        chat.waiting.append((sender, chat.last))
        if not chat.crowd:
            chat.tell()
        elif len(chat.waiting) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, chat.tell)
        return chat.seq

    def post(self, path: str, user: str, body: bytes) -> dict[str, object]:
        """Answer an HTTP request."""
        if path == "/v1/connect":
            return {"ticket": user}
        said, parts = json.loads(body), path.split("/")
        if path == "/api/v1/chats":
            chat = self.found([user, *said["member_ids"]])
            self.append(chat, None, "", Content())
            return {"conversation": {"conversation_id": chat.name}}
        self.append(self._chats[parts[4]], None, "", Content(text=Text(text=said["content"]["text"]["text"])))
        return {}

    def join(self, user: str, write: Write) -> None:
        """A user's connection is open."""
        self.user(user).write = write

    def leave(self, user: str, write: Write) -> None:
        """It ended, which says nothing about the next one."""
        if self.user(user).write == write:
            self.user(user).write = None

    def on_frame(self, user: str, payload: bytes) -> None:
        """Answer a frame."""
        who, frame = self.users[user], ClientFrame.FromString(payload)
        match frame.WhichOneof("body"):
            case "hello":
                self._open(who)
            case "send_message":
                self._send(who, frame.send_message)
            case "acknowledge":
                for position in frame.acknowledge.positions:
                    self._acknowledge(who, position.conversation_id, position.seq)

    def notify(self, name: str, size: int) -> None:
        """Send a notification to all who are connected."""
        content = Content(text=Text(text=text_of(size)))
        message = server_frame(ServerFrame(notification=Notification(notification_id=name, content=content)))
        for user in self.users.values():
            user.send(message)

    def _open(self, user: User) -> None:
        missed = [chat.last for chat in user.chats if chat.seq > user.acknowledged.get(chat.name, 0)]
        user.send(b"".join([self._welcome, *missed, self._caught_up]))

    def _send(self, user: User, sent: SendMessage) -> None:
        name = sent.conversation_id or direct_conversation_id(user.name, sent.recipient_id)
        chat = self._chats.get(name) or self.found([user.name, sent.recipient_id])
        seq = self.append(chat, user, sent.client_msg_id, sent.content)
        stored = MessageStored(client_msg_id=sent.client_msg_id, conversation_id=name, seq=seq)
        user.send(server_frame(ServerFrame(request_id=1, message_stored=stored)))

    def _acknowledge(self, user: User, name: str, seq: int) -> None:
        user.acknowledged[name], chat = seq, self._chats.get(name)
        if chat is None:  # some acknowledge what made a group before they know its name
            return
        if chat.crowd or chat.receipted == _RECEIPTED:
            return
        chat.receipted += 1
        mark = Watermark(user_id=user.name, delivered_seq=seq)
        message = server_frame(ServerFrame(receipt=Receipt(conversation_id=name, watermarks=[mark])))
        for member in chat.members:
            if member is not user:
                member.send(message)


@contextmanager
def sink() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process of it, and its URL."""
    command = [sys.executable, "-m", "bench.sink"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield process, f"http://127.0.0.1:{int(line)}"
    finally:
        process.terminate()
        process.wait()


async def _serve() -> None:
    served = Sink()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(served), "127.0.0.1", 0, backlog=4096)
    gc.disable()  # it leaves soon, and its pauses would be taken for the generator's
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, size = line.split()
        served.notify(name, int(size))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())
