"""What notifications cost a router: `python -m tests.router.measure_notifications [RECIPIENTS] [RUNS]`.

The router runs in a process of its own, between a store twin and a fake edge in this one. Told are: the time from the claim to the
first broadcast, with few and with many recipients; how fast an unpaced one goes out; what a paced one costs; what thousands of runs
that wait for offline recipients cost while nobody comes, and while users come all the time. Not a test: figures drift with the
machine.
"""

import asyncio
import multiprocessing
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import grpc
from pyroaring import BitMap

from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, configure_logging, settle_memory
from router.serve import serve
from router.settings import RouterSettings
from tests.router import store_twin
from tests.router.fake_edge import FakeEdge, edge
from tests.router.notification_mesh import RouterHand
from tests.router.notification_twin import Kept, NotificationMemory
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1.notification_pb2_grpc import NotificationServiceStub

_ONLINE = 100_000
_LETTERS = "abcdefghijklmnopqrst"


async def _route(pipe: Connection, store: str) -> None:
    registry, telemetry = MemoryRegistry(), Telemetry("router")
    options: dict[str, Any] = {"port": 0, "drain_seconds": 1, "resend_seconds": 300}
    loop = asyncio.get_running_loop()
    async with (
        registry.register(Instance(service="store", instance_id="store-1", grpc_address=store)),
        serve(RouterSettings(**options), registry, telemetry) as instance,
    ):
        settle_memory()
        pipe.send(instance.grpc_address)
        while await loop.run_in_executor(None, pipe.recv) != "stop":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))


def _router_process(pipe: Connection, store: str) -> None:
    configure_logging("router", "warning", as_json=False)
    asyncio.run(_route(pipe, store))


class Measure:
    """A router in another process, and who calls it.

    Args:
        pipe: to that process.
    """

    def __init__(self, pipe: Connection, memory: NotificationMemory, hand: RouterHand, one: FakeEdge) -> None:
        self.pipe = pipe
        self.memory = memory
        self.hand = hand
        self.one = one

    def used(self) -> tuple[float, float]:
        """Processor seconds so far, and the most MiB ever held."""
        self.pipe.send("cpu")
        used: tuple[float, float] = self.pipe.recv()
        return used

    async def first(self, title: str, recipients: BitMap) -> Kept:
        """From the claim to the first broadcast."""
        kept = self.memory.put("a" + _LETTERS[len(self.memory.kept)])
        kept.recipients = recipients
        before, heard = self.used()[0], len(self.one.broadcasts)
        begun = time.monotonic()
        await self.hand.start()
        await self.one.until(lambda: len(self.one.broadcasts) > heard)
        first = self.one.heard_at[heard] - begun
        online = len(recipients & BitMap(range(1, _ONLINE + 1)))
        await self.one.until(lambda: len(self.one.notified(kept.notification_id)) == online)
        last = self.one.heard_at[-1] - begun
        spent = (self.used()[0] - before) * 1000
        _tell(f"{title}: first broadcast after {first * 1000:.1f} ms, all {online:,} online after {last * 1000:.1f} ms")
        _tell(f"    {spent:.0f} ms of processor")
        return kept

    async def idle(self, title: str, seconds: float, *, coming: bool = False) -> None:
        """Processor time while runs wait, and users come or not."""
        before, until, comings = self.used()[0], time.monotonic() + seconds, 0
        while time.monotonic() < until:
            await asyncio.sleep(0.01)
            if coming:
                comings += 20
                ordinals = [20_000_000 + comings + number for number in range(20)]
                await self.one.batch(opened_user_ordinals=ordinals, closed_user_ordinals=ordinals)
        told = f", {comings / seconds:.0f} of them a second" if coming else ""
        _tell(f"{title}: {(self.used()[0] - before) / seconds:.1%} of a processor{told}")


@asynccontextmanager
async def _measure() -> AsyncIterator[Measure]:
    chat, memory, registry, telemetry = store_twin.Memory(), NotificationMemory(), MemoryRegistry(), Telemetry("measure")
    chat.more = memory.service()
    here, there = multiprocessing.Pipe()
    async with store_twin.serve(chat, registry, telemetry) as store:
        process = multiprocessing.get_context("spawn").Process(target=_router_process, args=(there, store.grpc_address))
        process.start()
        address = await asyncio.get_running_loop().run_in_executor(None, here.recv)
        async with grpc.aio.insecure_channel(address) as channel, edge(address, *range(1, _ONLINE + 1)) as one:
            hand = RouterHand(memory, Instance(grpc_address=address), NotificationServiceStub(channel))
            yield Measure(here, memory, hand, one)
        here.send("stop")
        process.join()
    telemetry.close()


async def main(recipients: int, runs: int) -> None:
    """Measure and tell."""
    async with _measure() as measure:
        await measure.first("warm", BitMap([1]))
        await measure.first("one recipient", BitMap([1]))
        await measure.first("few of many", BitMap(range(1, recipients + 1, _ONLINE // 100)))
        await measure.first("many", BitMap(range(1, recipients + 1)))
        _tell(f"most held so far: {measure.used()[1]:.0f} MiB")
        for number in range(runs):
            name = "b" + "".join(_LETTERS[number // 20**place % 20] for place in range(4))
            measure.memory.put(name).recipients = BitMap(range(10_000_000, 10_100_000))
        begun, before = time.monotonic(), measure.used()[0]
        while claims := measure.memory.claim():
            await measure.hand.start(*claims)
        await measure.memory.until(lambda: all(kept.expansion for kept in measure.memory.kept.values()))
        _tell(f"{runs:,} runs prepared in {time.monotonic() - begun:.1f} s, {measure.used()[0] - before:.1f} s of processor")
        await measure.idle(f"{runs:,} runs, nobody comes", 5.0)
        await measure.idle(f"{runs:,} runs, strangers come", 5.0, coming=True)
        _tell(f"most held: {measure.used()[1]:.0f} MiB")


def _tell(text: str) -> None:
    print(text)  # noqa: T201


if __name__ == "__main__":
    arguments = [int(one) for one in sys.argv[1:]]
    asyncio.run(main(*(arguments + [1_000_000, 5_000][len(arguments) :])))
