"""How fast mappings go in, and expressions are worked out: `python -m tests.tagsvc.measure [USERS] [TAGS]`.

A store on SQLite and a tagsvc, each in a process of its own; the client is this one. Not a test: figures drift with the machine.
"""

import asyncio
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, configure_logging, settle_memory
from store.serve import serve as serve_store
from store.settings import StoreSettings
from tagset.snapshot import Snapshot
from tagsvc.mapping_changes import MappingChunk, Stream
from tagsvc.memberships import Deltas
from tagsvc.plan import Plan
from tagsvc.serve import serve
from tagsvc.settings import TagsvcSettings
from tests.tagsvc.client import TagClient, connected
from tidings.common.v1.instance_pb2 import Instance
from tidings.tag.v1 import tag_pb2 as pb

CHUNK = 100_000  # memberships
LARGE = 1_000_000  # members of a tag


async def _store(pipe: Connection, folder: str) -> None:
    options: dict[str, Any] = {"port": 0, "database": f"sqlite:///{folder}/store.sqlite"}
    async with serve_store(StoreSettings(**options), MemoryRegistry(), Telemetry("store")) as instance:
        settle_memory()
        pipe.send(instance.grpc_address)
        await _tell_cpu(pipe)


async def _tagsvc(pipe: Connection, store: str) -> None:
    registry, options = MemoryRegistry(), {"port": 0, "drain_seconds": 1}
    async with (
        registry.register(Instance(service="store", instance_id="store-1", grpc_address=store)),
        serve(TagsvcSettings(**options), registry, Telemetry("tagsvc")) as instance,  # type: ignore[arg-type]
    ):
        settle_memory()
        pipe.send(instance.public_url)
        await _tell_cpu(pipe)


async def _tell_cpu(pipe: Connection) -> None:
    """Processor seconds, whenever asked; until told to stop."""
    while await asyncio.get_running_loop().run_in_executor(None, pipe.recv) != "stop":
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(usage.ru_utime + usage.ru_stime)


def _process(pipe: Connection, service: str, argument: str) -> None:
    configure_logging(service, "warning", as_json=False)
    asyncio.run({"store": _store, "tagsvc": _tagsvc}[service](pipe, argument))


def _started(service: str, argument: str) -> tuple[Connection, str]:
    pipe, theirs = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=_process, args=(theirs, service, argument)).start()
    return pipe, pipe.recv()


def _by_tag(users: int, tags: int, prefix: str) -> Iterator[pb.ApplyMappingRequest]:
    """A tag, and users up to a chunk of them, at a time."""
    ids = [f"user-{n:09}" for n in range(users)]
    for tag in range(tags):
        for start in range(0, users, CHUNK):
            change = pb.TagChange(tag=f"{prefix}{tag}", add_user_ids=ids[start : start + CHUNK])
            yield pb.ApplyMappingRequest(tags=[change], create_tags=True)


def _by_user(users: int, tags: int, prefix: str) -> Iterator[pb.ApplyMappingRequest]:
    """All tags of as many users as a chunk holds."""
    names = [f"{prefix}{tag}" for tag in range(tags)]
    for start in range(0, users, CHUNK // tags):
        some = range(start, min(users, start + CHUNK // tags))
        changes = [pb.UserChange(user_id=f"user-{n:09}", add_tags=names) for n in some]
        yield pb.ApplyMappingRequest(users=changes, create_tags=True)


class Measured:
    """A client, and the pipes to the store and the tagsvc behind it."""

    def __init__(self, tagsvc: TagClient, pipes: list[Connection]) -> None:
        self.tagsvc = tagsvc
        self._pipes = pipes

    def cpu(self) -> list[float]:
        """Processor seconds of each so far."""
        for pipe in self._pipes:
            pipe.send("cpu")
        return [pipe.recv() for pipe in self._pipes]


async def _applied(measured: Measured, what: str, requests: Iterator[pb.ApplyMappingRequest], memberships: int) -> None:
    before, started, chunks = measured.cpu(), time.perf_counter(), 0
    async for response in measured.tagsvc.tags.ApplyMapping(requests):
        chunks = response.chunks
    seconds = time.perf_counter() - started
    store, tagsvc = (now - then for now, then in zip(measured.cpu(), before, strict=True))
    cost = f"processor time {tagsvc / memberships * 1e6:.2f} µs each at tagsvc, {store / memberships * 1e6:.2f} at the store"
    print(f"{what}: {memberships:,} memberships in {chunks} chunks, {memberships / seconds:,.0f}/s; {cost}")  # noqa: T201


async def _timed(tagsvc: TagClient, expression: str, number: int = 50) -> None:
    seconds = []
    for _ in range(number):
        started = time.perf_counter()
        count = await tagsvc.count(expression)
        seconds.append(time.perf_counter() - started)
    median, worst = statistics.median(seconds) * 1e3, max(seconds) * 1e3
    print(f"count {expression[:60]!r}: {count:,} in {median:.2f} ms (worst of {number}: {worst:.1f} ms)")  # noqa: T201


def _core(users: int, tags: int) -> None:
    """A chunk's way from bytes to records, without gRPC, users' ordinals known."""
    ordinals = {f"user-{n:09}": n + 1 for n in range(users)}
    for what, requests in (("by tag", _by_tag(users, tags, "t")), ("by user", _by_user(users, tags, "t"))):
        encoded = [request.SerializeToString() for request in requests]
        snapshot, now = Snapshot.empty(), Timestamp()
        started = time.process_time()
        for data in encoded:
            snapshot = _planned(pb.ApplyMappingRequest.FromString(data), ordinals, snapshot, now)
        seconds = time.process_time() - started
        print(f"core alone, {what}: {users * tags / seconds:,.0f} memberships a second of processor time")  # noqa: T201


def _planned(request: pb.ApplyMappingRequest, ordinals: dict[str, int], snapshot: Snapshot, now: Timestamp) -> Snapshot:
    deltas = Deltas()
    for change in request.tags:
        deltas.of_tag(change.tag, map(ordinals.__getitem__, change.remove_user_ids), map(ordinals.__getitem__, change.add_user_ids))
    for user in request.users:
        deltas.of_user(ordinals[user.user_id], user.remove_tags, user.add_tags)
    plan = Plan(snapshot, lambda _: None)
    plan.take(MappingChunk(deltas.by_tag(), request.create_tags, 10_000, Stream(), 1), now)
    return plan.newest


async def _main(users: int, tags: int, folder: str) -> None:
    _core(users, tags)
    pipes = [_started("store", folder)]
    pipes.append(_started("tagsvc", pipes[0][1]))
    async with connected(pipes[1][1]) as tagsvc:
        measured = Measured(tagsvc, [pipe for pipe, _ in pipes])
        await _applied(measured, "users never seen, by tag", _by_tag(users, 1, "first"), users)
        await _applied(measured, "by tag", _by_tag(users, tags, "a"), users * tags)
        await _applied(measured, "by user", _by_user(users, tags, "b"), users * tags)
        await _applied(measured, "the same again, by user", _by_user(users, tags, "b"), users * tags)
        for prefix in ("big", "large"):
            await _applied(measured, f"a tag of {LARGE:,}", _by_tag(LARGE, 1, prefix), LARGE)
        for expression in ("big0", "big0 & !large0 + a0", " + ".join(f"(a{n} & !b{n + 1})" for n in range(tags - 1)), "*"):
            await _timed(tagsvc, expression)
    for pipe, _ in reversed(pipes):
        pipe.send("stop")


if __name__ == "__main__":
    configure_logging("measure", "warning", as_json=False)
    numbers = [int(text) for text in sys.argv[1:]] + [100_000, 50][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_main(numbers[0], numbers[1], directory))
