"""How fast expressions are evaluated and memberships applied: `python -m tests.tagset.measure [CLIENTS]`. Not a test.

Tags are of random members, so that no bitmap is small; each figure is the best of several runs.
"""

import random
import sys
import time
from collections.abc import Callable
from itertools import pairwise

from pyroaring import BitMap

from tagset.canonical import canonical
from tagset.evaluate import count_tree, evaluate
from tagset.explain import explain
from tagset.parser import parse
from tagset.snapshot import Snapshot, parts
from tagset.text import to_text
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord
from tidings.tag.v1.tag_pb2 import Combination

EXPRESSIONS = ["t0", "!t0", "t0 + t1", "t0 & t1", "(t0 + t1 - t2) & !(t3 & (t4 + t5)) - user:u", "k & t6 + !k - t7"]
MEMBERSHIPS = 1_000_000


def best(run: Callable[[], object], times: int = 7) -> float:
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def tell(what: str, seconds: float) -> None:
    """A line of the result."""
    sys.stdout.write(f"{what:70} {seconds * 1000:10.3f} ms\n")


def record(members: dict[str, BitMap]) -> TagRecord:
    """A record that adds members."""
    changes = [TagMembers(tag=name, added_ordinals=added.serialize()) for name, added in members.items()]
    return TagRecord(memberships=MembershipChange(tags=changes))


def scattered(chance: random.Random, count: int, highest: int) -> BitMap:
    """So many ordinals, anywhere."""
    return BitMap(chance.sample(range(1, highest + 1), count))


def measure_expressions(snapshot: Snapshot, clients: int) -> None:
    """Every expression, from its text to its bitmap."""
    for text in EXPRESSIONS:
        count = len(evaluate(parse(text), snapshot, clients, {"u": 1}, {}))
        taken = best(lambda text=text: evaluate(parse(text), snapshot, clients, {"u": 1}, {}))  # type: ignore[misc]
        tell(f"parse and evaluate {text} ({count:,})", taken)
    deep = parse(EXPRESSIONS[4])
    tell("count every part of the fifth", best(lambda: count_tree(deep, snapshot, clients, {"u": 1}, {})))
    tell("explain one client in the fifth", best(lambda: explain(5, deep, snapshot, clients, {"u": 1}, {})))
    tell("canonical form of the fifth, as text", best(lambda: to_text(canonical(deep))))
    wide = " + ".join(f"t{number % 8} & !user:u{number}" for number in range(500))
    tell("parse 1,000 operands", best(lambda: parse(wide)))
    tell("canonical form of 1,000 operands", best(lambda: canonical(parse(wide))))


def measure_snapshots(snapshot: Snapshot, clients: int) -> None:
    """A record of many memberships, and the way through a checkpoint."""
    chance = random.Random(2)
    change = record({f"n{number}": scattered(chance, 2_000, clients) for number in range(50)})
    tell("apply 100,000 memberships of 50 new tags", best(lambda: snapshot.apply(snapshot.version + 1, change)))
    change = record({f"t{number}": scattered(chance, 12_500, clients) for number in range(8)})
    tell("apply 100,000 memberships of 8 large tags", best(lambda: snapshot.apply(snapshot.version + 1, change)))
    tell("write a checkpoint", best(lambda: [part.SerializeToString() for part in parts(snapshot, 4 << 20)], 3))
    pieces = list(snapshot.pieces())
    tell(f"read it ({len(pieces)} pieces)", best(lambda: Snapshot.from_pieces(snapshot.version, pieces), 3))


def measure_mapping(clients: int, chunk: int, tags: int) -> None:
    """Memberships in chunks, from encoded records to snapshots."""
    chance = random.Random(3)
    each = chunk // tags
    chunks = [
        record({f"m{number}": scattered(chance, each, clients) for number in range(tags)}).SerializeToString()
        for _ in range(MEMBERSHIPS // chunk)
    ]
    begin = time.perf_counter()
    snapshots = [Snapshot.empty()]
    for data in chunks:
        snapshots.append(snapshots[-1].apply(snapshots[-1].version + 1, TagRecord.FromString(data)))
    taken = time.perf_counter() - begin
    rate = MEMBERSHIPS / taken
    tell(f"{MEMBERSHIPS:,} memberships, {chunk:,} of {tags} tags at a time: {rate:,.0f} a second", taken)
    sizes = [sum(len(tag.members) for tag in snapshot.tags.values()) for snapshot in snapshots]
    if any(after <= before for before, after in pairwise(sizes)):
        raise RuntimeError("an older snapshot changed")


def main() -> None:
    """Everything."""
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    chance = random.Random(1)
    tags = {f"t{number}": scattered(chance, clients // (number + 2), clients) for number in range(8)}
    snapshot = Snapshot.empty().apply(1, record(tags))
    saved = Combination(name="k", expression="(t0 & t1 + t2) - t3")
    snapshot = snapshot.apply(2, TagRecord(put_combination=saved))
    sys.stdout.write(f"{clients:,} clients, {sum(map(len, tags.values())):,} memberships in 8 tags\n")
    measure_expressions(snapshot, clients)
    measure_snapshots(snapshot, clients)
    measure_mapping(clients, 100_000, 50)
    measure_mapping(clients, 1_000, 50)


if __name__ == "__main__":
    main()
