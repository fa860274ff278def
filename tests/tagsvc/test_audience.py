"""AudienceService: validated, counted, expanded, listed, explained; and every named refusal."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tagsvc.audience import chunks
from tests.tagsvc.client import TagClient, chunk, refused
from tests.tagsvc.conftest import Mesh
from tidings.common.v1 import notification_pb2 as common
from tidings.tag.v1 import audience_pb2 as pb
from tidings.tag.v1 import tag_pb2

SENT, DELIVERED, PENDING = common.OUTCOME_SENT, common.OUTCOME_DELIVERED, common.OUTCOME_PENDING
NOTIFICATION = "n" + "a" * 26


async def _validate(tagsvc: TagClient, expression: str) -> pb.ValidateExpressionResponse:
    request = pb.ValidateExpressionRequest(expression=expression)
    return await tagsvc.audience.ValidateExpression(request)  # type: ignore[no-any-return]


def _every_call(tagsvc: TagClient, expression: str, version: int = 0) -> list[Any]:
    """A call of each kind about an expression."""
    fields: dict[str, Any] = {"expression": expression}
    versioned = fields | {"version": version}
    return [
        *([tagsvc.audience.ValidateExpression(pb.ValidateExpressionRequest(**fields))] if not version else []),
        tagsvc.audience.CountExpression(pb.CountExpressionRequest(**versioned)),
        tagsvc.audience.ExpandExpression(pb.ExpandExpressionRequest(**versioned)).read(),
        tagsvc.audience.ListAudience(pb.ListAudienceRequest(**versioned)),
        tagsvc.audience.ExplainUser(pb.ExplainUserRequest(user_id="u1", **versioned)),
    ]


@pytest.fixture
async def people(mesh: Mesh, tagsvc: TagClient) -> TagClient:
    """u1 … u5 by ordinal: a = 1 2 3, b = 2 3 4; n… was for 1 2 5, of whom 1 has it."""
    newcomer = tag_pb2.UserChange(user_id="u5")
    await tagsvc.apply(chunk(add={"a": ["u1", "u2", "u3"], "b": ["u2", "u3", "u4"], "none": []}, users=[newcomer]))
    mesh.memory.recipients = {
        (NOTIFICATION, SENT): BitMap([1, 2]),
        (NOTIFICATION, DELIVERED): BitMap([1]),
        (NOTIFICATION, PENDING): BitMap([2, 5]),
    }
    return tagsvc


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a", [1, 2, 3]),
        ("a + b", [1, 2, 3, 4]),
        ("a & b", [2, 3]),
        ("a - b", [1]),
        ("!a", [4, 5]),
        ("*", [1, 2, 3, 4, 5]),
        ("none", []),
        ("!none - (a & b)", [1, 4, 5]),
        ("user:u5 + user:u1", [1, 5]),
        (f"sent({NOTIFICATION}) - delivered({NOTIFICATION})", [2]),
        (f"pending({NOTIFICATION}) & !b", [5]),
    ],
)
async def test_an_audience_is_the_same_whoever_asks(people: TagClient, expression: str, expected: list[int]) -> None:
    assert await people.expand(expression) == BitMap(expected)
    assert await people.count(expression) == len(expected)
    assert await people.people(expression, page_size=2) == [f"u{n}" for n in expected]
    for n in range(1, 6):
        request = pb.ExplainUserRequest(user_id=f"u{n}", expression=expression)
        explained = await people.audience.ExplainUser(request)
        assert explained.included is (n in expected)
        assert explained.explanation.startswith("in, because" if n in expected else "out, because")
        assert explained.root.included is explained.included


async def test_validation_tells_the_canonical_form_and_all_names(people: TagClient) -> None:
    await people.alias("al", "b")
    await people.combine("co", "@al - a")
    valid = await _validate(people, "co + (a + a)")
    assert list(valid.names) == ["@al", "a", "b", "co"]
    assert valid.canonical_expression == (await _validate(people, "a + co")).canonical_expression
    assert valid.version == await people.version() == 3


async def test_the_tree_has_the_count_of_every_part(people: TagClient) -> None:
    await people.combine("co", "a & b")
    counted = await people.audience.CountExpression(pb.CountExpressionRequest(expression="co + !(a - user:u1)"))
    root = counted.root
    assert (counted.count, counted.known_clients, root.kind, root.count, root.column) == (5, 5, "union", 5, 1)
    combination, complement = root.operands
    assert (combination.text, combination.kind, combination.count, combination.column) == ("co", "combination", 2, 1)
    assert [(one.text, one.kind, one.count) for one in combination.operands] == [("a & b", "intersection", 2)]
    assert (complement.kind, complement.count, complement.column) == ("complement", 3, 6)
    assert [one.kind for one in complement.operands[0].operands] == ["tag", "user"]


async def test_a_user_is_told_why(people: TagClient) -> None:
    request = pb.ExplainUserRequest(user_id="u2", expression="a - b")
    explained = await people.audience.ExplainUser(request)
    assert (explained.included, explained.explanation) == (False, "out, because they have b")
    assert [(one.text, one.included) for one in explained.root.operands] == [("a", True), ("b", True)]
    for user_id, reason in (("nobody", "UNKNOWN_USER"), ("", "INVALID_FIELD"), ("a b", "INVALID_FIELD")):
        with refused(reason, "user_id"):
            await people.audience.ExplainUser(pb.ExplainUserRequest(user_id=user_id, expression="a"))


@pytest.mark.parametrize(
    ("expression", "reason", "says"),
    [
        ("", "INVALID_EXPRESSION", "column 1"),
        ("a +", "INVALID_EXPRESSION", "column 4"),
        ("(a", "INVALID_EXPRESSION", "column 3"),
        ("a b", "INVALID_EXPRESSION", "column 3"),
        ("a & 🜁", "INVALID_EXPRESSION", "column 5"),
        ("x" * 70_000, "EXPRESSION_TOO_LARGE", "65,536"),
        ("(" * 80 + "a" + ")" * 80, "EXPRESSION_TOO_LARGE", "64"),
        ("a & nope", "UNKNOWN_TAG", "column 5"),
        ("a & @nope", "UNKNOWN_TAG", "column 5"),
        ("a & user:nope", "UNKNOWN_USER", "column 5"),
        ("sent(n1)", "NOTIFICATION_NOT_FOUND", "n1"),
        ("delivered(gone)", "REPORT_GONE", "gone"),
        (" + ".join(f"sent(n{n})" for n in range(101)), "EXPRESSION_TOO_LARGE", "100 notifications"),
    ],
)
async def test_what_is_wrong_is_named(mesh: Mesh, people: TagClient, expression: str, reason: str, says: str) -> None:
    """G16"""
    mesh.memory.totals_only = {"gone"}
    for call in _every_call(people, expression):
        with refused(reason, "expression") as refusal:
            await call
        assert says in refusal.error.message


async def test_ten_thousand_operands_are_refused_quickly(people: TagClient) -> None:
    expression = "+".join("a" for _ in range(10_000))
    started = time.perf_counter()
    for call in _every_call(people, expression):
        with refused("EXPRESSION_TOO_LARGE"):
            await call
    assert time.perf_counter() - started < 5.0


async def test_what_a_combination_leads_to_is_told_without_a_column(people: TagClient) -> None:
    await people.combine("co", "user:u1 + a")
    await people.combine("outer", "co & b")
    await people.tags.DeleteTag(tag_pb2.DeleteTagRequest(name="a", force=True))
    with refused("UNKNOWN_TAG") as refusal:
        await people.count("outer")
    assert "'a'" in refusal.error.message and "co" in refusal.error.message and "column" not in refusal.error.message


async def test_every_version_that_is_kept_can_be_asked(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(kept_snapshots=3)
    for n in range(1, 6):
        assert await tagsvc.add("a", f"u{n}") == n
    assert [await tagsvc.count("a", version) for version in (3, 4, 5, 0)] == [3, 4, 5, 5]
    assert await tagsvc.expand("a", 3) == BitMap([1, 2, 3])
    for version in (1, 2, 6):
        for call in _every_call(tagsvc, "a", version):
            with refused("SNAPSHOT_GONE", "version") as gone:
                await call
            assert "3 to 5" in gone.error.message


async def test_pages_are_of_one_snapshot_while_tags_change(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(kept_snapshots=3)
    await tagsvc.apply(chunk(add={"a": [f"u{n}" for n in range(25)], "b": []}))
    audience, members, token, other = list[str](), list[str](), "", ""
    for n in range(3):
        page = await tagsvc.audience.ListAudience(pb.ListAudienceRequest(expression="!b", page_size=10, page_token=token))
        assert (page.version, page.count) == (1, 25) if n else True
        audience += page.user_ids
        token = page.next_page_token
        of_tag = await tagsvc.tags.ListMembers(tag_pb2.ListMembersRequest(name="a", page_size=10, page_token=other))
        members += of_tag.user_ids
        other = of_tag.next_page_token
        for k in range(5):  # the snapshot of the first page would be gone by now
            await tagsvc.apply(chunk(add={"a": [f"new{n}{k}"], "b": [f"u{n}"]}, remove={"a": [f"u{20 + n}"]}))
    assert audience == members == [f"u{n}" for n in range(25)]
    assert token == other == ""


async def _first_token(tagsvc: TagClient, expression: str) -> str:
    page = await tagsvc.audience.ListAudience(pb.ListAudienceRequest(expression=expression, page_size=1))
    return str(page.next_page_token)


async def test_pages_of_a_snapshot_that_is_gone_and_tokens_of_others(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(kept_snapshots=1, pinned_snapshots=1)
    await tagsvc.add("a", "u1", "u2")
    token = await _first_token(tagsvc, "a")
    for wrong in (token[:-1], token + "A", "garbage", "é"):
        with refused("INVALID_FIELD", "page_token"):
            await tagsvc.audience.ListAudience(pb.ListAudienceRequest(expression="a", page_token=wrong))
    with refused("INVALID_FIELD", "page_token"):
        await tagsvc.audience.ListAudience(pb.ListAudienceRequest(expression="a + a", page_token=token))
    with refused("INVALID_FIELD", "page_token"):
        await tagsvc.tags.ListMembers(tag_pb2.ListMembersRequest(name="a", page_token=token))
    with refused("INVALID_FIELD", "page_size"):
        await tagsvc.audience.ListAudience(pb.ListAudienceRequest(expression="a", page_size=10_001))
    await tagsvc.add("a", "u3")
    await _first_token(tagsvc, "a")  # takes the one place for pinned snapshots
    await tagsvc.add("a", "u4")
    with refused("SNAPSHOT_GONE"):
        await tagsvc.audience.ListAudience(pb.ListAudienceRequest(expression="a", page_token=token))


def test_large_audiences_are_cut_into_chunks_under_a_mebibyte() -> None:
    dense = BitMap(range(1, 20_000_000, 2)) | BitMap([4_000_000_000])
    found = list(chunks(dense))
    assert max(len(one.serialize()) for one in found) < 1024 * 1024
    assert BitMap.union(*found) == dense and all(one.max() < other.min() for one, other in pairwise(found))
    assert [len(one) for one in chunks(BitMap())] == [0]
    assert len(list(chunks(BitMap([5])))) == 1


async def test_nobody_is_one_empty_chunk(people: TagClient) -> None:
    nobody = [one async for one in people.audience.ExpandExpression(pb.ExpandExpressionRequest(expression="a - a"))]
    assert [(BitMap.deserialize(one.user_ordinals), one.count, one.version) for one in nobody] == [(BitMap(), 0, 1)]


async def test_large_questions_leave_room_for_others_and_too_many_are_refused(mesh: Mesh) -> None:
    await mesh.store()
    tagsvc = await mesh.tagsvc(evaluations=1)
    await tagsvc.apply(chunk(add={f"t{n}": [f"u{n}"] for n in range(900)}))
    large = " + ".join(f"(t{n} - t{n + 1})" for n in range(450))

    async def ask() -> int:
        return await tagsvc.count(large)

    outcomes = await asyncio.gather(*(ask() for _ in range(10)), return_exceptions=True)
    refusals = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert [one for one in outcomes if not isinstance(one, grpc.aio.AioRpcError)] == [450] * (10 - len(refusals))
    assert 0 < len(refusals) < 10
    for refusal in refusals:
        with refused("OVERLOADED"):
            raise refusal
    assert await ask() == 450


operand = st.sampled_from(["a", "b", "none", "*", "user:u5", "co", "@al"])
expression = st.recursive(
    operand,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " & ", " - "]), inner).map(lambda parts: f"({''.join(parts)})"),
        inner.map(lambda one: f"!{one}"),
    ),
    max_leaves=12,
)


def _meant(text: str) -> set[int]:
    """By Python's own sets; every part of the texts above is in parentheses."""
    sets = {"a": {1, 2, 3}, "b": {2, 3, 4}, "none": set(), "everyone": {1, 2, 3, 4, 5}, "u5": {5}, "co": {4}, "al": {2, 3, 4}}
    python = text.replace("*", "everyone").replace("user:u5", "u5").replace("@al", "al")
    python = python.replace("+", "|").replace("!", "~")

    class Known(set):  # type: ignore[type-arg]
        def __invert__(self) -> "Known":
            return Known(sets["everyone"] - self)

        def __and__(self, other: Any) -> "Known":
            return Known(set.__and__(self, other))

        def __or__(self, other: Any) -> "Known":
            return Known(set.__or__(self, other))

        def __sub__(self, other: Any) -> "Known":
            return Known(set.__sub__(self, other))

    return set(eval(python, {name: Known(one) for name, one in sets.items()}))


async def test_any_expression_means_what_sets_mean(people: TagClient) -> None:
    await people.combine("co", "b - a")
    await people.alias("al", "b")
    loop = asyncio.get_running_loop()
    examples: list[str] = []

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(expression)
    def collect(text: str) -> None:
        examples.append(text)

    await loop.run_in_executor(None, collect)
    for text in examples:
        valid = await _validate(people, text)
        assert set(await people.expand(text)) == _meant(text), text
        assert set(await people.expand(valid.canonical_expression)) == _meant(text), text
