"""The simulation of a large fleet: nobody gets lost in it, the same seed gives the same storm, small cases come out as by hand."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from bench.simulation import flow, frames
from bench.simulation.desk import AppointedError, Desk
from bench.simulation.indexed_roster import IndexedRoster
from bench.simulation.parts import scaled
from bench.simulation.scatter import Scatter
from bench.simulation.storm import Simulation, StormOptions, run
from router.roster import Roster

SMALL = StormOptions(edges=10, users=4_000, capacity=50.0, balancers=2, admits=200.0, unit=1)


def test_the_same_seed_gives_the_same_storm() -> None:
    assert run(SMALL) == run(SMALL)
    assert run(SMALL) != run(replace(SMALL, seed=2))


@pytest.mark.parametrize(
    "world", [SMALL, replace(SMALL, bound=0.5), replace(SMALL, wasted=0.0), replace(SMALL, notice=(45.0, 75.0))]
)
def test_everybody_is_somewhere(world: StormOptions) -> None:
    simulation = Simulation(world)
    before = simulation.sessions
    found = simulation.run()
    assert found.cut_off == 400
    assert sum(found.back) == 400
    assert simulation.sessions == before + 400 == 4_000
    assert found.astray == 0
    assert sum(found.attempts) >= 400
    assert found.most <= 1.05 * found.average


def test_a_storm_that_one_can_reckon() -> None:
    """A hundred clients, one edge that lets in ten a second: the hundredth is in after ten seconds and the first wait of half a
    second at most."""
    found = run(StormOptions(edges=2, users=200, lost=0.5, capacity=10.0, balancers=1, admits=1e6, unit=1))
    assert found.cut_off == sum(found.back) == sum(found.attempts) == 100
    assert found.seconds_until(1.0) == 11.0
    assert found.back[1:9] == [10] * 8


def test_a_service_far_behind_works_for_those_who_left() -> None:
    behind = replace(SMALL, admits=5.0, capacity=500.0, limit=300.0)
    assert sum(run(behind).back) < 200
    assert sum(run(replace(behind, bound=1.0)).back) == 400


def test_a_desk_serves_in_order_at_its_pace() -> None:
    desk = Desk(pace=2.0, patience=10.0)
    assert [desk.take(0.0) for _ in range(3)] == [0.5, 1.0, 1.5]
    assert desk.take(5.0) == 5.5


def test_a_desk_gives_appointments_at_its_pace() -> None:
    desk = Desk(pace=1.0, patience=10.0, bound=1.5)
    assert [desk.take(0.0), desk.take(0.0)] == [1.0, 2.0]
    waits = []
    for _ in range(3):
        with pytest.raises(AppointedError) as refused:
            desk.take(0.0)
        waits.append(refused.value.retry_after)
    assert waits == pytest.approx([3.0, 4.0, 5.0])


def test_users_are_scattered_and_nobody_is_twice() -> None:
    scatter = Scatter(20, 100_000)
    edges = [scatter.online(edge) for edge in range(20)]
    assert len(BitMap.union(*edges)) == sum(map(len, edges)) == 100_000
    assert max(edge.max() for edge in edges) <= scatter.highest
    assert edges[0].intersection_cardinality(BitMap(range(scatter.highest // 2))) == pytest.approx(2_500, rel=0.1)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["snapshot", "opened", "closed", "gone"]), st.integers(0, 4), st.sets(st.integers(1, 12), max_size=5)
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(CHANGES)
def test_the_proposed_roster_says_what_the_roster_says(changes: list[tuple[str, int, set[int]]]) -> None:
    real, proposed, there = Roster[int](), IndexedRoster[int](), set[int]()
    for what, link, users in changes:
        if what == "snapshot":
            assert proposed.snapshot(link, BitMap(users)) == real.snapshot(link, BitMap(users))
            there.add(link)
        elif what == "gone":
            assert proposed.gone(link) == real.gone(link)
            there.discard(link)
        elif link in there:
            assert getattr(proposed, what)(link, users) == getattr(real, what)(link, users)
        assert proposed.online == real.online
        assert _sorted(proposed) == _sorted(real)


def _sorted(roster: Roster[int]) -> list[tuple[int, list[int]]]:
    return sorted((link, sorted(users)) for link, users in roster.where(range(1, 13)))


def test_links_carry_less_each_and_more_in_all_with_more_routers() -> None:
    sizes, habits = frames.sizes(120), flow.Habits()
    few, many = (flow.link(flow.Fleet(100, routers, 1e7), habits, sizes) for routers in (5, 50))
    assert many.messages_up + many.messages_down < few.messages_up + few.messages_down
    assert 50 * (many.messages_up + many.messages_down) > 5 * (few.messages_up + few.messages_down)
    assert sizes.delivery > sizes.append > 120


def test_announcements_are_what_more_routers_do_not_help() -> None:
    sizes, habits, costs = frames.sizes(120), flow.Habits(), flow.Costs(1e-4, 34e-6, 4e-6, 8e-6, 4e-6)
    small, large = flow.Fleet(20, 1, 2e6), flow.Fleet(1_000, 1, 1e8)
    assert 0 < flow.routers_needed(small, habits, sizes, costs, 0.7) < 100
    assert flow.routers_needed(large, habits, sizes, costs, 0.7) == 0
    assert flow.routers_needed(replace(large, tell_all=False), habits, sizes, costs, 0.7) > 0
    assert 2e6 < flow.largest(large, habits, sizes, costs, 0.7) < 1e8


def test_what_is_scaled_follows_the_two_largest() -> None:
    assert scaled([1, 10, 100], [7.0, 10.0, 100.0], 200) == 200.0
    assert scaled([10, 100], [10.0, 9.0], 200) == 9.0
    assert scaled([10], [10.0], 200) == 10.0
