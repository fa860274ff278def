"""Where a system stops keeping up: a search over offered rates, as a policy apart from what it measures.

Rates grow by a third until one fails (or, when the first one fails, are halved until one holds); then the gap between the best good
and the lowest bad one is halved twice. A rate fails when its p99 is past the limit or what was stored in its time falls short of
what was offered. One bad step is tried again before it counts: on a shared machine a hiccup looks like a knee. A rate that held for
a step only is lowered until one holds for longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST_RATE = 1000.0
GROWTH = 4 / 3
P99_LIMIT_MS = 50.0
FOLLOWED = 0.97  # of the offered rate
LOWER = 0.85  # of a knee that did not last
LEAST_RATE = 30.0  # a mesh that doesn't hold even this has no knee
_HALVINGS = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """One step of the search: messages per second offered and stored in time, p99 until delivery."""

    offered_rate: float
    stored_rate: float
    p99_ms: float

    @classmethod
    def of(cls, rate: float, account: Mapping[str, Any]) -> "Trial":
        """What a generator counted while so many messages a second were offered."""
        return cls(rate, account["stored_rate"], account["delivered_latency"]["p99"])

    @property
    def held(self) -> bool:
        """Whether the system kept up."""
        return self.p99_ms <= P99_LIMIT_MS and self.stored_rate >= FOLLOWED * self.offered_rate


class KneeSearch:
    """Ask `next_rate`, measure it, tell `record`; until there is none.

    Attributes:
        trials: all steps.
        lowered: what was measured for longer, at rates that held for a step only.
    """

    def __init__(self, first_rate: float = FIRST_RATE) -> None:
        self.next_rate: float | None = first_rate
        self.trials: list[Trial] = []
        self.lowered: list[Trial] = []
        self._good = 0.0
        self._bad = 0.0
        self._halvings = 0
        self._retrying = False

    @property
    def knee(self) -> float:
        """Highest rate that held; 0 when none did."""
        return self._good

    @property
    def peak_stored_rate(self) -> float:
        """Most that was stored per second in any step, also past the knee."""
        return max((trial.stored_rate for trial in self.trials), default=0.0)

    def record(self, trial: Trial) -> None:
        """Take in what was measured at `next_rate`."""
        self.trials.append(trial)
        if trial.held:
            self._good, self._retrying = max(self._good, trial.offered_rate), False
        elif not self._retrying:
            self._retrying = True
            return
        else:
            self._bad, self._retrying = trial.offered_rate, False
        self.next_rate = self._following()

    def lower(self, longer: Trial) -> None:
        """The knee held for a step's time only, as a longer one told: it is a little below."""
        self.lowered.append(longer)
        self._good = round(self._good * LOWER)
        if self._good < LEAST_RATE:
            self._good = 0.0

    def saturation(self) -> float:
        """Offered rates that go up by half, from well above the knee, until the mesh stores less than it is offered; each is to be
        noted, and the next asked for. Gives 0 when it has come to that."""
        highest = max(self.trials, key=lambda trial: trial.offered_rate)
        if highest.stored_rate < FOLLOWED * highest.offered_rate and highest.offered_rate > 1.3 * self.peak_stored_rate:
            return 0.0
        return round(1.5 * max(highest.offered_rate, FIRST_RATE))

    def note(self, trial: Trial) -> None:
        """Take in a step that was not asked for by `next_rate`."""
        self.trials.append(trial)

    def _following(self) -> float | None:
        if not self._bad:
            return round(self._good * GROWTH)
        if not self._good:
            return round(self._bad / 2) if self._bad / 2 >= LEAST_RATE else None
        if self._halvings == _HALVINGS:
            return None
        self._halvings += 1
        return round((self._good + self._bad) / 2)
