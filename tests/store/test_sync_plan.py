"""The pure core of sync: page after page brings exactly what is missing, whatever the page sizes and budgets."""

from hypothesis import given
from hypothesis import strategies as st

from store.entries import Range
from store.model import Entry, Kind
from store.sync import Budget, Question, Standing, Token, page, plan, window

CHATS = ["g" + letter * 26 for letter in "abcde"]


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    last_seq = draw(st.integers(1, 12))
    visible_from = draw(st.integers(1, last_seq))
    retained_from = draw(st.integers(1, last_seq + 1))
    cursor = draw(st.one_of(st.none(), st.integers(0, last_seq)))
    return Standing(last_seq, max(visible_from, retained_from), visible_from, cursor)


def entry(where: str, seq: int) -> Entry:
    return Entry(where, seq, Kind.MESSAGE, "alice", "x", 0, seq, b"x" * 10)


def entries_of(one: Range) -> list[Entry]:
    """What a range holds."""
    return [entry(one.conversation_id, seq) for seq in range(one.first, one.final + 1)]


@given(
    st.dictionaries(st.sampled_from(CHATS), standings()),
    st.integers(1, 7),
    st.integers(0, 5),
    st.integers(1, 60),
    st.integers(1, 9),
)
def test_pages_together_bring_what_is_missing_once(
    held: dict[str, Standing], page_size: int, history: int, size: int, entries_budget: int
) -> None:
    question = Question(1, "phone", {}, history, None, page_size)
    token = Token(tuple(CHATS))
    got: dict[str, list[int]] = {}
    truncated: set[str] = set()
    for _ in range(200):
        looked_at = {name: held[name] for name in window(question, token) if name in held}
        budget = Budget(entries_budget, size)
        chosen = plan(question, token, looked_at, budget)
        read = {
            one.conversation_id: [entry(one.conversation_id, seq) for seq in range(one.first, one.final + 1)]
            for one in chosen.ranges
        }
        answer = page(chosen, read, budget)
        for run in answer.runs:
            got.setdefault(run.conversation_id, []).extend(one.seq for one in run.entries)
            truncated |= {run.conversation_id} if run.truncated else set()
            assert len(run.entries) <= page_size
        assert Token.parse(str(answer.left)) == answer.left if str(answer.left) else True
        token = answer.left
        if not str(token):
            break
    else:
        raise AssertionError("the sync does not end")
    for name, standing in held.items():
        had = max(standing.cursor or 0, standing.visible_from_seq - 1)
        first = max(had + 1, standing.first_available_seq)
        if standing.cursor is None:
            first = max(first, standing.last_seq - history + 1)
        assert got.get(name, []) == list(range(first, standing.last_seq + 1))
        assert (name in truncated) == (first > had + 1)
