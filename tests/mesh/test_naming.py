"""Identifiers and ownership are a public contract."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import naming

users = st.from_regex(naming.USER_ID, fullmatch=True)
nodes = st.lists(st.text("abcdef0123456789", min_size=1), min_size=1, max_size=8, unique=True)
keys = st.lists(st.text(max_size=20), min_size=1, max_size=50, unique=True)


@given(users, users)
def test_a_direct_conversation_has_one_id_whoever_asks(one: str, other: str) -> None:
    conversation_id = naming.direct_conversation_id(one, other)
    assert conversation_id == naming.direct_conversation_id(other, one)
    assert naming.CONVERSATION_ID.fullmatch(conversation_id)


def test_the_derivation_is_pinned_because_clients_compute_it_too() -> None:
    assert naming.direct_conversation_id("alice", "bob") == "dqxgsu6ajwm5k3ii6atbu6wjqda"


@given(st.lists(st.tuples(users, users).map(lambda pair: tuple(sorted(pair))), min_size=2, max_size=20, unique=True))
def test_pairs_do_not_collide(pairs: list[tuple[str, str]]) -> None:
    assert len({naming.direct_conversation_id(*pair) for pair in pairs}) == len(pairs)


def test_random_ids_have_their_form_and_do_not_repeat() -> None:
    groups = {naming.new_group_id() for _ in range(1_000)}
    assert len(groups) == 1_000
    assert all(naming.CONVERSATION_ID.fullmatch(group) for group in groups)
    instances = [naming.new_instance_id("edge") for _ in range(1_000)]
    assert len(set(instances)) == 1_000
    assert all(instance.startswith("edge-") for instance in instances)


def test_notification_ids_have_their_form_and_are_ordered_by_time() -> None:
    ids = [naming.new_notification_id() for _ in range(10_000)]
    assert all(naming.NOTIFICATION_ID.fullmatch(one) for one in ids)
    assert ids == sorted(set(ids))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=50))
def test_the_text_of_a_notification_id_sorts_as_its_bytes(given: list[bytes]) -> None:
    assert sorted(given, key=naming._ordered_base32) == sorted(given)
    assert len(set(map(naming._ordered_base32, given))) == len(set(given))


@pytest.mark.parametrize("text", ["", "n", "n" + "a" * 25, "n" + "a" * 27, "n" + "A" * 26, "n" + "1" * 26, "g" + "a" * 26])
def test_what_is_no_notification_id(text: str) -> None:
    assert not naming.NOTIFICATION_ID.fullmatch(text)


@given(st.from_regex(naming.CONVERSATION_ID, fullmatch=True), st.integers(0, 10**18 - 1))
def test_a_message_id_is_read_back(conversation_id: str, seq: int) -> None:
    assert naming.parse_message_id(naming.message_id(conversation_id, seq)) == (conversation_id, seq)


@pytest.mark.parametrize(
    "text", ["", ":", "d:1", "d" + "a" * 26, "d" + "a" * 26 + ":", "d" + "a" * 26 + ":-1", "d" + "a" * 26 + ":٣"]
)
def test_what_is_no_message_id_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="is not a message id"):
        naming.parse_message_id(text)


@given(st.text())
def test_any_text_is_a_message_id_or_refused(text: str) -> None:
    try:
        conversation_id, seq = naming.parse_message_id(text)
    except ValueError:
        return
    assert naming.CONVERSATION_ID.fullmatch(conversation_id)
    assert seq >= 0


@given(nodes, keys)
def test_a_leaving_node_moves_only_its_own_keys(among: list[str], owned: list[str]) -> None:
    gone = among[0]
    for key in owned:
        before, after = naming.owner(key, among), naming.owner(key, among[1:])
        assert after == before or before == gone


@given(nodes, keys, st.text("xyz", min_size=1))
def test_a_joining_node_takes_keys_and_no_other_gains_one(among: list[str], owned: list[str], newcomer: str) -> None:
    for key in owned:
        assert naming.owner(key, [*among, newcomer]) in {naming.owner(key, among), newcomer}


@given(st.permutations(["edge-1", "edge-2", "edge-3"]), st.text())
def test_the_owner_does_not_depend_on_the_order_of_nodes(among: list[str], key: str) -> None:
    assert naming.owner(key, among) == naming.owner(key, sorted(among))


def test_keys_spread_evenly() -> None:
    among = [f"router-{number}" for number in range(5)]
    owners = [naming.owner(f"key-{number}", among) for number in range(10_000)]
    assert all(1_850 < owners.count(node) < 2_150 for node in among)


def test_without_nodes_there_is_no_owner() -> None:
    assert naming.owner("key", []) is None
