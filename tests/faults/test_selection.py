"""A few of the faults, two minutes of them: what a death, a freeze, a split, and the loss of what is around them do to the fleet.
`make faults` runs them all.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.catalogue import Fault, catalogue
from tests.faults.stage import WITHIN, Stage, open_stage
from tests.faults.trial import Result, trial
from tests.system.living import draw_seed

pytestmark = [pytest.mark.postgresql, pytest.mark.etcd, pytest.mark.timeout(240)]
SELECTION = (
    "kill -9 router",
    "freeze router",
    "stop edge",
    "mute edge < router",
    "etcd: quorum lost",
    "postgres: immediate restart",
    "redis: restart",
)


# Seconds. Other tests share the cores: here it is only to be shorter than the fault; `make faults` measures how long it is.
SILENCE = 10.0


def selected() -> list[Fault]:
    return [replace(one, silence=max(one.silence, SILENCE)) for one in catalogue() if one.name in SELECTION]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path_factory.mktemp("fleet"), random.Random(draw_seed()), WITHIN) as stage:
        yield stage


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", selected(), ids=lambda one: one.name)
async def test_no_promise_is_broken(stage: Stage, fault: Fault, tmp_path: Path) -> None:
    result = await trial(stage, fault, draw_seed(), tmp_path)
    await stage.whole()
    assert result.holds, "\n".join(told(result))
    assert result.stored > 100, "too little was said to prove anything"


def told(result: Result) -> list[str]:
    return [f"TIDINGS_SEED={result.seed}", f"history: {result.history}", *result.why]


def test_the_selection_names_faults_that_there_are() -> None:
    assert {one.name for one in selected()} == set(SELECTION)
