"""The load generator: a process of its own, told what to do by JSON lines on stdin, answering by JSON lines on stdout.

    {"do": "connect", "url": …, "tokens": {user: token}, "message_bytes": 120, "mix": "pairs"}   -> {"connected": n}
    {"do": "step", "rate": 4000, "seconds": 10}   -> a Step, once everything was answered, delivered and receipted
    {"do": "audit"}                               -> {"log": an Audit of every log read back, "delivery": faults}
    end of stdin                                  -> leaves

An answer {"error": text} means that the command failed. It is lean on purpose: raw WebSockets, hand-made frames, uvloop; what it
costs is reported beside the services.
"""

import asyncio
import gc
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import uvloop

from bench.audit import NOTHING, Audit, audit_log
from bench.commands import Answer, obey
from bench.crowd import MIXES, Crowd
from bench.frames import MessageMould, heartbeat
from bench.ledger import Lane, Ledger
from bench.pacing import pace

SETTLE_SECONDS = 15.0  # how long what is under way may take after the last message of a step
_GREETING_RATE = 500.0
_PAGE_SECONDS = 30.0
_HEARTBEAT_SECONDS = 15.0
_READERS = 50  # logs read back at the same time


class Generator:
    """One run over users that are connected.

    Args:
        crowd: the users.
        ledger: their accounts.
    """

    def __init__(self, crowd: Crowd, ledger: Ledger) -> None:
        self._crowd = crowd
        self._ledger = ledger
        self._dealt: Iterator[tuple[Lane, MessageMould]] = iter(())
        self._beats = asyncio.create_task(self._beat())

    async def prepare(self, mix: str) -> None:
        """Bring the pairs' conversations into being, and settle down to measure."""
        if 2 in MIXES[mix]:
            self._dealt = iter(self._crowd.greetings())
            await pace(_GREETING_RATE, len(self._crowd.greetings()) / _GREETING_RATE, self._send)
            await self._settle()
        self._dealt = self._crowd.deal(mix)
        gc.collect()
        gc.freeze()
        gc.disable()  # the accounts only grow; collecting them would be the generator's own pauses

    async def step(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send at a rate for some time, wait for what is under way, give the account."""
        first = len(self._ledger.lanes)
        began, cpu = time.monotonic(), time.process_time()
        await pace(rate, seconds, self._send)
        busy = (time.process_time() - cpu) / (time.monotonic() - began)
        await self._settle()
        step = asdict(self._ledger.step(first, rate, seconds))
        self._ledger.forget_latencies()
        return {**step, "generator_cpu_share": round(busy, 3), **self._state()}

    async def audit(self) -> dict[str, Any]:
        """Read every conversation back and compare; with the faults of all deliveries so far."""
        await self._settle()
        room = asyncio.Semaphore(_READERS)
        readers: dict[str, int] = {lane.conversation: lane.sender for lane in self._ledger.lanes}
        by_reader: dict[int, list[str]] = {}
        for conversation, reader in readers.items():
            by_reader.setdefault(reader, []).append(conversation)
        audits = await asyncio.gather(*(self._audit_some(reader, mine, room) for reader, mine in by_reader.items()))
        closed = sum(user.close_code != 0 for user in self._crowd.users)
        return {"log": asdict(sum(audits, NOTHING)), "delivery": {**self._ledger.faults(), "connections closed": closed}}

    def close(self) -> None:
        """Everyone leaves."""
        self._beats.cancel()
        for user in self._crowd.users:
            user.close()

    def _send(self, intended: float) -> None:
        lane, mould = next(self._dealt)
        number = self._ledger.on_sent(lane, intended, time.monotonic())
        self._crowd.users[lane.sender].send(mould.frame(number))

    async def _settle(self) -> None:
        until = time.monotonic() + SETTLE_SECONDS
        while not self._ledger.settled and time.monotonic() < until:  # noqa: ASYNC110  (an event would cost something at every message)
            await asyncio.sleep(0.02)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            for user in self._crowd.users:
                user.send(heartbeat())

    async def _audit_some(self, reader: int, conversations: list[str], room: asyncio.Semaphore) -> Audit:
        async with room:
            return sum([await self._audit_one(reader, conversation) for conversation in conversations], NOTHING)

    async def _audit_one(self, reader: int, conversation: str) -> Audit:
        user, log, seq = self._crowd.users[reader], list[tuple[int, int]](), 0
        while page := await user.page_after(conversation, seq, _PAGE_SECONDS):
            log += [(entry.seq, int(entry.client_msg_id or -1)) for entry in page]
            seq = page[-1].seq
        return audit_log(log, self._ledger.stored_in(conversation))

    def _state(self) -> dict[str, Any]:
        users = self._crowd.users
        errors: dict[str, int] = {}
        for user in users:
            for code, count in user.errors.items():
                errors[str(code)] = errors.get(str(code), 0) + count
        acknowledged = sum(user.acknowledged for user in users)
        for user in users:
            user.acknowledged = 0
        return {"errors": errors, "acknowledged": acknowledged}


async def open_run(url: str, tokens: dict[str, str], message_bytes: int, mix: str) -> Generator:
    """Connect the users and open their conversations.

    Raises:
        OSError, TimeoutError: the mesh did not let them in.
        ValueError: the users are too few for the mix.
    """
    ledger = Ledger()
    crowd = Crowd(url, tokens, message_bytes, ledger)
    await crowd.open_lanes(list(MIXES[mix]), await crowd.connect())
    generator = Generator(crowd, ledger)
    await generator.prepare(mix)
    return generator


async def serve() -> None:
    """Carry out commands until stdin ends."""
    generator: Generator | None = None

    async def answer(command: dict[str, Any]) -> Answer:
        nonlocal generator
        if command.pop("do") == "connect":
            generator = await open_run(**command)
        return await _answer(generator, command)

    await obey(answer)
    if generator is not None:
        generator.close()


async def _answer(generator: Generator | None, command: dict[str, Any]) -> dict[str, Any]:
    if generator is None:
        raise ValueError("connect first")
    if "tokens" in command:
        return {"connected": len(command["tokens"])}
    return await (generator.step(**command) if command else generator.audit())


if __name__ == "__main__":
    uvloop.run(serve())
