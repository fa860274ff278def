"""How much processor time the router spends on a message: `python -m tests.router.measure [MESSAGES] [BATCH] [PAUSE] [profile]`.

The router runs in a process of its own, between a store twin and a fake edge in this one: direct chats, both sides online at the
edge, every message acknowledged. The edge sends as fast as it is answered, or a batch every PAUSE milliseconds: the rarer, the more
each costs. Not a test: figures drift with the machine.
"""

import asyncio
import cProfile
import multiprocessing
import pstats
import resource
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, configure_logging, settle_memory
from router.serve import serve
from router.settings import RouterSettings
from tests.router import store_twin
from tests.router.fake_edge import FakeEdge, edge, send
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import link_pb2

PAIRS = 200


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _route(pipe: Connection, store: str, *, profile: bool) -> None:
    registry = MemoryRegistry()
    telemetry = Telemetry("router")
    options: dict[str, Any] = {"port": 0, "drain_seconds": 1}
    profiler = cProfile.Profile()
    loop = asyncio.get_running_loop()
    async with (
        registry.register(Instance(service="store", instance_id="store-1", grpc_address=store)),
        serve(RouterSettings(**options), registry, telemetry) as instance,
    ):
        settle_memory()
        pipe.send(instance.grpc_address)
        while await loop.run_in_executor(None, pipe.recv) != "stop":
            pipe.send(_cpu())
            if profile:
                profiler.enable()
        profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


def _router_process(pipe: Connection, store: str, profile: bool) -> None:
    configure_logging("router", "warning", as_json=False)
    asyncio.run(_route(pipe, store, profile=profile))


async def _drive(one: FakeEdge, memory: store_twin.Memory, messages: int, size: int, pause: float) -> float:
    """Send all in batches, so many seconds apart, at most 40 unanswered; gives seconds."""
    names = [(f"a{n}", f"b{n}") for n in range(PAIRS)]
    chats = [memory.direct(*pair).conversation.conversation_id for pair in names]
    ordinals = [memory.user(pair[0]).user_ordinal for pair in names]
    others = [memory.user(pair[1]).user_ordinal for pair in names]
    await one.batch(opened_user_ordinals=[*ordinals, *others])
    started = time.perf_counter()
    acknowledged = 0
    for start in range(0, messages, size):
        envelopes = [
            one.envelope(
                names[n % PAIRS][0], ordinals[n % PAIRS], n % PAIRS + 1, append_entry=send(chats[n % PAIRS], f"m{n}", "x" * 120)
            )
            for n in range(start, start + size)
        ]
        arrived = one.deliveries[acknowledged:]
        acknowledged += len(arrived)
        newest = {each.conversation_id: each.seq for each in arrived}
        receipts = [
            link_pb2.ReceiptDelta(
                user_ordinal=others[n], user_id=names[n][1], device_id="d", conversation_id=chats[n], delivered_seq=newest[chats[n]]
            )
            for n in range(PAIRS)
            if chats[n] in newest
        ]
        await one.batch(envelopes=envelopes, receipts=receipts)
        await one.until(lambda sent=start + size: len(one.replies) > sent - 40 * size)  # type: ignore[misc]
        await asyncio.sleep(max(0.0, started + (start + size) / size * pause - time.perf_counter()))
    await one.until(lambda: len(one.replies) >= messages)
    return time.perf_counter() - started


async def _main(messages: int, size: int, pause: float, *, profile: bool) -> None:
    configure_logging("measure", "warning", as_json=False)
    memory, telemetry = store_twin.Memory(), Telemetry("measure")
    async with store_twin.serve(memory, MemoryRegistry(), telemetry) as store:
        pipe, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=_router_process, args=(theirs, store.grpc_address, profile))
        child.start()
        address = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        async with edge(address) as one:
            pipe.send("cpu")
            before = pipe.recv()
            seconds = await _drive(one, memory, messages, size, pause)
            pipe.send("cpu")
            spent = pipe.recv() - before
        pipe.send("stop")
        child.join()
    batch = sum(memory.appends) / len(memory.appends)
    print(f"{messages} messages, {messages / seconds:,.0f}/s, batches of {batch:.0f}")  # noqa: T201
    print(f"router: {spent / messages * 1e6:.1f} µs of processor time a message")  # noqa: T201


if __name__ == "__main__":
    given = [float(one) for one in sys.argv[1:] if one != "profile"]
    given += (50_000.0, 50.0, 0.0)[len(given) :]
    count, each, milliseconds = given
    asyncio.run(_main(int(count), int(each), milliseconds / 1000, profile="profile" in sys.argv))
