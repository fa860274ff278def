"""Page tokens lead on, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from tagsvc import catalogue, pages
from tagsvc.pages import PeopleToken
from tidings.tag.v1.tag_pb2 import Alias

tokens = st.builds(PeopleToken, st.integers(0, 2**63), st.integers(0, 2**31), st.integers(0, 2**32 - 1))


@given(tokens, st.text())
def test_a_token_says_what_it_was_given(token: PeopleToken, listed: str) -> None:
    assert pages.read_people_token(pages.people_token(token, listed), listed) == token


@given(st.text(min_size=1), st.text())
def test_a_token_of_names_says_what_it_was_given(name: str, listed: str) -> None:
    encodable = name.encode(errors="replace").decode()
    assert pages.read_name_token(pages.name_token(encodable, listed.encode(errors="replace").decode()), listed) == encodable


@pytest.mark.parametrize("text", ["x", "not a token", "é", "AAAA", "=", "A" * 32, "AAAAAAAAAAMAAAADAAAAAnnshwknhgp1" + "AAAA"])
def test_anything_else_is_refused(text: str) -> None:
    for read in (pages.read_people_token, pages.read_name_token):
        with pytest.raises(errors.TidingsError) as refused:
            read(text, "list")
        assert (refused.value.reason, refused.value.field) == ("INVALID_FIELD", "page_token")


def test_a_token_of_another_list_is_refused() -> None:
    token = pages.people_token(PeopleToken(1, 2, 3), "audience a")
    with pytest.raises(errors.TidingsError, match="of this very list"):
        pages.read_people_token(token, "audience b")


def test_names_come_in_order_after_the_last_and_by_prefix() -> None:
    names = {"b", "ab", "a", "ac", "c"}
    assert catalogue.page(names, "", 2, _alias) == ([_alias("a"), _alias("ab")], "ab")
    assert catalogue.page(names, "ab", 3, _alias) == ([_alias("ac"), _alias("b"), _alias("c")], "")
    assert catalogue.page(names, "a", 5, _alias, "a") == ([_alias("ab"), _alias("ac")], "")
    assert catalogue.page(set(), "", 5, _alias) == ([], "")


def test_a_page_is_cut_where_it_gets_too_large_for_a_message() -> None:
    def large(name: str) -> Alias:
        return Alias(name=name, target="x" * (catalogue.PAGE_BYTES // 2))

    shown, last = catalogue.page("abc", "", 10, large)
    assert ([one.name for one in shown], last) == (["a"], "a")
    shown, last = catalogue.page("abc", "b", 10, lambda name: Alias(name=name, target="x" * 2 * catalogue.PAGE_BYTES))
    assert ([one.name for one in shown], last) == (["c"], "")


def _alias(name: str) -> Alias:
    return Alias(name=name)
