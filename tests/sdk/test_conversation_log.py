"""The conversation log against a server that loses, repeats, delays and sweeps."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidings.client.v1.frames_pb2 import MessagePage
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings_client.conversation_log import FETCH_TIMEOUT, ConversationLog, Emitted, Fetch, Gap

PAGE = 3
HELD = 4


def entry(seq: int) -> LogEntry:
    made = LogEntry(conversation_id="c", seq=seq)
    made.content.text.text = str(seq)
    return made


def page(first: int, last: int, *, available: int = 1, log: int = 0, truncated: bool = False) -> MessagePage:
    entries = [entry(seq) for seq in range(first, last + 1)]
    return MessagePage(
        conversation_id="c", entries=entries, last_seq=log or last, first_available_seq=available, truncated=truncated
    )


def seqs(emitted: list[Emitted]) -> list[int | tuple[int, int]]:
    return [(one.first_seq, one.last_seq) if isinstance(one, Gap) else one.seq for one in emitted]


def test_entries_in_order_pass() -> None:
    log = ConversationLog(0, 100)
    assert seqs(log.on_entry(entry(1)) + log.on_entry(entry(2)) + log.on_entry(entry(2))) == [1, 2]
    assert log.deadline() is None, "what was had already is not held"


def test_an_entry_ahead_is_held_and_the_range_between_is_asked_for() -> None:
    log = ConversationLog(3, 100)
    assert log.on_entry(entry(6)) == []
    assert log.missing(0.0, 100) == Fetch(after_seq=3, limit=2)
    assert log.missing(1.0, 100) is None, "one answer is awaited"
    assert seqs(log.on_fetched(page(4, 5, log=6), 1.0)) == [4, 5, 6]
    assert log.deadline() is None


def test_a_fetch_without_an_answer_is_repeated() -> None:
    log = ConversationLog(3, 100)
    log.on_entry(entry(6))
    assert log.missing(0.0, 100) is not None
    assert log.missing(FETCH_TIMEOUT, 100) == Fetch(after_seq=3, limit=2)


def test_an_unknown_log_that_begins_in_the_middle_is_read_from_its_beginning() -> None:
    log = ConversationLog(None, 100)
    assert log.on_entry(entry(3)) == []
    assert log.missing(0.0, 100) == Fetch(after_seq=0, limit=2)
    assert seqs(log.on_fetched(page(1, 2, log=3), 0.0)) == [1, 2, 3]


def test_joining_in_the_middle_is_no_gap() -> None:
    log = ConversationLog(None, 100)
    log.on_entry(entry(9))
    log.missing(0.0, 100)
    assert seqs(log.on_fetched(page(7, 8, available=7, log=9), 0.0)) == [7, 8, 9]


def test_an_unknown_log_is_read_no_further_back_than_the_limit_and_says_so() -> None:
    log = ConversationLog(None, 10)
    log.on_entry(entry(50))
    assert log.missing(0.0, 100) == Fetch(after_seq=39, limit=10)
    assert seqs(log.on_fetched(page(40, 49, log=50), 0.0))[:2] == [(1, 39), 40]


def test_a_truncated_page_jumps_and_tells() -> None:
    log = ConversationLog(5, 100)
    assert seqs(log.on_page(page(20, 22, available=20, truncated=True))) == [(6, 19), 20, 21, 22]


def test_a_first_page_cut_by_the_history_limit_tells_what_can_be_fetched() -> None:
    log = ConversationLog(None, 100)
    [gap, first] = log.on_page(page(20, 20, available=3, truncated=True))
    assert gap == Gap(3, 19, 3)
    assert isinstance(first, LogEntry)


def test_an_empty_page_after_a_sweep_jumps_too() -> None:
    log = ConversationLog(5, 100)
    log.on_entry(entry(9))
    log.missing(0.0, 100)
    assert seqs(log.on_fetched(MessagePage(conversation_id="c", last_seq=9, first_available_seq=9), 0.0)) == [(6, 8), 9]


def test_held_entries_are_bounded_and_fetched_later() -> None:
    log = ConversationLog(0, 100, max_held=2)
    for seq in (2, 3, 4, 5):
        log.on_entry(entry(seq))
    log.missing(0.0, 100)
    assert seqs(log.on_fetched(page(1, 1, log=5), 0.0)) == [1, 2, 3]
    assert log.missing(0.0, 100) == Fetch(after_seq=3, limit=2)


def test_a_refused_fetch_gives_up_what_is_held() -> None:
    log = ConversationLog(1, 100)
    log.on_entry(entry(5))
    log.missing(0.0, 100)
    log.on_fetch_failed(0.0, None)
    assert log.deadline() is None
    log.on_entry(entry(6))
    log.missing(0.0, 100)
    log.on_fetch_failed(0.0, 2.0)
    assert log.missing(1.9, 100) is None
    assert log.missing(2.0, 100) is not None


class LogMachine(RuleBasedStateMachine):
    """A log grows while its reader loses the connection, misses pushes, gets them twice or late, and old entries are swept."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.last = 0
        self.available = 1
        self.emitted: list[Emitted] = []
        self.floors: dict[int, int] = {}  # seq jumped over -> what was available then
        self.log = ConversationLog(None, 1000, max_held=HELD)
        self.kept: int | None = None
        self.asked: Fetch | None = None
        self.delayed: list[int] = []

    def take(self, emitted: list[Emitted]) -> None:
        for one in emitted:
            if isinstance(one, Gap):
                self.floors |= dict.fromkeys(range(one.first_seq, one.last_seq + 1), self.available)
        self.emitted += emitted
        self.kept = self.log.position

    @rule()
    def live(self) -> None:
        self.last += 1
        self.take(self.log.on_entry(entry(self.last)))

    @rule()
    def lost(self) -> None:
        self.last += 1

    @rule()
    def late(self) -> None:
        self.last += 1
        self.delayed.append(self.last)

    @precondition(lambda self: self.delayed)
    @rule(data=st.data())
    def arrives(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self.delayed))
        self.take(self.log.on_entry(entry(seq)))

    @rule(data=st.data())
    def sweep(self, data: st.DataObject) -> None:
        self.available = data.draw(st.integers(self.available, self.last + 1))

    @rule()
    def ask(self) -> None:
        self.asked = self.log.missing(self.now, PAGE) or self.asked

    @precondition(lambda self: self.asked)
    @rule()
    def answer(self) -> None:
        asked, self.asked = self.asked, None
        assert asked is not None
        first = max(asked.after_seq + 1, self.available)
        last = min(self.last, first + asked.limit - 1)
        self.take(self.log.on_fetched(page(first, last, available=self.available, log=self.last), self.now))

    @precondition(lambda self: self.asked)
    @rule(wait=st.sampled_from([0.1, 1.0]))
    def refuse(self, wait: float) -> None:
        self.asked = None
        self.log.on_fetch_failed(self.now, wait)

    @rule(seconds=st.sampled_from([0.3, 2.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def reconnect(self) -> None:
        self.log.reset()
        self.asked = None
        self.delayed = []
        cursor = self.kept if self.kept is not None else self.available - 1
        truncated = cursor < self.available - 1
        cursor = max(cursor, self.available - 1)
        while cursor < self.last:
            end = min(self.last, cursor + PAGE)
            self.take(self.log.on_page(page(cursor + 1, end, available=self.available, log=self.last, truncated=truncated)))
            cursor, truncated = end, False

    @invariant()
    def dense_once_and_honest(self) -> None:
        covered: list[int] = []
        for one in self.emitted:
            covered += range(one.first_seq, one.last_seq + 1) if isinstance(one, Gap) else [one.seq]
        assert covered == list(range(covered[0], covered[0] + len(covered))) if covered else True
        assert all(seq < floor for seq, floor in self.floors.items()), "only what nobody can have is jumped over"

    def teardown(self) -> None:
        self.reconnect()
        if self.last >= self.available:
            assert self.log.position == self.last
        self.dense_once_and_honest()
        for _ in range(2 * self.last + 2):  # and without reconnecting it ends there too
            self.now += 31.0
            self.ask()
            if self.asked is not None:
                self.answer()
        assert self.log.deadline() is None


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
