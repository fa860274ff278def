"""Where clients that are to leave can go: the balancers are asked, over the streams on which this edge reports its load.

One balancer is asked, once; who got no place asks for themselves when their time comes. A balancer that doesn't answer in time is
passed over for a while. It answers in the order in which it was asked. Patience is counted in ticks, as in `pulse`: an edge that
was itself stopped for a while reads the answer that came meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from tidings.balancer.v1 import balancer_pb2 as pb

PATIENCE_SECONDS = 1.5  # a balancer answers a question of 1,000 within 0.2 s
PATIENCE_TICKS = 4  # a stop of ours costs one of them
SHUN_SECONDS = 5.0  # a balancer that kept us waiting isn't asked for so long
MAX_QUESTIONS = 4  # unanswered at one balancer; past it the balancer counts as one that doesn't answer

Found = dict[int, pb.Placement]
"""Places by the connection's number."""


class Desk:
    """One balancer, while its stream stands.

    Attributes:
        shunned_until: seconds of the clock of `Places`.
    """

    def __init__(self) -> None:
        self.shunned_until = 0.0
        self._questions: asyncio.Queue[pb.PlaceConnections] = asyncio.Queue()
        self._waiting: deque[asyncio.Future[Found]] = deque()

    @property
    def full(self) -> bool:
        """Whether too many questions are unanswered."""
        return len(self._waiting) >= MAX_QUESTIONS

    def ask(self, leaving: Iterable[pb.PlaceConnection]) -> asyncio.Future[Found]:
        """Put a question; whoever holds the stream takes it from `question`."""
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._questions.put_nowait(pb.PlaceConnections(connections=leaving))
        return answer

    async def question(self) -> pb.PlaceConnections:
        """Wait for the next question to send."""
        return await self._questions.get()

    def on_answer(self, answer: pb.Placements) -> None:
        """The oldest question is answered."""
        self._resolve({one.connection: one for one in answer.placements})

    def close(self) -> None:
        """The stream ended: nothing more is answered."""
        while self._waiting:
            self._resolve({})

    def _resolve(self, found: Found) -> None:
        if self._waiting and not (waiting := self._waiting.popleft()).done():
            waiting.set_result(found)


class Places:
    """All balancers that can be asked.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._desks: list[Desk] = []

    def open(self, desk: Desk) -> None:
        """A balancer's stream stands."""
        self._desks.append(desk)

    def close(self, desk: Desk) -> None:
        """It stands no more, if it ever did."""
        if desk in self._desks:
            self._desks.remove(desk)
        desk.close()

    async def find(self, leaving: Iterable[pb.PlaceConnection], patience: float) -> Found:
        """Places for those for whom there is one; nobody's when no balancer answers within `patience` seconds."""
        now = self._clock()
        desk = next((one for one in self._desks if one.shunned_until <= now and not one.full), None)
        if desk is None:
            return {}
        answer = desk.ask(leaving)
        for _ in range(PATIENCE_TICKS):
            done, _ = await asyncio.wait([answer], timeout=patience / PATIENCE_TICKS)
            if done:
                return answer.result()
        desk.shunned_until = self._clock() + SHUN_SECONDS
        return {}
