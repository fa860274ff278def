"""The parts of the simulation: what one router, one balancer and the links cost at a size, and the storm. Each gives its figures,
and says in each note what was measured, what is scaled and what is assumed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.baselines import run_baselines
from bench.figures import Figures
from bench.growth_line import fit
from bench.simulation import costs, flow, frames, storm
from bench.simulation.costs import RosterCost, alone
from bench.simulation.indexed_roster import IndexedRoster
from router.roster import Roster

MEASURED_USERS = (100_000, 1_000_000, 10_000_000)
MEASURED_CONNECTIONS = (100_000, 300_000)
MESSAGE_BYTES = 120
STORED_SECONDS = 34e-6  # a router's CPU for a message in batches of 280: tests.router.measure
CONNECT_SECONDS = 0.45e-3  # a balancer's CPU for a client with HTTP, token and ticket, one edge: bench connect
SESSION_BYTES = 4.4 * 1024  # an idle session at its edge, plain: docs/performance.md
CORES = 0.7  # of the one that a Python process can use: beyond it, latency grows
SHARE = 10  # the storm is simulated on a tenth of the edges and balancers


@dataclass(frozen=True, slots=True)
class Size:
    """The fleet asked about."""

    edges: int = 1_000
    users: int = 100_000_000
    routers: int = 50
    balancers: int = 20
    lost: float = 0.1
    unit: int = 100
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't be simulated, in words."""
        if self.edges < 2 * SHARE or self.balancers < SHARE or not 0 < self.lost < 1:
            raise ValueError(f"at least {2 * SHARE} edges and {SHARE} balancers are needed, and a share of 0 to 1 that is lost")

    @property
    def gone(self) -> int:
        """Edges that are lost."""
        return round(self.edges * self.lost)


Rosters = dict[str, list[RosterCost]]


def rosters(size: Size) -> Rosters:
    """The router's roster as it is and as proposed, with all edges' links, at each size that is measured."""
    users = [count for count in MEASURED_USERS if count <= size.users]
    kinds: dict[str, Callable[[], Roster[int]]] = {"as it is": Roster[int], "indexed": IndexedRoster[int]}
    return {name: [alone(costs.roster, make, size.edges, count, size.seed) for count in users] for name, make in kinds.items()}


def router(size: Size, measured: Rosters) -> Figures:
    """One router's memory, and what its roster takes."""
    figures = Figures("simulation-router", {"edges": size.edges, "users": size.users, "measured_users": list(MEASURED_USERS)})
    for name, found in measured.items():
        _memory(figures, name, size, found)
        _times(figures, name, size, found)
    watch = alone(costs.watch_bytes, 20_000, 10, 1_000_000)
    figures.add("a watched presence, memory", watch, "bytes", note="measured: 20,000 sessions watch 10 of a million users each")
    watches = size.users * flow.Habits().watched / size.routers
    figures.add(
        "watches, memory", watches * watch / 2**30, "GiB", note=f"scaled: 10 a session (assumed), over {size.routers} routers"
    )
    return figures


def _memory(figures: Figures, name: str, size: Size, found: list[RosterCost]) -> None:
    line = fit([(one.users, one.held) for one in found])
    per = ", ".join(f"{one.held / one.users:.1f} at {one.users:,}" for one in found)
    figures.add(f"roster {name}: memory", line.slope, "bytes a user", note=f"measured: {per}; off the line by {line.deviation:.0%}")
    figures.add(f"roster {name}: memory of every router", line.value(size.users) / 2**20, "MiB", note="scaled along that line")
    figures.series[f"roster {name}, bytes"] = [one.held for one in found]
    figures.series["users"] = [one.users for one in found]


def _times(figures: Figures, name: str, size: Size, found: list[RosterCost]) -> None:
    last, where = found[-1], f"measured with {found[-1].users:,} users"
    for what, seconds in (
        ("find the two of a pair", last.where_two),
        ("find a hundred members", last.where_group),
        ("a user came", last.opened),
        ("a user left", last.closed),
    ):
        figures.add(f"roster {name}: {what}", seconds * 1e6, "µs", note=where)
    for what, times in (("a link came", [one.snapshot for one in found]), ("a link ended", [one.gone for one in found])):
        each = scaled([one.users for one in found], times, size.users)
        said = ", ".join(f"{one * 1e3:.1f} at {cost.users:,}" for one, cost in zip(times, found, strict=True))
        figures.add(f"roster {name}: {what}", each * 1e3, "ms", note=f"scaled; measured {said}")
        count, why = (size.gone, "lost") if what == "a link ended" else (size.edges, "when a router starts")
        figures.add(f"roster {name}: {what}, all of them", each * count, "s", note=f"{count:,} edges {why}: the loop stands still")


def scaled(users: list[int], values: list[float], wanted: float) -> float:
    """At the wanted size, along the line through the two largest that were measured; never below the largest."""
    if len(users) < 2:
        return values[-1]
    slope = (values[-1] - values[-2]) / (users[-1] - users[-2])
    return values[-1] + max(0.0, slope) * (wanted - users[-1])


def balancer(size: Size) -> Figures:
    """One balancer's memory and pace."""
    figures = Figures("simulation-balancer", {"edges": size.edges, "users": size.users})
    held = [(count, alone(costs.connection_bytes, count) * count) for count in MEASURED_CONNECTIONS]
    line = fit(held)
    figures.add("a connection in the books", line.slope, "bytes", note=f"measured up to {held[-1][0]:,}; every balancer has all")
    figures.add("books of every balancer", line.value(size.users) / 2**30, "GiB", note="scaled")
    for edges in (1, 10, 100, size.edges):
        figures.add(f"to place a client, {edges:,} edges", costs.admission(edges) * 1e6, "µs", note="measured, with its ticket")
    reports = size.edges / storm.REPORT_SECONDS
    figures.add("load reports when every edge changes", reports, "messages", note="a second at each balancer, by the contract")
    return figures


def links(size: Size, measured: Rosters) -> Figures:
    """Traffic of the links, routers needed, and where that ends."""
    habits, found = flow.Habits(), frames.sizes(MESSAGE_BYTES)
    settings = {"edges": size.edges, "users": size.users, "routers": size.routers}
    figures = Figures("simulation-links", settings | {f"habit_{name}": getattr(habits, name) for name in habits.__slots__})
    echo = next(one for one in run_baselines() if one.name == "grpc.aio one by one")
    each = echo.cpu_seconds_per_1000 / 1000 / 2
    figures.add("a gRPC message, taken or sent", each * 1e6, "µs", note="measured: half of an echo's CPU, one envelope in it")
    fleet = flow.Fleet(size.edges, size.routers, size.users)
    stored, opened = flow.rates(fleet, habits)
    figures.add("messages stored, all", stored, "/s", note="assumed: 40 a user and day, the busiest hour 2.5 times the day's")
    figures.add("sessions opened, all", opened, "/s", note="assumed: 10 a user and day; as many close")
    figures.add("links", size.edges * size.routers, "", note=f"{size.routers} at each edge, {size.edges:,} at each router")
    _link(figures, fleet, habits, found)
    _routers(figures, size, _costs(measured, each), habits, found)
    return figures


def _costs(measured: Rosters, message: float) -> dict[str, flow.Costs]:
    return {
        name: flow.Costs(
            message, STORED_SECONDS, one[-1].where_two, one[-1].opened, one[-1].closed, 0 if name == "indexed" else one[-1].edges
        )
        for name, one in measured.items()
    }


def _link(figures: Figures, fleet: flow.Fleet, habits: flow.Habits, sizes: frames.Sizes) -> None:
    one = flow.link(fleet, habits, sizes)
    note = f"up {one.messages_up:.0f}, down {one.messages_down:.0f}"
    figures.add("a link: gRPC messages", one.messages_up + one.messages_down, "/s", note=note)
    note = f"up {one.bytes_up / 1e3:.1f}, down {one.bytes_down / 1e3:.1f}; frames of {MESSAGE_BYTES} bytes, measured"
    figures.add("a link: traffic", (one.bytes_up + one.bytes_down) / 1e3, "kB a second", note=note)
    figures.add("a link: events in a gRPC message", one.events_each, "", better="more", note="about one: nothing gathers")
    whole = (one.bytes_up + one.bytes_down) * fleet.edges / 1e6
    figures.add("a router: traffic", whole, "MB a second", note=f"{fleet.edges:,} links")


def _routers(figures: Figures, size: Size, by_roster: dict[str, flow.Costs], habits: flow.Habits, sizes: frames.Sizes) -> None:
    fleet = flow.Fleet(size.edges, size.routers, size.users)
    ways = {
        "as it is": (fleet, by_roster["as it is"]),
        "roster indexed": (fleet, by_roster["indexed"]),
        "and comings gathered for 0.1 s": (replace(fleet, gather=0.1), by_roster["indexed"]),
        "and for 1 s": (replace(fleet, gather=1.0), by_roster["indexed"]),
        "or told to one router each": (replace(fleet, tell_all=False), by_roster["indexed"]),
    }
    for name, (wide, cost) in ways.items():
        load = flow.load(wide, habits, sizes, cost)
        note = f"announcements {load.announcements:.2f}, streams {load.streams:.2f}, messages {load.messages:.2f}"
        figures.add(f"{name}: a router", load.cores, "cores", note=f"{note}; it has one")
        needed = flow.routers_needed(wide, habits, sizes, cost, CORES)
        taken = flow.edge_cores(replace(wide, routers=needed), habits, sizes, cost) if needed else 0.0
        said = f"an edge then spends {taken:.2f} cores on its links" if needed else "0: no number is enough"
        figures.add(f"{name}: routers needed", needed, "", note=said)
        most = flow.largest(wide, habits, sizes, cost, CORES)
        note = f"users, with {size.users // size.edges:,} an edge and any number of routers"
        figures.add(f"{name}: carries at most", most, "users", better="more", note=note)


def storms(size: Size) -> Figures:
    """The lost edges' clients come back, in several worlds."""
    placing = CONNECT_SECONDS + costs.admission(size.edges) - costs.admission(1)
    settings = {"edges": size.edges, "users": size.users, "lost": size.gone, "balancers": size.balancers, "unit": size.unit}
    figures = Figures("simulation-storm", settings | {"simulated_share": SHARE, "seed": size.seed})
    figures.add(
        "a balancer's pace now", 1 / placing, "clients/s", note=f"{CONNECT_SECONDS * 1e3} ms of bench connect, {size.edges:,} edges"
    )
    plenty = 100.0 * size.edges
    here = storm.StormOptions(size.edges // SHARE, size.users // SHARE, size.lost, 500.0, size.balancers // SHARE, 1 / placing)
    here = replace(here, unit=size.unit, seed=size.seed)
    worlds = {
        "as it is": replace(here, limit=300.0),
        "nothing done for who left": replace(here, wasted=0.0, limit=3_600.0),
        "appointments for who is early": replace(here, bound=2.0),
        "balancers without limit, edges 500/s": replace(here, admits=plenty),
        "balancers without limit, edges 1,000/s": replace(here, admits=plenty, capacity=1_000.0),
        "the same, appointments, 500/s": replace(here, admits=plenty, bound=2.0),
    }
    for name, world in worlds.items():
        _storm(figures, name, storm.run(world), world)
    return figures


def _storm(figures: Figures, name: str, found: storm.Storm, world: storm.StormOptions) -> None:
    cut_off, back = found.cut_off * SHARE, sum(found.back) * SHARE
    note = f"{back:,} of {cut_off:,} within {world.limit if back < cut_off else len(found.back):.0f} s"
    for share, said in ((0.99, "99 % back after"), (1.0, "all back after")):
        seconds = found.seconds_until(share)
        figures.add(
            f"{name}: {said}",
            seconds if math.isfinite(seconds) else 0.0,
            "s",
            note=note if math.isfinite(seconds) else f"never: {note}",
        )
    left = ", ".join(f"{count * SHARE:,} at {where}" for where, count in found.waited.items()) or "none"
    figures.add(
        f"{name}: attempts",
        sum(found.attempts) / found.cut_off,
        "each",
        note=f"given up: {left}; {found.appointed * SHARE:,} appointed",
    )
    figures.add(
        f"{name}: most sessions a second", max(found.back, default=0) * SHARE, "/s", note=f"{found.polling * SHARE:,} by long poll"
    )
    memory = f"{found.most * SESSION_BYTES / 2**30:.2f} GiB at {SESSION_BYTES / 1024:.1f} KiB a session"
    figures.add(f"{name}: fullest edge / average", found.most / found.average, "", note=f"{found.most:,} sessions, {memory}")
    figures.series[f"{name}: back"] = [count * SHARE for count in found.back]
    figures.series[f"{name}: attempts"] = [count * SHARE for count in found.attempts]
    figures.faults["people nowhere or twice"] = figures.faults.get("people nowhere or twice", 0) + found.astray
