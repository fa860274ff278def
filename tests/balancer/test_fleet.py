"""The fleet against a naive model that keeps everything and counts anew each time."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from balancer.fleet import SILENCE_SECONDS, Connection, Edge, Fleet, Load, Profile

NAMES = ("edge-1", "edge-2", "edge-3")
connections = st.builds(Connection.of, ip=st.sampled_from(["10.0.0.1", "10.0.0.2", ""]), user_id=st.sampled_from(["ann", "bob"]))
connection_lists = st.lists(connections, max_size=4)


@dataclass(eq=False)
class ModelEdge:
    """Everything said about one stream."""

    edge: Edge
    name: str
    heard: float
    reported: int
    open: list[Connection]
    draining: bool = False
    assigned: list[tuple[str, Connection | None, float]] = field(default_factory=list)


class FleetMachine(RuleBasedStateMachine):
    """Edges come, report, drain and go in any order, on streams old and new; time passes."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.fleet, self.now, self.tickets = Fleet(), 0.0, 0
        self.known: dict[str, ModelEdge] = {}

    @rule(target=streams, name=st.sampled_from(NAMES), opened=connection_lists)
    def enter(self, name: str, opened: list[Connection]) -> ModelEdge:
        edge = self.fleet.enter(Profile(name, f"ws://{name}", "", 100), opened, self.now)
        self.known[name] = ModelEdge(edge, name, self.now, len(opened), list(opened))
        return self.known[name]

    @rule(stream=streams)
    def leave(self, stream: ModelEdge) -> None:
        self.fleet.leave(stream.edge)
        if self.known.get(stream.name) is stream:
            del self.known[stream.name]

    @rule(
        stream=streams,
        opened=connection_lists,
        closed=connection_lists,
        count=st.integers(0, 9),
        draining=st.booleans(),
        data=st.data(),
    )
    def report(
        self, stream: ModelEdge, opened: list[Connection], closed: list[Connection], count: int, draining: bool, data: st.DataObject
    ) -> None:
        tickets = [ticket for known in self.known.values() for ticket, _, _ in known.assigned]
        arrived = data.draw(st.lists(st.sampled_from([*tickets, "unknown"]), max_size=3))
        self.fleet.report(stream.edge, Load(count, tuple(opened), tuple(closed), tuple(arrived), draining, 7), self.now)
        if self.known.get(stream.name) is not stream:
            return
        stream.heard, stream.reported = self.now, count
        stream.draining = stream.draining or draining
        stream.open += opened
        for connection in closed:
            if connection in stream.open:
                stream.open.remove(connection)
        stream.assigned = [one for one in stream.assigned if one[0] not in arrived]

    @rule(stream=streams)
    def drain(self, stream: ModelEdge) -> None:
        self.fleet.drain(stream.edge)
        stream.draining = True

    @rule(name=st.sampled_from(NAMES), connection=st.none() | connections, life=st.sampled_from([30.0, 31.0, 40.0]))
    def assign(self, name: str, connection: Connection | None, life: float) -> None:
        if name not in self.known:
            return
        self.tickets += 1
        self.fleet.assign(name, f"ticket-{self.tickets}", connection, self.now + life)
        self.known[name].assigned.append((f"ticket-{self.tickets}", connection, self.now + life))

    @rule(seconds=st.sampled_from([0.1, 1.0, SILENCE_SECONDS, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.fleet.expire(self.now)
        for edge in self.known.values():
            edge.assigned = [one for one in edge.assigned if one[2] > self.now]

    @invariant()
    def nodes_are_what_the_model_says(self) -> None:
        silent = {name for name, edge in self.known.items() if self.now - edge.heard >= SILENCE_SECONDS}
        expected = {
            (edge.name, edge.reported, len(edge.assigned), edge.draining or edge.name in silent) for edge in self.known.values()
        }
        nodes = self.fleet.nodes(self.now)
        assert {(node.node_id, node.connections, node.under_way, node.draining) for node in nodes} == expected
        assert [edge.profile.edge_id for edge in self.fleet.edges()] == sorted(self.known)

    @invariant()
    def counts_are_what_the_model_says(self) -> None:
        for ip in ("10.0.0.1", "10.0.0.2", ""):
            for user_id in ("ann", "bob", "eve"):
                self.check_count(Connection.of(ip, user_id))

    def check_count(self, asked: Connection) -> None:
        every = [one for edge in self.known.values() for one in [*edge.open, *(one[1] for one in edge.assigned if one[1])]]
        of_network = sum(one.network == asked.network for one in every) if asked.network else 0
        assert self.fleet.count(asked) == (of_network, sum(one.user_id == asked.user_id for one in every))

    def teardown(self) -> None:
        """With every stream gone, nothing is left behind."""
        for known in list(self.known.values()):
            self.fleet.leave(known.edge)
        remains: Any = self.fleet
        assert not remains._edges
        assert not remains._listed
        assert not remains._assignments
        assert not remains._by_network
        assert not remains._by_user


FleetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFleet = FleetMachine.TestCase
