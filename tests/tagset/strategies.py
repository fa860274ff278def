"""Expressions of every kind at random, and what they mean in Python's sets, which shares nothing with the code under test."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from pyroaring import BitMap

from tagset.expression import (
    Alias,
    Complement,
    Difference,
    Everyone,
    Expression,
    Intersection,
    Leaf,
    Outcome,
    Tag,
    Union,
    User,
)
from tagset.parser import parse
from tagset.snapshot import Snapshot
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord
from tidings.tag.v1.tag_pb2 import Alias as AliasMessage
from tidings.tag.v1.tag_pb2 import Combination
from tidings.tag.v1.tag_pb2 import Tag as TagMessage

HIGHEST = 65_560
ORDINALS = [*range(1, 10), *range(65_530, 65_545), HIGHEST]  # about a border between two containers of a bitmap
OTHER = 50  # stands for all clients who are in no tag, for all that is said of one of them is true of all
TAGS = ["a", "b", "c", "gold 2024"]
USERS = {"ana@example.org": 3, "bo-2+x": 65_536}
OUTCOMES = [("sent", "n1"), ("delivered", "n1"), ("pending", "n2")]
ALIASES = {"one": "a", "two words": "k"}
COMBINATIONS = {"k": "a + b - c", "m": '@"two words" & k + !user:bo-2+x', "n": "!m - @one"}  # each before those that name it

audiences = st.frozensets(st.sampled_from(ORDINALS))
leaves: st.SearchStrategy[Leaf] = st.one_of(
    st.builds(Everyone),
    st.builds(Tag, st.sampled_from([*TAGS, *COMBINATIONS])),
    st.builds(Alias, st.sampled_from([*ALIASES])),
    st.builds(User, st.sampled_from([*USERS])),
    st.sampled_from(OUTCOMES).map(lambda outcome: Outcome(*outcome)),  # type: ignore[arg-type]
)


def _grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(inner, min_size=2, max_size=4).map(tuple)
    return st.one_of(
        st.builds(Complement, inner), st.builds(Union, several), st.builds(Intersection, several), st.builds(Difference, several)
    )


expressions: st.SearchStrategy[Expression] = st.recursive(leaves, _grown, max_leaves=20)


@dataclass(frozen=True)
class World:
    """Who is who: what a snapshot is made of."""

    tags: dict[str, frozenset[int]]
    outcomes: dict[tuple[str, str], frozenset[int]]
    users: dict[str, int] = field(default_factory=lambda: dict(USERS))

    def meaning(self, expression: Expression) -> set[int]:
        """Everybody meant, of `ORDINALS` and `OTHER`."""
        match expression:
            case Everyone():
                return {*ORDINALS, OTHER}
            case Tag(name):
                return set(self.tags[name]) if name in self.tags else self.meaning(parse(COMBINATIONS[name]))
            case Alias(name):
                return self.meaning(Tag(ALIASES[name]))
            case User(user_id):
                return {self.users[user_id]}
            case Outcome(kind, notification_id):
                return set(self.outcomes[kind, notification_id])
            case Complement(operand):
                return {*ORDINALS, OTHER} - self.meaning(operand)
            case Union(operands):
                return set[int]().union(*map(self.meaning, operands))
            case Intersection((first, *others)):
                return self.meaning(first).intersection(*map(self.meaning, others))
            case Difference((first, *others)):
                return self.meaning(first).difference(*map(self.meaning, others))
        raise AssertionError(expression)

    def audience(self, expression: Expression) -> BitMap:
        """Everybody meant."""
        meaning = self.meaning(expression)
        others = range(1, HIGHEST + 1) if OTHER in meaning else ()
        return BitMap(others) - BitMap(ORDINALS) | BitMap(meaning)

    def snapshot(self) -> Snapshot:
        """The same world as a snapshot."""
        records = [TagRecord(put_tag=TagMessage(name=name)) for name in self.tags]
        changes = [TagMembers(tag=name, added_ordinals=BitMap(members).serialize()) for name, members in self.tags.items()]
        records.append(TagRecord(memberships=MembershipChange(tags=changes)))
        records += [TagRecord(put_alias=AliasMessage(name=name, target=target)) for name, target in ALIASES.items()]
        records += [TagRecord(put_combination=Combination(name=name, expression=text)) for name, text in COMBINATIONS.items()]
        return replay(Snapshot.empty(), records)

    @property
    def outcome_bitmaps(self) -> dict[tuple[str, str], BitMap]:
        """As an evaluation takes them."""
        return {key: BitMap(found) for key, found in self.outcomes.items()}


worlds = st.builds(
    World, st.fixed_dictionaries(dict.fromkeys(TAGS, audiences)), st.fixed_dictionaries(dict.fromkeys(OUTCOMES, audiences))
)


def replay(snapshot: Snapshot, records: list[TagRecord]) -> Snapshot:
    """The snapshot after these records."""
    for record in records:
        snapshot = snapshot.apply(snapshot.version + 1, record)
    return snapshot


def with_combinations(**texts: str) -> Snapshot:
    """Tags a, b and c with 1 to 3, 2 to 4 and 3 to 5, and these combinations."""
    changes = [
        TagMembers(tag=name, added_ordinals=BitMap(range(first, first + 3)).serialize())
        for name, first in [("a", 1), ("b", 2), ("c", 3)]
    ]
    records = [TagRecord(memberships=MembershipChange(tags=changes))]
    records += [TagRecord(put_combination=Combination(name=name, expression=text)) for name, text in texts.items()]
    return replay(Snapshot.empty(), records)
