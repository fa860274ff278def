"""The members of one large group: a process of its own, told what to do by JSON lines on stdin, answering by JSON lines on stdout.

    {"do": "connect", "url": …, "tokens": {user: token}}           -> {"connected": n}, each caught up
    {"do": "group", "senders": 4, "message_bytes": 120}            -> {"seconds": …}, all are in it; the first few will send
    {"do": "span", "rate": 20, "seconds": 15}                      -> a Span, with the faults so far, once all have all
    {"do": "connect_bare", "port": …, "count": n}                  -> {"connected": n}, to a bare server of `bench.fan_out`
    {"do": "await_bare", "deliveries": n, "seconds": 30}           -> {"delivered", "last"}
    end of stdin                                                   -> leaves

Each acknowledges as the SDK does. It is lean on purpose: all members are sent the same bytes, so these are decoded once.
"""

import asyncio
import gc
import itertools
import random
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import aiohttp
import uvloop
from google.protobuf import json_format

from bench import frames
from bench.commands import obey
from bench.invitations import Invitation, invite
from bench.pacing import pace
from bench.tally import Tally
from bench.wire import WireConnection, connect
from tidings.client.v1 import http_pb2
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.common.v1 import conversation_pb2

SETTLE_SECONDS = 30.0  # how long what is under way may take after the last message of a span
_AT_ONCE = 50  # connections being opened at the same time
_OPEN_SECONDS = 60.0
_HEARTBEAT_SECONDS = 15.0
_KNOWN = 1_000  # frames remembered by their bytes
_LONE_SECONDS = 0.020  # between two acknowledgements of one device, as in the SDK


class Member:
    """One connection of a member."""

    __slots__ = ("_acknowledged_at", "_connection", "_due", "_group", "caught_up", "index", "seq")

    def __init__(self, index: int, group: "Group") -> None:
        self.index = index
        self.seq = 0
        self.caught_up = asyncio.Event()
        self._group = group
        self._connection: WireConnection | None = None
        self._due: asyncio.TimerHandle | None = None
        self._acknowledged_at = 0.0

    async def open(self, url: str) -> None:
        """Connect, and wait until caught up."""
        self._connection = await connect(url, self._on_frame, self._group.on_closed)
        self.send(frames.hello("bench"))
        await self.caught_up.wait()

    def send(self, frame: bytes) -> None:
        """Send a frame made by `bench.frames`."""
        if self._connection is not None:
            self._connection.send(frame)

    def acknowledge_soon(self, within: float) -> None:
        """Acknowledge what has come by then: at a moment of one's own within the time granted, or as a lone one."""
        if self._due is None:
            loop = self._group.loop
            wait = random.random() * within if within else self._acknowledged_at + _LONE_SECONDS - loop.time()
            self._due = loop.call_later(max(0.0, wait), self._acknowledge)

    def _acknowledge(self) -> None:
        self._due, self._acknowledged_at = None, self._group.loop.time()
        self.send(self._group.acknowledgement(self.seq))

    def close(self) -> None:
        """Leave."""
        if self._due is not None:
            self._due.cancel()
        if self._connection is not None:
            self._connection.close()

    def _on_frame(self, payload: bytes) -> None:
        self._group.on_frame(self, payload)


class Group:
    """All members, and what they were given."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.conversation = ""
        self.closed = 0
        self.acknowledgements = 0
        self.receipts = 0
        self._members: list[Member] = []
        self._tokens: list[tuple[str, str]] = []
        self._api = ""
        self._tally = Tally(0)
        self._known: dict[bytes, tuple[int, int, float]] = {}  # a frame's bytes -> seq, number, seconds to acknowledge in
        self._said: tuple[int, bytes] = (0, b"")
        self._senders: itertools.cycle[Member] = itertools.cycle(())
        self._mould: frames.MessageMould | None = None
        self._created = asyncio.Event()
        self._hearing = 0

    async def connect(self, url: str, tokens: dict[str, str]) -> int:
        """Connect everybody; gives how many."""
        self._tokens, room = list(tokens.items()), asyncio.Semaphore(_AT_ONCE)
        self._members = [Member(index, self) for index in range(len(tokens))]
        self._tally = Tally(len(tokens))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:

            async def one(member: Member) -> Invitation:
                async with room, asyncio.timeout(_OPEN_SECONDS):
                    invitation = await invite(session, url, self._tokens[member.index][1])
                    await member.open(invitation.url)
                    return invitation

            self._api = (await asyncio.gather(*map(one, self._members)))[0].api_url
        return len(self._members)

    async def create(self, senders: int, message_bytes: int) -> float:
        """Make the group, and wait until everybody heard of it; gives seconds."""
        started = time.monotonic()
        others = [name for name, _ in self._tokens[1:]]
        kind = conversation_pb2.CONVERSATION_KIND_GROUP
        request = http_pb2.CreateChatRequest(request_id=self._tokens[0][0], kind=kind, member_ids=others, name="bench")
        headers = {"Authorization": f"Bearer {self._tokens[0][1]}", "Content-Type": "application/json"}
        body = json_format.MessageToJson(request, preserving_proto_field_name=True)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self._api}/api/v1/chats", data=body, headers=headers) as made,
        ):
            text = await made.text()
            if made.status != 200:
                raise ConnectionError(f"creating a group answered {made.status}: {text[:500]}")
        chat = json_format.Parse(text, http_pb2.Chat(), ignore_unknown_fields=True)
        self.conversation = chat.conversation.conversation_id
        self._mould = frames.MessageMould(self.conversation, message_bytes)
        self._senders = itertools.cycle(self._members[:senders])
        async with asyncio.timeout(_OPEN_SECONDS):
            await self._created.wait()
        seconds = time.monotonic() - started
        gc.collect()
        gc.freeze()
        gc.disable()  # the accounts only grow; collecting them would be the generator's own pauses
        return seconds

    async def span(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send at a rate for some time, wait for what is under way, give the account."""
        first, began, cpu = self._tally.sent, time.monotonic(), time.process_time()
        self.acknowledgements = self.receipts = 0
        await pace(rate, seconds, self._send)
        until = time.monotonic() + SETTLE_SECONDS
        while not self._tally.settled and time.monotonic() < until:  # noqa: ASYNC110  (an event would cost something at every frame)
            await asyncio.sleep(0.02)
        busy = (time.process_time() - cpu) / (time.monotonic() - began)
        found = asdict(self._tally.span(first, rate, seconds))
        faults = {**self._tally.faults(), "connections closed": self.closed}
        counts = {"acknowledgements": self.acknowledgements, "receipts": self.receipts}
        return {**found, **counts, "generator_cpu_share": round(busy, 3), "faults": faults}

    def on_frame(self, member: Member, payload: bytes) -> None:
        """A member was sent a frame."""
        known = self._known.get(payload) or self._read(member, payload)
        if known is None:
            return
        seq, number, within = known
        self._tally.on_given(member.index, seq, number, time.monotonic())
        member.seq = max(member.seq, seq)
        member.acknowledge_soon(within)
        if number < 0:
            self._heard_of_it()

    def acknowledgement(self, seq: int) -> bytes:
        """The frame that says so; most members say the same."""
        self.acknowledgements += 1
        if self._said[0] != seq:
            self._said = seq, frames.acknowledge([(self.conversation, seq)])
        return self._said[1]

    def on_closed(self, code: int) -> None:
        """A connection ended."""
        self.closed += 1

    async def beat(self) -> None:
        """Keep the connections alive until cancelled."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            for member in self._members:
                member.send(frames.heartbeat())

    def close(self) -> None:
        """Everyone leaves."""
        for member in self._members:
            member.close()

    def _send(self, intended: float) -> None:
        if self._mould is not None:
            number = self._tally.on_sent(intended, time.monotonic())
            next(self._senders).send(self._mould.frame(number))

    def _read(self, member: Member, payload: bytes) -> tuple[int, int, float] | None:
        frame = ServerFrame.FromString(payload)
        match frame.WhichOneof("body"):
            case "new_message":
                return self._learn(payload, frame)
            case "message_page":
                self._on_page(member, frame)
            case "message_stored":
                self._tally.on_stored(member.index, frame.message_stored.seq)
            case "receipt":
                self.receipts += 1
            case "error":
                self._tally.refused += bool(frame.error.client_msg_id)
            case "caught_up":
                member.caught_up.set()
        return None

    def _heard_of_it(self) -> None:
        self._hearing += 1
        if self._hearing == len(self._members):
            self._created.set()

    def _learn(self, payload: bytes, frame: ServerFrame) -> tuple[int, int, float]:
        entry = frame.new_message.entry
        if len(self._known) >= _KNOWN:
            del self._known[next(iter(self._known))]
        number = int(entry.client_msg_id) if entry.client_msg_id else -1
        self._known[payload] = entry.seq, number, getattr(frame.new_message, "acknowledge_within_ms", 0) / 1e3
        return self._known[payload]

    def _on_page(self, member: Member, frame: ServerFrame) -> None:
        for entry in frame.message_page.entries:
            number = int(entry.client_msg_id) if entry.client_msg_id else -1
            self._tally.on_given(member.index, entry.seq, number, time.monotonic())
            member.seq = max(member.seq, entry.seq)
        if member.seq:
            member.acknowledge_soon(0.0)


class BareMembers:
    """As many connections to a bare server: they count what comes."""

    def __init__(self) -> None:
        self._connections: list[WireConnection] = []
        self._delivered = 0
        self._last = 0.0

    async def connect(self, port: int, count: int) -> int:
        """Connect to it."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one() -> None:
            async with room:
                self._connections.append(await connect(f"ws://127.0.0.1:{port}/", self._on_frame, lambda code: None))

        await asyncio.gather(*(one() for _ in range(count)))
        return len(self._connections)

    async def awaited(self, deliveries: int, seconds: float) -> dict[str, Any]:
        """Wait until so many frames came, or time is up."""
        until = time.monotonic() + seconds
        while self._delivered < deliveries and time.monotonic() < until:  # noqa: ASYNC110  (as in Group.span)
            await asyncio.sleep(0.02)
        return {"delivered": self._delivered, "last": self._last}

    def close(self) -> None:
        """Leave."""
        for connection in self._connections:
            connection.close()

    def _on_frame(self, payload: bytes) -> None:
        self._delivered += 1
        self._last = time.time()


async def serve() -> None:
    """Carry out commands until stdin ends."""
    group, bare = Group(), BareMembers()
    beating = asyncio.create_task(group.beat())
    await obey(partial(_answer, group, bare))
    beating.cancel()
    group.close()
    bare.close()


async def _answer(group: Group, bare: BareMembers, command: dict[str, Any]) -> dict[str, Any]:
    match command.pop("do"):
        case "connect":
            return {"connected": await group.connect(**command)}
        case "group":
            return {"seconds": await group.create(**command)}
        case "span":
            return await group.span(**command)
        case "connect_bare":
            return {"connected": await bare.connect(**command)}
        case "await_bare":
            return await bare.awaited(**command)
        case other:
            raise ValueError(f"no command {other!r}")


if __name__ == "__main__":
    uvloop.run(serve())
