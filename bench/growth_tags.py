"""What tags cost as clients grow by decades: in the algebra itself (`tagset`), where the largest step is 10,000,000 clients.

Through the services the largest steps are `bench notify` (10,000,000 clients: expansion over gRPC) and `bench tags`; what they add
to these figures doesn't grow with the clients but for the bytes of the answer.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from bench.figures import Figures
from bench.growth_line import fit
from bench.tags import EXPRESSION, by_pyroaring, operands
from tagset.evaluate import evaluate
from tagset.parser import parse
from tagset.snapshot import Snapshot, parts
from tidings.tag.v1.log_pb2 import MembershipChange, SnapshotPart, TagMembers, TagRecord

CLIENTS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_RECORDS, _TAGS, _EACH = 10, 50, 2_000  # a million memberships are applied; fewer where there are fewer clients
_PART_BYTES = 4 * 1024 * 1024
_SECONDS = 0.5  # for each thing measured, or one time when that takes longer


@dataclass(frozen=True, slots=True)
class TagGrowthOptions:
    """What to measure: known clients, of whom 77 in 100 have at least one of four tags (see bench.tags.STRIDES)."""

    clients: tuple[int, ...] = CLIENTS


def run(options: TagGrowthOptions) -> Figures:
    """Measure."""
    figures = Figures("growth-tags", {"clients": list(options.clients), "expression": EXPRESSION})
    figures.series["clients"] = list(options.clients)
    for clients in options.clients:
        _measure(figures, clients)
    spans = zip(options.clients, figures.series["expansion, ns"], strict=True)
    if len(options.clients) > 1:
        line = fit([(clients, float(nanos)) for clients, nanos in spans])
        figures.add("line: expansion, its own", line.base / 1e3, "µs", note="a of a + b * clients")
        figures.add("line: expansion, a million clients", line.slope * 1e3, "µs", note="b")
        figures.add("line: largest deviation", line.deviation * 100, "%", note=f"at {line.at:,.0f} clients")
    return figures


def _measure(figures: Figures, clients: int) -> None:
    tags = operands(clients)
    snapshot = Snapshot.empty().apply(1, _record(tags))
    memberships = sum(map(len, tags.values()))
    expansion = _seconds(lambda: evaluate(parse(EXPRESSION), snapshot, clients, {}, {}))
    found = evaluate(parse(EXPRESSION), snapshot, clients, {}, {})
    figures.faults["expanded wrongly"] = figures.faults.get("expanded wrongly", 0) + (found != by_pyroaring(tags, clients))
    name = f"{clients:,} clients"
    figures.add(f"{name}: expansion", expansion * 1e3, "ms", note=f"{len(found):,} found")
    held = sum(_bytes(members) for members in tags.values())
    figures.add(f"{name}: memory", held / clients, "bytes a client", note=f"{held / memberships:.2f} a membership")
    applied = _apply(clients)
    figures.add(f"{name}: applied", applied / 1e6, "million memberships/s", note=f"{_RECORDS} records over {_TAGS} tags")
    load, size = _load(snapshot)
    figures.add(f"{name}: snapshot loaded", load * 1e3, "ms", note=f"{size:,} bytes")
    for what, value in (("expansion, ns", expansion * 1e9), ("memory, bytes", held), ("loaded, ns", load * 1e9)):
        figures.series.setdefault(what, []).append(round(value))
    figures.series.setdefault("applied, memberships a second", []).append(round(applied))


def _record(tags: dict[str, BitMap]) -> TagRecord:
    now = Timestamp()
    now.GetCurrentTime()
    changes = [TagMembers(tag=name, added_ordinals=members.serialize()) for name, members in tags.items()]
    return TagRecord(time=now, memberships=MembershipChange(tags=changes))


def _bytes(members: BitMap) -> int:
    """What its containers take in memory."""
    found = members.get_statistics()
    return found["n_bytes_array_containers"] + found["n_bytes_run_containers"] + found["n_bytes_bitset_containers"]


def _apply(clients: int) -> float:
    """Memberships applied a second: clients by chance, for many tags at once, each record a version of its own."""
    random, each = Random(7), min(_EACH, clients // 2)
    records = [_record({f"t{tag}": _some(random, clients, each) for tag in range(_TAGS)}) for _ in range(_RECORDS)]

    def apply() -> None:
        snapshot = Snapshot.empty()
        for version, record in enumerate(records, 1):
            snapshot = snapshot.apply(version, record)

    return _RECORDS * _TAGS * each / _seconds(apply)


def _some(random: Random, clients: int, count: int) -> BitMap:
    return BitMap(random.sample(range(1, clients + 1), count))


def _load(snapshot: Snapshot) -> tuple[float, int]:
    """Seconds from the bytes of its parts to a snapshot, and how many bytes."""
    encoded = [part.SerializeToString() for part in parts(snapshot, _PART_BYTES)]

    def load() -> None:
        pieces = [piece for one in encoded for piece in SnapshotPart.FromString(one).pieces]
        Snapshot.from_pieces(snapshot.version, pieces)

    return _seconds(load), sum(map(len, encoded))


def _seconds(work: Callable[[], object]) -> float:
    """The median of as many times as fit, at least three."""
    times: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
