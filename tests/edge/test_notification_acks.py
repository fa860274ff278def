"""Acknowledgements of notifications by themselves: gathered, kept until acted on, bounded, and brought to the right router."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pyroaring import BitMap

from edge.ack_routes import MAX_SENDERS, AckRoutes
from edge.link_queue import LinkQueue
from edge.notification_acks import MAX_NOTIFICATIONS, NotificationAcks
from mesh.naming import new_notification_id, owner

Pairs = set[tuple[str, int]]
IDS = ["na", "nb", "nc", "nd", "ne"]


def told(acks: NotificationAcks, sequence: int, max_bytes: int = 1_000_000) -> dict[str, set[int]]:
    taken = acks.take(sequence, max_bytes)
    return {one.notification_id: set(BitMap.deserialize(one.user_ordinals)) for one in taken}


class AcksMachine(RuleBasedStateMachine):
    """Whatever a router does, nothing accepted is forgotten before it has acted on it, and the bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.acks = NotificationAcks(4, 12)
        self.waiting: Pairs = set()
        self.sent: list[tuple[int, Pairs]] = []
        self.acted_on: Pairs = set()
        self.sequence = 0

    @rule(notification_id=st.sampled_from(IDS), users=st.sets(st.integers(1, 9), min_size=1, max_size=4), stray=st.booleans())
    def acknowledge(self, notification_id: str, users: set[int], stray: bool) -> None:
        new = {(notification_id, user) for user in users} - self.waiting
        known = notification_id in {one for one, _ in self.waiting}
        places = 2 if stray else 4
        dropped = self.acks.add(notification_id, BitMap(users), stray)
        if not known and (self.notifications >= places or self.users >= 12):
            assert dropped == len(users)
        else:
            assert dropped == max(0, len(new) - (12 - self.users))
            self.waiting |= set(sorted(new)[: len(new) - dropped])

    @precondition(lambda self: self.waiting)
    @rule(max_bytes=st.integers(1, 100))
    def take(self, max_bytes: int) -> None:
        self.acks.release()
        self.sequence += 1
        pairs = {(one, user) for one, users in told(self.acks, self.sequence, max_bytes).items() for user in users}
        assert pairs
        assert pairs <= self.waiting
        self.waiting -= pairs
        self.sent.append((self.sequence, pairs))
        assert self.acks.due == bool(self.waiting)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def process(self, data: st.DataObject) -> None:
        sequence = data.draw(st.integers(self.sent[0][0], self.sequence))
        self.acks.on_processed(sequence)
        self.sent = [(number, pairs) for number, pairs in self.sent if number > sequence]

    @rule()
    def lose(self) -> None:
        found = {(one, user) for one, users in self.acks.abandon().items() for user in users}
        assert found == self.waiting.union(*(pairs for _, pairs in self.sent))
        self.waiting, self.sent = set(), []
        assert not self.acks.due

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.users <= 12
        assert self.notifications <= 4

    @property
    def users(self) -> int:
        return len(self.waiting) + sum(len(pairs) for _, pairs in self.sent)

    @property
    def notifications(self) -> int:
        return sum(len({one for one, _ in pairs}) for pairs in (self.waiting, *(pairs for _, pairs in self.sent)))


TestAcks = AcksMachine.TestCase


def test_they_wait_to_be_released_and_go_in_one_bitmap() -> None:
    queue = LinkQueue(10, 10)
    for ordinal in range(1, 1_001):
        queue.acks.add("na", BitMap([ordinal]), stray=False)
    assert queue.take() is None
    queue.acks.release()
    request = queue.take()
    assert request is not None
    (one,) = request.batch.notification_acknowledgements
    assert set(BitMap.deserialize(one.user_ordinals)) == set(range(1, 1_001))
    assert queue.take() is None
    queue.on_processed(request.sequence)
    assert not queue.acks.abandon()


def test_what_exceeds_a_batch_goes_with_the_next_ones() -> None:
    acks = NotificationAcks()
    for notification_id in IDS:
        acks.add(notification_id, BitMap([7]), stray=False)
    acks.release()
    batches = [told(acks, sequence, 60) for sequence in (1, 2, 3)]
    assert [len(batch) for batch in batches] == [3, 2, 0]
    acks.on_processed(1)
    assert set(acks.abandon()) == set(IDS[3:])


def test_a_repeated_acknowledgement_takes_no_room() -> None:
    acks = NotificationAcks(10, 3)
    assert sum(acks.add("na", BitMap([1, 2, 3]), stray=False) for _ in range(10)) == 0
    assert acks.add("na", BitMap([3, 4]), stray=False) == 1
    acks.release()
    assert told(acks, 1) == {"na": {1, 2, 3}}


def test_made_up_ids_leave_room_for_the_others() -> None:
    acks = NotificationAcks()
    made_up = sum(acks.add(new_notification_id(), BitMap([1]), stray=True) for _ in range(MAX_NOTIFICATIONS))
    assert made_up == MAX_NOTIFICATIONS // 2
    assert sum(acks.add(new_notification_id(), BitMap([1]), stray=False) for _ in range(MAX_NOTIFICATIONS // 2)) == 0


# To which router


class Link:
    def __init__(self) -> None:
        self.acks = NotificationAcks()

    def acknowledge(self, notification_id: str, users: BitMap, stray: bool) -> int:
        return self.acks.add(notification_id, users, stray)

    def has(self) -> dict[str, set[int]]:
        return {notification_id: set(users) for notification_id, users in self.acks.abandon().items()}


def test_the_sender_is_told_else_the_owner() -> None:
    links = {"r1": Link(), "r2": Link(), "r3": Link()}
    routes = AckRoutes(links, lambda _: None)
    one, other = new_notification_id(), new_notification_id()
    sender = next(router for router in links if router != owner(one, links))
    routes.sent_by(one, owner(one, links) or "")
    routes.sent_by(one, sender)  # the latest counts
    routes.acknowledge([one, other], 5)
    assert links[sender].has()[one] == {5}
    assert links[owner(other, links) or ""].acks.abandon() or owner(other, links) == sender


def test_a_lost_router_loses_none_and_the_owner_among_the_others_is_told() -> None:
    links = {"r1": Link(), "r2": Link()}
    routes = AckRoutes(links, lambda _: None)
    routes.sent_by("na", "r1")
    routes.acknowledge(["na"], 5)
    routes.on_lost(links.pop("r1").acks.abandon())
    routes.acknowledge(["na"], 6)
    assert links["r2"].has() == {"na": {5, 6}}


def test_without_a_router_they_are_kept_for_the_next_one() -> None:
    links: dict[str, Link] = {}
    routes = AckRoutes(links, lambda _: None)
    routes.acknowledge(["na", "nb"], 5)
    routes.acknowledge(["na"], 6)
    links["r1"] = Link()
    routes.on_live()
    assert links["r1"].has() == {"na": {5, 6}, "nb": {5}}
    routes.on_live()
    assert not links["r1"].has()


def test_without_a_router_they_are_bounded_and_counted() -> None:
    dropped: list[int] = []
    routes = AckRoutes({}, dropped.append)
    routes.acknowledge([new_notification_id() for _ in range(MAX_NOTIFICATIONS)], 5)
    assert sum(dropped) == MAX_NOTIFICATIONS // 2


def test_the_oldest_sender_is_forgotten() -> None:
    links = {"r1": Link(), "r2": Link()}
    routes = AckRoutes(links, lambda _: None)
    ids = [new_notification_id() for _ in range(MAX_SENDERS + 1)]
    for notification_id in ids:
        routes.sent_by(notification_id, "r1" if owner(notification_id, links) == "r2" else "r2")
    for notification_id in (ids[0], ids[1]):
        routes.acknowledge([notification_id], 5)
    holders = {notification_id: router for router, link in links.items() for notification_id in link.has()}
    assert holders[ids[0]] == owner(ids[0], links)
    assert holders[ids[1]] != owner(ids[1], links)
