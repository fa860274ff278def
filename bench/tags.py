"""`tidings bench tags`: how fast memberships are applied, and how long an expression takes; pyroaring alone beside both.

Three ways in, from the core outwards: records applied to a snapshot in memory; deltas of user ids through tagsvc and the store,
durable when answered, for clients that are known and for clients never seen; and expressions, in memory and counted over gRPC.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from bench.figures import Figures
from bench.mesh import Target, fleet, one_process
from bench.people import fill, user_id
from tagset.evaluate import evaluate
from tagset.parser import parse
from tagset.snapshot import Snapshot
from tidings.tag.v1.audience_pb2 import CountExpressionRequest
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, TagChange
from tidings_client.business import Business

EXPRESSION = "(a + b) & !c - d"  # three deep
STRIDES = {"a": 2, "b": 3, "c": 5, "d": 7}
RECORD = 100_000  # memberships in one record, or one chunk
_TAGS = 50
_REPEATS = 9
APPLIED_TARGET = 500_000.0
IN_MEMORY, EXPRESSED = "applied to a snapshot", "expression, in memory"
EXPRESSION_TARGET_MS = 10.0


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What to measure.

    Attributes:
        memberships: in all.
        clients: known clients; each operand of the expression has about a million per two million clients.
        mode: process or fleet.
    """

    memberships: int = 1_000_000
    clients: int = 2_000_000
    mode: str = "process"


def run(options: TagOptions) -> Figures:
    """Measure."""
    figures = Figures("tags", {"mode": options.mode, "memberships": options.memberships, "clients": options.clients})
    _applied_in_memory(figures, options)
    tagged = operands(options.clients)
    _expressions_in_memory(figures, tagged, options.clients)

    def seed(database: str) -> None:
        fill(database, options.clients, tagged)

    with one_process(seed) if options.mode == "process" else fleet(seed=seed) as target:
        asyncio.run(_through_the_service(figures, target, options))
    return figures


def _applied_in_memory(figures: Figures, options: TagOptions) -> None:
    rng = random.Random(7)
    records = [_record(rng, options.clients) for _ in range(options.memberships // RECORD)]
    applied = _seconds(lambda: _apply(records))
    bare = _seconds(lambda: _apply_bare(records))
    count = len(records) * RECORD
    note = f"records of {RECORD:,} over {_TAGS} tags, every version kept"
    figures.add(IN_MEMORY, count / applied, "memberships/s", APPLIED_TARGET, note=note)
    figures.beside("pyroaring: the same bitmaps united in place", count / bare, "memberships/s", IN_MEMORY, "mutable, nothing kept")


def _record(rng: random.Random, clients: int) -> TagRecord:
    per_tag = RECORD // _TAGS
    members = [BitMap(rng.sample(range(1, clients + 1), per_tag)) for _ in range(_TAGS)]
    changes = [TagMembers(tag=f"t{number}", added_ordinals=one.serialize()) for number, one in enumerate(members)]
    now = Timestamp()
    now.GetCurrentTime()
    return TagRecord(time=now, memberships=MembershipChange(tags=changes))


def _apply(records: list[TagRecord]) -> None:
    snapshots = [Snapshot.empty()]
    for version, record in enumerate(records, 1):
        snapshots.append(snapshots[-1].apply(version, record))


def _apply_bare(records: list[TagRecord]) -> None:
    tags: dict[str, BitMap] = {}
    for record in records:
        for change in record.memberships.tags:
            tags.setdefault(change.tag, BitMap()).update(BitMap.deserialize(change.added_ordinals))


def _expressions_in_memory(figures: Figures, tagged: dict[str, BitMap], clients: int) -> None:
    now = Timestamp()
    changes = [TagMembers(tag=name, added_ordinals=members.serialize()) for name, members in tagged.items()]
    snapshot = Snapshot.empty().apply(1, TagRecord(time=now, memberships=MembershipChange(tags=changes)))
    millions = max(map(len, tagged.values())) / 1e6
    ours = _seconds(lambda: evaluate(parse(EXPRESSION), snapshot, clients, {}, {})) * 1e3
    bare = _seconds(lambda: by_pyroaring(tagged, clients)) * 1e3
    note = f"{EXPRESSION}, operands of up to {millions:.1f} million"
    figures.add(EXPRESSED, ours, "ms", EXPRESSION_TARGET_MS * max(1.0, millions), note=note)
    figures.beside("pyroaring: the same by hand", bare, "ms", EXPRESSED)


def operands(clients: int) -> dict[str, BitMap]:
    """Who has the tags of EXPRESSION."""
    return {name: BitMap(range(1, clients + 1, stride)) for name, stride in STRIDES.items()}


def by_pyroaring(tagged: dict[str, BitMap], clients: int) -> BitMap:
    """Whom EXPRESSION means, by hand."""
    everybody = BitMap(range(1, clients + 1))
    return ((tagged["a"] | tagged["b"]) & (everybody - tagged["c"])) - tagged["d"]


async def _through_the_service(figures: Figures, target: Target, options: TagOptions) -> None:
    async with Business.connect(target.scheduler, target.tags, timeout=60.0) as business:
        request = CountExpressionRequest(expression=EXPRESSION)
        times = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            counted = await business.audience.CountExpression(request)
            times.append((time.perf_counter() - started) * 1e3)
        figures.add("expression, counted over gRPC with every part", statistics.median(times), "ms", note="median")
        figures.faults["miscounted"] = abs(counted.count - len(by_pyroaring(operands(options.clients), options.clients)))
        await _applied(figures, business, "known", lambda _: [user_id(one) for one in range(1, RECORD + 1)], options)
        await _applied(figures, business, "never seen", lambda chunk: [f"new-{chunk}-{one}" for one in range(RECORD)], options)


async def _applied(figures: Figures, business: Business, name: str, users: Callable[[int], list[str]], options: TagOptions) -> None:
    """Give a tag of its own to the users of each chunk."""
    count = options.memberships // RECORD
    changes = [TagChange(tag=f"{name.replace(' ', '_')}_{chunk}", add_user_ids=users(chunk)) for chunk in range(count)]
    requests = (ApplyMappingRequest(tags=[change], create_tags=True) for change in changes)
    started, cpu, answered = time.perf_counter(), time.process_time(), 0
    async for answer in business.tags.ApplyMapping(requests):
        answered = answer.chunks
    seconds = time.perf_counter() - started
    rate = answered * RECORD / seconds
    figures.drove(round((time.process_time() - cpu) / seconds, 3))
    encoding = _seconds(changes[0].SerializeToString) / RECORD
    figures.could_drive(1 / encoding / max(1.0, rate), "encoding its requests, which is all that it does")
    target = APPLIED_TARGET if name == "known" else None
    note = f"{RECORD:,} user ids a chunk, durable when answered"
    figures.add(f"applied through the service, clients {name}", rate, "memberships/s", target, note=note)
    figures.faults[f"chunks unanswered, clients {name}"] = count - answered


def _seconds(work: Callable[[], object]) -> float:
    """The median of several times."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
