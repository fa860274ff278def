"""What a router keeps of conversations."""

from hypothesis import given
from hypothesis import strategies as st

from router.membership import RECENT_SENDERS, Membership, MembershipCache
from tidings.common.v1.conversation_pb2 import Conversation, Member


def chat(conversation_id: str, version: int, *ordinals: int, visible_from: int = 1) -> Conversation:
    members = [Member(user_id=f"u{one}", user_ordinal=one, visible_from_seq=visible_from) for one in ordinals]
    return Conversation(conversation_id=conversation_id, membership_version=version, members=members)


def test_only_a_newer_version_replaces_what_is_held() -> None:
    membership = Membership(chat("g", 3, 1, 2))
    assert not membership.renew(chat("g", 2, 1, 2, 3))
    assert not membership.renew(chat("g", 3, 1, 2, 3))
    assert membership.renew(chat("g", 4, 1, 3))
    assert (membership.version, 2 in membership, 3 in membership, set(membership.bitmap)) == (4, False, True, {1, 3})


def test_who_joined_later_is_barred_from_earlier_entries() -> None:
    conversation = chat("g", 1, 1, 2)
    conversation.members.append(Member(user_id="late", user_ordinal=3, visible_from_seq=10))
    membership = Membership(conversation)
    assert (membership.barred(9), membership.barred(10)) == ([3], [])


@given(st.integers(1, 200), st.integers(0, 220), st.integers(0, 220))
def test_senders_are_known_or_said_not_to_be(last: int, after: int, upto: int) -> None:
    membership = Membership(chat("g", 1, 1, 2, 3))
    for seq in range(1, last + 1):
        membership.wrote(seq, seq % 3)
    known = range(max(1, last - RECENT_SENDERS + 1), last + 1)
    wanted = range(after + 1, upto + 1)
    senders = membership.senders(after, upto)
    if all(seq in known for seq in wanted):
        assert senders == {seq % 3 for seq in wanted}
    else:
        assert senders is None
    assert membership.recent_senders(after, upto) == {seq % 3 for seq in wanted if seq in known}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9), st.integers(1, 6)), max_size=40))
def test_the_cache_is_bounded_and_forgets_what_was_used_least_recently(puts: list[tuple[str, int, int]]) -> None:
    cache = MembershipCache(10)
    model: dict[str, tuple[int, int]] = {}
    for name, version, size in puts:
        cache.put([chat(name, version, *range(1, size + 1))])
        held = model.pop(name, (0, 0))
        model[name] = (version, size) if version > held[0] else held
        while sum(one[1] for one in model.values()) > 10 and len(model) > 1:
            del model[next(iter(model))]
        assert cache.members == sum(one[1] for one in model.values())
        assert len(cache) == len(model)
    for name, (version, size) in model.items():
        found = cache.get(name)
        assert found is not None and (found.version, len(found)) == (version, size)
