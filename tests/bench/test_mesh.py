"""A mesh to measure is as it was asked for."""

import os

import psutil
import pytest

from bench.mesh import fleet, own_cores


def test_each_gets_a_core_of_its_own_or_none_does() -> None:
    assert own_cores(["router", "edge"], {5, 2, 3}) == {"router": 2, "edge": 3}
    assert own_cores(["router", "edge", "edge-2"], {0, 1}) == {}


@pytest.mark.postgresql
@pytest.mark.etcd
def test_a_pinned_fleet_keeps_edge_and_router_each_on_its_core_with_all_their_threads() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core is all there is")
    with fleet(pinned=True) as target:
        cores = {name: _cores(pid) for name, pid in target.pids.items()}
    assert len(cores["edge"]) == len(cores["router"]) == 1
    assert cores["edge"] != cores["router"]
    assert cores["balancer"] == cores["postgresql"] == frozenset(os.sched_getaffinity(0))
    assert {int(target.settings[f"core of {name}"]) for name in ("edge", "router")} == cores["edge"] | cores["router"]


def _cores(pid: int) -> frozenset[int]:
    """Of all its threads."""
    return frozenset[int]().union(*(os.sched_getaffinity(thread.id) for thread in psutil.Process(pid).threads()))
