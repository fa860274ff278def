"""Clients that all lose their connections and come back: a process of its own, told what to do by JSON lines on stdin, answering by
JSON lines on stdout.

    {"do": "connect", "url": …, "tokens": {user: token}, "group": 100}   -> {"connected": n}, each caught up and in a group
    {"do": "drop"}                   all lose their connections; a message is written in each group               -> {"dropped": n}
    {"do": "return", "rate": 1000}   attempts to come back are due at this rate                                   -> an Account
    {"do": "return", "at_once": 100} so many come back at a time, as fast as it goes                              -> an Account
    {"do": "return", "within": 0.5}  each waits at random up to so many seconds, as the SDK does first            -> an Account
    {"do": "return", "straight": true, …}   with any of these: to their edge, with their token, as the SDK does; only who is not
                                            taken there asks a balancer. Otherwise each asks one for a place and a ticket.
    {"do": "bare", "port": …, "count": n, "at_once": 100}   handshakes only, with a bare server                   -> {"seconds": …}
    end of stdin                                                   -> leaves

Who is back must have been sent exactly what was written meanwhile before CaughtUp.
"""

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import uvloop
from google.protobuf import json_format

from bench import frames
from bench.commands import Answer, obey
from bench.latency import Latency, summarize
from bench.pacing import pace
from bench.tickets import NoTicketError, ticket
from bench.wire import HandshakeRefusedError, WireConnection, client_frame, connect
from tidings.client.v1 import http_pb2
from tidings.client.v1.frames_pb2 import ClientFrame, Hello, ServerFrame
from tidings.common.v1 import content_pb2, conversation_pb2

DEVICE = "bench"
_AT_ONCE = 50  # connections being opened at the same time, at first
_ATTEMPT_SECONDS = 20.0  # until an attempt counts as failed
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds after a failed attempt, doubling, at random below: as the SDK does
_LEAVING_SECONDS = 0.001  # for each session, until the mesh has noticed that it is gone
_CALM_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
_FAILURES = (OSError, TimeoutError, NoTicketError, HandshakeRefusedError)


@dataclass(slots=True)
class Account:
    """How a return went. Times are seconds, or milliseconds in a Latency."""

    sessions: int = 0
    attempts: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0  # from the first attempt until the last was caught up
    latency: Latency = field(default_factory=lambda: summarize(()))  # from when an attempt was due until caught up
    lateness: Latency = field(default_factory=lambda: summarize(()))  # the generator's own
    turned_away: int = 0  # of those who came straight: who had to ask a balancer after all
    missed: int = 0  # entries written meanwhile that did not come before CaughtUp
    repeated: int = 0  # entries sent that the device had
    due_by_second: list[int] = field(default_factory=list)
    returned_by_second: list[int] = field(default_factory=list)
    generator_cpu_share: float = 0.0


class Returner:
    """One device of one user, and where it has come in its group's log."""

    __slots__ = ("_caught_up", "_connection", "_edge", "_wait", "repeated", "seq", "token", "told", "turned_away", "user_id")

    def __init__(self, user_id: str, token: str) -> None:
        self.user_id = user_id
        self.token = token
        self.seq = 0
        self.told = 0
        self.repeated = 0
        self.turned_away = 0
        self._edge = ""  # where the last session was
        self._connection: WireConnection | None = None
        self._caught_up: asyncio.Future[None] | None = None
        self._wait = _FIRST_WAIT

    async def open(self, url: str, conversation: str, *, straight: bool = False) -> None:
        """Connect, resume, and wait until caught up."""
        async with asyncio.timeout(_ATTEMPT_SECONDS):
            connection = (await self._straight() if straight else None) or await self._placed(url)
            self._connection, self._caught_up = connection, asyncio.get_running_loop().create_future()
            connection.send(self._hello(conversation))
            await self._caught_up

    async def _straight(self) -> WireConnection | None:
        """A connection to the edge of the last session; None when it would not have us."""
        try:
            return await connect(self._edge, self._on_frame, self._on_close, token=self.token)
        except (OSError, HandshakeRefusedError):
            self.turned_away += 1
            return None

    async def _placed(self, url: str) -> WireConnection:
        """A connection to where a balancer has a place."""
        address = await ticket(url, self.token)
        self._edge = address.partition("?")[0]
        return await connect(address, self._on_frame, self._on_close)

    def drop(self) -> None:
        """Lose the connection, without a word."""
        self._caught_up = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def backoff(self) -> float:
        """Seconds until the next attempt after one that failed."""
        wait, self._wait = random.random() * self._wait, min(2 * self._wait, _LONGEST_WAIT)
        return wait

    def beat(self) -> None:
        """Stay connected."""
        if self._connection is not None:
            self._connection.send(frames.heartbeat())

    def _hello(self, conversation: str) -> bytes:
        """As the SDK's: naming what has moved since the last one."""
        resume = [conversation_pb2.Position(conversation_id=conversation, seq=self.seq)] if self.seq != self.told else []
        self.told = self.seq
        return client_frame(ClientFrame(hello=Hello(device_id=DEVICE, resume=resume, client="tidings-bench")).SerializeToString())

    def _on_frame(self, payload: bytes) -> None:
        frame = ServerFrame.FromString(payload)
        match frame.WhichOneof("body"):
            case "caught_up":
                if self._caught_up is not None and not self._caught_up.done():
                    self._caught_up.set_result(None)
            case "new_message":
                self._take([frame.new_message.entry])
            case "message_page":
                self._take(frame.message_page.entries)

    def _take(self, entries: Iterable[conversation_pb2.LogEntry]) -> None:
        for entry in entries:
            if entry.seq > self.seq:
                self.seq = entry.seq
            else:
                self.repeated += 1
            if self._connection is not None:
                self._connection.send(frames.acknowledge([(entry.conversation_id, self.seq)]))

    def _on_close(self, code: int) -> None:
        if self._caught_up is not None and not self._caught_up.done():
            self._caught_up.set_exception(ConnectionError(f"closed with {code}"))


@dataclass(slots=True)
class Group:
    """Some of them, and one who stays and writes.

    Attributes:
        last_seq: of its log.
    """

    members: list[Returner]
    conversation: str = ""
    last_seq: int = 1  # its creation


class Returners:
    """All of them.

    Args:
        url: the balancer's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._groups: list[Group] = []
        self._api = ""
        self._number = 0

    async def connect(self, tokens: dict[str, str], group: int) -> int:
        """Connect everybody, and put them into groups."""
        everyone = [Returner(*one) for one in tokens.items()]
        self._groups = [Group(everyone[start : start + group]) for start in range(0, len(everyone), group)]
        await _each(everyone, _AT_ONCE, lambda one: one.open(self._url, ""))
        self._api = "http" + (await ticket(self._url, everyone[0].token)).removeprefix("ws").partition("/v1/ws")[0]
        async with aiohttp.ClientSession() as http:
            for one in self._groups:
                await self._found(http, one)
        await self._until(lambda: all(member.seq >= one.last_seq for one in self._groups for member in one.members))
        gc.collect()
        gc.freeze()
        return len(everyone)

    async def drop(self) -> int:
        """All lose their connections at once; gives how many."""
        everyone = [member for one in self._groups for member in one.members]
        for member in everyone:
            member.drop()
        await asyncio.sleep(_CALM_SECONDS + _LEAVING_SECONDS * len(everyone))
        async with aiohttp.ClientSession() as http:
            for one in self._groups:
                await self._write(http, one)
        await asyncio.sleep(_CALM_SECONDS)
        return len(everyone)

    async def come_back(self, rate: float = 0.0, at_once: int = 0, within: float = 0.0, straight: bool = False) -> Account:
        """All come back, in one of three ways, to their edge or to where a balancer places them."""
        everyone = [member for one in self._groups for member in one.members]
        random.shuffle(everyone)
        return await _Return(self._url, self._groups, everyone, straight=straight).run(rate, at_once, within)

    async def beat(self) -> None:
        """Keep the connections alive until cancelled."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            for member in (member for one in self._groups for member in one.members):
                member.beat()

    def close(self) -> None:
        """Everyone leaves."""
        for member in (member for one in self._groups for member in one.members):
            member.drop()

    async def _found(self, http: aiohttp.ClientSession, group: Group) -> None:
        kind = conversation_pb2.CONVERSATION_KIND_GROUP
        owner, *others = (member.user_id for member in group.members)
        request = http_pb2.CreateChatRequest(request_id=owner, kind=kind, member_ids=others, name="bench")
        answer = await self._post(http, group, "", json_format.MessageToJson(request, preserving_proto_field_name=True))
        group.conversation = json_format.Parse(answer, http_pb2.Chat(), ignore_unknown_fields=True).conversation.conversation_id

    async def _write(self, http: aiohttp.ClientSession, group: Group) -> None:
        """One message, by HTTP: nobody need be connected for it."""
        self._number += 1
        content = content_pb2.Content(text=content_pb2.Text(text=frames.text_of(120)))
        request = http_pb2.PostMessageRequest(client_msg_id=f"w{self._number}", content=content)
        path = f"/{group.conversation}/messages"
        await self._post(http, group, path, json_format.MessageToJson(request, preserving_proto_field_name=True))
        group.last_seq += 1

    async def _post(self, http: aiohttp.ClientSession, group: Group, path: str, body: str) -> str:
        headers = {"Authorization": f"Bearer {group.members[0].token}", "Content-Type": "application/json"}
        async with http.post(f"{self._api}/api/v1/chats{path}", data=body, headers=headers) as response:
            text = await response.text()
            if response.status != 200:
                raise ConnectionError(f"POST {path} answered {response.status}: {text[:300]}")
            return text

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(_ATTEMPT_SECONDS):
            while not holds():  # noqa: ASYNC110  (an event would have to be kept for every session)
                await asyncio.sleep(0.05)


class _Return:
    """One return of everybody."""

    def __init__(self, url: str, groups: list[Group], everyone: list[Returner], *, straight: bool) -> None:
        self._url = url
        self._straight = straight
        self._conversations = {id(member): one for one in groups for member in one.members}
        self._everyone = everyone
        self._account = Account(sessions=len(everyone))
        self._failures: Counter[str] = Counter()
        self._due: list[float] = []
        self._returned: list[float] = []
        self._latencies: list[float] = []
        self._lateness: list[float] = []

    async def run(self, rate: float, at_once: int, within: float) -> Account:
        """Bring them back."""
        before = [(member.repeated, member.turned_away) for member in self._everyone]
        started, cpu = time.monotonic(), time.process_time()
        if rate:
            await self._paced(rate)
        elif within:
            await asyncio.gather(*(self._after(member, random.random() * within) for member in self._everyone))
        else:
            await _each(self._everyone, at_once, lambda member: self._back(member, time.monotonic()))
        account = self._account
        account.seconds = round(max(self._returned) - min(self._due), 3)
        account.generator_cpu_share = round((time.process_time() - cpu) / (time.monotonic() - started), 3)
        account.attempts, account.failures = len(self._due), dict(self._failures)
        account.latency, account.lateness = summarize(self._latencies), summarize(self._lateness)
        account.missed = sum(member.seq < self._conversations[id(member)].last_seq for member in self._everyone)
        account.repeated = sum(member.repeated for member in self._everyone) - sum(repeated for repeated, _ in before)
        account.turned_away = sum(member.turned_away for member in self._everyone) - sum(turned for _, turned in before)
        account.due_by_second = _by_second(self._due, started)
        account.returned_by_second = _by_second(self._returned, started)
        return account

    async def _paced(self, rate: float) -> None:
        waiting, tasks = iter(self._everyone), list[asyncio.Task[None]]()

        def due(intended: float) -> None:
            tasks.append(asyncio.ensure_future(self._back(next(waiting), intended)))

        await pace(rate, len(self._everyone) / rate, due)
        for member in waiting:  # what rounding left
            tasks.append(asyncio.ensure_future(self._back(member, time.monotonic())))
        await asyncio.gather(*tasks)

    async def _after(self, member: Returner, wait: float) -> None:
        intended = time.monotonic() + wait
        await asyncio.sleep(wait)
        await self._back(member, intended)

    async def _back(self, member: Returner, intended: float) -> None:
        """Attempts until one succeeds; only the first goes straight."""
        due, straight = intended, self._straight
        while True:
            self._due.append(due)
            self._lateness.append(time.monotonic() - due)
            try:
                await member.open(self._url, self._conversations[id(member)].conversation, straight=straight)
            except _FAILURES as error:
                self._failures[f"{type(error).__name__} {error}"[:80]] += 1
                member.drop()
                wait, straight = member.backoff(), False
                due = time.monotonic() + wait
                await asyncio.sleep(wait)
            else:
                break
        now = time.monotonic()
        self._returned.append(now)
        self._latencies.append(now - intended)


async def bare(port: int, count: int, at_once: int) -> float:
    """Seconds for so many handshakes with a bare server, so many at a time; all stay open until the end."""
    connections: list[WireConnection] = []

    async def one(_: int) -> None:
        connections.append(await connect(f"ws://127.0.0.1:{port}/", lambda payload: None, lambda code: None))

    started = time.monotonic()
    await _each(range(count), at_once, one)
    seconds = time.monotonic() - started
    for connection in connections:
        connection.abort()
    return seconds


async def _each(items: Iterable[Any], at_once: int, do: Callable[[Any], Awaitable[None]]) -> None:
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await do(item)

    await asyncio.gather(*(work() for _ in range(at_once)))


def _by_second(times: Iterable[float], since: float) -> list[int]:
    counted = Counter(max(0, int(at - since)) for at in times)
    return [counted[second] for second in range(max(counted, default=-1) + 1)]


async def serve() -> None:
    """Carry out commands until stdin ends."""
    returners = Returners("")
    beating: asyncio.Task[None] | None = None

    async def answer(command: dict[str, Any]) -> Answer:
        nonlocal returners, beating
        if "url" in command:
            returners = Returners(command.pop("url"))
            beating = asyncio.create_task(returners.beat())
        return await _answer(returners, command)

    await obey(answer, (*_FAILURES, ValueError))
    if beating is not None:
        beating.cancel()
    returners.close()


async def _answer(returners: Returners, command: dict[str, Any]) -> Answer:
    match command.pop("do"):
        case "connect":
            return {"connected": await returners.connect(**command)}
        case "drop":
            return {"dropped": await returners.drop()}
        case "return":
            return asdict(await returners.come_back(**command))
        case "bare":
            return {"seconds": await bare(**command)}
        case other:
            raise ValueError(f"no command {other!r}")


if __name__ == "__main__":
    uvloop.run(serve())
