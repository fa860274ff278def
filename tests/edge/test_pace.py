"""When what gathers is let go."""

import asyncio

from edge.pace import Pace
from tests.edge.conftest import WAIT


class Openings:
    """When a pace opened.

    Attributes:
        at: the times, in the loop's seconds.
        opened: whether it has since the last `one`.
    """

    def __init__(self) -> None:
        self.at: list[float] = []
        self.opened = asyncio.Event()

    def go(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        self.opened.set()

    async def one(self) -> None:
        """Wait until it opens."""
        await asyncio.wait_for(self.opened.wait(), WAIT)
        self.opened.clear()


async def test_the_first_goes_at_once_and_those_that_follow_go_together() -> None:
    openings = Openings()
    pace = Pace(0.05, openings.go)
    for _ in range(2):
        for _ in range(3):
            pace.gathered()
        await openings.one()
    assert len(openings.at) == 2
    assert openings.at[1] - openings.at[0] >= 0.05


async def test_what_is_enough_goes_sooner() -> None:
    openings = Openings()
    pace = Pace(60.0, openings.go, enough=10, soonest=0.05)
    pace.gathered()
    await openings.one()
    pace.gathered(9)
    await asyncio.sleep(0.1)  # long enough to go, were it enough
    assert not openings.opened.is_set(), "it waits for more"
    pace.gathered(5)
    await openings.one()
    for count in (2, 20):  # however much it is, and however it comes
        pace.gathered(count)
    await openings.one()
    assert openings.at[2] - openings.at[1] >= 0.05
    assert len(openings.at) == 3


async def test_in_a_rush_more_is_gathered() -> None:
    openings = Openings()
    pace = Pace(0.01, openings.go, longest=0.2, rush=100.0)
    for _ in range(3):
        for _ in range(10):
            pace.gathered()
        await openings.one()
    assert openings.at[1] - openings.at[0] >= 0.1, "ten are as many as come in a tenth of a second"
    for _ in range(2):
        pace.gathered()
        await openings.one()
    assert openings.at[4] - openings.at[3] < 0.1, "it is over"
