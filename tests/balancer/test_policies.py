"""Policies are pure: properties of what they pick."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policies import POLICIES, named
from balancer.policies.consistent_hash import EPSILON, consistent_hash
from balancer.policies.node import Asker, Node
from balancer.policies.two_choices import DRAWS, two_choices

node_lists = st.lists(
    st.builds(
        Node,
        node_id=st.uuids().map(str),
        zone=st.sampled_from(["", "a", "b"]),
        connections=st.integers(0, 40),
        under_way=st.integers(0, 10),
        capacity=st.integers(1, 50),
        draining=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda node: node.node_id,
)
zones = st.sampled_from(["", "a", "b", "elsewhere"])


def fleet(count: int, capacity: int = 1_000_000, zone: str = "") -> dict[str, Node]:
    return {name: Node(name, zone, 0, 0, capacity) for name in (f"edge-{number}" for number in range(count))}


def fill(nodes: dict[str, Node], policy: str, users: int) -> dict[str, str]:
    """Assign users one after another, each counted; gives who went where."""
    random, went = Random(1), {}
    for number in range(users):
        node = named(policy)(list(nodes.values()), Asker(f"user-{number}"), random)
        assert node is not None
        nodes[node.node_id] = replace(node, under_way=node.under_way + 1)
        went[f"user-{number}"] = node.node_id
    return went


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(nodes=node_lists, zone=zones, seed=st.integers(0, 99))
def test_it_picks_one_that_takes_more_in_the_zone_if_any_else_anywhere(
    policy: str, nodes: list[Node], zone: str, seed: int
) -> None:
    takers = [node for node in nodes if not node.draining and node.connections + node.under_way < node.capacity]
    picked = named(policy)(nodes, Asker("alice", zone), Random(seed))
    if not takers:
        assert picked is None
        return
    assert picked in takers
    if zone and any(node.zone == zone for node in takers):
        assert picked.zone == zone


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(nodes=node_lists, seed=st.integers(0, 99))
def test_it_is_a_function_of_its_arguments(policy: str, nodes: list[Node], seed: int) -> None:
    before = list(nodes)
    one, other = (named(policy)(nodes, Asker("alice"), Random(seed)) for _ in range(2))
    assert one is other
    assert nodes == before


def test_two_choices_never_takes_the_fullest_of_two() -> None:
    nodes = [Node("calm", "", 10, 0, 100), Node("busy", "", 0, 11, 100)]
    assert {two_choices(nodes, Asker("u"), Random(seed)) for seed in range(50)} == {nodes[0]}


class Looked(Sequence[Node]):
    """Nodes, and how often one was looked at."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes, self.times = nodes, 0

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, at: Any) -> Any:
        self.times += 1
        return self.nodes[at]


@pytest.mark.parametrize("zone", ["", "a"])
def test_two_choices_looks_at_a_few_of_many(zone: str) -> None:
    nodes = [Node(f"edge-{n}", "ab"[n % 2], n, 0, 1_000, draining=n % 5 == 0) for n in range(900)]
    loads, looks = list[int](), 0
    for seed in range(200):
        seen = Looked(nodes)
        picked = two_choices(seen, Asker("u", zone), Random(seed))
        assert picked is not None
        assert picked.takes_more
        assert picked.zone == (zone or picked.zone)
        loads.append(picked.load)
        looks += seen.times
    assert looks / len(loads) < 2 * DRAWS, "once in some hundred times all are gone through"
    assert 250 < sum(loads) / len(loads) < 350, "the less full of two is a third of the way up"


def test_two_choices_finds_the_last_that_takes_more() -> None:
    nodes = [Node(f"edge-{n}", "", 10, 0, 10) for n in range(900)]
    assert two_choices(nodes, Asker("u"), Random(0)) is None
    nodes[777] = replace(nodes[777], connections=3)
    assert two_choices(nodes, Asker("u"), Random(0)) is nodes[777]


def test_two_choices_counts_what_is_under_way_so_a_burst_spreads() -> None:
    loads = Counter(fill(fleet(10), "two_choices", 1_000).values())
    assert max(loads.values()) - 100 <= 5  # the gap is about log log n, whatever the number of users
    assert min(loads.values()) >= 90


def test_two_choices_fills_by_capacity() -> None:
    nodes = fleet(4, capacity=1_000)
    nodes["edge-0"] = replace(nodes["edge-0"], capacity=3_000)
    loads = Counter(fill(nodes, "two_choices", 1_200).values())
    assert abs(loads["edge-0"] - 600) < 40


def test_consistent_hash_sends_a_user_to_the_same_edge_while_loads_change_within_the_bound() -> None:
    nodes = list(fleet(10, 1_000).values())
    calm = [replace(node, connections=100) for node in nodes]
    lively = [replace(node, connections=100 + number) for number, node in enumerate(nodes)]
    for number in range(200):
        one, other = (consistent_hash(state, Asker(f"user-{number}"), Random(0)) for state in (calm, lively))
        assert one is not None
        assert other is not None
        assert one.node_id == other.node_id


@given(count=st.integers(1, 12), users=st.integers(1, 300))
def test_consistent_hash_keeps_every_edge_within_its_bound(count: int, users: int) -> None:
    loads = Counter(fill(fleet(count), "consistent_hash", users).values())
    assert max(loads.values()) <= math.ceil((1 + EPSILON) * users / count)


def test_consistent_hash_moves_only_a_leaving_edges_users_when_no_bound_is_near() -> None:
    nodes = list(fleet(8).values())
    users = [f"user-{number}" for number in range(500)]

    def places(among: list[Node]) -> dict[str, str]:
        picked = {user: consistent_hash(among, Asker(user), Random(0)) for user in users}
        return {user: node.node_id for user, node in picked.items() if node is not None}

    before, after = places(nodes), places(nodes[1:])
    assert len(after) == len(users)
    assert {user for user in users if before[user] != after[user]} == {user for user in users if before[user] == "edge-0"}


def test_consistent_hash_gives_by_capacity() -> None:
    nodes = [replace(node, capacity=300 if node.node_id == "edge-0" else 100) for node in fleet(4).values()]
    loads = Counter(node.node_id for number in range(3_000) if (node := consistent_hash(nodes, Asker(f"u{number}"), Random(0))))
    assert abs(loads["edge-0"] - 1_500) < 120


def test_an_unknown_name_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="no policy 'round_robin': use one of consistent_hash, two_choices"):
        named("round_robin")
