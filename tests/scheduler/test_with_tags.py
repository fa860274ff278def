"""The scheduler with the real tags' service, over a real store."""

from collections.abc import Sequence
from typing import Any

import pytest

import tagsvc.serve
from mesh import rpc
from mesh.errors import TidingsError
from tagsvc.settings import TagsvcSettings
from tests.eventually import eventually_answered
from tests.scheduler.business import Business, refusal, spec, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router
from tests.scheduler.test_controls import send_to
from tidings.common.v1 import notification_pb2 as common
from tidings.tag.v1 import tag_pb2
from tidings.tag.v1.tag_pb2_grpc import TagServiceStub


class Tags:
    """The tags' service as a business calls it."""

    def __init__(self, stub: TagServiceStub) -> None:
        self.stub = stub

    async def put(self, tag: str, *user_ids: str) -> None:
        """Give these users a tag, which comes into being."""
        await self.put_all([tag], *user_ids)

    async def put_all(self, tags: Sequence[str], *user_ids: str) -> None:
        """Give these users all of these tags."""
        changes = [tag_pb2.TagChange(tag=tag, add_user_ids=user_ids) for tag in tags]
        open_call: Any = self.stub.ApplyMapping
        call = open_call()
        await call.write(tag_pb2.ApplyMappingRequest(tags=changes, create_tags=True))
        await call.done_writing()
        assert [response async for response in call]

    async def combine(self, name: str, tags: Sequence[str]) -> None:
        """Save a combination of all of these."""
        call: Any = self.stub.PutCombination
        with rpc.named_errors():
            await call(tag_pb2.PutCombinationRequest(name=name, expression=" + ".join(tags)))


@pytest.fixture
async def tags(mesh: Mesh, store: Store) -> Tags:
    """The real one."""
    settings = TagsvcSettings(port=0, drain_seconds=0.5, reflection=False)
    instance = await mesh.enter(tagsvc.serve.serve(settings, mesh.registry, mesh.telemetry))
    return Tags(TagServiceStub(await mesh.enter(rpc.channel(instance.grpc_address, mesh.telemetry))))


@pytest.fixture
async def business(mesh: Mesh, tags: Tags) -> Business:
    """A business that calls a scheduler beside the real tags' service, once that has read its log."""
    await eventually_answered(lambda: put(tags, "gold", "ann", "bob", "cid"))
    await tags.put("left", "bob")
    return await mesh.scheduler()


async def put(tags: Tags, tag: str, *user_ids: str) -> bool:
    """Whether the service takes a change already."""
    try:
        with rpc.named_errors():
            await tags.put(tag, *user_ids)
    except TidingsError as error:
        assert error.reason == "UNAVAILABLE"
        return False
    return True


async def test_an_audience_of_tags_and_ids_is_counted_and_settled(business: Business) -> None:
    whom = {"expression": "gold & !left", "excluded_ids": ["cid", "nobody"]}
    answer = await business.upload(spec("dan", "bob", **whom, expand_at=common.EXPAND_AT_UPLOAD))
    report = answer.notification.report
    assert (answer.estimated_audience, report.expansion) == (3, 3)
    assert report.snapshot_version > 0
    listed = await business.recipients(answer.notification.notification_id, common.OUTCOME_EXPANSION)
    assert sorted(listed.user_ids) == ["ann", "bob", "dan"]
    estimate = await business.estimate(expression="*", excluded_expression="gold")
    assert estimate.count == estimate.known_clients - 3


FAULTS: list[tuple[dict[str, str], str, str]] = [
    ({"expression": "gold & nosuch"}, "UNKNOWN_TAG", "spec.audience.expression"),
    ({"expression": "gold &"}, "INVALID_EXPRESSION", "spec.audience.expression"),
    ({"expression": " "}, "INVALID_EXPRESSION", "spec.audience.expression"),
    ({"expression": "gold", "excluded_expression": "user:stranger"}, "UNKNOWN_USER", "spec.audience.excluded_expression"),
    ({"expression": "(" * 100 + "gold" + ")" * 100}, "EXPRESSION_TOO_LARGE", "spec.audience.expression"),
    ({"expression": f"delivered(n{'a' * 26})"}, "NOTIFICATION_NOT_FOUND", "spec.audience.expression"),
    ({"expression": "gold & left - left"}, "EMPTY_AUDIENCE", "spec.audience"),
]


async def test_what_is_wrong_is_named_at_its_field(business: Business) -> None:
    for whom, reason, field in FAULTS:
        assert await refusal(business.upload(spec(**whom))) == (reason, field), whom


async def test_an_audience_may_name_so_many_also_through_combinations(tags: Tags, business: Business) -> None:
    names = [f"t{number:03}" for number in range(998)]
    for start in range(0, len(names), 200):
        await tags.put_all(names[start : start + 200], "ann")
    await tags.combine("some", names[:499])
    await tags.combine("others", names[499:])
    assert (await business.upload(spec(expression="some + others"))).estimated_audience == 1
    for whom in ({"expression": "some + others + gold + left"}, {"expression": "some + others", "excluded_expression": "gold"}):
        assert await refusal(business.upload(spec(**whom))) == ("EXPRESSION_TOO_LARGE", "spec.audience.expression")


async def test_who_did_not_get_one_can_be_sent_another(store: Store, router: Router, business: Business) -> None:
    first = await business.send("ann", "bob", "cid")
    await send_to(store, router, first, "ann")
    answer = await business.upload(spec(expression=f"gold - sent({first})", send_time=stamp("2026-06-02 12:00")))
    assert answer.estimated_audience == 2
