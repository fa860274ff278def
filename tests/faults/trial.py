"""One fault under load: people chat and a business sends notifications while it strikes, all settles, the history is judged."""

import asyncio
import random
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.checker.checks import Breach
from tests.checker.history import CaughtUp, Disturbed, History, Receive, Send, save
from tests.checker.notification_workload import NotificationPlan, NotificationWorkload
from tests.checker.recorder import Recorder
from tests.checker.report import evidence
from tests.checker.verdict import judge
from tests.checker.workload import Plan, Workload
from tests.faults.catalogue import Fault
from tests.faults.stage import Stage
from tests.faults.surroundings import NotHereError
from tests.system.living import live

BEFORE, AFTER = 1.5, 3.0  # seconds of work before a fault strikes, and after it is over
CHAT = Plan(clients=20, second_devices=4, directs=10, groups=3, pause=0.15)
NOTIFICATIONS = NotificationPlan(users=16, silent=4, pause=0.4, steered=8, rates=(0, 4, 10))
_KINDS = {
    "lost": {"lost_in_history", "lost_live", "not_dense", "skipped", "resume_short", "not_reached", "not_begun"},
    "doubled": {"duplicated", "two_seqs", "shown_twice"},
    "reordered": {"reordered", "sender_reordered", "disagreement"},
}


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table. Times in seconds.

    Attributes:
        made: when.
        lasted: from striking to having healed.
        operations: of the history.
        stored: messages answered `stored`.
        lost, doubled, reordered, other: breaches.
        worst_delivery: the longest from a message's being stored to its being given to a device that was open all that time.
        silence: the longest time in which nobody's message was answered.
        recovery: from its being over to the last answer or delivery that was owed when it was.
        settled: everybody got what they were owed in the end.
        history: where it is kept when a promise was broken.
        not_here: what this machine lacks for it; then it was not made.
        why: the first breaches, or what went wrong otherwise.
    """

    fault: str
    seed: int
    made: str = ""
    lasted: float = 0.0
    operations: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    other: int = 0
    worst_delivery: float = 0.0
    silence: float = 0.0
    recovery: float = 0.0
    settled: bool = False
    history: str = ""
    not_here: str = ""
    why: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether no promise was broken."""
        return self.settled and not self.why

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


async def trial(stage: Stage, fault: Fault, seed: int, folder: Path) -> Result:
    """Live through one fault.

    Args:
        folder: for the devices' state files, and for the history when it is worth keeping.
    """
    recorder, spans = Recorder(seed, stage.fleet.url, fault.name), [0.0, 0.0]

    async def strike(rng: random.Random, enough: asyncio.Event) -> None:
        await asyncio.sleep(BEFORE)
        spans[0] = recorder.now()
        async with fault.befall(stage, rng):
            await asyncio.sleep(fault.lasts)
        spans[1] = recorder.now()
        if fault.disturbs:
            recorder.add(Disturbed(spans[0], spans[1]))

    rng = random.Random(seed)
    fleet = stage.fleet
    chat = Workload(fleet.url, fleet.token, folder, recorder, rng, CHAT)
    many = NotificationWorkload(
        fleet.url, fleet.token, folder, fleet.business, recorder, random.Random(seed + 1), NOTIFICATIONS, fleet.fences.read
    )
    try:
        settled = await live(recorder, [chat, many], BEFORE + fault.takes + fault.lasts + AFTER, strike)
        why = [] if settled else ["not everybody got what they were owed in time", *map(str, many.waiting())]
    except NotHereError as error:
        return Result(fault.name, seed, not_here=str(error))
    except Exception:
        settled, why = False, traceback.format_exc().splitlines()[-12:]
    breaches = judge(recorder.history)
    silence = _silence(recorder.history, (spans[0], spans[1]))
    if silence > fault.silence:
        why.append(f"nobody's message was answered for {silence:.1f} s; {fault.silence} s are allowed, for this should not be felt")
    result = _result(fault, recorder, (spans[0], spans[1]), breaches, settled=settled, why=why)
    if not result.holds:
        Path(result.history).parent.mkdir(parents=True, exist_ok=True)
        save(recorder.history, Path(result.history))
    return result


def _result(
    fault: Fault, recorder: Recorder, span: tuple[float, float], breaches: list[Breach], *, settled: bool, why: list[str]
) -> Result:
    history = recorder.history
    counts = {kind: sum(one.name in names for one in breaches) for kind, names in _KINDS.items()}
    return Result(
        fault=fault.name,
        seed=recorder.seed,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        lasted=round(max(0.0, span[1] - span[0]), 1),
        operations=len(history),
        stored=sum(isinstance(one, Send) and one.outcome == "stored" for one in history),
        lost=counts["lost"],
        doubled=counts["doubled"],
        reordered=counts["reordered"],
        other=len(breaches) - sum(counts.values()),
        worst_delivery=round(max(_delays(history), default=0.0), 2),
        silence=round(_silence(history, span), 2),
        recovery=round(_recovery(history, span[1]), 2),
        settled=settled,
        history=str(_kept(recorder.seed)),
        why=[*why, *evidence(breaches)],
    )


def _kept(seed: int) -> Path:
    return Path("build") / "faults" / f"history-{seed}.jsonl"


def _deliveries(history: History) -> Iterator[tuple[Receive, float]]:
    """Every entry that a device was given, and since when that device had been open then."""
    opened: dict[str, float] = {}
    for one in sorted((one for one in history if isinstance(one, Receive | CaughtUp)), key=_when):
        if isinstance(one, CaughtUp):
            opened[one.client] = one.invoked
        elif one.client in opened:
            yield one, opened[one.client]


def _when(one: Receive | CaughtUp) -> float:
    return one.time if isinstance(one, Receive) else one.invoked


def _delays(history: History) -> Iterator[float]:
    answered = {
        (one.conversation, one.seq): one.completed for one in history if isinstance(one, Send) and one.completed and one.seq
    }
    for one, opened in _deliveries(history):
        stored = answered.get((one.conversation, one.entry.seq))
        if stored is not None:
            yield max(0.0, one.time - max(stored, opened))


def _silence(history: History, span: tuple[float, float]) -> float:
    """The longest time without an answer, from a little before the fault to the last of all answers."""
    times = sorted(one.completed for one in history if isinstance(one, Send) and one.completed is not None)
    within = [time for time in times if time >= span[0] - 1.0]
    return max((after - before for before, after in pairwise(within)), default=0.0)


def _recovery(history: History, healed: float) -> float:
    """How long after the end of a fault the last answer or delivery came that was owed at its end."""
    owed = [one for one in history if isinstance(one, Send) and one.invoked <= healed]
    names = {(one.conversation, one.seq) for one in owed if one.seq}
    times = [one.completed for one in owed if one.completed is not None]
    times += [one.time for one, opened in _deliveries(history) if opened <= healed and (one.conversation, one.entry.seq) in names]
    return max(0.0, max(times, default=healed) - healed)
