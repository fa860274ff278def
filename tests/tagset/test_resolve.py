"""What an expression names, through aliases and combinations; and circles."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tagset import resolve
from tagset.errors import CycleError, ExpressionError, TooLargeError, UnknownNameError
from tagset.evaluate import evaluate
from tagset.expression import Expression, Tag
from tagset.parser import parse
from tagset.snapshot import Snapshot
from tagset.text import to_text
from tests.tagset.strategies import replay, with_combinations
from tidings.tag.v1.log_pb2 import TagRecord
from tidings.tag.v1.tag_pb2 import Alias, Combination


def _aliased(snapshot: Snapshot, **targets: str) -> Snapshot:
    return replay(snapshot, [TagRecord(put_alias=Alias(name=name, target=target)) for name, target in targets.items()])


def _evaluate(expression: Expression, snapshot: Snapshot) -> BitMap:
    return evaluate(expression, snapshot, 9, {}, {})


_ASKING: list[Callable[[Expression, Snapshot], object]] = [resolve.names, resolve.users, resolve.outcomes, _evaluate]


def test_all_that_is_named_on_the_way() -> None:
    snapshot = _aliased(with_combinations(k="a + user:u1 - sent(n1)", m="@x & pending(n2) + @y + user:u2"), x="k", y="b")
    expression = parse("m - c + user:u3 & delivered(n1)")
    assert resolve.names(expression, snapshot) == ["@x", "@y", "a", "b", "c", "k", "m"]
    assert resolve.users(expression, snapshot) == {"u1", "u2", "u3"}
    assert resolve.outcomes(expression, snapshot) == {("sent", "n1"), ("pending", "n2"), ("delivered", "n1")}
    assert resolve.names(parse("* + user:u"), snapshot) == []


@pytest.mark.parametrize(
    ("text", "name", "kind", "column", "within", "sentence"),
    [
        ("a + vpi", "vpi", "tag or combination", 5, "", "column 5: there is no tag or combination 'vpi'"),
        ("a & !@gone", "gone", "alias", 6, "", "column 6: there is no alias 'gone'"),
        ("a + @dangling", "lost", "tag or combination", 0, "@dangling", "in @dangling: there is no tag or combination 'lost'"),
        ("broken", "lost", "tag or combination", 0, "broken", "in broken: there is no tag or combination 'lost'"),
    ],
)
def test_what_is_not_there_is_told_with_its_place(text: str, name: str, kind: str, column: int, within: str, sentence: str) -> None:
    snapshot = _aliased(with_combinations(broken="a - lost"), dangling="lost")
    for ask in _ASKING:
        with pytest.raises(UnknownNameError) as caught:
            ask(parse(text), snapshot)
        error = caught.value
        assert (error.name, error.kind, error.column, error.within, str(error)) == (name, kind, column, within, sentence)


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("k", "a + k", "k k"),
        ("k", "a + m", "k m k"),
        ("k", "@to_n & b", "k @to_n n m k"),
        ("gone", "a + waits", "gone waits gone"),
        ("lost", "@to_lost", "lost @to_lost lost"),
    ],
)
def test_a_combination_that_would_contain_itself(name: str, text: str, path: str) -> None:
    snapshot = _aliased(with_combinations(k="a", m="b - k", n="m & c", waits="gone + a"), to_n="n", to_lost="lost")
    with pytest.raises(CycleError) as caught:
        resolve.check_cycle(name, parse(text), snapshot)
    assert caught.value.path == tuple(path.split())
    assert str(caught.value) == f"{name!r} would contain itself: {' -> '.join(path.split())}"


def test_an_alias_that_would_lead_to_itself() -> None:
    snapshot = _aliased(with_combinations(k="@x + a", m="k - b"), x="a")
    with pytest.raises(CycleError) as caught:
        resolve.check_alias_cycle("x", "m", snapshot)
    assert caught.value.path == ("@x", "m", "k", "@x")
    resolve.check_alias_cycle("x", "b", snapshot)


def test_to_look_for_circles_is_bounded() -> None:
    wide = " + ".join(["a"] * 1000)
    snapshot = with_combinations(**{f"k{number}": wide for number in range(101)}, last="lost")
    everything = parse(" + ".join(f"k{number}" for number in range(101)))
    with pytest.raises(TooLargeError, match="more than 100,000 operands"):
        resolve.check_cycle("new", everything, snapshot)
    with pytest.raises(TooLargeError, match="more than 100,000 operands"):
        resolve.check_alias_cycle("x", "all", replay(snapshot, [_put("all", everything)]))


def _put(name: str, expression: Expression) -> TagRecord:
    return TagRecord(put_combination=Combination(name=name, expression=to_text(expression)))


def test_no_circle_is_no_error() -> None:
    snapshot = _aliased(with_combinations(k="a + b", m="k & c"), x="m")
    resolve.check_cycle("new", parse("@x + m + k + nothing + @nothing"), snapshot)
    resolve.check_cycle("k", parse("a + b"), snapshot)


def test_a_circle_that_got_into_a_snapshot_is_told_not_followed() -> None:
    snapshot = with_combinations(k="a + m", m="b + n", n="c + k")
    for ask in _ASKING:
        with pytest.raises(CycleError) as caught:
            ask(parse("a + m"), snapshot)
        assert caught.value.path == ("m", "n", "k", "m")


@pytest.mark.parametrize("text", ["m30 + k35", "k35 + m30"])
def test_depth_is_that_of_the_longest_way_though_part_of_it_was_followed_before(text: str) -> None:
    texts = {"k1": "a"} | {f"k{level}": f"k{level - 1}" for level in range(2, 36)}
    texts |= {"m1": "k34"} | {f"m{level}": f"m{level - 1}" for level in range(2, 31)}
    assert len(resolve.names(parse(text), with_combinations(**texts))) == 66
    with pytest.raises(TooLargeError, match="nested more than 64 deep"):
        resolve.names(parse(text), with_combinations(**texts | {"m1": "k35"}))


def test_a_combination_that_cannot_be_read_is_told_where_it_is_used_only() -> None:
    snapshot = with_combinations(k="a + + b")
    assert resolve.names(parse("a"), snapshot) == ["a"]
    for _ in range(2):
        with pytest.raises(ExpressionError, match="column 5"):
            resolve.names(Tag("k"), snapshot)


def test_a_tag_goes_before_a_combination_of_the_same_name() -> None:
    snapshot = replay(with_combinations(), [TagRecord(put_combination=Combination(name="a", expression="b & c"))])
    assert set(evaluate(Tag("a"), snapshot, 9, {}, {})) == {1, 2, 3}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("klmnop"), st.lists(st.sampled_from("klmnopa"), min_size=1, max_size=3), min_size=1))
def test_put_one_after_another_with_the_check_no_circle_ever_arises(wanted: dict[str, list[str]]) -> None:
    snapshot = with_combinations(**dict.fromkeys("klmnop", "a"))
    for name, named in wanted.items():
        text = " + ".join(named)
        try:
            resolve.check_cycle(name, parse(text), snapshot)
        except CycleError as error:
            assert error.path[0] == error.path[-1] == name
            for one, following in zip(error.path[1:], error.path[2:], strict=False):
                assert following in snapshot.combinations[one].text
        else:
            snapshot = replay(snapshot, [TagRecord(put_combination=Combination(name=name, expression=text))])
    assert set(evaluate(parse("k + l + m + n + o + p"), snapshot, 9, {}, {})) == {1, 2, 3}
