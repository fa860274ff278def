"""Credit: never more than that is unanswered on a link, nothing overtakes, and nothing is lost with a link."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.lanes import Lanes, is_answered
from edge.link_queue import LinkQueue
from edge.ports import Expects
from edge.pulse import SILENT_TICKS, Pulse
from edge.routes import Routes
from tidings.router.v1 import link_pb2


def send(key: str, number: int) -> link_pb2.ClientEnvelope:
    append = link_pb2.AppendEntry(conversation_id=key)
    return link_pb2.ClientEnvelope(user_id=key, request_id=number, append_entry=append)


def question(key: str, number: int) -> link_pb2.ClientEnvelope:
    return link_pb2.ClientEnvelope(user_id=key, request_id=number, sync_device=link_pb2.SyncDevice())


def typing() -> link_pb2.ClientEnvelope:
    return link_pb2.ClientEnvelope(typing=link_pb2.Typing())


def watch(*user_ids: str) -> link_pb2.ClientEnvelope:
    return link_pb2.ClientEnvelope(watch_users=link_pb2.WatchUsers(watch_user_ids=user_ids, clear=not user_ids))


def numbers(envelopes: list[link_pb2.ClientEnvelope]) -> list[int]:
    return [envelope.request_id for envelope in envelopes]


def filled(sends: int, questions: int) -> Lanes:
    lanes = Lanes()
    for number in range(sends):
        lanes.say(send("a", number))
    for number in range(sends, sends + questions):
        lanes.say(question("a", number))
    return lanes


def test_without_a_credit_everything_goes() -> None:
    lanes = filled(300, 300)
    assert len(lanes.take(1_000)) == 600
    assert (lanes.under_way, lanes.ready) == (600, False)


def test_a_quarter_of_the_credit_is_kept_for_either_lane() -> None:
    lanes = filled(30, 0)
    lanes.credit = 12
    assert numbers(lanes.take(100)) == list(range(9))
    assert not lanes.ready
    for number in (100, 101, 102, 103):
        lanes.say(question("a", number))
    assert numbers(lanes.take(100)) == [100, 101, 102]
    assert (lanes.under_way, lanes.ready) == (12, False)
    lanes.on_answered(stored=True)
    assert sorted(numbers(lanes.take(100))) in ([9], [103])


def test_what_is_not_answered_counts_for_nothing_but_keeps_its_place() -> None:
    lanes = Lanes()
    lanes.credit = 1
    for envelope in (watch("bob"), typing(), watch(), watch("carol"), typing()):
        lanes.say(envelope)
    assert [is_answered(one) for one in lanes.take(100)] == [True, False, False]
    assert not lanes.ready, "carol waits for the answer, and what was said after her with her"
    lanes.on_answered(stored=False)
    assert [is_answered(one) for one in lanes.take(100)] == [True, False]


def test_a_lesser_credit_takes_nothing_back_and_goes_on_when_there_is_room() -> None:
    lanes = filled(20, 0)
    lanes.credit = 16
    assert len(lanes.take(100)) == 12
    lanes.credit = 4
    for _ in range(9):
        lanes.on_answered(stored=True)
        assert lanes.take(100) == []
    lanes.on_answered(stored=True)
    assert numbers(lanes.take(100)) == [12]


def test_that_a_session_ended_is_said_after_all_that_it_asked() -> None:
    queue = LinkQueue(10, 10)
    queue.envelopes.credit = 1
    queue.say(question("a", 1))
    queue.say(watch("bob"))
    queue.session_closed(7)
    first = queue.take()
    assert first is not None
    assert (numbers(list(first.batch.envelopes)), list(first.batch.closed_sessions)) == ([1], [])
    assert queue.take() is None
    queue.envelopes.on_answered(stored=False)
    second, third = queue.take(), queue.take()
    assert second is not None
    assert third is not None
    assert second.batch.envelopes[0].HasField("watch_users")
    assert (list(second.batch.closed_sessions), list(third.batch.closed_sessions)) == ([], [7])


def test_a_router_is_silent_when_many_ticks_brought_nothing_from_one_that_promised_to_speak() -> None:
    pulse = Pulse()
    for _ in range(2 * SILENT_TICKS):
        pulse.tick()
    assert not pulse.silent, "an older one promises nothing"
    pulse.expected = True
    assert pulse.silent
    pulse.heard()
    for _ in range(SILENT_TICKS - 1):
        pulse.tick()
    assert not pulse.silent
    pulse.tick()
    assert pulse.silent


class CreditMachine(RuleBasedStateMachine):
    """An edge, and routers that answer in order, give credit, and are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[str, LinkQueue] = {}
        self.arrived: dict[str, list[link_pb2.ClientEnvelope]] = {}
        self.routes = Routes(lambda link, envelope: self.queues[link].say(envelope), 1_000, 1_000_000)
        self.asked: dict[str, list[int]] = {}
        self.log: dict[str, list[int]] = {}
        self.answered: set[int] = set()
        self.serial = 0

    @rule(key=st.sampled_from("abc"), stored=st.booleans())
    def ask(self, key: str, stored: bool) -> None:
        self.serial += 1
        envelope = send(key, self.serial) if stored else question(key, self.serial)
        if stored:
            self.asked.setdefault(key, []).append(self.serial)
        self.routes.ask(1, key, envelope, Expects.STORED if stored else Expects.SYNC_PAGE, 0.0)

    @rule(link=st.sampled_from(["r1", "r2"]), credit=st.integers(1, 6))
    def gain(self, link: str, credit: int) -> None:
        if link not in self.queues:
            self.queues[link], self.arrived[link] = LinkQueue(3, 10), []
            self.routes.on_links(self.queues)
        self.queues[link].envelopes.credit = credit

    @precondition(lambda self: self.queues)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        link = data.draw(st.sampled_from(sorted(self.queues)))
        unanswered, credit = len(self.arrived[link]), self.queues[link].envelopes.credit
        while (request := self.queues[link].take()) is not None:
            self.arrived[link] += request.batch.envelopes
        assert len(self.arrived[link]) <= max(credit, unanswered)

    @precondition(lambda self: self.queues)
    @rule(data=st.data(), stored=st.integers(0, 3))
    def lose(self, data: st.DataObject, stored: int) -> None:
        link = data.draw(st.sampled_from(sorted(self.queues)))
        self._lose(link, stored)

    @precondition(lambda self: any(self.arrived.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self._answer(data.draw(st.sampled_from(sorted(link for link, found in self.arrived.items() if found))))

    @invariant()
    def the_log_is_a_prefix_of_what_was_asked(self) -> None:
        for key, log in self.log.items():
            assert log == self.asked[key][: len(log)]

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert len(self.routes) == self.serial - len(self.answered)

    def teardown(self) -> None:
        """One router with the least credit answers everything."""
        for link in list(self.queues):
            self._lose(link, 0)
        self.gain("r9", 1)
        while len(self.routes):
            self.write_all()
            self._answer("r9")
        assert self.log == self.asked

    def write_all(self) -> None:
        while (request := self.queues["r9"].take()) is not None:
            self.arrived["r9"] += request.batch.envelopes

    def _lose(self, link: str, stored: int) -> None:
        del self.queues[link]
        for envelope in self.arrived.pop(link)[:stored]:
            self._store(envelope)  # it reached the log; its answer is lost with the link
        self.routes.on_links(self.queues)
        self.routes.on_lost(link)

    def _answer(self, link: str) -> None:
        envelope = self.arrived[link].pop(0)
        self._store(envelope)
        pending = self.routes.on_reply(envelope.envelope_id)
        assert pending is not None
        self.queues[link].envelopes.on_answered(stored=pending.expects is Expects.STORED)
        self.answered.add(envelope.request_id)

    def _store(self, envelope: link_pb2.ClientEnvelope) -> None:
        if not envelope.HasField("append_entry"):
            return
        log = self.log.setdefault(envelope.user_id, [])
        if envelope.request_id not in log:
            log.append(envelope.request_id)


TestCredit = CreditMachine.TestCase
