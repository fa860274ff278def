"""How fast the tag log is over gRPC, on both engines: appends, replay, how soon followers hear, and a checkpoint of 200 MiB.

``python -m tests.store.measure_tags [seconds per figure]``; PostgreSQL runs with fsync and synchronous_commit on.
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import run_postgres
from tests.store.client import StoreClient, running_store
from tests.store.tags import append, following, read_log
from tidings.store.v1 import tag_log_pb2 as pb

MIB = 1024 * 1024
PARTS = 50
PART = 4 * MIB
HEARINGS = 40


async def measure_appends(store: StoreClient, version: int, size: int, seconds: float) -> int:
    """One record after another by one writer; gives the version."""
    record = os.urandom(size)
    began, number = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        number += 1
        assert await append(store, version, record) == version + 1
        version += 1
    say(f"  append records of {size:>9,} B", f"{number / elapsed:8,.0f}/s")
    return version


async def measure_replay(store: StoreClient) -> None:
    """Everything, from the first record on."""
    began = time.perf_counter()
    size = sum(map(len, await read_log(store)))
    say("  replay", f"{size / MIB / (time.perf_counter() - began):8,.0f} MiB/s")


async def measure_hearing(subject: str, writer: StoreClient, reader: StoreClient, version: int) -> int:
    """From the answer to an append until a follower has it; gives the version."""
    delays = []
    async with following(reader, version) as follower:
        await follower.next()
        for _ in range(HEARINGS):
            version += 1
            assert await append(writer, version - 1, b"x") == version
            began = time.perf_counter()
            await follower.until(version)
            delays.append((time.perf_counter() - began) * 1_000)
    delays.sort()
    say(f"  {subject}", f"{delays[len(delays) // 2]:8,.1f} ms median, {delays[-1]:,.1f} ms worst of {HEARINGS}")
    return version


async def measure_checkpoint(store: StoreClient, version: int) -> None:
    """Save one over another, then load it."""
    body = os.urandom(PART)

    def parts() -> Iterator[pb.SaveCheckpointRequest]:
        for n in range(PARTS):
            yield pb.SaveCheckpointRequest(version=version, part=body, last=n == PARTS - 1)

    began = time.perf_counter()
    assert (await store.tags.SaveCheckpoint(parts())).kept
    saved = time.perf_counter()
    size = 0
    async for response in store.tags.LoadCheckpoint(pb.LoadCheckpointRequest()):
        size += len(response.part)
    say("  checkpoint", f"{size / MIB:8,.0f} MiB saved in {saved - began:.1f} s, loaded in {time.perf_counter() - saved:.1f} s")


async def measure(subject: str, url: str, seconds: float) -> None:
    """One engine, two stores over it."""
    say(subject, "")
    async with running_store(url) as store, running_store(url) as other:
        version = await append(store, 0, b"1", b"2")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await measure_checkpoint(store, version - 1)
        await measure_checkpoint(store, version)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        say("  both ends' memory peak rose by", f"{grown:8,.0f} MiB")
        version = await measure_appends(store, version, MIB, seconds)
        version = await measure_appends(store, version, 1024, seconds)
        await measure_replay(store)
        version = await measure_hearing("heard at the same store after", store, store, version)
        await measure_hearing("heard at another store after", store, other, version)


def say(subject: str, figure: str) -> None:
    """One line."""
    sys.stdout.write(f"{subject:<40}{figure}\n")


async def main(seconds: float) -> None:
    """Both engines."""
    with tempfile.TemporaryDirectory() as folder:
        await measure("sqlite", f"sqlite:///{Path(folder)}/measure.sqlite", seconds)
    with run_postgres(durable=True) as server:
        await measure("postgresql", server.new_database(), seconds)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
