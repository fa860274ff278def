"""The door, the rate limit, rebalancing and addresses, without a socket."""

import math
from collections import defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.door import Caps, Door
from balancer.fleet import Connection, Fleet, Profile
from balancer.policies.node import Node
from balancer.policies.two_choices import two_choices
from balancer.rebalance import ROUND_SECONDS, SETTLE_SECONDS, Rebalance, excess, within
from mesh import errors
from mesh.addresses import client_address, network
from mesh.credentials import TICKET_SECONDS, Identity, TicketIssuer
from mesh.rate_limit import RateLimit
from tidings.common.v1 import error_pb2

ALICE = Identity("alice", 1e12)


def door(fleet: Fleet, per_network: int = 0, per_user: int = 0) -> Door:
    return Door(fleet, two_choices, TicketIssuer("k" * 32), Caps(per_network, per_user, 2.0), Random(0))


def test_an_assignment_that_never_arrives_stops_counting_after_its_ticket_ran_out() -> None:
    fleet = Fleet()
    fleet.enter(Profile("edge-1", "ws://edge-1", "", 1), [], 0.0)
    asked = door(fleet, per_user=1)
    asked.admit(ALICE, "10.0.0.1", "", 0.0, 1000.0)
    with pytest.raises(errors.TidingsError) as refused:
        asked.admit(ALICE, "10.0.0.1", "", 5.9, 1000.0)
    assert refused.value.code == error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS
    fleet.enter(Profile("edge-2", "ws://edge-2", "", 1), [], TICKET_SECONDS)
    assert asked.admit(ALICE, "10.0.0.1", "", TICKET_SECONDS, 1000.0).url == "ws://edge-2"


def test_an_edge_that_fell_silent_gets_nobody() -> None:
    fleet = Fleet()
    fleet.enter(Profile("edge-1", "ws://edge-1", "", 100), [], 0.0)
    with pytest.raises(errors.TidingsError) as refused:
        door(fleet).admit(ALICE, "10.0.0.1", "", 6.0, 1000.0)
    assert refused.value.code == error_pb2.ERROR_CODE_NO_CAPACITY
    assert 2.0 <= (refused.value.retry_after or 0) <= 4.0


def test_a_whole_ipv6_subscriber_is_one_address() -> None:
    fleet = Fleet()
    fleet.enter(Profile("edge-1", "ws://edge-1", "", 100), [Connection.of("2001:db8::1", "bob")], 0.0)
    with pytest.raises(errors.TidingsError):
        door(fleet, per_network=1).admit(ALICE, "2001:db8::2", "", 0.0, 1000.0)
    assert door(fleet, per_network=1).admit(ALICE, "2001:db8:0:1::2", "", 0.0, 1000.0)


@pytest.mark.parametrize(
    ("forwarded_for", "proxies", "expected"),
    [
        ("", 0, "10.0.0.1"),
        ("1.1.1.1", 0, "10.0.0.1"),
        ("", 1, "10.0.0.1"),
        ("1.1.1.1, 2.2.2.2", 1, "2.2.2.2"),
        ("1.1.1.1, 2.2.2.2", 2, "1.1.1.1"),
        ("1.1.1.1, 2.2.2.2", 3, "10.0.0.1"),
        ("2.2.2.2:4711", 1, "2.2.2.2"),
        ("[2001:db8::1]:4711", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("unknown", 1, "10.0.0.1"),
        ("'; drop", 1, "10.0.0.1"),
    ],
)
def test_the_client_address_behind_proxies(forwarded_for: str, proxies: int, expected: str) -> None:
    assert client_address("10.0.0.1", forwarded_for, proxies) == expected


@given(st.text(max_size=60), st.integers(0, 4))
def test_no_header_makes_an_address_fail(forwarded_for: str, proxies: int) -> None:
    assert network(client_address("10.0.0.1", forwarded_for, proxies))


def test_networks() -> None:
    assert network("10.0.0.1") == network("::ffff:10.0.0.1") == "10.0.0.1"
    assert network("fe80::1%eth0") == "fe80::/64"
    assert network("2001:db8::1") == network("2001:DB8:0:0:ffff::9") == "2001:db8::/64"
    assert network("") == ""


class NaiveBucket:
    """A token bucket as one would explain it."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self.burst, self.tokens, self.at = per_second, burst, float(burst), 0.0

    def take(self, now: float) -> bool:
        self.tokens, self.at = min(self.burst, self.tokens + (now - self.at) * self.per_second), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(
    burst=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0])), max_size=60),
)
def test_the_rate_limit_is_a_token_bucket_per_key(burst: int, steps: list[tuple[str, float]]) -> None:
    limit, now = RateLimit(2.0, burst, 100), 0.0  # powers of two: exact in binary
    buckets: dict[str, NaiveBucket] = defaultdict(lambda: NaiveBucket(2.0, burst))
    for key, pause in steps:
        now += pause
        wait = limit.take(key, now)
        assert (wait == 0) == buckets[key].take(now)
        if wait > 0:
            assert limit.take(key, now + wait * 0.99) > 0


def test_a_wait_that_was_kept_is_rewarded() -> None:
    limit = RateLimit(3.0, 1, 100)
    assert limit.take("a", 10.0) == 0
    wait = limit.take("a", 10.0)
    assert wait == pytest.approx(1 / 3)
    assert limit.take("a", 10.0 + wait + 1e-9) == 0


@given(st.lists(st.tuples(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 10.0])), max_size=200))
def test_the_rate_limit_remembers_no_more_than_it_may(steps: list[tuple[int, float]]) -> None:
    limit, now = RateLimit(1.0, 10, 20), 0.0
    for key, pause in steps:
        now += pause
        limit.take(str(key), now)
        assert len(limit) <= 20
    for key in range(2_000, 2_030):  # long after, what was is forgotten as others come
        limit.take(str(key), now + 1_000 + key)
    assert len(limit) <= 2


loads = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300), st.booleans()), min_size=1, max_size=8)


def nodes_of(rows: list[tuple[int, int, bool]]) -> list[Node]:
    return [Node(f"edge-{number}", "", have, 0, capacity, draining) for number, (have, capacity, draining) in enumerate(rows)]


@given(rows=loads)
def test_only_those_above_the_average_shed_and_not_below_it(rows: list[tuple[int, int, bool]]) -> None:
    nodes = nodes_of(rows)
    staying = [node for node in nodes if not node.draining]
    over = excess(nodes)
    for node in staying:
        share = sum(other.connections for other in staying) * node.capacity / sum(other.capacity for other in staying)
        left = node.connections - over.get(node.node_id, 0)
        assert left >= share or node.node_id not in over
        assert left <= math.ceil(share)
    assert set(over) <= {node.node_id for node in staying}


@given(counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1_000)), budget=st.integers(1, 2_000))
def test_a_budget_is_kept_and_used(counts: dict[str, int], budget: int) -> None:
    granted = within(counts, budget)
    assert all(0 < granted[key] <= counts[key] for key in granted)
    assert sum(granted.values()) == min(budget, sum(counts.values())) or sum(granted.values()) >= budget - len(counts)
    assert sum(granted.values()) <= budget


def test_a_round_keeps_the_rate_and_the_next_waits_for_its_end() -> None:
    rebalance, nodes = Rebalance(), nodes_of([(10_000, 100, False), (0, 100, False)])
    orders, seconds = rebalance.round(nodes, 10, 0.0)
    assert (orders, seconds) == ({"edge-0": int(10 * ROUND_SECONDS)}, ROUND_SECONDS)
    over = ROUND_SECONDS + SETTLE_SECONDS
    assert rebalance.round(nodes, 10, over - 0.1) == ({}, 0.0)
    assert rebalance.round(nodes, 1_000, over) == ({"edge-0": 5_000}, 5.0)


@given(rows=loads, tolerance=st.floats(0, 1))
def test_whoever_is_within_the_tolerance_is_left_alone_and_the_others_shed_all_the_same(
    rows: list[tuple[int, int, bool]], tolerance: float
) -> None:
    nodes = nodes_of(rows)
    staying = [node for node in nodes if not node.draining]
    total, capacity = sum(node.connections for node in staying), sum(node.capacity for node in staying)
    exact = excess(nodes)
    above = {node.node_id for node in staying if node.connections > total * node.capacity / capacity * (1 + tolerance)}
    assert excess(nodes, tolerance) == {node_id: count for node_id, count in exact.items() if node_id in above}


def test_nobody_is_sent_away_for_an_edge_that_everybody_is_just_coming_to() -> None:
    nodes = [Node("edge-1", "", 100, 0, 1_000), Node("edge-2", "", 0, 100, 1_000)]
    assert excess(nodes) == {}
    assert excess([nodes[0], Node("edge-2", "", 0, 0, 1_000)]) == {"edge-1": 50}


def test_a_level_or_empty_fleet_is_left_alone() -> None:
    assert Rebalance().round([], 10, 0.0) == ({}, 0.0)
    assert Rebalance().round(nodes_of([(5, 10, False), (5, 10, False), (900, 10, True)]), 10, 0.0) == ({}, 0.0)
