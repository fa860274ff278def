"""TagService: every call, and every named refusal."""

from typing import Any

import pytest

from tests.tagsvc.client import TagClient, chunk, connected, refused
from tests.tagsvc.conftest import Mesh
from tidings.tag.v1 import tag_pb2 as pb

BAD_NAMES = ["", " a", "a ", 'a"b', "a\\b", "a\nb", "a" * 129, "\x00"]


async def _create(tagsvc: TagClient, **fields: Any) -> pb.Tag:
    return (await tagsvc.tags.CreateTag(pb.CreateTagRequest(**fields))).tag  # type: ignore[no-any-return]


async def _get(tagsvc: TagClient, name: str) -> pb.Tag:
    return (await tagsvc.tags.GetTag(pb.GetTagRequest(name=name))).tag  # type: ignore[no-any-return]


async def test_a_tag_lives(tagsvc: TagClient) -> None:
    made = await _create(tagsvc, name="gold 2024", description="the best", attributes={"k": "v"})
    assert (made.name, made.description, dict(made.attributes)) == ("gold 2024", "the best", {"k": "v"})
    assert (made.revision, made.member_count) == (1, 0)
    assert made.HasField("create_time")
    assert await _get(tagsvc, "gold 2024") == made
    await tagsvc.add("gold 2024", "a", "b")
    counted = await _get(tagsvc, "gold 2024")
    assert (counted.revision, counted.member_count, counted.create_time) == (1, 2, made.create_time)
    update = pb.UpdateTagRequest(name="gold 2024", description="", expected_revision=1)
    updated = (await tagsvc.tags.UpdateTag(update)).tag
    assert (updated.description, dict(updated.attributes), updated.revision) == ("", {"k": "v"}, 3)
    assert (updated.member_count, updated.create_time) == (2, made.create_time)
    cleared = await tagsvc.tags.UpdateTag(pb.UpdateTagRequest(name="gold 2024", attributes=pb.Attributes()))
    assert not cleared.tag.attributes
    gone = await tagsvc.tags.DeleteTag(pb.DeleteTagRequest(name="gold 2024"))
    assert gone.version == 5
    with refused("UNKNOWN_TAG", "name"):
        await _get(tagsvc, "gold 2024")
    again = await _create(tagsvc, name="gold 2024")
    assert (again.revision, again.member_count) == (6, 0)


async def test_bounds_of_fields(tagsvc: TagClient) -> None:
    for name in BAD_NAMES:
        with refused("INVALID_FIELD", "name"):
            await _create(tagsvc, name=name)
        with refused("INVALID_FIELD", "name"):
            await tagsvc.alias(name, "x")
        with refused("INVALID_FIELD", "name"):
            await tagsvc.combine(name, "*")
    with refused("INVALID_FIELD", "description"):
        await _create(tagsvc, name="a", description="x" * 1025)
    for text in ("a\x1b[31m", "\x00", "a\rb", "\x85"):
        with refused("INVALID_FIELD", "description"):
            await _create(tagsvc, name="a", description=text)
        with refused("INVALID_FIELD", "description"):
            await tagsvc.tags.PutCombination(pb.PutCombinationRequest(name="a", expression="*", description=text))
    for attributes in ({"": "v"}, {"k": "a\nb"}, {"\tk": "v"}, {"k": "\x1b"}):
        with refused("INVALID_FIELD", "attributes"):
            await _create(tagsvc, name="a", attributes=attributes)
    for attributes in ({str(n): "" for n in range(65)}, {"x" * 257: ""}, {"k": "x" * 257}):
        with refused("INVALID_FIELD", "attributes"):
            await _create(tagsvc, name="a", attributes=attributes)
    for request_id in ("r" * 65, "a b", "é", "\n"):
        with refused("INVALID_FIELD", "request_id"):
            await _create(tagsvc, name="a", request_id=request_id)
    largest = await _create(
        tagsvc,
        name="n" * 128,
        description="d\n\t" + "d" * 1021,
        attributes={f"{n:0256}": "v" * 256 for n in range(64)},
        request_id="r" * 64,
    )
    assert len(largest.attributes) == 64


async def test_names_are_one_space(tagsvc: TagClient) -> None:
    await tagsvc.create("a")
    await tagsvc.combine("c", "a")
    for name in ("a", "c"):
        with refused("NAME_TAKEN", "name"):
            await tagsvc.create(name)
    with refused("NAME_TAKEN"):
        await tagsvc.combine("a", "*")
    with refused("NAME_TAKEN"):
        await tagsvc.add("c", "user")
    await tagsvc.alias("a", "a")  # aliases have a space of their own


async def test_revisions_guard_changes(tagsvc: TagClient) -> None:
    await tagsvc.create("a")
    with refused("VERSION_CONFLICT", "expected_revision"):
        await tagsvc.tags.UpdateTag(pb.UpdateTagRequest(name="a", expected_revision=2))
    with refused("VERSION_CONFLICT"):
        await tagsvc.tags.PutCombination(pb.PutCombinationRequest(name="c", expression="a", expected_revision=1))
    made = await tagsvc.combine("c", "a")
    changed = await tagsvc.tags.PutCombination(pb.PutCombinationRequest(name="c", expression="!a", expected_revision=made.revision))
    assert (changed.combination.expression, changed.combination.revision) == ("!a", 3)
    with refused("VERSION_CONFLICT"):
        await tagsvc.tags.PutCombination(pb.PutCombinationRequest(name="c", expression="a", expected_revision=made.revision))
    with refused("UNKNOWN_TAG", "name"):
        await tagsvc.tags.UpdateTag(pb.UpdateTagRequest(name="nope"))


async def test_what_is_named_is_not_deleted_unless_forced(mesh: Mesh, tagsvc: TagClient) -> None:
    await tagsvc.create("a", "b")
    await tagsvc.alias("x", "a")
    await tagsvc.combine("c", "@x + b")
    await tagsvc.combine("d", "c & b")
    mesh.memory.references = {"a": ["n1"], "@x": ["n2"], "d": ["n3"]}
    with refused("NAME_IN_USE") as tag:
        await tagsvc.tags.DeleteTag(pb.DeleteTagRequest(name="a"))
    assert "alias @x" in tag.error.message and "notification n1" in tag.error.message
    with refused("NAME_IN_USE") as alias:
        await tagsvc.tags.DeleteAlias(pb.DeleteAliasRequest(name="x"))
    assert "combination c" in alias.error.message and "notification n2" in alias.error.message
    with refused("NAME_IN_USE") as combination:
        await tagsvc.tags.DeleteCombination(pb.DeleteCombinationRequest(name="c"))
    assert "combination d" in combination.error.message
    with refused("NAME_IN_USE"):
        await tagsvc.tags.DeleteCombination(pb.DeleteCombinationRequest(name="d"))
    await tagsvc.tags.DeleteCombination(pb.DeleteCombinationRequest(name="d", force=True))
    await tagsvc.tags.DeleteTag(pb.DeleteTagRequest(name="a", force=True))
    with refused("UNKNOWN_TAG") as dangling:
        await tagsvc.count("c")
    assert "'a'" in dangling.error.message and "@x" in dangling.error.message
    await tagsvc.tags.DeleteCombination(pb.DeleteCombinationRequest(name="c"))
    mesh.memory.references = {}
    await tagsvc.tags.DeleteAlias(pb.DeleteAliasRequest(name="x"))
    for call, request in (
        (tagsvc.tags.DeleteTag, pb.DeleteTagRequest(name="a")),
        (tagsvc.tags.DeleteAlias, pb.DeleteAliasRequest(name="x")),
        (tagsvc.tags.DeleteCombination, pb.DeleteCombinationRequest(name="c", force=True)),
    ):
        with refused("UNKNOWN_TAG", "name"):
            await call(request)


async def test_aliases_lead_to_tags_and_combinations(tagsvc: TagClient) -> None:
    await tagsvc.add("a", "u1")
    await tagsvc.add("b", "u1", "u2")
    await tagsvc.combine("c", "b - a")
    await tagsvc.alias("two words", "a")
    assert await tagsvc.people('@"two words"') == ["u1"]
    await tagsvc.alias("two words", "c")
    assert await tagsvc.people('@"two words"') == ["u2"]
    with refused("UNKNOWN_TAG", "target"):
        await tagsvc.alias("z", "two words")
    with refused("INVALID_FIELD", "target"):
        await tagsvc.alias("z", " ")


async def test_a_combination_never_contains_itself(tagsvc: TagClient) -> None:
    await tagsvc.create("t")
    await tagsvc.combine("a", "t")
    await tagsvc.combine("b", "a + t")
    await tagsvc.alias("x", "b")
    for expression in ("a", "b", "!(t & @x)"):
        with refused("COMBINATION_CYCLE", "expression") as cycle:
            await tagsvc.combine("a", expression)
        assert "a -> " in cycle.error.message
    await tagsvc.alias("y", "t")
    await tagsvc.combine("c", "@y")
    with refused("COMBINATION_CYCLE", "target"):
        await tagsvc.alias("y", "c")
    with refused("COMBINATION_CYCLE"):
        await tagsvc.combine("new", "new + t")


async def test_combinations_are_saved_in_canonical_form(tagsvc: TagClient) -> None:
    await tagsvc.create("a", "b")
    one, other = await tagsvc.combine("c", "b + (a)"), await tagsvc.combine("d", "a + b + a")
    assert one.expression == other.expression == "a + b"
    with refused("INVALID_EXPRESSION", "expression") as invalid:
        await tagsvc.combine("e", "a + ")
    assert "column 5" in invalid.error.message
    with refused("UNKNOWN_TAG", "expression"):
        await tagsvc.combine("e", "a + nope")
    with refused("UNKNOWN_USER", "expression") as user:
        await tagsvc.combine("e", "a + user:nope")
    assert "column 5" in user.error.message
    with refused("NOTIFICATION_NOT_FOUND", "expression"):
        await tagsvc.combine("e", "sent(n123)")
    with refused("INVALID_FIELD", "description"):
        await tagsvc.tags.PutCombination(pb.PutCombinationRequest(name="e", expression="a", description="x" * 1025))


async def test_lists_come_in_pages_by_name(tagsvc: TagClient) -> None:
    names = [f"t{n:03}" for n in range(250)]
    await tagsvc.apply(chunk(add={name: ["u"] for name in reversed(names)}))
    await tagsvc.create("other")
    found, token, sizes = [], "", []
    while True:
        page = await tagsvc.tags.ListTags(pb.ListTagsRequest(prefix="t", page_token=token))
        found += [tag.name for tag in page.tags]
        sizes.append(len(page.tags))
        token = page.next_page_token
        if not token:
            break
    assert (found, sizes) == (names, [100, 100, 50])
    everything = await tagsvc.tags.ListTags(pb.ListTagsRequest(page_size=1000))
    assert len(everything.tags) == 251 and not everything.next_page_token
    for size, token, field in ((1001, "", "page_size"), (1, "x!", "page_token"), (1, "AAAAAAAAAAAAAAAA", "page_token")):
        with refused("INVALID_FIELD", field):
            await tagsvc.tags.ListTags(pb.ListTagsRequest(page_size=size, page_token=token))
    for name in ("b", "a"):
        await tagsvc.alias(name, "other")
        await tagsvc.combine(name, "other")
    first = await tagsvc.tags.ListAliases(pb.ListAliasesRequest(page_size=1))
    second = await tagsvc.tags.ListAliases(pb.ListAliasesRequest(page_size=1, page_token=first.next_page_token))
    assert [first.aliases[0].name, second.aliases[0].name, second.next_page_token] == ["a", "b", ""]
    combinations = await tagsvc.tags.ListCombinations(pb.ListCombinationsRequest(page_size=1))
    assert combinations.combinations[0].name == "a"
    with refused("INVALID_FIELD", "page_token"):
        await tagsvc.tags.ListAliases(pb.ListAliasesRequest(page_token=combinations.next_page_token))


async def _everything(tagsvc: TagClient, tag: str) -> list[tuple[Any, Any]]:
    """A call of each kind that takes a request_id, and another one under the same id."""
    tags = tagsvc.tags
    return [
        (tags.CreateTag, [pb.CreateTagRequest(name=n, description=d) for n, d in (("n", "x"), ("n", "y"))]),
        (tags.UpdateTag, [pb.UpdateTagRequest(name=tag, description=d) for d in ("x", "y")]),
        (tags.PutAlias, [pb.PutAliasRequest(name="al", target=t) for t in (tag, "n")]),
        (tags.PutCombination, [pb.PutCombinationRequest(name="co", expression=e) for e in (tag, f"!{tag}")]),
        (tags.DeleteAlias, [pb.DeleteAliasRequest(name="al", force=f) for f in (False, True)]),
        (tags.DeleteCombination, [pb.DeleteCombinationRequest(name="co", force=f) for f in (False, True)]),
        (tags.DeleteTag, [pb.DeleteTagRequest(name="n", force=f) for f in (False, True)]),
    ]


async def test_the_same_request_id_gives_the_same_answer(tagsvc: TagClient) -> None:
    """G17"""
    await tagsvc.create("t")
    answers = []
    for number, (call, (request, other)) in enumerate(await _everything(tagsvc, "t")):
        request.request_id = other.request_id = f"r{number}"
        answers.append((call, request, await call(request)))
        assert await call(request) == answers[-1][2]
        with refused("REQUEST_ID_CONFLICT", "request_id"):
            await call(other)
    version = await tagsvc.version()
    for call, request, answer in answers:
        again = await call(request)
        if request.DESCRIPTOR.name == "CreateTagRequest":
            again.tag.create_time.CopyFrom(answer.tag.create_time)  # the tag is gone, and with it when it was created
        assert again == answer, request.DESCRIPTOR.name
    assert await tagsvc.version() == version
    other_kind = pb.UpdateTagRequest(request_id="r0", name="t")
    with refused("REQUEST_ID_CONFLICT"):
        await tagsvc.tags.UpdateTag(other_kind)


async def test_a_repeated_answer_is_of_its_own_version(mesh: Mesh) -> None:
    """G17, when the snapshot that the request made isn't kept any more."""
    await mesh.store()
    tagsvc = await mesh.tagsvc(kept_snapshots=1)
    request = pb.CreateTagRequest(request_id="r", name="t", description="first", attributes={"a": "1"})
    made = (await tagsvc.tags.CreateTag(request)).tag
    await tagsvc.tags.UpdateTag(pb.UpdateTagRequest(name="t", description="second", attributes=pb.Attributes(values={"b": "2"})))
    assert (await tagsvc.tags.CreateTag(request)).tag == made


@pytest.mark.parametrize("port", ["business", "mesh"])
async def test_two_ports_and_a_door_before_one(mesh: Mesh, port: str) -> None:
    await mesh.store()
    instance = await mesh.instance(allowed_networks=["10.0.0.0/8"])
    address = instance.public_url if port == "business" else instance.grpc_address
    if port == "business":
        with pytest.raises(Exception, match="not allowed here"):
            async with connected(address):
                pass
    else:
        async with connected(address) as tagsvc:
            assert await tagsvc.create("a") == 1
