"""What goes over the links of a large fleet, and what that costs a router: pure arithmetic over measured parts. Times are seconds.

Every edge is linked to every router. A user's messages, marks and questions go to one router each, so a link carries its share of
them: the whole over edges times routers. Who is online is told to *every* router, so of that a link carries an edge's whole share,
however many routers there are.

A gRPC message carries what gathered since the last one. With events of a kind coming by chance at a rate, and a time for which the
first is held back for others, that is rate / (1 + rate * time) messages a second: alone where little comes, together where much
does. A router or edge that is overloaded would make larger batches than this says; one that isn't, and that is what is asked, not.
"""

from dataclasses import dataclass, replace

from bench.simulation.frames import Sizes

DAY = 86_400.0
SESSIONS, MARKS, SOON = 0.005, 0.020, 0.001
"""How long edge/link.py holds back comings and goings, and marks; a turn of the event loop for what isn't held back."""
SPOKEN = 1.0  # gRPC messages a second by which a router shows each edge that it lives
_BISECTIONS = 30
TELLS = 0.05  # both sides tell what they have acted on at most this late, alone when nothing else is said meanwhile


@dataclass(frozen=True, slots=True)
class Habits:
    """What people do: assumed.

    Attributes:
        messages: that a user who is online sends in a day.
        peak: the busiest hour's rate over the day's.
        recipients: users online who are sent each message, in pairs and groups together.
        marks: delivered and read, for each delivery.
        sessions: that a user opens in a day.
        watched: users whose presence a session watches.
        watched_online: share of them who are online themselves.
    """

    messages: float = 40.0
    peak: float = 2.5
    recipients: float = 2.0
    marks: float = 1.5
    sessions: float = 10.0
    watched: float = 10.0
    watched_online: float = 0.5


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a router's CPU: measured.

    Attributes:
        message: to take or to send one gRPC message, whatever it holds.
        stored: for a message stored in large batches, with its replies, deliveries, marks and receipts, but not finding its users.
        find: to find the users of a conversation.
        opened, closed: a user came to an edge, or left it.
        edges: with so many, where `find` and `closed` grow with the edges; 0 where they don't.
    """

    message: float
    stored: float
    find: float
    opened: float
    closed: float
    edges: int = 0

    def at(self, edges: int) -> "Costs":
        """With other edges."""
        share = edges / self.edges if self.edges else 1.0
        return replace(self, find=self.find * share, closed=self.closed * share)


@dataclass(frozen=True, slots=True)
class Fleet:
    """How large.

    Attributes:
        gather: for how long an edge holds back comings and goings.
        tell_all: whether every router is told of them; else one, the user's owner, and what that would cost the messages, which
            then have to ask for their recipients, is left out.
    """

    edges: int
    routers: int
    users: float
    gather: float = SESSIONS
    tell_all: bool = True

    @property
    def told(self) -> float:
        """Share of the routers that hear of each coming and going."""
        return 1.0 if self.tell_all else 1 / self.routers


@dataclass(frozen=True, slots=True)
class Link:
    """One link, each second: gRPC messages and bytes, and how many events a message holds."""

    messages_up: float
    messages_down: float
    bytes_up: float
    bytes_down: float
    events_each: float


@dataclass(frozen=True, slots=True)
class Load:
    """Cores of one router that are taken, by what for."""

    announcements: float
    streams: float
    messages: float

    @property
    def cores(self) -> float:
        """In all."""
        return self.announcements + self.streams + self.messages


def rates(fleet: Fleet, habits: Habits) -> tuple[float, float]:
    """Messages stored, and sessions opened (as many close), a second in the whole fleet in the busiest hour."""
    return fleet.users * habits.messages * habits.peak / DAY, fleet.users * habits.sessions * habits.peak / DAY


def link(fleet: Fleet, habits: Habits, sizes: Sizes) -> Link:
    """One of them."""
    stored, opened = (rate / fleet.edges for rate in rates(fleet, habits))
    mine, given = stored / fleet.routers, stored * habits.recipients / fleet.routers
    marks, asked = given * habits.marks, 2 * opened / fleet.routers
    told = 2 * opened * habits.watched * habits.watched_online / fleet.routers
    comings = 2 * opened * fleet.told
    up = _gathered(mine, SOON) + _gathered(marks, MARKS) + _gathered(comings + asked, fleet.gather)
    down = _gathered(mine + given + marks + asked + told, SOON) + _gathered(opened * fleet.told, fleet.gather) + SPOKEN
    bytes_up = mine * sizes.append + marks * sizes.mark + opened / fleet.routers * sizes.opening + comings * sizes.online
    bytes_down = mine * sizes.reply + given * sizes.delivery + marks * sizes.receipt
    bytes_down += opened / fleet.routers * sizes.opened + told * sizes.presence
    told_up, told_down = _alone(down - SPOKEN, up), _alone(up, down)
    events = (2 * mine + given + 2 * marks + 2 * asked + told + comings) / (up + down)
    up, down = up + told_up, down + told_down
    return Link(up, down, bytes_up + up * sizes.batch, bytes_down + down * sizes.batch, events)


def load(fleet: Fleet, habits: Habits, sizes: Sizes, costs: Costs) -> Load:
    """One router's."""
    costs = costs.at(fleet.edges)
    stored, opened = rates(fleet, habits)
    one, quiet = link(fleet, habits, sizes), link(fleet, replace(habits, messages=0.0, watched=0.0), sizes)
    each = (quiet.messages_up + quiet.messages_down) * fleet.edges * costs.message
    announcements = each + opened * fleet.told * (costs.opened + costs.closed)
    streams = (one.messages_up + one.messages_down) * fleet.edges * costs.message - each
    return Load(announcements, streams, stored / fleet.routers * (costs.stored + costs.find))


def edge_cores(fleet: Fleet, habits: Habits, sizes: Sizes, costs: Costs) -> float:
    """Cores of one edge that its links take, before a single client is served."""
    one = link(fleet, habits, sizes)
    return (one.messages_up + one.messages_down) * fleet.routers * costs.message


def routers_needed(fleet: Fleet, habits: Habits, sizes: Sizes, costs: Costs, cores: float, most: int = 10_000) -> int:
    """The fewest routers with which none takes more than so many cores; 0 when no number does."""
    low, high = 1, most
    if load(replace(fleet, routers=most), habits, sizes, costs).cores > cores:
        return 0
    while low < high:
        middle = (low + high) // 2
        if load(replace(fleet, routers=middle), habits, sizes, costs).cores > cores:
            low = middle + 1
        else:
            high = middle
    return low


def largest(fleet: Fleet, habits: Habits, sizes: Sizes, costs: Costs, cores: float) -> float:
    """The most users, with as many at each edge as in `fleet`, that some number of routers carries."""
    low, high, each = 0.0, fleet.users * 10, fleet.users / fleet.edges
    for _ in range(_BISECTIONS):
        users = (low + high) / 2
        smaller = replace(fleet, users=users, edges=max(1, round(users / each)))
        low, high = (users, high) if routers_needed(smaller, habits, sizes, costs, cores) else (low, users)
    return low


def _gathered(rate: float, held: float) -> float:
    """gRPC messages a second for events that come at a rate, when the first is held back for so long."""
    return rate / (1 + rate * held)


def _alone(heard: float, said: float) -> float:
    """gRPC messages a second that only tell what was acted on: one after what is heard, unless something is said in time anyway."""
    return _gathered(heard, TELLS) / (1 + said * TELLS)
